"""The scorers that guardrails and bindings of the AI gateway name: by id, which each server makes anew.

GET `/api/3.0/mlflow/scorers/list` (3.4+) shows the latest version of each, of one experiment or of all.
"""

from __future__ import annotations

from amigrate.client.api import V2, V3, Api, Endpoint
from amigrate.core.errors import NotFound, Uncarriable
from amigrate.core.model import PLANNED, Doc
from amigrate.core.ports import Ids
from amigrate.core.typed import identity, mapping, text
from amigrate.kinds.base import Target

LIST = Endpoint("GET", f"{V3}/scorers/list")
GET_EXPERIMENT = Endpoint("GET", f"{V2}/experiments/get")
EXPERIMENT, SCORER = "experiment", "scorer"


async def scorers(api: Api) -> dict[str, Doc]:
    """Every scorer of a server, by id: its name, and its experiment by id and name."""
    listed = (await api.call(LIST)).get("scorers") or []
    names = {}
    for experiment in {str(one["experiment_id"]) for one in listed}:
        try:
            answer = await api.call(GET_EXPERIMENT, params=[("experiment_id", experiment)])
            names[experiment] = str(answer["experiment"].get("name") or "")
        except NotFound:
            names[experiment] = ""
    return {
        str(one["scorer_id"]): {
            "scorer_id": str(one["scorer_id"]),
            "scorer_name": str(one["scorer_name"]),
            "experiment_id": str(one["experiment_id"]),
            "experiment_name": names[str(one["experiment_id"])],
        }
        for one in listed
    }


async def scorer_at(target: Target, scorer: Doc, ids: Ids) -> str:
    """The target's id of a scorer that a document names; `Uncarriable` while it is not there."""
    experiment = ids.new_id(EXPERIMENT, str(scorer["experiment_id"]))
    planned = experiment is None or experiment.startswith(PLANNED)
    if experiment is not None and not planned and experiment not in target.scorers:
        listed = (await target.api.call(LIST, params=[("experiment_id", experiment)])).get("scorers") or []
        target.scorers[experiment] = {str(one["scorer_name"]): str(one["scorer_id"]) for one in listed}
    found = target.scorers.get(experiment or "", {}).get(str(scorer["scorer_name"]))
    if found is None:
        raise Uncarriable(f"its scorer '{scorer['scorer_name']}' is not at the target")
    return found


async def foresee_scorer(target: Target, scorer: Doc, ids: Ids) -> None:
    """For a plan, as `scorer_at`: one that is only planned is there by then."""
    if ids.new_id(SCORER, str(scorer.get("scorer_id") or "")) is None:
        await scorer_at(target, scorer, ids)


def decoded(value: object) -> Doc:
    """A scorer in a document."""
    given = mapping(value, "scorer")
    return {
        "scorer_id": identity(given.get("scorer_id"), "scorer_id"),
        "scorer_name": text(given.get("scorer_name") or None, "scorer_name"),
        "experiment_id": identity(given.get("experiment_id"), "experiment_id"),
        "experiment_name": text(given.get("experiment_name") or "", "experiment_name"),
    }

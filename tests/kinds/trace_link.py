"""Sample links: an evaluation run that looked at traces of its own, of another run and of none."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, new_experiment
from tests.kinds.trace import V3, new_trace
from tests.rest import Rest
from tests.workspace import BASE

TRACES = 3
EVALUATION, MAKER = "evaluation", "maker"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    runs = [
        rest.post("runs/create", {"experiment_id": home, "start_time": BASE, "run_name": called})["run"]["info"][
            "run_id"
        ]
        for called in (EVALUATION, MAKER)
    ]
    traces = [new_trace(rest, home, number, (*runs, "")[number]) for number in range(TRACES)]
    rest.post("traces/link-to-run", {"trace_ids": traces, "run_id": runs[0]})
    new_trace(rest, home, TRACES)


def runs_of(rest: Rest, name: str) -> dict[str, str]:
    """The ids of the sample's runs by their names."""
    found = rest.post("runs/search", {"experiment_ids": [experiment_of(rest, name)]})["runs"]
    return {one["info"]["run_name"]: one["info"]["run_id"] for one in found}


def traces_of(rest: Rest, name: str, wanted: str = "") -> list[str]:
    """The ids of the sample's traces, or of those that the filter wants."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_of(rest, name)}}
    query = {"locations": [place], "max_results": 500, **({"filter": wanted} if wanted else {})}
    return sorted(one["trace_id"] for one in rest.pages(f"{V3}traces/search", "traces", query))


def mutate(rest: Rest, name: str) -> None:
    rest.post(
        "traces/link-to-run", {"trace_ids": traces_of(rest, name)[-1:], "run_id": runs_of(rest, name)[EVALUATION]}
    )


def held(rest: Rest, name: str) -> Any:
    """What a search by run finds."""
    return {called: traces_of(rest, name, f"run_id = '{run}'") for called, run in runs_of(rest, name).items()}

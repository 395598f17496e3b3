"""A sample registered model: tags, description, aliases on old versions, numbers with gaps, two versions of one run."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.kinds.logged_model import new_model
from tests.rest import Rest
from tests.workspace import BASE

VERSIONS = 12
DELETED = (2, 5, 6)


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    run = rest.post("runs/create", {"experiment_id": home, "start_time": BASE})["run"]["info"]
    rest.upload(run["artifact_uri"], "model/MLmodel", b"flavors: {}\n")
    logged = new_model(rest, home, "a model", run["run_id"])
    rest.post(
        "registered-models/create",
        {"name": name, "description": "# What it is for\n", "tags": [{"key": "team", "value": "x / y"}]},
    )
    for number in range(1, VERSIONS + 1):
        rest.post("model-versions/create", version(name, number, run, logged))
    for number in DELETED:
        rest.delete("model-versions/delete", {"name": name, "version": str(number)})
    for alias, number in (("champion", 3), ("Ünïcode", 11)):
        rest.post("registered-models/alias", {"name": name, "alias": alias, "version": str(number)})
    move = {"name": name, "version": "4", "stage": "Production", "archive_existing_versions": False}
    rest.post("model-versions/transition-stage", move)


def version(name: str, number: int, run: dict[str, Any], logged: dict[str, Any]) -> dict[str, Any]:
    """A create call for a version, of one of the origins that there are."""
    origins: list[dict[str, Any]] = [
        {"source": f"runs:/{run['run_id']}/model", "run_id": run["run_id"]},
        {"source": f"{run['artifact_uri']}/model", "run_id": run["run_id"]},
        {"source": f"models:/{logged['model_id']}", "model_id": logged["model_id"], "run_id": run["run_id"]},
        {"source": logged["artifact_uri"], "model_id": logged["model_id"]},
        {"source": "s3://elsewhere/and/far"},
    ]
    tags = [{"key": "number", "value": str(number)}]
    return {"name": name, "description": f"version {number}", "tags": tags, **origins[number % len(origins)]}


def mutate(rest: Rest, name: str) -> None:
    rest.post("registered-models/set-tag", {"name": name, "key": "team", "value": "z"})


def held(rest: Rest, name: str) -> Any:
    """Everything of the model but its versions' origins, which hold ids: a comparison of amigrate's own names them."""
    model = rest.get("registered-models/get", {"name": name})["registered_model"]
    listed = [*rest.pages("model-versions/search", "model_versions", {"filter": f"name = '{name}'"}, method="GET")]
    return {
        "description": model.get("description"),
        "tags": [tag for tag in model["tags"] if not tag["key"].startswith("amigrate.")],
        "aliases": sorted((one["alias"], one["version"]) for one in model["aliases"]),
        "versions": sorted(
            (
                int(one["version"]),
                one["current_stage"],
                one.get("description"),
                [tag for tag in one.get("tags", []) if not tag["key"].startswith("amigrate.")],
                bool(one.get("run_id")),
            )
            for one in listed
        ),
    }

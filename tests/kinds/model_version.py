"""A sample version of a registered model."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest
from tests.workspace import BASE


def seed(rest: Rest, name: str) -> None:
    run = rest.post("runs/create", {"experiment_id": new_experiment(rest, name), "start_time": BASE})["run"]["info"]
    rest.upload(run["artifact_uri"], "model/MLmodel", b"flavors: {}\n")
    rest.post("registered-models/create", {"name": name})
    body = {"name": name, "source": f"{run['artifact_uri']}/model", "run_id": run["run_id"], "run_link": "http://x/y"}
    rest.post("model-versions/create", {**body, "tags": [{"key": "owner", "value": "ada"}]})
    copied(rest, name)


def copied(rest: Rest, name: str) -> None:
    """A version of another model that is a copy of this one, and comes before it by name; as MLflow's client copies."""
    run_id = rest.get("model-versions/get", {"name": name, "version": "1"})["model_version"]["run_id"]
    rest.post("registered-models/create", {"name": f"a copy of {name}"})
    body = {"name": f"a copy of {name}", "source": f"models:/{name}/1", "run_id": run_id}
    rest.post("model-versions/create", body)


def mutate(rest: Rest, name: str) -> None:
    rest.patch("model-versions/update", {"name": name, "version": "1", "description": "another one"})


def held(rest: Rest, name: str) -> Any:
    """The version and its copy, the run by its place in the experiment."""
    told = []
    for model in (name, f"a copy of {name}"):
        one = rest.get("model-versions/get", {"name": model, "version": "1"})["model_version"]
        run = rest.get("runs/get", {"run_id": one["run_id"]})["run"]["info"]
        told.append([one["source"].replace(run["artifact_uri"], "<run>"), one.get("run_link"), one.get("description")])
    return told

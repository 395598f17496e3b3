"""Sample logged models: one of a run, measured on a dataset; one that no run brought forth."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import experiment_of, new_experiment, run_of
from tests.rest import Rest
from tests.workspace import BASE

FILES = {"model.bin": bytes(range(256)), "deep/a note.txt": b"# note\n"}
PROVENANCE = "amigrate.source_model_id"
MLMODEL = "run_id: {run}\nmodel_id: {model}\nflavors: {{}}\n"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    run_id = rest.post("runs/create", {"experiment_id": home, "start_time": BASE})["run"]["info"]["run_id"]
    model = new_model(rest, home, "a model", run_id)
    alone = new_model(rest, home, "model of no run", "")
    rest.patch(f"logged-models/{alone['model_id']}", {"model_id": alone["model_id"], "status": "LOGGED_MODEL_PENDING"})
    data = {"name": "iris", "digest": "aaaa1111", "source_type": "local", "source": "{}"}
    used = {"dataset": data, "tags": [{"key": "mlflow.data.context", "value": "eval"}]}
    rest.post("runs/log-inputs", {"run_id": run_id, "datasets": [used], "models": [{"model_id": alone["model_id"]}]})
    rest.post("runs/outputs", {"run_id": run_id, "models": [{"model_id": model["model_id"], "step": 7}]})
    points: list[dict[str, Any]] = [
        {"key": "accuracy", "value": 0.5 + step, "timestamp": BASE, "step": step, "model_id": model["model_id"]}
        for step in range(3)
    ]
    points[1] |= {"dataset_name": "iris", "dataset_digest": "aaaa1111"}
    points += [
        {"key": "nothing", "value": 0.0, "timestamp": BASE, "step": 0, "model_id": model["model_id"]},
        {"key": "not a number", "value": "NaN", "timestamp": BASE, "step": 0, "model_id": model["model_id"]},
        {"key": "of no model", "value": 1.0, "timestamp": BASE, "step": 0},
    ]
    rest.post("runs/log-batch", {"run_id": run_id, "metrics": points})
    rest.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": BASE + 1})


def new_model(rest: Rest, experiment: str, name: str, run_id: str) -> dict[str, Any]:
    """A model with files, ready to be used; returns its `info`."""
    body = {
        "experiment_id": experiment,
        "name": name,
        "model_type": "agent",
        "source_run_id": run_id,
        "params": [{"key": "depth", "value": "4"}, {"key": "long", "value": "ü" * 500}],
        "tags": [{"key": "owner", "value": "ada"}],
    }
    info: dict[str, Any] = rest.post("logged-models", body)["model"]["info"]
    description = MLMODEL.format(run=run_id or "null", model=info["model_id"]).encode()
    for path, content in {**FILES, "MLmodel": description}.items():
        rest.upload(info["artifact_uri"], path, content)
    rest.patch(f"logged-models/{info['model_id']}", {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"})
    return info


def mutate(rest: Rest, name: str) -> None:
    (model,) = [one for one in models_of(rest, experiment_of(rest, name)) if one["info"]["name"] == "a model"]
    model_id = model["info"]["model_id"]
    rest.patch(f"logged-models/{model_id}/tags", {"model_id": model_id, "tags": [{"key": "owner", "value": "bob"}]})


def models_of(rest: Rest, experiment: str) -> list[dict[str, Any]]:
    """Every active model of an experiment."""
    return [*rest.pages("logged-models/search", "models", {"experiment_ids": [experiment]})]


def held(rest: Rest, name: str) -> Any:
    """All there is in the sample's experiment, ids replaced by names."""
    home = experiment_of(rest, name)
    run = rest.get("runs/get", {"run_id": run_of(rest, name)["run_id"]})["run"]
    models = models_of(rest, home)
    names = {one["info"]["model_id"]: one["info"]["name"] for one in models} | {run["info"]["run_id"]: "the run"}

    def named(text: str) -> str:
        for own, called in names.items():
            text = text.replace(own, called)
        return text

    told = {}
    for one in models:
        info, data = one["info"], one.get("data", {})
        folder = info["artifact_uri"].removeprefix("mlflow-artifacts:/").strip("/")
        paths = [*FILES, "MLmodel"]
        told[info["name"]] = {
            "type": info["model_type"],
            "status": info["status"],
            "source run": named(info.get("source_run_id", "")),
            "params": sorted((param["key"], param["value"]) for param in data.get("params", [])),
            "tags": sorted(
                (t["key"], t["value"]) for t in info.get("tags", []) if not t["key"].startswith("amigrate.")
            ),
            "metrics": sorted(named(json.dumps(metric, sort_keys=True)) for metric in data.get("metrics", [])),
            "files": {path: named(rest.artifact(f"{folder}/{path}").decode("latin-1")) for path in paths},
        }
    links = {"inputs": run["inputs"].get("model_inputs"), "outputs": run["outputs"].get("model_outputs")}
    return {"models": told, "links": json.loads(named(json.dumps(links)))}

"""Logged models that are deleted: no listing shows them, only the runs that made or used them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.kinds.logged_model import new_model
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    """A deleted run with a model, an active run with a deleted model that it measured, one that only used that one and
    another one, which nobody else names."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        runs = [rest.post("runs/create", {"experiment_id": "0", "start_time": BASE})["run"]["info"] for _ in range(3)]
        gone, maker, user = (run["run_id"] for run in runs)
        kept = new_model(rest, "0", "of a deleted run", gone)["model_id"]
        lost = new_model(rest, "0", "deleted", maker)["model_id"]
        for run_id, model in ((gone, kept), (maker, lost)):
            rest.post("runs/outputs", {"run_id": run_id, "models": [{"model_id": model, "step": 1}]})
            point = {"key": "loss", "value": 0.5, "timestamp": BASE, "step": 1, "model_id": model}
            rest.post("runs/log-batch", {"run_id": run_id, "metrics": [point]})
        used = new_model(rest, "0", "only used", "")["model_id"]
        rest.post("runs/log-inputs", {"run_id": user, "models": [{"model_id": lost}, {"model_id": used}]})
        rest.post("runs/delete", {"run_id": gone})
        for model in (lost, used):
            rest.delete(f"logged-models/{model}")
    return server


def links(rest: Rest) -> list[Any]:
    """Of every run: its stage, and name and metrics of the models that it took in and brought forth."""
    told = []
    for run in rest.pages("runs/search", "runs", {"experiment_ids": ["0"], "run_view_type": "ALL"}):
        found = rest.get("runs/get", {"run_id": run["info"]["run_id"]})["run"]
        named = [
            (side, model["model_id"])
            for side in ("inputs", "outputs")
            for model in found.get(side, {}).get(f"model_{side}", [])
        ]
        models = [(side, rest.get(f"logged-models/{own}", {"allow_deleted": "true"})["model"]) for side, own in named]
        told.append(
            [
                run["info"]["lifecycle_stage"],
                sorted(
                    [
                        side,
                        one["info"]["name"],
                        [(metric["key"], metric["value"]) for metric in one["data"].get("metrics", [])],
                    ]
                    for side, one in models
                ),
            ]
        )
    return sorted(told)


def test_with_deleted_ones(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Also where no journal knows that they were carried before."""
    target = new_server()
    for session in range(2):
        args = ("--source", source.uri, "--target", target.uri, "--state", tmp_path / str(session))
        done = cli("copy-all", *args, "--deleted", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        counts = json.loads(done.stdout)["objects"]["logged-models"]
        assert counts == ({"updated": 3} if session else {"created": 3})
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert links(old) == links(new)
        (active,) = new.pages("logged-models/search", "models", {"experiment_ids": ["0"]})
        assert active["info"]["name"] == "of a deleted run"


def test_without_them(source: MlflowServer, new_server: NewServer, cli: Cli) -> None:
    """The model of a deleted run arrives; what its run measured of it stays behind with the run."""
    target = new_server()
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)["objects"]
    assert told["logged-models"] == {"created": 1, "excluded": 2}
    assert told["runs"] == {"created": 2, "excluded": 1}
    assert told["metrics"] == {"excluded": 1}
    with Rest(target.uri) as rest:
        assert links(rest) == [["active", []], ["active", []]]
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--deleted", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert links(old) == links(new)

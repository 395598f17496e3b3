"""What became of an object at the source since it was carried, where its listing, its name or its tag do not tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import Cli, NewServer
from tests.fakes.gateway import Gateway
from tests.kinds import new_experiment
from tests.kinds.evaluation_dataset import datasets_of, new_dataset
from tests.kinds.logged_model import models_of, new_model
from tests.kinds.trace import new_trace
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

V3 = "/api/3.0/mlflow/"
ORIGIN = "0" * 31 + "1"
"""A run, or with `m-` a logged model, that is nowhere."""


class Pair:
    """Two servers, and what amigrate tells of a copy from the first to the second."""

    def __init__(self, servers: tuple[MlflowServer, MlflowServer], old: Rest, new: Rest, cli: Cli, home: Path) -> None:
        self.source, self._target = servers
        self.old, self.new = old, new
        self._cli, self._home = cli, home

    def copied(self, state: str = "state", *options: str, code: int = 0, source: str = "") -> Any:
        ends = ("--source", source or self.source.uri, "--target", self._target.uri)
        done = self._cli("copy-all", *ends, "--state", self._home / state, "--json", *options)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def servers(new_module_server: NewServer) -> tuple[MlflowServer, MlflowServer]:
    return new_module_server(), new_module_server()


@pytest.fixture
def pair(servers: tuple[MlflowServer, MlflowServer], cli: Cli, tmp_path: Path) -> Any:
    with Rest(servers[0].uri) as old, Rest(servers[1].uri) as new:
        yield Pair(servers, old, new, cli, tmp_path)


def new_run(rest: Rest, home: str, name: str, number: int = 0, tags: dict[str, str] | None = None) -> str:
    told = [{"key": key, "value": value} for key, value in (tags or {}).items()]
    made = {"experiment_id": home, "run_name": name, "start_time": BASE + number, "tags": told}
    own = str(rest.post("runs/create", made)["run"]["info"]["run_id"])
    rest.post("runs/log-batch", {"run_id": own, "params": [{"key": "number", "value": str(number)}]})
    rest.post("runs/update", {"run_id": own, "status": "FINISHED", "end_time": BASE + 99})
    return own


def experiment_of(rest: Rest, name: str) -> str:
    return str(rest.get("experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"])


def models_at(rest: Rest, name: str) -> list[dict[str, Any]]:
    return models_of(rest, experiment_of(rest, name))


def runs_of(rest: Rest, name: str) -> list[dict[str, Any]]:
    return [*rest.pages("runs/search", "runs", {"experiment_ids": [experiment_of(rest, name)]})]


# ---- made anew --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of_run", [True, False])
def test_a_model_that_was_registered_anew(pair: Pair, of_run: bool) -> None:
    """Its numbers begin again at 1: the old version at the target is not the new one, and must not pass for it."""
    old, new, name = pair.old, pair.new, f"anew {of_run}"
    home = new_experiment(old, name)
    runs = [new_run(old, home, f"run {number}", number) for number in range(2)]
    sources: list[dict[str, Any]] = [
        {"source": f"runs:/{run}/model", "run_id": run} if of_run else {"source": f"s3://far/{number}"}
        for number, run in enumerate(runs)
    ]

    def register(version: dict[str, Any]) -> None:
        old.post("registered-models/create", {"name": name})
        old.post("model-versions/create", {"name": name, **version})
        # A copy has the run of its original.
        old.post("model-versions/create", {"name": name, "source": f"models:/{name}/1"})

    register(sources[0])
    pair.copied()
    for number in "12":
        version = {"name": name, "version": number, "key": "seen", "value": "again"}
        old.post("model-versions/set-tag", version)
    pair.copied()
    old.delete("registered-models/delete", {"name": name})
    register(sources[1])
    (loss, *_) = pair.copied(code=1)["losses"]
    assert loss["id"] == f"{name}/1"
    assert f"delete '{name}' at the target" in loss["reason"]
    new.delete("registered-models/delete", {"name": name})
    pair.copied()
    version = new.get("model-versions/get", {"name": name, "version": "1"})["model_version"]
    if of_run:
        (run,) = [one for one in runs_of(new, name) if one["info"]["run_name"] == "run 1"]
        assert version["run_id"] == run["info"]["run_id"]
    else:
        assert version["source"] == sources[1]["source"]


# ---- what no listing shows --------------------------------------------------------------------------------------


def test_an_experiment_that_a_dataset_belongs_to_since(pair: Pair) -> None:
    homes = [new_experiment(pair.old, f"evaluated {number}") for number in range(2)]
    own = new_dataset(pair.old, "asked", homes[:1], {}, [])
    pair.copied()
    pair.old.post(f"{V3}datasets/{own}/add-experiments", {"experiment_ids": homes[1:]})
    pair.copied()
    (arrived,) = datasets_of(pair.new, "asked")
    held = pair.new.get(f"{V3}datasets/{arrived['dataset_id']}/experiment-ids")["experiment_ids"]
    assert sorted(held) == sorted(experiment_of(pair.new, f"evaluated {number}") for number in range(2))


def test_points_that_came_to_a_run_that_had_ended(pair: Pair) -> None:
    """They are seen without the journal that saw the run before."""
    own = new_run(pair.old, new_experiment(pair.old, "goes on"), "ended")
    points = [{"key": "loss", "value": step, "timestamp": BASE, "step": step} for step in range(4)]
    pair.old.post("runs/log-batch", {"run_id": own, "metrics": points[:2]})
    pair.copied()
    pair.old.post("runs/log-batch", {"run_id": own, "metrics": points[2:]})
    pair.copied("another")
    (run,) = runs_of(pair.new, "goes on")
    wanted = {"run_id": run["info"]["run_id"], "metric_key": "loss"}
    assert len(pair.new.get("metrics/get-history", wanted)["metrics"]) == len(points)


# ---- several of one origin --------------------------------------------------------------------------------------


def test_copies_of_a_run_that_is_not_there(pair: Pair) -> None:
    """Both say that they were made of one: without a journal, each is found again, and neither in the other."""
    home = new_experiment(pair.old, "siblings")
    for number in (1, 2):
        new_run(pair.old, home, "sibling", number, {"amigrate.source_run_id": ORIGIN})
    pair.copied()
    own = next(one["info"]["run_id"] for one in runs_of(pair.old, "siblings") if one["info"]["start_time"] == BASE + 2)
    pair.old.post("runs/set-tag", {"run_id": own, "key": "seen", "value": "again"})
    told = pair.copied("another")
    assert "created" not in told["objects"]["runs"]
    found = {run["info"]["start_time"]: run["data"] for run in runs_of(pair.new, "siblings")}
    assert sorted(found) == [BASE + 1, BASE + 2]
    tagged = [start for start, data in found.items() if {"key": "seen", "value": "again"} in data["tags"]]
    assert tagged == [BASE + 2]


def test_copies_of_a_logged_model_that_is_not_there(pair: Pair) -> None:
    home = new_experiment(pair.old, "twins")
    for number in (1, 2):
        tags = [{"key": "amigrate.source_model_id", "value": f"m-{ORIGIN}"}]
        params = [{"key": "number", "value": str(number)}]
        made = {"experiment_id": home, "name": "twin", "tags": tags, "params": params}
        own = pair.old.post("logged-models", made)["model"]["info"]["model_id"]
        pair.old.patch(f"logged-models/{own}", {"model_id": own, "status": "LOGGED_MODEL_READY"})
    pair.copied()
    assert "created" not in pair.copied("another")["objects"]["logged-models"]
    held = models_at(pair.new, "twins")
    assert sorted(one["data"]["params"][0]["value"] for one in held) == ["1", "2"]


# ---- what a listing passes over ---------------------------------------------------------------------------------


def test_what_a_listing_passes_over_is_not_deleted(pair: Pair) -> None:
    """Pages move on while objects are deleted: one that no page shows may be there, and nothing of it is deleted."""
    old, new, name = pair.old, pair.new, "passed over"
    home = new_experiment(old, name)
    run = new_run(old, home, "run")
    trace, _ = (new_trace(old, home, number) for number in (1, 2))
    logged, _ = (new_model(old, home, f"model {number}", run)["model_id"] for number in (1, 2))
    old.post("registered-models/create", {"name": name})
    for number in (1, 2):
        old.post("model-versions/create", {"name": name, "source": f"s3://far/{number}"})
    hidden: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "/traces/search": ("traces", lambda one: one["trace_id"] == trace),
        "/logged-models/search": ("models", lambda one: one["info"]["model_id"] == logged),
        "/model-versions/search": ("model_versions", lambda one: (one["name"], one["version"]) == (name, "1")),
    }
    passed_over: set[str] = set()
    away = {"are": False}

    async def check(request: web.BaseRequest, body: bytes) -> web.StreamResponse | None:
        answer = await gateway.forward(request, body)
        path = request.raw_path.partition("?")[0]
        for end, (field, is_it) in hidden.items() if away["are"] else ():
            if path.endswith(end):
                assert isinstance(answer, web.Response)
                assert isinstance(answer.body, bytes)
                told = json.loads(answer.body)
                left = [one for one in told.get(field, []) if not is_it(one)]
                passed_over.update({end} if len(left) < len(told.get(field, [])) else ())
                return web.json_response({**told, field: left})
        return answer

    with Gateway(pair.source.uri, check) as gateway:
        pair.copied(source=gateway.uri)
        (copy,) = [one["info"]["model_id"] for one in models_at(new, name) if one["info"]["name"] == "model 1"]
        away["are"] = True
        told = pair.copied("state", "--propagate-deletes", source=gateway.uri)
    assert passed_over == {*hidden}
    assert told["deleted_at_source"] == {}
    assert new.get(f"{V3}traces/{trace}")["trace"]["trace_info"]["trace_id"] == trace
    assert new.get("model-versions/get", {"name": name, "version": "1"})["model_version"]["source"] == "s3://far/1"
    assert copy in [one["info"]["model_id"] for one in models_at(new, name)]


# ---- what the target had before ---------------------------------------------------------------------------------


def test_a_dataset_input_that_the_experiment_has_already(pair: Pair) -> None:
    """An experiment keeps the source of the first dataset of a name and digest: that another one is lost is told."""
    for rest, source in ((pair.old, "s3://mine"), (pair.new, "s3://theirs")):
        own = new_run(rest, new_experiment(rest, "inputs"), source)
        dataset = {"name": "d", "digest": "1", "source_type": "s3", "source": source}
        rest.post("runs/log-inputs", {"run_id": own, "datasets": [{"dataset": dataset, "tags": []}]})
    (loss,) = pair.copied(code=1)["losses"]
    assert loss["kind"] == "dataset-input"
    assert "the first dataset of this name and digest" in loss["reason"]

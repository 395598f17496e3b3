"""What no page of a listing shows, because something before it was deleted while the pages were read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiohttp import web

from tests.conftest import Cli, NewServer
from tests.fakes.gateway import Gateway, refused
from tests.kinds import experiment_of, new_experiment, sample
from tests.kinds.logged_model import models_of, new_model
from tests.kinds.trace import new_trace
from tests.rest import Rest

pytestmark = pytest.mark.timeout(600)

V3 = "/api/3.0/mlflow/"
LISTS = ("experiments", "registered_models", "model_versions", "models", "traces")


@contextmanager
def shifted(upstream: str, hidden: set[str], refusing: set[str]) -> Iterator[str]:
    """A server whose listings leave out what has one of these names or ids, and that refuses some paths."""

    async def leave_out(request: web.BaseRequest, body: bytes) -> web.StreamResponse | None:
        if request.path in refusing:
            return refused(403)
        if not request.path.endswith("/search"):
            return None
        answer = await gateway.forward(request, body)
        assert isinstance(answer, web.Response)
        told = json.loads(answer.text or "{}")
        for field in LISTS:
            if field in told:
                told[field] = [one for one in told[field] if not hidden & named(one)]
        return web.json_response(told, status=answer.status)

    with Gateway(upstream, leave_out) as gateway:
        yield gateway.uri


def named(doc: dict[str, Any]) -> set[str]:
    """What an object of a listing may be called."""
    if "version" in doc:
        return {f"{doc['name']}/{doc['version']}"}
    return {str(doc.get(key)) for key in ("experiment_id", "name", "trace_id")} | {
        str(doc.get("info", {}).get("model_id"))
    }


def test_what_lives_is_not_deleted_and_moves(new_server: NewServer, cli: Cli) -> None:
    """An experiment, a model and a version, a prompt and a version, logged models, a trace, each in no listing."""
    source, target = new_server(), new_server()
    hidden, refusing = set[str](), set[str]()
    with Rest(source.uri) as old, Rest(target.uri) as new, shifted(source.uri, hidden, refusing) as uri:
        home, unseen = new_experiment(old, "seen"), new_experiment(old, "unseen")
        run = old.post("runs/create", {"experiment_id": home, "run_name": "a run"})["run"]["info"]["run_id"]
        inside = new_model(old, unseen, "in unseen", "")["model_id"]
        model, named_by_run = (new_model(old, home, f"model {number}", "")["model_id"] for number in (1, 2))
        traces = [new_trace(old, home, number) for number in (1, 2)]
        sample("prompt_version").seed(old, "a prompt")
        for name in ("a model", "another"):
            old.post("registered-models/create", {"name": name})
        for number in (1, 2):
            old.post("model-versions/create", {"name": "a model", "source": f"s3://elsewhere/{number}"})
        move = "copy-all", "--source", uri, "--target", target.uri, "--json", "--propagate-deletes"
        assert cli(*move).returncode == 0

        hidden |= {unseen, "a model/1", "another", "a prompt/1", "a prompt", model, named_by_run, traces[0]}
        tag = {"key": "seen", "value": "no"}
        old.post("experiments/set-experiment-tag", {"experiment_id": unseen, **tag})
        old.post("registered-models/set-tag", {"name": "another", **tag})
        old.post("model-versions/set-tag", {"name": "a model", "version": "1", **tag})
        old.patch(f"{V3}traces/{traces[0]}/tags", {"trace_id": traces[0], **tag})
        old.post("runs/outputs", {"run_id": run, "models": [{"model_id": named_by_run, "step": 0}]})
        for own in (model, named_by_run, inside):
            old.patch(f"logged-models/{own}/tags", {"model_id": own, "tags": [tag]})
        done = cli(*move)
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["deleted_at_source"] == {}

        assert tag in new.get("experiments/get", {"experiment_id": experiment_of(new, "unseen")})["experiment"]["tags"]
        assert tag in new.get("registered-models/get", {"name": "another"})["registered_model"]["tags"]
        version = new.get("model-versions/get", {"name": "a model", "version": 1})["model_version"]
        assert tag in version["tags"]
        assert new.get(f"{V3}traces/{traces[0]}")["trace"]["trace_info"]["tags"]["seen"] == "no"
        models = [*models_of(new, experiment_of(new, "seen")), *models_of(new, experiment_of(new, "unseen"))]
        assert [tag in one["info"]["tags"] for one in models] == [True] * 3
        assert sample("prompt_version").held(old, "a prompt") == sample("prompt_version").held(new, "a prompt")

        refusing.add("/api/2.0/mlflow/model-versions/get")
        done = cli(*move)
        assert (done.returncode, [one["name"] for one in json.loads(done.stdout)["losses"]]) == (
            1,
            ["version 1", "version 1"],
        )
        assert new.get("model-versions/get", {"name": "a model", "version": 1})

        refusing.clear()
        old.delete("model-versions/delete", {"name": "a model", "version": "1"})
        old.post("traces/delete-traces", {"experiment_id": home, "request_ids": [traces[0]]})
        assert cli(*move).returncode == 0
        versions = {"filter": "name = 'a model'"}
        (left,) = new.pages("model-versions/search", "model_versions", versions, method="GET")
        assert left["version"] == "2"
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment_of(new, "seen")}}
        (kept,) = new.post(f"{V3}traces/search", {"locations": [place]})["traces"]
        assert kept["trace_id"] == traces[1]


def make(rest: Rest, *more: dict[str, Any]) -> None:
    """A model with one version, and more."""
    rest.post("registered-models/create", {"name": "a model"})
    for version in ({"name": "a model", "source": "s3://elsewhere/1"}, *more):
        rest.post("model-versions/create", version)


def test_a_version_that_comes_back_under_its_number_is_not_taken_for_the_deleted_one(
    new_server: NewServer, cli: Cli
) -> None:
    """Its model was made anew at the source; the version comes when the target has just deleted the one before."""
    source, target = new_server(), new_server()
    second = {"name": "a model", "source": "s3://elsewhere/2"}

    async def bring_back(request: web.BaseRequest, body: bytes) -> web.StreamResponse | None:
        if not request.path.endswith("/model-versions/delete"):
            return None
        answer = await writing.forward(request, body)
        old.post("model-versions/create", second)
        return answer

    with Rest(source.uri) as old, Rest(target.uri) as new, Gateway(target.uri, bring_back) as writing:
        move = "copy-all", "--source", source.uri, "--target", writing.uri, "--json", "--propagate-deletes"
        make(old, second)
        assert cli(*move).returncode == 0
        old.delete("registered-models/delete", {"name": "a model"})
        make(old)
        done = cli(*move)
        told = json.loads(done.stdout)
        held = new.pages("model-versions/search", "model_versions", {"filter": "name = 'a model'"}, method="GET")
        assert [one["version"] for one in held] == ["1"]
    assert (done.returncode, [one["name"] for one in told["losses"]]) == (1, ["version 2"])
    assert "has given number 2 of a model away" in told["losses"][0]["reason"]

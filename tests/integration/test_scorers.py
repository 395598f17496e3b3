"""Scorers that a target refuses, whose answers are lost, that changed at both ends, of older servers."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import IS_FULL
from tests.conftest import Cli, NewServer
from tests.environments import python_of
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import new_experiment
from tests.kinds.scorer import JUDGE, V3, forget, held, register, seed
from tests.rest import Rest
from tests.servers import MlflowServer

pytestmark = pytest.mark.timeout(1800)

ALLOW = {"MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS": "true"}
CODE = {"name": "code", "call_source": "return 1", "call_signature": "(outputs)", "original_func_name": "code"}
HOME = "home of scorers"


def copied(cli: Cli, source: str, target: str, state: Path, *args: str, code: int = 0) -> Any:
    done = cli("copy-all", "--source", source, "--target", target, "--state", state, "--json", *args)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def lost(told: Any) -> dict[str, str]:
    """What was left behind, by kind and id, with its reason."""
    assert {loss["status"] for loss in told["losses"]} <= {"left behind"}
    return {f"{loss['kind']} {loss.get('name') or loss['id']}": loss["reason"] for loss in told["losses"]}


def numbers(rest: Rest, name: str) -> list[int]:
    return [number for number, _ in held(rest, HOME)[name]["versions"]]


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    """A server with scorers of Python code, and one that scores new traces with a gateway's model."""
    server = new_module_server(env=ALLOW)
    with Rest(server.uri) as rest:
        home = new_experiment(rest, HOME)
        for serialized in (JUDGE, CODE, {**JUDGE, "description": "third"}):
            register(rest, home, "mixed", serialized)
        for _ in range(2):
            register(rest, home, "code", CODE)
        register(rest, home, "online", JUDGE)
        rest.put_json(f"{V3}scorers/online-config", {"experiment_id": home, "name": "online", "sample_rate": 0})
    with closing(sqlite3.connect(server.database)) as database:
        database.execute("UPDATE online_scoring_configs SET sample_rate = 0.25")
        database.commit()
    return server


def test_what_is_refused_is_named_each_time(
    source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """The other versions keep their numbers, and what the target takes later comes later."""
    target = new_server()
    first = lost(copied(cli, source.uri, target.uri, tmp_path / "state", code=1))
    assert set(first) == {"scorer_version 2", "scorer code", "online_config online scoring"}
    assert "Custom scorer registration" in first["scorer_version 2"]
    assert first["scorer code"].endswith("(all 2 versions)")
    assert "does not use a gateway model" in first["online_config online scoring"]
    with Rest(target.uri) as rest:
        assert numbers(rest, "mixed") == [1, 3]
        assert set(held(rest, HOME)) == {"mixed", "online"}
    target.stop()
    target.env |= ALLOW
    target.start()
    for state in ("state", "another"):
        later = lost(copied(cli, source.uri, target.uri, tmp_path / state, code=1))
        assert set(later) == {"scorer_version 2", "online_config online scoring"}
        assert "version 3" in later["scorer_version 2"]
        with Rest(target.uri) as rest:
            assert numbers(rest, "mixed") == [1, 3]
            assert numbers(rest, "code") == [1, 2]
    accepted = "scorer-versions,online-configs"
    copied(cli, source.uri, target.uri, tmp_path / "state", "--accept-loss", accepted)


def test_lost_answers_and_placeholders(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """No answer to a registration comes; later, a kill has left a placeholder, and both ends have gone on."""
    source, target = new_server(), new_server()
    lossy: dict[str, Any] = {"lost_answers": 1.0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
    with Rest(source.uri) as old, Rest(target.uri) as new:
        seed(old, HOME)
        with FaultProxy(target.uri, seed=1, **lossy, only=lambda method, path: path.endswith("/register")) as writing:
            copied(cli, source.uri, writing.uri, tmp_path / "lossy")
            assert writing.faults["lost_answers"] >= 4
        assert held(old, HOME) == held(new, HOME)
        homes = [rest.get("experiments/get-by-name", {"experiment_name": HOME})["experiment"] for rest in (old, new)]
        place, home = (one["experiment_id"] for one in homes)
        register(old, place, "single", {**JUDGE, "description": "second"})
        register(old, place, "single", {**JUDGE, "description": "third"})
        forget(old, place, "single", 2)
        register(new, home, "single", {"amigrate.placeholder": True})
        assert copied(cli, source.uri, target.uri, tmp_path / "state")["losses"] == []
        assert held(old, HOME) == held(new, HOME)
        new.put_json(f"{V3}scorers/online-config", {"experiment_id": home, "name": "single", "sample_rate": 0})
        register(new, home, "late", {**JUDGE, "description": "of the target"})
        register(old, place, "late", {**JUDGE, "description": "of the source"})
        for state in ("state", "another"):
            told = lost(copied(cli, source.uri, target.uri, tmp_path / state, code=1))
            assert told == {"scorer_version 4": "the target has another version of this number"}
        assert held(new, HOME)["single"]["configs"] == [(0.0, None)]


@pytest.fixture(params=["2.22.5", "3.4.0", "file store"] if IS_FULL else ["file store"])
def lacking(request: pytest.FixtureRequest, new_server: NewServer, tmp_path: Path) -> MlflowServer:
    """A server that has no scorers, or those of the first release that had some."""
    if request.param == "file store":
        return new_server(backend=str(tmp_path / "mlruns"), env={"MLFLOW_ALLOW_FILE_STORE": "true"})
    return new_server(python=python_of(request.param))


def test_older_servers(
    lacking: MlflowServer, source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    told = copied(cli, source.uri, lacking.uri, tmp_path / "in", code=1)
    target = new_server(env=ALLOW)
    assert copied(cli, lacking.uri, target.uri, tmp_path / "out")["losses"] == []
    if told["objects"]["scorers"] == {"left behind": 3}:
        assert "the target has no scorers" in lost(told)["scorer mixed"]
        return
    assert set(lost(told)) == {"online_config online scoring"}
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert {**held(old, HOME), "online": None} == {**held(new, HOME), "online": None}

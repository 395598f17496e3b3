"""`status` from another terminal and afterwards, and `retry`: the same command again, for what failed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.gateway import Gateway
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

pytestmark = pytest.mark.timeout(1800)


def status(cli: Cli, *args: str | Path) -> list[dict[str, Any]]:
    done = cli("status", *args, "--json")
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)["journals"]
    return told


@pytest.fixture(scope="module")
def servers(new_module_server: NewServer) -> tuple[MlflowServer, MlflowServer]:
    """A source with three runs, one file each, and an empty target."""
    source, target = new_module_server(), new_module_server()
    with Rest(source.uri) as rest:
        for number in range(3):
            made = {"experiment_id": "0", "run_name": f"run {number}", "start_time": BASE + number}
            run = rest.post("runs/create", made)["run"]["info"]
            rest.upload(run["artifact_uri"], "file.txt", b"file")
            rest.post("runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": BASE + 9})
    return source, target


@pytest.fixture
def watched(source_server: SourceServer) -> Iterator[FaultProxy]:
    """The shared source, slow enough to be looked at while it is read."""
    none: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
    with FaultProxy(source_server.uri, seed=1, latency=0.2, **none) as proxy:
        yield proxy


def test_status_while_a_command_runs_and_after_it_was_killed(watched: FaultProxy, cli: Cli, tmp_path: Path) -> None:
    """Nothing is written, and nothing waits: also not the command."""
    archive = tmp_path / "all"
    process = cli.popen("export-all", "--tracking-uri", watched.uri, "--output-dir", archive)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(6)
    (running,) = status(cli, archive)
    assert running["state"] == "running"
    assert running["pid"] == process.pid
    assert running["command"] == "export-all"
    assert running["objects"]["runs"]["done"] > 0
    assert cli("status", archive).stdout.startswith(f"export of experiments of {watched.uri}: running for ")
    process.kill()
    process.wait()
    (killed,) = status(cli, archive)
    assert (killed["state"], killed["exit_code"]) == ("killed", None)
    assert killed["objects"]["runs"]["done"] >= running["objects"]["runs"]["done"]


def test_retry_takes_up_what_failed(servers: tuple[MlflowServer, MlflowServer], cli: Cli, tmp_path: Path) -> None:
    """And nothing else: not what is whole, and not what is new."""
    source, target = servers
    broken: dict[str, Any] = {"lost_answers": 0, "resets": 0, "cut_bodies": 0, "unavailable": 1}
    state = tmp_path / "state"
    args = ("--target", target.uri, "--state", "state", "--target-password", "hunter2", "--target-username", "ada")
    cli.cwd = tmp_path
    with Rest(source.uri) as rest:
        (run, *_) = rest.post("runs/search", {"experiment_ids": ["0"]})["runs"]
        file = f"{run['info']['run_id']}/artifacts/file.txt"
        hit = [file]
        with FaultProxy(source.uri, seed=1, only=lambda verb, path: path.endswith(tuple(hit)), **broken) as proxy:
            done = cli("copy-all", *args, "--json", AMIGRATE_SOURCE_URI=proxy.uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
            assert done.returncode == 1, done.stderr
            (failed,) = status(cli, state)
            assert failed["state"] == "done, with losses"
            assert failed["unfinished"] == {"runs": 1}
            assert [(one["kind"], one["count"]) for one in failed["reasons"] if one["status"] == "failed"] == [
                ("artifact", 1)
            ]
            assert "amigrate retry" in cli("status", state).stdout
            hit.clear()
            rest.post("runs/create", {"experiment_id": "0", "run_name": "new", "start_time": BASE})
            before = proxy.requests.copy()
            done = cli("retry", state, "--json", "--target-password", "hunter3")
            assert done.returncode == 0, done.stdout + done.stderr
            told = json.loads(done.stdout)
            assert told["objects"]["runs"] == {"updated": 1, "excluded": 3}
            assert told["objects"]["artifacts"] == {"created": 1}
            assert not [key for key in proxy.requests - before if "review" in key[1]]
    text = b"".join(one.read_bytes() for one in state.iterdir())
    assert b"hunter" not in text


@pytest.mark.parametrize("listing", ["/registered-models/search", "/experiments/search"])
def test_retry_takes_up_what_was_never_listed(
    servers: tuple[MlflowServer, MlflowServer], new_server: NewServer, cli: Cli, tmp_path: Path, listing: str
) -> None:
    """What no listing has shown is in no journal: it has not failed, but it was not looked at either."""
    source, target = servers[0], new_server()
    asked = {"times": 0, "refused": 0}

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if not request.raw_path.partition("?")[0].endswith(listing):
            return None
        asked["times"] += 1
        if asked["refused"] or asked["times"] < first:
            return None
        asked["refused"] += 1
        return web.json_response({"error_code": "INVALID_PARAMETER_VALUE", "message": "not today"}, status=400)

    first = 2 if listing == "/experiments/search" else 1  # The first one tells which server this is.
    with Rest(source.uri) as rest:
        names = [f"model {number} of {listing[1:7]}" for number in range(2)]
        for name in names:
            rest.post("registered-models/create", {"name": name})
            rest.post("model-versions/create", {"name": name, "source": "s3://elsewhere/model"})
    with Gateway(source.uri, check) as gateway:
        done = cli("copy-all", "--source", gateway.uri, "--target", target.uri, "--state", tmp_path / "state")
        assert done.returncode == 1, done.stdout + done.stderr
        assert asked["refused"] == 1
        done = cli("retry", tmp_path / "state", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        if listing == "/registered-models/search":  # Once it has been listed, there is nothing left to take up.
            done = cli("retry", tmp_path / "state", "--json")
            assert json.loads(done.stdout)["objects"]["registered-models"] == {"excluded": 2}
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []


def test_a_retry_that_is_killed_forgets_nothing(
    servers: tuple[MlflowServer, MlflowServer], new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """What its own listing has shown is not what failed, and is in no journal yet: the next one takes it up."""
    source, target, state = servers[0], new_server(), tmp_path / "state"
    refusing, killing = [True], list[subprocess.Popen[str]]()

    async def refuse(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if not (refusing and request.raw_path.partition("?")[0].endswith("/registered-models/search")):
            return None
        return web.json_response({"error_code": "INVALID_PARAMETER_VALUE", "message": "not today"}, status=400)

    async def kill(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if killing and request.raw_path.partition("?")[0].endswith("/registered-models/search"):
            killing.pop().kill()
        return None

    with Rest(source.uri) as rest:
        for number in range(3):
            rest.post("registered-models/create", {"name": f"model {number} of a retry"})
    with Gateway(source.uri, refuse) as reading, Gateway(target.uri, kill) as writing:
        done = cli("copy-all", "--source", reading.uri, "--target", writing.uri, "--state", state)
        assert done.returncode == 1, done.stdout + done.stderr
        refusing.clear()
        killing.append(process := cli.popen("retry", state))
        assert process.wait(60) == -signal.SIGKILL
        done = cli("retry", state)
        assert done.returncode == 0, done.stdout + done.stderr
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    with Rest(target.uri) as rest:
        names = {one["name"] for one in rest.pages("registered-models/search", "registered_models", {}, method="GET")}
    assert {f"model {number} of a retry" for number in range(3)} <= names


def test_retry_continues_a_command_that_was_killed(
    servers: tuple[MlflowServer, MlflowServer], cli: Cli, tmp_path: Path
) -> None:
    """Also where the archive has been moved since, and from another folder."""
    source, _ = servers
    slow: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
    with FaultProxy(source.uri, seed=1, latency=0.3, **slow) as proxy:
        process = cli.popen("export-all", "--output-dir", tmp_path / "here", MLFLOW_TRACKING_URI=proxy.uri)
        while not [*(tmp_path / "here").glob("experiments/0/runs/*")]:
            assert process.poll() is None
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        shutil.move(tmp_path / "here", tmp_path / "there")
        done = cli("retry", tmp_path / "there", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target"] == str(tmp_path / "there")
    assert len([*(tmp_path / "there").rglob("run.json")]) >= 3
    assert not (tmp_path / "here").exists()


def test_what_is_no_journal(cli: Cli, tmp_path: Path) -> None:
    for command in ("status", "retry"):
        done = cli(command, tmp_path)
        assert done.returncode == 2
        assert "there is no journal in" in done.stderr
        assert "Traceback" not in done.stderr
    with sqlite3.connect(tmp_path / "journal.db") as db:
        db.execute("CREATE TABLE meta (name TEXT, value TEXT)")
    done = cli("status", tmp_path)
    assert done.returncode == 4
    assert "written by another version" in done.stderr

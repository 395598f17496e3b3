"""A network and a server that fail: answers lost after the effect, resets, 503, cut bodies. The result stays exact."""

from __future__ import annotations

import json
import threading
from itertools import count
from pathlib import Path

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy, Only
from tests.rest import API, Rest
from tests.servers import MlflowServer

pytestmark = pytest.mark.timeout(900)


RUNS = 20


@pytest.fixture(scope="module")
def busy(new_module_server: NewServer) -> MlflowServer:
    """A server with runs enough for something to happen among them."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        for number in range(RUNS):
            run = rest.post(f"{API}runs/create", {"experiment_id": "0", "start_time": number})["run"]["info"]
            metric = {"key": "m", "value": number, "timestamp": 1, "step": 0}
            rest.post(f"{API}runs/log-batch", {"run_id": run["run_id"], "metrics": [metric]})
        rest.upload(run["artifact_uri"], "lost.txt", b"a file")
    return server


def summary(done: object) -> dict[str, object]:
    stdout, stderr = done.stdout, done.stderr  # type: ignore[attr-defined]
    assert done.returncode == 0, stdout[-3000:] + stderr[-3000:]  # type: ignore[attr-defined]
    told: dict[str, object] = json.loads(stdout)
    return told


def test_a_copy_between_two_bad_networks(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """5 % of each fault at both ends: everything arrives once. A lost answer of a create is looked up, not repeated."""
    target = new_server()
    with FaultProxy(source_server.uri, seed=1) as reading, FaultProxy(target.uri, seed=2) as writing:
        summary(cli("copy-all", "--source", reading.uri, "--target", writing.uri, "--deleted", "--json", timeout=600))
        assert {"lost_answers", "resets", "unavailable", "cut_bodies"} <= set(writing.faults)
        assert sum(reading.faults.values()) > 10
        read = {path for method, path in reading.requests if method != "GET"}
    assert all(path.endswith(("/search", "/list", "/graphql")) for path in read), read
    assert differences(source_snapshot, snapshot(target.uri)) == []


@pytest.mark.campaign
def test_an_archive_over_a_bad_network(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    target, folder = new_server(), tmp_path / "all"
    with FaultProxy(source_server.uri, seed=3) as reading, FaultProxy(target.uri, seed=4) as writing:
        summary(cli("export-all", "--tracking-uri", reading.uri, "--output-dir", folder, "--deleted", "--json"))
        summary(cli("import-all", "--tracking-uri", writing.uri, "--input-dir", folder, "--deleted", "--json"))
        assert writing.faults["lost_answers"] > 5
    assert differences(source_snapshot, snapshot(target.uri)) == []


def refusing(upstream: str, only: Only) -> FaultProxy:
    """503 for the requests that `only` names, and no other fault."""
    return FaultProxy(upstream, seed=5, lost_answers=0, resets=0, cut_bodies=0, unavailable=1, only=only)


def test_a_server_that_only_fails_any_more_ends_the_command(
    new_server: NewServer, cli: Cli, busy: MlflowServer
) -> None:
    """A database that is gone fails every request: no object is failed for it, and the same command goes on later."""
    target, batches = new_server(), count()
    down, mended = threading.Event(), threading.Event()

    def is_down(_: str, path: str) -> bool:
        """After a few runs."""
        if path.endswith("runs/log-batch") and next(batches) >= 5:
            down.set()
        return down.is_set() and not mended.is_set()

    with refusing(target.uri, is_down) as proxy:
        args = ("copy-all", "--source", busy.uri, "--target", proxy.uri, "--json")
        ended = cli(*args, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
        told = json.loads(ended.stdout)
        assert ended.returncode == 4
        assert "answers nothing any more" in told["error"]
        assert told["losses"] == []
        mended.set()
        summary(cli(*args))
    assert differences(snapshot(busy.uri), snapshot(target.uri)) == []


def test_a_request_that_always_fails_is_told_and_all_else_arrives(
    new_server: NewServer, cli: Cli, busy: MlflowServer
) -> None:
    target = new_server()
    with refusing(target.uri, lambda method, path: method == "PUT" and path.endswith("lost.txt")) as proxy:
        args = ("copy-all", "--source", busy.uri, "--target", proxy.uri, "--json")
        ended = cli(*args, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1")
    told = json.loads(ended.stdout)
    assert ended.returncode == 1
    lost = [(loss["kind"], loss["id"], loss["status"]) for loss in told["losses"]]
    assert lost == [("artifact", "lost.txt", "failed")]
    assert len(snapshot(target.uri).experiments["Default"].runs) == RUNS

"""A small server and a user who wants too much of it: the guard finds what it can carry, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy
from tests.rest import API, Rest


def test_64_at_once_on_one_worker(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """SQLite, one worker, 15 database connections: 64 requests at once would let every one of them time out."""
    target = new_server()
    done = cli(
        "copy-all", "--source", source_server.uri, "--target", target.uri, "--deleted", "--concurrency", "64", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert not any("failed" in statuses for statuses in told["objects"].values())
    assert told["requests"]["target"]["concurrency"]["write"] < 15
    assert differences(source_snapshot, snapshot(target.uri)) == []


RUNS = 80


@pytest.mark.parametrize("command", ["import", "copy"])
def test_short_runs_are_written_many_at_a_time(new_server: NewServer, cli: Cli, tmp_path: Path, command: str) -> None:
    """Their points come together, one answer for all of them; far from a server, each request alone takes long."""
    source, target = new_server(), new_server()
    with Rest(source.uri) as rest:
        home = rest.post("experiments/create", {"name": "short"})["experiment_id"]
        for number in range(RUNS):
            body = {"experiment_id": home, "run_name": f"run {number}", "start_time": 1}
            own = rest.post("runs/create", body)["run"]["info"]["run_id"]
            rest.post("runs/log-metric", {"run_id": own, "key": "loss", "value": 1, "timestamp": 1})
            rest.post("runs/update", {"run_id": own, "status": "FINISHED", "end_time": 2})
    with FaultProxy(target.uri, seed=1, latency=0.1, lost_answers=0, resets=0, unavailable=0, cut_bodies=0) as far:
        if command == "import":
            cli("export-all", "--tracking-uri", source.uri, "--output-dir", str(tmp_path / "archive"))
            done = cli("import-all", "--input-dir", str(tmp_path / "archive"), "--tracking-uri", far.uri)
        else:
            done = cli("copy-all", "--source", source.uri, "--target", far.uri)
        assert done.returncode == 0, done.stdout + done.stderr
        assert far.requests["POST", f"{API}runs/log-batch"] == RUNS
        assert far.busiest["POST", f"{API}runs/log-batch"] >= 4
        assert far.busiest["POST", f"{API}runs/update"] >= 4
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []

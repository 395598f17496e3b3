"""How runs are listed and read: what is asked of the server, and when."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.model import Record, Ref
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.kinds.run_scan import RunScan
from amigrate.options import ServerOptions
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy
from tests.rest import Rest

QUIET: dict[str, Any] = {"lost_answers": 0.0, "resets": 0.0, "unavailable": 0.0, "cut_bodies": 0.0}
HISTORIES = ("GET", "/ajax-api/2.0/mlflow/metrics/get-history-bulk")
FOLDERS = ("GET", "/api/2.0/mlflow-artifacts/artifacts")
EXPERIMENTS, RUNS = 24, 10
"""Four experiments come first, with the empty default one, then all others, which have two hundred runs."""


def fill(uri: str, experiments: int, runs: int) -> None:
    """Runs of two metrics; those of all experiments begin in turn."""

    def run(start: int) -> None:
        with Rest(uri) as rest:
            made = {"experiment_id": homes[start % experiments], "run_name": f"run {start}", "start_time": start}
            own = rest.post("runs/create", made)["run"]["info"]["run_id"]
            points = [{"key": key, "value": start, "timestamp": 1, "step": 0} for key in ("loss", "accuracy")]
            rest.post("runs/log-batch", {"run_id": own, "metrics": points})
            rest.post("runs/update", {"run_id": own, "status": "FINISHED", "end_time": start + 1})

    with Rest(uri) as rest, ThreadPoolExecutor(4) as pool:
        homes = [
            rest.post("experiments/create", {"name": f"number {one}"})["experiment_id"] for one in range(experiments)
        ]
        for _ in pool.map(run, range(experiments * runs)):
            pass


def test_what_is_asked_for_each_experiment_is_asked_once(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """However the starts of runs are mixed, and with as few requests for histories as they fit into."""
    source = new_server()
    fill(source.uri, EXPERIMENTS, RUNS)
    with FaultProxy(source.uri, seed=1, **QUIET) as proxy:
        done = cli("export-all", "--tracking-uri", proxy.uri, "--output-dir", str(tmp_path / "archive"))
        assert done.returncode == 0, done.stdout + done.stderr
        assert proxy.requests[FOLDERS] == EXPERIMENTS
        assert proxy.requests[HISTORIES] == 2 * (1 + 2)
    assert len([*tmp_path.rglob("run.json")]) == EXPERIMENTS * RUNS


def test_histories_are_asked_for_while_runs_are_begun(new_server: NewServer, cli: Cli) -> None:
    """A copy keeps both of its servers busy."""
    source, target = new_server(), new_server()
    fill(source.uri, 2, 30)
    seen: list[str] = []

    def answered(method: str, path: str) -> None:
        seen.append(path.rpartition("/")[2])

    with (
        FaultProxy(source.uri, seed=1, on_answer=answered, **QUIET) as near,
        FaultProxy(target.uri, seed=1, on_answer=answered, latency=0.1, **QUIET) as far,
    ):
        done = cli("copy-all", "--source", near.uri, "--target", far.uri)
        assert done.returncode == 0, done.stdout + done.stderr
    creates = [number for number, what in enumerate(seen) if what == "create"]
    assert seen.index("get-history-bulk") < creates[-10]


def test_the_number_of_runs_is_known_roughly_after_a_few_tiny_requests(source_server: SourceServer) -> None:
    async def sized() -> tuple[int | None, int]:
        requests = Requests()
        async with Http(ServerOptions(source_server.uri)) as http:
            ids = ["0", *source_server.seeded.experiment_ids.values()]
            everywhere = [Record(Ref("experiment", one), {}) for one in ids]
            scan = RunScan(Api(http, AdaptiveGuard(requests, ceiling=4)), everywhere)
            first = await anext(aiter(scan.pages()))
            assert len(first) < len(source_server.seeded.run_ids)
            size = await scan.size()
        return size, sum(requests.sent.values())

    size, sent = asyncio.run(sized())
    runs = len(source_server.seeded.run_ids)
    assert size is not None
    assert abs(size - runs) <= runs / 8
    assert sent <= 8

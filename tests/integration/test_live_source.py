"""The source is in use while it is read: runs come, go on, end and vanish. What was there is moved, and once."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer
from tests.fakes.fault_proxy import FaultProxy
from tests.rest import Rest
from tests.servers import MlflowServer, refill

RUNS = "/runs/search"
EXPERIMENTS = "/experiments/search"
HISTORIES = "/get-history-bulk"

PAGE = 4
SMALL_PAGES = """
from amigrate.cli.app import main
from amigrate.kinds import run_scan
run_scan.FIRST_PAGE = run_scan.LARGEST_PAGE = {size}
async def unknown(self):
    return None
run_scan.RunScan.size = unknown
main()
"""
"""Without the requests that only tell how much time is left: they would come between those that a test waits for."""
PROBE = 1
"""Searches for experiments before the listing: the one that tries the credentials."""


@pytest.fixture(scope="module")
def servers(new_module_server: NewServer) -> tuple[MlflowServer, MlflowServer]:
    return new_module_server(), new_module_server()


class Paging(Cli):
    """Runs amigrate with pages so small that a few runs make many of them."""

    size = PAGE

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-c", SMALL_PAGES.format(size=self.size), *map(str, args)]


@dataclass(slots=True)
class Live:
    """A source that changes at a chosen moment, and a target. Both are empty at first."""

    source: MlflowServer
    target: MlflowServer
    rest: Rest
    cli: Cli
    folder: Path
    proxy: FaultProxy = field(init=False)
    path: str = ""
    after: int = 1
    every: bool = False
    change: Callable[[], object] = lambda: None
    changed: int = 0
    _answers: int = 0

    def on(self, path: str, change: Callable[[], object], *, after: int = 1, every: bool = False) -> None:
        """Change the source when it has answered so many requests to `path`; with `every`, at each one from then on."""
        self.path, self.change, self.after, self.every = path, change, after, every

    def answered(self, method: str, path: str) -> None:
        """The proxy has an answer of the source in its hands."""
        if not self.path or not path.endswith(self.path):
            return
        self._answers += 1
        if self._answers == self.after or (self.every and self._answers > self.after):
            self.change()
            self.changed += 1

    def copy(self, *options: str) -> Any:
        """Copy everything; returns the summary. The exit code is 0 or 1."""
        return summary(
            self.cli("copy-all", "--source", self.proxy.uri, "--target", self.target.uri, "--json", *options)
        )

    def export(self, *options: str) -> Any:
        """Export everything into `folder`; returns the summary."""
        out = ("--output-dir", self.folder)
        return summary(self.cli("export-all", "--tracking-uri", self.proxy.uri, *out, "--json", *options))

    def load(self, *options: str) -> Any:
        """Import `folder` into the target; returns the summary."""
        into = ("--tracking-uri", self.target.uri, "--input-dir", self.folder)
        return summary(self.cli("import-all", *into, "--json", *options))

    def read(self, way: str, *options: str) -> Any:
        """The half of a move that reads the source; returns its summary."""
        return self.copy(*options) if way == "copy" else self.export(*options)

    def move(self, way: str, *options: str) -> Any:
        """Source to target, directly or by way of an archive; returns the summary of what read the source."""
        told = self.read(way, *options)
        if way == "archive":
            true_counts(self.folder)
            self.load(*options)
        return told

    def different(self, *, deleted: bool = True) -> list[str]:
        """What target and source do not have in common now."""
        return differences(snapshot(self.source.uri), snapshot(self.target.uri), deleted=deleted)

    # ---- what is done to the source -----------------------------------------------------------------------------

    def experiment(self, name: str) -> str:
        return str(self.rest.post("experiments/create", {"name": name})["experiment_id"])

    def run(self, experiment: str, name: str, *, start: int = 1, points: int = 1, end: str = "FINISHED") -> str:
        """A run with a metric and a param; `end` is the status it ends with, or empty where it goes on."""
        made = {"experiment_id": experiment, "run_name": name, "start_time": start}
        run_id = str(self.rest.post("runs/create", made)["run"]["info"]["run_id"])
        self.log(run_id, 0, points, params=[{"key": "lr", "value": "0.1"}])
        if end:
            self.rest.post("runs/update", {"run_id": run_id, "status": end, "end_time": start + 5})
        return run_id

    def log(self, run_id: str, first: int, number: int, key: str = "loss", **more: Any) -> None:
        """Some more points of one metric, at most 1000."""
        steps = range(first, first + number)
        points = [{"key": key, "value": step, "timestamp": 10 + step, "step": step} for step in steps]
        self.rest.post("runs/log-batch", {"run_id": run_id, "metrics": points, **more})

    def upload(self, run_id: str, path: str, data: bytes) -> None:
        info = self.rest.get("runs/get", {"run_id": run_id})["run"]["info"]
        self.rest.upload(info["artifact_uri"], path, data)

    def crowd(self, experiment: str, number: int, end: str = "FINISHED") -> list[str]:
        """Runs in the order in which they are listed."""
        return [self.run(experiment, f"run {start}", start=start, end=end) for start in range(1, number + 1)]

    def erase(self, *run_ids: str) -> None:
        """Remove runs for good, as `mlflow gc` does."""
        with closing(sqlite3.connect(self.source.database)) as database, database:
            for table in ("params", "tags", "metrics", "latest_metrics", "runs"):
                database.executemany(f"DELETE FROM {table} WHERE run_uuid = ?", [(one,) for one in run_ids])


@pytest.fixture
def live(servers: tuple[MlflowServer, MlflowServer], empty_database: Path, cli: Cli, tmp_path: Path) -> Iterator[Live]:
    """Afterwards: the chosen moment has come, and the source was only ever read."""
    for server in servers:
        refill(server, empty_database)
    source, target = servers
    with Rest(source.uri) as rest:
        it = Live(source, target, rest, cli, tmp_path / "archive")
        quiet: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
        with FaultProxy(source.uri, seed=1, on_answer=it.answered, **quiet) as it.proxy:
            yield it
        assert it.changed or not it.path, "the source never came to be changed"
        reads = ("/search", "/graphql")
        writes = {(verb, path) for verb, path in it.proxy.requests if verb != "GET" and not path.endswith(reads)}
        assert not writes


@pytest.fixture
def paged(live: Live, tmp_path: Path) -> Live:
    """The same, read in pages of a few runs."""
    live.cli = Paging(tmp_path / "paging")
    return live


def summary(done: Any) -> Any:
    assert done.returncode in (0, 1), done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert not told["error"], told["error"]
    return told


def read(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def true_counts(archive: Path) -> None:
    """Every index of an archive says what really lies there."""
    base, ok, failed = archive / "experiments", 0, 0
    index = read(base / "experiments.json")
    homes = {path.parent.name: path.parent for path in base.glob("*/experiment.json")}
    assert {entry["id"] for entry in index["mlflow"]["experiments"]} == set(homes)
    for entry in index["mlflow"]["experiments"]:
        document = read(homes[entry["id"]] / "experiment.json")
        there = {path.parent.name for path in homes[entry["id"]].glob("runs/*/run.json")}
        lost = document["info"]["failed_runs"]
        assert set(document["mlflow"]["runs"]) == there
        assert document["info"]["num_ok_runs"] == entry["ok_runs"] == len(there)
        assert document["info"]["num_failed_runs"] == entry["failed_runs"] == len(lost)
        assert document["info"]["num_total_runs"] == len(there) + len(lost)
        ok, failed = ok + len(there), failed + len(lost)
    status = index["info"]["status"]
    assert (status["experiments"], status["ok_runs"], status["failed_runs"]) == (len(homes), ok, failed)
    assert status["total_runs"] == ok + failed
    assert read(archive / "manifest.json")["info"]["status"]["experiments"] == status
    assert not list(archive.rglob("*.part"))


def outcomes(told: Any, kind: str = "run") -> dict[str, dict[str, Any]]:
    """What became of each object, by its id."""
    return {one["id"]: one for one in read(Path(told["report"]))["outcomes"] if one["kind"] == kind}


def names(workspace: Workspace, experiment: str) -> list[str]:
    return sorted(run.name for run in workspace.experiments[experiment].runs)


both_ways = pytest.mark.parametrize("way", ["copy", "archive"])


@both_ways
def test_a_run_that_comes_after_its_listing(live: Live, way: str) -> None:
    experiment = live.experiment("busy")
    live.run(experiment, "early")

    def change() -> None:
        live.upload(live.run(experiment, "late", start=9), "late.txt", b"late")
        live.upload(live.run("0", "late in another one", start=9), "late.txt", b"late")

    live.on(RUNS, change)
    told = live.move(way)
    assert told["exit_code"] == 0
    assert told["objects"]["runs"] == {"created": 3}
    assert live.different() == []


@both_ways
def test_runs_that_come_behind_and_before_several_pages(paged: Live, way: str) -> None:
    """One is listed last by its start time, one first: neither hides from a listing that went on meanwhile."""
    live, experiment = paged, paged.experiment("busy")
    live.crowd(experiment, 2 * PAGE + 1)

    def change() -> None:
        live.run(experiment, "last", start=10**6)
        live.run(experiment, "first", start=0)

    live.on(RUNS, change, after=3)
    told = live.move(way)
    assert told["exit_code"] == 0
    assert told["objects"]["runs"] == {"created": 2 * PAGE + 3}
    assert live.different() == []


@both_ways
def test_runs_that_come_into_experiments_that_were_listed_before_others(paged: Live, way: str) -> None:
    """A few experiments are listed at a time: what comes into the first ones is met when they are asked again."""
    live, homes = paged, [paged.experiment(f"number {number}") for number in range(8)]
    for home in homes:
        live.crowd(home, 3)

    def change() -> None:
        live.run(homes[0], "first of all", start=0)
        live.run(homes[0], "last of all", start=10**6)
        live.run(homes[-1], "not listed yet", start=2)

    live.on(RUNS, change, after=6)
    told = live.move(way)
    assert told["exit_code"] == 0
    assert told["objects"]["runs"] == {"created": 27}
    assert live.different() == []


def test_pages_of_a_single_run(live: Live, tmp_path: Path) -> None:
    """Runs that weigh much are listed one by one."""
    live.cli = paging = Paging(tmp_path / "paging")
    paging.size = 1
    live.crowd(live.experiment("heavy"), 3)
    told = live.copy()
    assert told["exit_code"] == 0
    assert live.different() == []


@both_ways
def test_a_run_that_ends_while_it_is_read(live: Live, way: str) -> None:
    """More points, a new metric, a tag, a file and its end: all of it is at the target when the command ends."""
    experiment = live.experiment("busy")
    live.run(experiment, "done")
    run_id = live.run(experiment, "going on", start=2, points=3, end="")
    live.upload(run_id, "begin.txt", b"begin")

    def change() -> None:
        live.log(run_id, 3, 1000)
        live.log(run_id, 1003, 200)
        live.log(run_id, 0, 5, "accuracy", params=[{"key": "late", "value": "1"}], tags=[{"key": "t", "value": "v"}])
        live.upload(run_id, "end.txt", b"end")
        live.rest.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 99})

    live.on(HISTORIES, change)
    told = live.move(way)
    assert told["exit_code"] == 0
    assert told["objects"]["runs"] == {"created": 2}
    assert live.different() == []


@both_ways
def test_a_run_that_still_goes_on_is_completed_by_the_next_move(live: Live, way: str) -> None:
    experiment = live.experiment("busy")
    run_id = live.run(experiment, "going on", points=3, end="")
    live.on(HISTORIES, lambda: live.log(run_id, 3, 4))
    assert live.move(way)["exit_code"] == 0
    assert live.different() == []
    live.log(run_id, 7, 2)
    live.rest.post("runs/update", {"run_id": run_id, "status": "FAILED", "end_time": 99})
    told = live.move(way)
    assert told["objects"]["runs"] == {"updated": 1}
    assert live.different() == []


@both_ways
@pytest.mark.parametrize("deleted", [False, True], ids=["without", "with deleted"])
def test_a_run_that_is_deleted_after_it_was_listed(live: Live, way: str, deleted: bool) -> None:
    """It was active when it was listed, so it is moved whole; deleted objects are wanted or not from then on."""
    experiment = live.experiment("busy")
    kept, run_id = live.run(experiment, "kept"), live.run(experiment, "deleted", points=7)
    live.upload(run_id, "file.txt", b"file")
    live.on(RUNS, lambda: live.rest.post("runs/delete", {"run_id": run_id}))
    options = ("--deleted",) if deleted else ()
    told = live.move(way, *options)
    assert told["exit_code"] == 0
    assert {key: one["status"] for key, one in outcomes(told).items()} == dict.fromkeys((kept, run_id), "created")
    arrived = {run.name: run for run in snapshot(live.target.uri).experiments["busy"].runs}
    assert arrived["deleted"].lifecycle == ("deleted" if deleted else "active")
    assert len(arrived["deleted"].metrics["loss"]) == 7
    assert set(arrived["deleted"].artifacts) == {"file.txt"}
    again = live.move(way, *options) if deleted else live.read(way)
    assert again["exit_code"] == 0
    assert outcomes(again)[run_id]["status"] == ("present" if deleted else "excluded")
    assert len(snapshot(live.target.uri).experiments["busy"].runs) == 2
    assert not deleted or live.different() == []


@pytest.mark.parametrize(("way", "place"), [("archive", 0), ("copy", PAGE // 2), ("archive", PAGE - 1)])
def test_a_run_that_is_removed_for_good_between_two_pages(paged: Live, way: str, place: int) -> None:
    """The page that follows shifts by one: no other run is missed, and what was listed and is gone is named."""
    live, runs = paged, paged.crowd(paged.experiment("busy"), 2 * PAGE + 1)
    live.on(RUNS, lambda: live.erase(runs[place]))
    told = live.move(way)
    assert told["exit_code"] == 1
    assert [(loss["id"], loss["status"]) for loss in told["losses"]] == [(runs[place], "failed")]
    assert told["objects"]["runs"] == {"created": len(runs) - 1, "failed": 1}
    arrived = [run for run in snapshot(live.target.uri).experiments["busy"].runs if run.status == "FINISHED"]
    assert sorted(run.origin for run in arrived) == sorted(set(runs) - {runs[place]})


def test_runs_that_vanish_and_come_at_once(paged: Live) -> None:
    """One gone and one new: their number is the same as before, and the new one arrives all the same."""
    live, experiment = paged, paged.experiment("busy")
    runs = live.crowd(experiment, PAGE + 2)

    def change() -> None:
        live.erase(runs[3])
        live.run(experiment, "new", start=10**6)

    live.on(RUNS, change, after=2)
    live.copy()
    arrived = [run for run in snapshot(live.target.uri).experiments["busy"].runs if run.status == "FINISHED"]
    assert {"new", *(f"run {number}" for number in range(1, len(runs) + 1) if number != 4)} == {
        run.name for run in arrived
    }


def test_a_source_that_never_holds_still(paged: Live) -> None:
    """A run vanishes at every page: after some attempts the experiment is named as failed, and what came is kept."""
    live, runs = paged, paged.crowd(paged.experiment("busy"), 4 * PAGE)
    doomed = iter(runs)
    live.on(RUNS, lambda: live.erase(next(doomed)), every=True)
    told = live.copy()
    assert told["exit_code"] == 1
    reasons = {loss["name"]: loss["reason"] for loss in told["losses"] if loss["kind"] == "experiment"}
    assert "runs keep disappearing" in reasons["busy"]
    assert sum(told["objects"]["runs"].values()) >= PAGE


def test_a_run_that_vanishes_while_unfinished_runs_are_read_again(paged: Live) -> None:
    """Those that went on are read in one more listing, which shifts like any other."""
    live, runs = paged, paged.crowd(paged.experiment("busy"), PAGE + 2, end="")
    live.on(RUNS, lambda: live.erase(runs[1]), after=3)
    told = live.copy()
    assert told["exit_code"] == 0
    assert told["objects"]["runs"] == {"created": len(runs)}


@both_ways
def test_an_experiment_that_comes_meanwhile(live: Live, way: str) -> None:
    live.run(live.experiment("early"), "one")
    live.on(EXPERIMENTS, lambda: live.run(live.experiment("late"), "two"), after=PROBE + 1)
    told = live.move(way)
    assert told["exit_code"] == 0
    assert told["objects"]["experiments"]["created"] == len(snapshot(live.source.uri).experiments) - (way == "copy")
    assert live.different() == []


def test_an_experiment_that_is_renamed_meanwhile(live: Live) -> None:
    """It arrives once and whole, under the name by which it was listed."""
    experiment = live.experiment("old name")
    live.run(experiment, "one")
    change = {"experiment_id": experiment, "new_name": "new name"}
    live.on(EXPERIMENTS, lambda: live.rest.post("experiments/update", change), after=PROBE + 1)
    told = live.copy()
    assert told["exit_code"] == 0
    arrived = snapshot(live.target.uri)
    assert set(arrived.experiments) == {"Default", "old name"}
    assert names(arrived, "old name") == ["one"]


@both_ways
@pytest.mark.parametrize("deleted", [False, True], ids=["without", "with deleted"])
def test_an_experiment_that_is_deleted_meanwhile(live: Live, way: str, deleted: bool) -> None:
    """Deleting it deletes its runs: each has an outcome, and the next move can make the target equal."""
    experiment = live.experiment("busy")
    run_ids = [live.run(experiment, name) for name in ("one", "two")]
    change = {"experiment_id": experiment}
    live.on(EXPERIMENTS, lambda: live.rest.post("experiments/delete", change), after=PROBE + 1)
    options = ("--deleted",) if deleted else ()
    told = live.move(way, *options)
    assert told["exit_code"] == 0
    expected = "created" if deleted else "excluded"
    assert {key: one["status"] for key, one in outcomes(told).items()} == dict.fromkeys(run_ids, expected)
    assert snapshot(live.target.uri, deleted=False).experiments["busy"].runs == []
    again = live.move(way, *options, "--propagate-deletes") if deleted else live.read(way)
    assert again["exit_code"] == 0
    assert not deleted or live.different() == []

"""The comparison of two servers finds every change, names the object that changed, and nothing else.

One workspace is copied once; then each test changes one thing more at one side and looks at what the comparison says
that it did not say before. Each change has a run of its own, so the tests depend neither on their order nor on each
other.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from amigrate.client.abilities import probe
from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.model import Finding
from amigrate.engine.budget import ByteBudget
from amigrate.engine.check import check
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests, Stats
from amigrate.engine.survey import Scope
from amigrate.kinds import REGISTRY
from amigrate.options import ServerOptions
from amigrate.server.source import ServerSource
from tests.conftest import Cli, NewServer
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

FILES = ("MLmodel", "data/table.csv", "weights")
Seen = tuple[str, str]
"""Sigil and object: `name` of an experiment, `label` of a run, `label/path` of a file."""


@dataclass(slots=True)
class Side:
    """One server, and its experiments and runs by the names that both sides share."""

    server: MlflowServer
    rest: Rest
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Learn the ids of what is there."""
        found = list(self.rest.pages("experiments/search", "experiments", {"view_type": "ALL"}))
        self.experiments = {one["name"]: one["experiment_id"] for one in found}
        query = {"experiment_ids": list(self.experiments.values()), "run_view_type": "ALL"}
        runs = self.rest.pages("runs/search", "runs", query)
        self.runs = {one["info"]["run_name"]: one["info"]["run_id"] for one in runs}

    def run(self, experiment: str, label: str, tags: dict[str, str] | None = None) -> str:
        """Make a run."""
        body = {"experiment_id": self.experiments[experiment], "run_name": label, "start_time": BASE, "user_id": "ada"}
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        made = self.rest.post("runs/create", {**body, "tags": pairs})["run"]["info"]
        self.runs[label] = made["run_id"]
        return str(made["artifact_uri"])

    def fill(self, label: str) -> None:
        """Give a run something of everything."""
        run_id = self.runs[label]
        points = [{"key": "loss", "value": step / 7, "timestamp": BASE + step, "step": step} for step in range(3)]
        params = [{"key": "depth", "value": "4"}]
        self.rest.post("runs/log-batch", {"run_id": run_id, "metrics": points, "params": params})
        data = {"name": "iris", "digest": label[:36], "source_type": "local", "source": "{}"}
        used = {"dataset": data, "tags": [{"key": "context", "value": "training"}]}
        self.rest.post("runs/log-inputs", {"run_id": run_id, "datasets": [used]})
        self.rest.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": BASE + 5})

    def file(self, label: str, path: str) -> Path:
        """A run's file on the server's disk."""
        return self.server.artifacts / self.experiments["main"] / self.runs[label] / "artifacts" / path

    def sql(self, statement: str, *values: str) -> None:
        """Change what no request can change."""
        with closing(sqlite3.connect(self.server.database, timeout=60)) as db, db:
            assert db.execute(statement, values).rowcount == 1, statement


class Sides:
    """Both servers, and what their comparison said when it was last asked."""

    def __init__(self, a: Side, b: Side) -> None:
        self.a = a
        self.b = b
        self.details: dict[Seen, str] = {}

    def new(self) -> dict[Seen, str]:
        """What the comparison says that it did not say before, with the details; what is equal is not news."""
        before = set(self.details.items())
        self.details = {self._seen(one): one.detail for one in asyncio.run(compared(self.a.server, self.b.server))}
        return {
            seen: detail for seen, detail in self.details.items() if seen[0] != "=" and (seen, detail) not in before
        }

    def _seen(self, finding: Finding) -> Seen:
        ref = finding.ref
        if ref.kind == "experiment":
            return finding.sigil, finding.name
        labels = {run_id: label for side in (self.a, self.b) for label, run_id in side.runs.items()}
        if ref.kind == "run":
            return finding.sigil, labels[ref.id]
        assert ref.parent is not None
        return finding.sigil, f"{labels[ref.parent.id]}/{ref.id}"


async def compared(one: MlflowServer, other: MlflowServer) -> list[Finding]:
    """Every finding of a comparison, deleted objects included."""
    async with Http(ServerOptions(one.uri)) as a, Http(ServerOptions(other.uri)) as b:
        apis = [Api(http, AdaptiveGuard(Requests(), ceiling=4)) for http in (a, b)]
        for api in apis:
            await probe(api)
        sides = [ServerSource(api, REGISTRY) for api in apis]
        scope = Scope(deleted=True, wants=lambda _: True)
        found = check(sides[0], sides[1], REGISTRY, scope, Stats(), ByteBudget(32 * 1024 * 1024))
        return [finding async for finding in found]


# Changes --------------------------------------------------------------------------------------------------------------

Change = Callable[[Sides, str], None]
"""Changes one thing of the run with this label."""


def posted(path: str, **body: object) -> Change:
    """A request to the target about the run."""
    return lambda sides, label: void(sides.b.rest.post(path, {"run_id": sides.b.runs[label], **body}))


def point(key: str, value: float) -> Change:
    return posted("runs/log-metric", key=key, value=value, timestamp=BASE, step=9)


def in_database(statement: str) -> Change:
    """One row of the target that belongs to the run."""
    return lambda sides, label: sides.b.sql(statement, sides.b.runs[label])


def on_disk(path: str, change: Callable[[Path], object]) -> Change:
    return lambda sides, label: void(change(sides.b.file(label, path)))


def renamed_ids(sides: Sides, label: str) -> None:
    """Its MLmodel names the neighbour now, as the source's names the run itself."""
    path = sides.b.file(label, "MLmodel")
    path.write_text(path.read_text().replace(sides.b.runs[label], sides.b.runs["neighbour"]))


def parent(sides: Sides, label: str) -> None:
    value = sides.b.runs["neighbour"]
    posted("runs/set-tag", key="mlflow.parentRunId", value=value)(sides, label)


def twin(sides: Sides, label: str) -> None:
    """A second run that claims to be the same one."""
    sides.b.run("main", f"{label}, twin", {"amigrate.source_run_id": sides.a.runs[label]})


def flipped(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def void(_: object) -> None:
    """A change has no result."""


INPUT_TAG = (
    "UPDATE input_tags SET value = 'evaluation'"
    " WHERE input_uuid = (SELECT input_uuid FROM inputs WHERE destination_id = ?)"
)

IN_RUNS: dict[str, tuple[Change, str]] = {
    "another tag": (posted("runs/set-tag", key="team", value="blue"), "tags.team: red ≠ blue"),
    "a tag more": (posted("runs/set-tag", key="more", value=""), "tags.more only in B"),
    "a tag less": (posted("runs/delete-tag", key="team"), "tags.team only in A"),
    "a param more": (posted("runs/log-parameter", key="more", value="1"), "params.more only in B"),
    "another param": (in_database("UPDATE params SET value = '5' WHERE run_uuid = ?"), "params.depth: 4 ≠ 5"),
    "a point more": (point("loss", 1.0), "series.loss: "),
    "a series more": (point("more", 1.0), "series.more only in B"),
    "another value": (in_database("UPDATE metrics SET value = 9 WHERE step = 1 AND run_uuid = ?"), "series.loss: "),
    "another time": (in_database("UPDATE metrics SET timestamp = 9 WHERE step = 1 AND run_uuid = ?"), "series.loss: "),
    "another status": (posted("runs/update", status="FAILED", end_time=BASE + 5), "status: FINISHED ≠ FAILED"),
    "another end": (posted("runs/update", status="FINISHED", end_time=BASE + 6), "end_time: "),
    "another start": (in_database("UPDATE runs SET start_time = 7 WHERE run_uuid = ?"), "start_time: "),
    "another user": (in_database("UPDATE runs SET user_id = 'bob' WHERE run_uuid = ?"), "user_id: ada ≠ bob"),
    "deleted": (posted("runs/delete"), "lifecycle_stage: active ≠ deleted"),
    "another input tag": (in_database(INPUT_TAG), ".tags.context: training ≠ evaluation"),
    "another parent": (parent, "tags.mlflow.parentRunId"),
}
IN_FILES: dict[str, tuple[Change, Seen]] = {
    "another byte": (on_disk("weights", flipped), ("*", "weights")),
    "a byte more": (on_disk("data/table.csv", lambda path: path.write_bytes(b"1,2,3\n4")), ("*", "data/table.csv")),
    "a file less": (on_disk("data/table.csv", Path.unlink), ("-", "data/table.csv")),
    "a file more": (on_disk("data/more", lambda path: path.write_bytes(b"")), ("+", "data/more")),
    "an MLmodel that names another run": (renamed_ids, ("*", "MLmodel")),
}
OTHERS = ("neighbour", "twice", "gone")


@pytest.fixture(scope="module")
def sides(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Sides:
    """A workspace and its copy."""
    a, b = (Side(server, Rest(server.uri)) for server in (new_module_server(), new_module_server()))
    for name in ("main", "tagged", "doomed"):
        body = {"name": name, "tags": [{"key": "owner", "value": "ada"}]}
        a.experiments[name] = a.rest.post("experiments/create", body)["experiment_id"]
    a.run("doomed", "in doomed")
    for label in OTHERS + tuple(IN_RUNS):
        a.run("main", label, {"team": "red"})
        a.fill(label)
    for label in IN_FILES:
        location = a.run("main", label)
        contents = (f"run_id: {a.runs[label]}\n".encode(), b"1,2,3\n", bytes(range(99)))
        for path, content in zip(FILES, contents, strict=True):
            a.rest.upload(location, path, content)
    done = Cli(tmp_path_factory.mktemp("copy"))("copy-all", "--source", a.server.uri, "--target", b.server.uri)
    assert done.returncode == 0, done.stderr
    for side in (a, b):
        side.read()
    both = Sides(a, b)
    assert both.new() == {}, "a copy differs from its source"
    experiments, runs = ("Default", "main", "tagged", "doomed"), ("in doomed", *OTHERS, *IN_RUNS, *IN_FILES)
    files = [f"{label}/{path}" for label in IN_FILES for path in FILES]
    assert set(both.details) == {("=", one) for one in (*experiments, *runs, *files)}
    return both


@pytest.mark.parametrize("label", IN_RUNS)
def test_a_change_in_a_run(sides: Sides, label: str) -> None:
    change, words = IN_RUNS[label]
    change(sides, label)
    found = sides.new()
    assert set(found) == {("*", label)}
    assert words in found["*", label]
    assert ";" not in found["*", label], "only one thing was changed"


@pytest.mark.parametrize("label", IN_FILES)
def test_a_change_in_a_file(sides: Sides, label: str) -> None:
    change, (sigil, path) = IN_FILES[label]
    change(sides, label)
    assert set(sides.new()) == {(sigil, f"{label}/{path}")}


def test_runs_on_one_side_only(sides: Sides) -> None:
    location = sides.a.run("main", "only in A")
    sides.a.rest.upload(location, "file", b"")
    sides.b.run("main", "only in B")
    assert set(sides.new()) == {("-", "only in A"), ("-", "only in A/file"), ("+", "only in B")}


def test_a_run_that_is_there_twice(sides: Sides) -> None:
    twin(sides, "twice")
    found = sides.new()
    assert set(found) == {("!", "twice")}
    assert all(sides.b.runs[label] in found["!", "twice"] for label in ("twice", "twice, twin"))


def test_experiments(sides: Sides) -> None:
    tag = {"experiment_id": sides.b.experiments["tagged"], "key": "owner", "value": "bob"}
    sides.b.rest.post("experiments/set-experiment-tag", tag)
    sides.a.rest.post("experiments/create", {"name": "new in A"})
    sides.b.rest.post("experiments/create", {"name": "new in B"})
    found = sides.new()
    assert set(found) == {("*", "tagged"), ("-", "new in A"), ("+", "new in B")}
    assert found["*", "tagged"] == "tags.owner: ada ≠ bob"


def test_a_deleted_experiment_takes_its_runs_along(sides: Sides) -> None:
    sides.b.rest.post("experiments/delete", {"experiment_id": sides.b.experiments["doomed"]})
    found = sides.new()
    assert set(found) == {("*", "doomed"), ("*", "in doomed")}
    assert set(found.values()) == {"lifecycle_stage: active ≠ deleted"}


def test_a_run_that_vanished(sides: Sides) -> None:
    """As after `mlflow gc` at the target."""
    run_id = sides.b.runs["gone"]
    with closing(sqlite3.connect(sides.b.server.database, timeout=60)) as db, db:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            db.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))
    assert set(sides.new()) == {("-", "gone")}

"""Run again every night: only what is new or changed since is carried, and the target is equal afterwards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amigrate.kinds import REGISTRY
from tests.campaign import IS_FULL
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.contract.test_kinds import name_of
from tests.kinds import experiment_of, plain_kinds, sample
from tests.kinds.logged_model import models_of, new_model
from tests.kinds.prompt import IS_PROMPT, PROMPTS
from tests.kinds.trace import V3, new_trace, span, trace_ids
from tests.rest import Rest
from tests.servers import MlflowServer, refill
from tests.workspace import BASE, ScaleName

pytestmark = pytest.mark.timeout(3600)

SHARE = {"small": 0.08, "full": 0.05}
"""Of the requests of the first session, what a later one may send after 1 % has changed: among a hundred runs, the
listings alone are more than the 5 % that hold from a thousand on."""
KINDS = [kind for kind in plain_kinds() if not REGISTRY[kind].opt_in]
TAGS = [{"key": "number", "value": "13"}]
both_ways = pytest.mark.parametrize("way", ["copy", pytest.param("archive", marks=pytest.mark.campaign)])
MIXED = [("copy", True), ("copy", False), ("archive", True), ("archive", False)]


@dataclass(slots=True)
class Nightly:
    """A source that lives on, and a target that follows it, directly or by way of an archive."""

    way: str
    source: MlflowServer
    target: MlflowServer
    rest: Rest
    cli: Cli
    folder: Path
    deleted: bool = True

    def sync(self, *options: str) -> list[dict[str, Any]]:
        """One night; the summaries of its commands."""
        if self.way == "copy":
            return [self._run("copy-all", "--source", self.source.uri, "--target", self.target.uri, *options)]
        return [self.export(*options), self._load(*options)]

    def export(self, *options: str) -> dict[str, Any]:
        return self._run("export-all", "--tracking-uri", self.source.uri, "--output-dir", self.folder, *options)

    def _load(self, *options: str) -> dict[str, Any]:
        return self._run("import-all", "--tracking-uri", self.target.uri, "--input-dir", self.folder, *options)

    def _run(self, *args: str | Path) -> dict[str, Any]:
        done = self.cli(*args, *(["--deleted"] if self.deleted else []), "--json")
        assert done.returncode in (0, 1), done.stdout + done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        assert not told["error"], told["error"]
        return told

    def different(self) -> list[str]:
        """What target and source do not have in common, to eyes that know nothing of amigrate."""
        lines = differences(snapshot(self.source.uri), snapshot(self.target.uri))
        with Rest(self.target.uri) as new:
            for kind in KINDS:
                if hasattr(sample(kind), "held") and sample(kind).held(self.rest, name_of(kind)) != sample(kind).held(
                    new, name_of(kind)
                ):
                    lines.append(f"sample of {kind}")
        return lines


@dataclass(slots=True)
class Servers:
    """A source, a target, and what each of them holds when a test begins."""

    source: MlflowServer
    target: MlflowServer
    large: Path
    """The workspace that all tests share."""
    small: Path
    """A sample of every kind."""
    empty: Path


@pytest.fixture(scope="module")
def servers(new_module_server: NewServer, sized_server: SourceServer, empty_database: Path) -> Servers:
    source, target = new_module_server(), new_module_server()
    shutil.copytree(sized_server.server.artifacts, source.artifacts, dirs_exist_ok=True)
    with Rest(source.uri) as rest:
        for kind in KINDS:
            sample(kind).seed(rest, name_of(kind))
    small = source.folder / "small.db"
    shutil.copyfile(source.database, small)
    return Servers(source, target, sized_server.server.database, small, empty_database)


@pytest.fixture
def nightly(way: str, servers: Servers, cli: Cli, tmp_path: Path) -> Iterator[Nightly]:
    refill(servers.source, servers.small)
    refill(servers.target, servers.empty)
    with Rest(servers.source.uri) as rest:
        yield Nightly(way, servers.source, servers.target, rest, cli, tmp_path / "archive")


def sent(told: dict[str, Any]) -> int:
    return sum(end["sent"] for end in told["requests"].values())


def statuses(told: dict[str, Any]) -> set[str]:
    return {status for counts in told["objects"].values() for status in counts} - {"excluded", "left behind"}


def outcomes(told: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """What became of each object of a kind, by its name or id."""
    listed = json.loads(Path(told["report"]).read_text("utf-8"))["outcomes"]
    return {one.get("name") or one["id"]: one for one in listed if one["kind"] == kind}


@both_ways
def test_the_cost_grows_with_what_has_changed(
    nightly: Nightly, servers: Servers, sized_server: SourceServer, campaign: ScaleName
) -> None:
    """1 % of the runs changed: at most 5 % of the requests. Nothing changed: fewer still, and nothing is written."""
    seeded = sized_server.seeded
    refill(nightly.source, servers.large)
    first = nightly.sync()
    second = nightly.sync()
    ended = [one for one in seeded.runs.values() if one.status == "FINISHED" and not one.deleted]
    for run in ended[: max(1, len(seeded.runs) // 100)]:
        tag = {"run_id": seeded.run_ids[run.label], "key": "trial", "value": "changed"}
        nightly.rest.post("runs/set-tag", tag)
    third = nightly.sync()
    for before, after, changed in zip(first, second, third, strict=True):
        assert statuses(after) == {"present"}
        assert after["metric_points"] == after["bytes"] == 0
        assert after["not_read_again"]["runs"] > len(seeded.runs) / 2
        if before["command"] != "export-all":  # That asks for so little that some listings are a larger share of it.
            assert sent(after) < sent(before) * SHARE[campaign]
            assert sent(changed) < sent(before) * SHARE[campaign]
    if nightly.way == "copy":
        assert differences(snapshot(nightly.source.uri), snapshot(nightly.target.uri)) == []


class Busy:
    """An experiment that people work in."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest
        self.home = str(rest.post("experiments/create", {"name": "busy"})["experiment_id"])
        self.ended, self.again, self.dies = (self.run(name, "FINISHED") for name in ("ended", "again", "dies"))
        self.going, self.ending = (self.run(name, "RUNNING") for name in ("going", "ending"))

    def run(self, name: str, status: str) -> dict[str, Any]:
        """A run with a point and a file; returns its `info`."""
        made = {"experiment_id": self.home, "run_name": name, "start_time": BASE}
        info = dict(self.rest.post("runs/create", made)["run"]["info"])
        self.log(info, 0)
        self.rest.upload(info["artifact_uri"], "first.txt", b"first")
        if status != "RUNNING":
            self.rest.post("runs/update", {"run_id": info["run_id"], "status": status, "end_time": BASE + 1})
        return info

    def log(self, run: dict[str, Any], step: int) -> None:
        point = {"key": "loss", "value": step / 3, "timestamp": BASE + abs(step), "step": step}
        self.rest.post("runs/log-metric", {"run_id": run["run_id"], **point})

    def change(self) -> None:
        """One night: runs come, go on, end and are taken up again; names, tags, versions and aliases change."""
        rest = self.rest
        rest.post("experiments/update", {"experiment_id": self.home, "new_name": "renamed"})
        rest.post("experiments/set-experiment-tag", {"experiment_id": self.home, "key": "team", "value": "new"})
        for run, more in (
            (self.ended, {"run_name": "another name", "status": "KILLED", "end_time": BASE + 7}),
            (self.again, {"status": "RUNNING"}),
            (self.ending, {"status": "FAILED", "end_time": BASE + 9}),
        ):
            self.log(run, 5)
            rest.upload(run["artifact_uri"], "second.txt", b"second")
            rest.post("runs/update", {"run_id": run["run_id"], **more})
        self.log(self.going, 5)
        self.run("new", "FINISHED")
        rest.post("experiments/create", {"name": "new"})
        model, prompt = name_of("registered_model"), name_of("prompt")
        rest.post("model-versions/create", {"name": model, "source": "s3://elsewhere/new", "tags": TAGS})
        rest.post("registered-models/alias", {"name": model, "alias": "champion", "version": "13"})
        rest.post("registered-models/create", {"name": "a new one"})
        text = [IS_PROMPT, {"key": "mlflow.prompt.text", "value": "another text"}]
        rest.post("model-versions/create", {"name": prompt, "source": "dummy-source", "tags": text})
        rest.post("registered-models/alias", {"name": prompt, "alias": "production", "version": "4"})
        for kind in KINDS:
            if kind != "artifact":  # A file of a run that had ended, and of the same size: only reading it shows that.
                sample(kind).mutate(rest, name_of(kind))


@pytest.mark.parametrize("way", [pytest.param("copy", marks=pytest.mark.campaign), "archive"])
def test_whatever_changes_arrives(nightly: Nightly) -> None:
    busy = Busy(nightly.rest)
    nightly.sync()
    busy.change()
    told = nightly.sync()
    assert nightly.different() == []
    assert told[-1]["objects"]["experiments"]["created"] == 1
    assert outcomes(told[-1], "run")["new"]["status"] == "created"
    assert outcomes(told[-1], "run")["another name"]["status"] == "updated"
    nightly.rest.post("runs/update", {"run_id": busy.again["run_id"], "status": "FINISHED", "end_time": BASE + 99})
    nightly.sync()
    assert nightly.different() == []


@pytest.mark.parametrize("way", ["copy", "archive"] if IS_FULL else ["copy"])
def test_what_is_added_to_ended_runs_comes_with_recheck(nightly: Nightly) -> None:
    """A point that is older than the latest one, a file, other bytes, spans. A running run is always looked into."""
    busy = Busy(nightly.rest)
    trace = new_trace(nightly.rest, busy.home, 1)
    nightly.sync()
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span(trace, 1, busy.home)]}]}]}
    nightly.rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": busy.home})
    for run in (busy.ended, busy.going):
        busy.log(run, -3)
        nightly.rest.upload(run["artifact_uri"], "late.txt", b"late")
    told = nightly.sync()
    assert {line.partition(" metric")[0].partition(" artifact")[0] for line in nightly.different()} == {
        f"experiment 'busy' run 'ended' {busy.ended['run_id']}"
    }
    assert told[0]["objects"]["artifacts"]["created"] >= 1
    assert told[0]["not_read_again"]["runs"] >= 3
    told = nightly.sync("--recheck")
    assert nightly.different() == []
    with Rest(nightly.target.uri) as new:
        assert len(new.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": trace})["spans"]) == 2
    assert told[0]["objects"]["runs"] | {"present": 0} == {"updated": 1, "present": 0}
    assert told[0]["not_read_again"] == {}
    sample("artifact").mutate(nightly.rest, name_of("artifact"))
    nightly.sync("--recheck")
    assert nightly.different() == []
    if nightly.way == "copy":  # Where nothing is known of what was carried, all of it counts as unread.
        nightly.rest.upload(busy.ended["artifact_uri"], "late.txt", b"LATE")
        nightly.sync("--recheck", "--state", str(nightly.folder))
        assert nightly.different() == []


def held(rest: Rest) -> set[str]:
    """Everything that a server holds and that is not deleted, each as its kind and its name or id."""
    homes = [one["experiment_id"] for one in rest.pages("experiments/search", "experiments", {})]
    places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in homes]
    models = [*rest.pages("registered-models/search", "registered_models", {}, method="GET")]
    prompts = [*rest.pages("registered-models/search", "registered_models", {"filter": PROMPTS}, method="GET")]
    versions = [
        *rest.pages("model-versions/search", "model_versions", {}, method="GET"),
        *rest.pages("model-versions/search", "model_versions", {"filter": PROMPTS}, method="GET"),
    ]
    traces = rest.pages(f"{V3}traces/search", "traces", {"locations": places, "max_results": 500})
    logged = rest.pages("logged-models/search", "models", {"experiment_ids": homes})
    runs = [*rest.pages("runs/search", "runs", {"experiment_ids": homes})]
    return {
        *(f"experiment {one['name']}" for one in rest.pages("experiments/search", "experiments", {})),
        *(f"run {one['info']['run_name']} {one['info']['start_time']}" for one in runs),
        *(f"logged model {one['info']['name']}" for one in logged),
        *(f"name {one['name']}" for one in [*models, *prompts]),
        *(f"version {one['name']}/{one['version']}" for one in versions),
        *(f"trace {one['trace_id']}" for one in traces),
    }


@pytest.mark.parametrize(("way", "deleted"), MIXED if IS_FULL else MIXED[1:2])
def test_what_is_deleted_stays_until_that_is_asked_for(nightly: Nightly, deleted: bool) -> None:
    """Runs, an experiment, a model, a version, a prompt, a logged model, a trace: named each night, and then gone."""
    nightly.deleted = deleted
    busy, rest = Busy(nightly.rest), nightly.rest
    gone = str(rest.post("experiments/create", {"name": "gone"})["experiment_id"])
    rest.post("runs/create", {"experiment_id": gone, "run_name": "in gone", "start_time": BASE})
    version = {"name": name_of("registered_model"), "source": "s3://elsewhere/new", "tags": TAGS}
    rest.post("model-versions/create", version)
    new_model(rest, busy.home, "doomed", busy.ended["run_id"])
    nightly.sync()
    with Rest(nightly.target.uri) as new:
        new.post("runs/create", {"experiment_id": "0", "run_name": "of somebody else", "start_time": BASE})
        before = held(new)
        delete(rest, busy, gone)
        for _ in range(2):
            told = nightly.sync()
            assert told[0]["deleted_at_source"] == DELETED
            assert held(new) == before
        assert outcomes(told[0], "run")["dies"]["status"] == "excluded"
        nightly.sync("--propagate-deletes")
        assert before - held(new) == {
            "experiment gone",
            f"run dies {BASE}",
            f"run in gone {BASE}",
            "logged model doomed",
            f"name {name_of('model_version')}",
            f"version {name_of('model_version')}/1",
            f"name {name_of('prompt')}",
            f"version {name_of('prompt')}/2",
            f"version {name_of('prompt')}/3",
            f"version {name_of('registered_model')}/13",
            f"trace {trace_ids(name_of('trace'))[0]}",
        }
        assert held(rest) == held(new) - {f"run of somebody else {BASE}"}
        assert nightly.sync("--propagate-deletes")[0]["deleted_at_source"] == {}


DELETED = {
    "experiments": 1,
    "runs": 1,
    "logged-models": 1,
    "registered-models": 1,
    "model-versions": 1,
    "prompts": 1,
    "traces": 1,
}


def delete(rest: Rest, busy: Busy, experiment: str) -> None:
    """One object of each kind."""
    rest.post("runs/delete", {"run_id": busy.dies["run_id"]})
    rest.post("experiments/delete", {"experiment_id": experiment})
    rest.delete("registered-models/delete", {"name": name_of("model_version")})
    rest.delete("registered-models/delete", {"name": name_of("prompt")})
    rest.delete("model-versions/delete", {"name": name_of("registered_model"), "version": "13"})
    (doomed,) = [one for one in models_of(rest, busy.home) if one["info"]["name"] == "doomed"]
    rest.delete(f"logged-models/{doomed['info']['model_id']}")
    home, trace = experiment_of(rest, name_of("trace")), trace_ids(name_of("trace"))[0]
    rest.post("traces/delete-traces", {"experiment_id": home, "request_ids": [trace]})

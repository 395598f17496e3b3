"""Workspaces: each arrives with everything in it, apart from all others, and nothing is lost or doubled on the way."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from amigrate.kinds import REGISTRY
from tests.campaign import IS_FULL
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.kinds import new_experiment, sample
from tests.kinds.trace import span
from tests.rest import Rest
from tests.servers import MlflowServer

pytestmark = pytest.mark.timeout(1800)

KINDS = [name for name, kind in REGISTRY.items() if not kind.opt_in]
SAME = ("experiment", "run", "artifact", "logged_model", "registered_model", "model_version", "prompt")
"""Kinds whose samples are called the same in all workspaces."""
LISTING = "/api/3.0/mlflow/workspaces"
TOGETHER = ["run", "artifact", "logged_model", "model_version", "prompt", "trace"]
WITH = ("--enable-workspaces",)
SPACES = {"default": KINDS, "team-a": KINDS if IS_FULL else TOGETHER, "team-b": ["run", "registered_model", "trace"]}
"""What is in each workspace of the source, besides an empty one."""
SETTINGS = {"description": "the A team", "trace_archival_config": {"retention": "30d"}}
ROOTED = {"default_artifact_root": "mlflow-artifacts:/rooted/b"}


def name_of(kind: str, space: str) -> str:
    """Names are unique within a workspace; ids of traces, which some samples make of names, on the whole server."""
    return f"sample of {kind}" if kind in SAME else f"{kind} of {space}"


def fill(server: MlflowServer, space: str) -> None:
    with Rest(server.uri, workspace=space) as rest:
        for kind in SPACES[space]:
            sample(kind).seed(rest, name_of(kind, space))


def make(server: MlflowServer, name: str, **settings: Any) -> None:
    with Rest(server.uri) as rest:
        rest.post(LISTING, {"name": name, **settings})


def workspaces(server: MlflowServer) -> dict[str, Any]:
    with Rest(server.uri) as rest:
        return {one["name"]: one for one in rest.get(LISTING)["workspaces"]}


def same(one: MlflowServer, other: MlflowServer, space: str, new: str = "") -> None:
    """Equal to eyes that know nothing of amigrate."""
    new = new or space
    old_one, new_one = snapshot(one.uri, workspace=space), snapshot(other.uri, workspace=new)
    assert old_one.experiments
    assert differences(old_one, new_one) == []
    with Rest(one.uri, workspace=space) as old, Rest(other.uri, workspace=new) as copy:
        for kind in SPACES[space]:
            if hasattr(sample(kind), "held"):
                name = name_of(kind, space)
                assert sample(kind).held(old, name) == sample(kind).held(copy, name), name


def told(done: subprocess.CompletedProcess[str], code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stdout + done.stderr
    parsed: dict[str, Any] = json.loads(done.stdout)
    return parsed


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    """Three workspaces in which everything is called the same, and an empty one. Nobody writes to it."""
    server = new_module_server(args=WITH)
    make(server, "team-a", **SETTINGS)
    make(server, "team-b")
    make(server, "empty", **ROOTED)
    for space in SPACES:
        fill(server, space)
    return server


@pytest.fixture(scope="module")
def target(new_module_server: NewServer) -> MlflowServer:
    """Gets everything once, by the first test that needs it."""
    return new_module_server(args=WITH)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    made = Cli(tmp_path_factory.mktemp("workspaces") / "home")
    yield made
    made.close()


def test_a_copy_of_all_and_its_repetition(source: MlflowServer, target: MlflowServer, runner: Cli) -> None:
    args = ("copy-all", "--source", source.uri, "--target", target.uri, "--workspaces", "all,team-b:blue", "--json")
    before = {space: snapshot(source.uri, workspace=space) for space in SPACES}
    first = told(runner(*args))
    for space, new in (("default", "default"), ("team-a", "team-a"), ("team-b", "blue")):
        same(source, target, space, new)
        assert differences(before[space], snapshot(source.uri, workspace=space)) == []
    found = workspaces(target)
    assert found["team-a"] == {"name": "team-a", **SETTINGS}
    assert found["empty"] == {"name": "empty", **ROOTED}
    assert set(found) == {"default", "team-a", "blue", "empty"}
    assert first["objects"]["workspaces"] == {"created": 3, "present": 1}
    parts = first["workspaces"]
    assert list(parts) == ["default", "empty", "team-a", "team-b:blue"]
    for kind, counts in first["objects"].items():
        if kind != "workspaces":
            summed = [part["objects"].get(kind, {}).get("created", 0) for part in parts.values()]
            assert counts.get("created", 0) == sum(summed), kind
    second = told(runner(*args))
    assert second["objects"]["workspaces"] == {"present": 4}
    assert not [kind for kind, counts in second["objects"].items() if counts.get("created")]
    same(source, target, "team-b", "blue")


def test_an_archive_of_workspaces_there_and_back(
    source: MlflowServer, new_server: NewServer, runner: Cli, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    out = ("export-all", "--tracking-uri", source.uri, "--output-dir", archive, "--workspaces", "all", "--json")
    assert told(runner(*out))["objects"]["workspaces"] == {"created": 4}
    listed = json.loads((archive / "manifest.json").read_text("utf-8"))["mlflow"]["workspaces"]
    assert listed == ["default", "empty", "team-a", "team-b"]
    for name in listed:
        kept = json.loads((archive / "workspaces" / name / "workspace.json").read_text("utf-8"))
        assert kept["mlflow"]["workspace"] == workspaces(source)[name]
        assert (archive / "workspaces" / name / "manifest.json").is_file()
    assert "created" not in told(runner(*out))["objects"]["runs"]
    back = new_server(args=WITH)
    into = ("import-all", "--tracking-uri", back.uri, "--input-dir", archive, "--json")
    some = told(runner(*into, "--workspaces", "team-a"))
    assert some["objects"]["workspaces"] == {"created": 1}
    assert set(workspaces(back)) == {"default", "team-a"}
    assert told(runner(*into))["objects"]["workspaces"] == {"created": 2, "present": 2}
    for space in SPACES:
        same(source, back, space)
    assert not [one for one in told(runner(*into))["objects"].values() if one.get("created")]
    # A workspace of the archive is an archive: it goes into any server, and into another workspace.
    make(back, "elsewhere")
    one = ("import-all", "--tracking-uri", back.uri, "--input-dir", archive / "workspaces" / "team-a")
    moved = told(runner(*one, "--workspace", "elsewhere", "--skip-objects", "traces", "--json"))
    assert moved["objects"]["experiments"]["created"] == len(snapshot(source.uri, workspace="team-a").experiments)


def killed_later_and_later(cli: Cli, *args: str | Path) -> int:
    """Kill the command later each time until it ends; returns how often it was killed."""
    for kills in range(20):
        process = cli.popen(*args)
        try:
            stdout, stderr = process.communicate(timeout=0.9 * (1.7 if IS_FULL else 2.5) ** kills)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            continue
        assert process.returncode == 0, stdout + stderr
        return kills
    raise AssertionError("it never ends")


@pytest.mark.campaign
def test_kills_at_any_moment(source: MlflowServer, new_server: NewServer, runner: Cli, tmp_path: Path) -> None:
    copied, imported, archive = new_server(args=WITH), new_server(args=WITH), tmp_path / "archive"
    every = ("--workspaces", "all")
    commands: Sequence[Sequence[str | Path]] = (
        ("copy-all", "--source", source.uri, "--target", copied.uri),
        ("export-all", "--tracking-uri", source.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", imported.uri, "--input-dir", archive),
    )
    assert sum(killed_later_and_later(runner, *command, *every) for command in commands) >= 3
    for space in SPACES:
        same(source, copied, space)
        same(source, imported, space)


@pytest.mark.campaign
def test_one_workspace_of_many(source: MlflowServer, new_server: NewServer, runner: Cli) -> None:
    """Who asks for none gets the default one, and hears of the others; journals of two workspaces stay apart."""
    plain, shared = new_server(), new_server(args=WITH)
    ends = ("copy-all", "--source", source.uri, "--target")
    done = told(runner(*ends, plain.uri, "--json"))
    assert done["objects"]["workspaces"] == {"excluded": 3}
    assert differences(snapshot(source.uri, workspace="default"), snapshot(plain.uri)) == []
    make(shared, "team-a")
    make(shared, "team-b")
    for space in ("team-a", "team-b"):
        one = ("--source-workspace", space, "--target-workspace", space)
        assert told(runner(*ends, shared.uri, *one, "--json"))["objects"]["workspaces"] == {"excluded": 3}
    same(source, shared, "team-a")
    same(source, shared, "team-b")
    gone = runner(*ends, shared.uri, "--source-workspace", "team-c")
    assert gone.returncode == 4
    assert f"{source.uri} has no workspace 'team-c'" in gone.stderr
    # The target is still served without workspaces: nothing is changed there.
    for args in (
        (*ends, plain.uri, "--workspaces", "team-a"),
        (*ends, source.uri, "--workspaces", "team-a"),
        (*ends, source.uri, "--source-workspace", "default"),
        (*ends, shared.uri, "--workspaces", "team-a,team-x"),
        (*ends, shared.uri, "--workspaces", "team-a:team-b,team-b"),
        (*ends, shared.uri, "--workspaces", "team-a:Team A"),
        (*ends, shared.uri, "--workspaces", "team-a", "--source-workspace", "team-a"),
        ("copy-all", "--source", plain.uri, "--target", shared.uri, "--workspaces", "all"),
    ):
        refused = runner(*args)
        assert refused.returncode == 2, args
        assert "Traceback" not in refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr


def test_a_loss_names_its_workspace(new_server: NewServer, runner: Cli, tmp_path: Path) -> None:
    """Also a place of the source that nothing new may be written to is named."""
    old, new = new_server(args=WITH), new_server(args=WITH)
    for name in ("good", "bad"):
        make(old, name, default_artifact_root="s3://old/place" if name == "bad" else "")
        with Rest(old.uri, workspace=name) as rest:
            home = new_experiment(rest, "same")
            rest.post("runs/create", {"experiment_id": home, "start_time": 1, "tags": [{"key": "t", "value": name}]})
    with Rest(old.uri, workspace="good") as rest:
        (run,) = rest.pages("runs/search", "runs", {"experiment_ids": [str(int(home) - 1)]})
        rest.upload(run["info"]["artifact_uri"], "plain", b"x")
    (plain,) = old.artifacts.rglob("plain")
    plain.rename(plain.with_name("a%41"))
    archive = tmp_path / "archive"
    out = runner("export-all", "--tracking-uri", old.uri, "--output-dir", archive, "--workspaces", "all", "--json")
    assert out.returncode == 1
    losses = {(one["workspace"], one["kind"]) for one in json.loads(out.stdout)["losses"]}
    assert losses == {("good", "artifact"), ("bad", "artifact")}
    (archive / "workspaces" / "good" / "workspace.json").write_text("{")
    (archive / "workspaces" / "bad" / "experiments" / home / "runs" / run_in(archive, "bad") / "run.json").unlink()
    into = runner("import-all", "--tracking-uri", new.uri, "--input-dir", archive, "--json")
    assert into.returncode == 1, into.stderr
    summary = json.loads(into.stdout)
    assert {(one.get("workspace"), one["kind"]) for one in summary["losses"]} == {(None, "workspace"), ("bad", "run")}
    assert "workspace bad: run" in into.stderr
    assert any("s3://old/place was not taken over" in one for one in summary["warnings"])
    assert workspaces(new)["bad"] == {"name": "bad"}


def run_in(archive: Path, space: str) -> str:
    (run,) = (archive / "workspaces" / space).glob("experiments/*/runs/*")
    return run.name


def test_a_trace_that_another_workspace_has_takes_no_others_along(
    source: MlflowServer, new_server: NewServer, runner: Cli
) -> None:
    """MLflow answers 200 to a batch with the id of such a trace, and drops every span of the batch."""
    old, new = new_server(), new_server(args=WITH)
    make(new, "theirs")
    for server, space, numbers in ((old, "", range(1, 8)), (new, "theirs", (3,))):
        with Rest(server.uri, workspace=space) as rest:
            home = new_experiment(rest, "traces")
            for number in numbers:
                own = f"tr-{number:032x}"
                told_span = span(own, 0, home) | {"span_id": b64encode(bytes([*bytes(7), number])).decode()}
                body = {"resourceSpans": [{"scopeSpans": [{"spans": [told_span]}]}]}
                rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": home})
    done = runner("copy-all", "--source", old.uri, "--target", new.uri, "--json")
    summary = told(done, 1)
    assert summary["objects"]["traces"] == {"created": 6, "left behind": 1}
    assert "another workspace of the target has a trace of this id" in summary["losses"][0]["reason"]
    with Rest(new.uri) as rest:
        for number in (1, 2, 4, 5, 6, 7):
            kept = rest.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": f"tr-{number:032x}"})
            assert len(kept["spans"]) == 1


@pytest.mark.campaign
def test_databases_with_workspaces_as_local_stores(
    source: MlflowServer, new_server: NewServer, runner: Cli, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/made.db"
    source.stop()
    try:
        args = ("copy-all", "--source", f"sqlite:///{source.database}", "--target", store, "--json")
        done = told(runner(*args, "--source-artifacts-destination", source.artifacts, "--workspaces", "all"))
        assert done["objects"]["workspaces"] == {"created": 3, "present": 1}
        plain = (
            "copy-all",
            "--source",
            f"sqlite:///{source.database}",
            "--target",
            f"sqlite:///{tmp_path}/plain.db",
            "--objects",
            "experiments",
        )
        done = told(runner(*plain, "--source-artifacts-destination", source.artifacts, "--json"))
        assert done["objects"]["workspaces"] == {"excluded": 3}
    finally:
        source.start()
    served = new_server(
        args=(*WITH, "--artifacts-destination", str(tmp_path / "mlartifacts")), backend=f"sqlite:///{tmp_path}/made.db"
    )
    for space in SPACES:
        same(source, served, space)

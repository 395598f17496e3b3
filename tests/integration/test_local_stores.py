"""Databases and folders of runs as ends of a move, through the command line: the store itself is the address."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer
from tests.e2e.test_demo import processes_in, wait_for
from tests.environments import python_of
from tests.rest import Rest
from tests.servers import PostgresServer
from tests.workspace import PLAIN, seed

pytestmark = pytest.mark.timeout(1800)

CUT = " … [cut by amigrate]"
NO_FILE_STORE_TAG = "a key // with every ../ mistake!!"
"""A file store checks the keys of tags, a SQL store does not."""
SMALL = (*PLAIN, "numbers", "files")


@dataclass(frozen=True, slots=True)
class Made:
    """What a server has left on the disk, and what was in it."""

    database: Path
    artifacts: Path
    workspace: Workspace

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.database}"


@pytest.fixture(scope="module")
def made(new_module_server: NewServer) -> Made:
    server = new_module_server()
    seed(server.uri, leave_out=SMALL)
    workspace = snapshot(server.uri)
    server.stop()
    return Made(server.database, server.artifacts, workspace)


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """With a folder for temporary files of its own, so that one can see what is left."""
    runner = Cli(tmp_path / "home")
    (tmp_path / "temporary").mkdir()
    runner.env["TMPDIR"] = str(tmp_path / "temporary")
    yield runner
    runner.close()
    assert list((tmp_path / "temporary").iterdir()) == []
    assert processes_in(tmp_path / "temporary") == []


def done(cli: Cli, *args: str | Path, code: int = 0, uri: str = "") -> Any:
    """The summary; `uri` is what MLFLOW_TRACKING_URI says."""
    ended = cli(*args, "--json", MLFLOW_TRACKING_URI=uri)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def digest(path: Path) -> str:
    """A file, or everything in a folder, its empty folders included."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    parts = sorted(f"{one.relative_to(path)} {digest(one) if one.is_file() else ''}" for one in path.rglob("*"))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def held(new_server: NewServer, backend: str, artifacts: Path) -> Workspace:
    """What a store holds, seen by way of a server of the test's own."""
    server = new_server(backend=backend, args=("--artifacts-destination", str(artifacts)), env=ALLOW)
    try:
        return snapshot(server.uri)
    finally:
        server.stop()


ALLOW = {"MLFLOW_ALLOW_FILE_STORE": "true"}


def without_tag(workspace: Workspace) -> Workspace:
    workspace = deepcopy(workspace)
    for experiment in workspace.experiments.values():
        for run in experiment.runs:
            run.tags.pop(NO_FILE_STORE_TAG, None)
    return workspace


def test_a_database_into_a_folder_and_that_into_a_database(
    made: Made, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """By way of an archive and directly. No source changes, and the same journal is found again at another port."""
    archive, runs, before = tmp_path / "archive", tmp_path / "there" / "mlruns", digest(made.database)
    done(
        cli, "export-all", "--tracking-uri", made.uri, "--artifacts-destination", made.artifacts, "--deleted",
        "--output-dir", archive,
    )  # fmt: skip
    assert digest(made.database) == before
    assert made.uri in (archive / "manifest.json").read_text("utf-8")
    into = done(cli, "import-all", "--input-dir", archive, "--deleted", code=1, uri=str(runs))
    assert {(loss["kind"], loss["id"]) for loss in into["losses"]} == {("tag", NO_FILE_STORE_TAG)}
    assert into["target"] == str(runs)

    (runs / ".trash").rename(tmp_path / "trash")
    done(cli, "export-experiment", "--experiment", "states", "--tracking-uri", runs, "--output-dir", tmp_path / "one")
    assert not (runs / ".trash").exists(), "MLflow makes it where it is missing"
    (tmp_path / "trash").rename(runs / ".trash")

    before, database = digest(runs.parent), tmp_path / "back" / "mlflow.db"
    back = ("copy-all", "--source", f"file://{runs}", "--target", f"sqlite:///{database}", "--deleted")
    first = done(cli, *back)
    assert digest(runs.parent) == before
    arrived = held(new_server, f"sqlite:///{database}", database.parent / "mlartifacts")
    assert differences(without_tag(made.workspace), arrived) == []
    again = done(cli, *back)
    assert set(again["objects"]["runs"]) == {"present"}
    assert again["report"] == first["report"]


@pytest.mark.campaign
def test_artifacts_on_plain_paths(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Read and written on the disk, whatever their names; links are named and not followed."""
    old, new = tmp_path / "old", tmp_path / "new"
    args = ("--no-serve-artifacts", "--default-artifact-root", str(old / "plain paths"))
    old.mkdir()
    server = new_server(backend=f"sqlite:///{old / 'mlflow.db'}", args=args)
    with Rest(server.uri) as rest:
        run = rest.post("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        rest.post("runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})
    server.stop()
    folder = Path(run["artifact_uri"])
    names = ("plain.txt", "deep/er/a%20b", "hash#.txt", "日本/ü", "empty")
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("" if name == "empty" else name)
    (tmp_path / "secret").write_text("not yours")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "linked folder").symlink_to(tmp_path)

    new.mkdir()
    server = new_server(
        backend=f"sqlite:///{new / 'mlflow.db'}",
        args=("--no-serve-artifacts", "--default-artifact-root", str(new / "art")),
    )
    server.stop()
    told = done(
        cli, "copy-all", "--source", f"sqlite:///{old / 'mlflow.db'}", "--target", f"sqlite:///{new / 'mlflow.db'}",
        code=1,
    )  # fmt: skip
    assert {(loss["id"], loss["status"]) for loss in told["losses"]} == {
        ("link", "left behind"),
        ("linked folder", "left behind"),
    }
    (written,) = (new / "art" / "0").glob("*/artifacts")
    assert {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()} == set(names)
    assert all((written / name).read_text() == (folder / name).read_text() for name in names)


@pytest.mark.campaign
def test_an_older_schema_is_upgraded_only_when_asked_for(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    server = new_server(backend=f"sqlite:///{database}", python=python_of("2.9.2"))
    with Rest(server.uri) as rest:
        rest.post("runs/create", {"experiment_id": "0", "start_time": 1})
    server.stop()
    before = digest(database)
    ends = ("--tracking-uri", f"sqlite:///{database}", "--output-dir", tmp_path / "archive")
    export = ("export-all", *ends, "--no-artifacts")
    refused = cli(*export)
    assert refused.returncode == 2
    assert "--upgrade-schema" in refused.stderr
    assert len(refused.stderr.splitlines()) <= 2
    assert digest(database) == before
    assert done(cli, *export, "--upgrade-schema")["objects"]["runs"] == {"created": 1}
    assert digest(database) != before


@pytest.mark.campaign
def test_a_database_without_experiment_0_is_not_given_one(made: Made, cli: Cli, tmp_path: Path) -> None:
    """`mlflow gc` removes it for good, and `mlflow server` makes it anew wherever it is missing."""
    database = tmp_path / "with spaces & 100%" / "mlflow.db"
    database.parent.mkdir()
    shutil.copyfile(made.database, database)
    with sqlite3.connect(database) as tables:
        tables.execute("DELETE FROM experiments WHERE experiment_id = 0")
    tables.close()
    before = digest(database)
    told = done(
        cli, "export-experiment", "--experiment", "states", "--tracking-uri", f"sqlite:///{database}",
        "--output-dir", tmp_path / "archive", "--artifacts-destination", made.artifacts,
    )  # fmt: skip
    assert told["objects"]["runs"]["created"] == 8
    assert digest(database) == before


def test_what_is_no_store_is_said_in_one_line(cli: Cli, tmp_path: Path) -> None:
    archive, runs, other = tmp_path / "archive", tmp_path / "mlruns", tmp_path / "other"
    (archive / "0").mkdir(parents=True)
    (archive / "0" / "experiment.json").write_text("{}")
    (runs / "0").mkdir(parents=True)
    (runs / "0" / "meta.yaml").write_text("")
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with sqlite3.connect(tmp_path / "other.db") as tables:
        tables.execute("CREATE TABLE mine (x)")
    tables.close()
    out, target = ("--output-dir", tmp_path / "out"), ("--target", "http://127.0.0.1:9")
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        (("export-all", "--tracking-uri", archive, *out), f"import-all --input-dir {archive}"),
        (("import-all", "--tracking-uri", runs, "--input-dir", runs), f"copy-all --source {runs}"),
        (("copy-all", "--source", "sqlite:///none.db", *target), "there is no MLflow database at sqlite:////"),
        (("copy-all", "--source", tmp_path / "none", *target), "there is no folder"),
        (("copy-all", "--source", other, *target), "holds no MLflow runs"),
        (("copy-all", "--source", runs, "--target", other), "neither a folder of MLflow runs nor empty"),
        (("copy-all", "--source", f"sqlite:///{tmp_path}/other.db", *target), "none of MLflow's"),
        (("copy-all", "--source", "sqlite://", *target), "no database file"),
        (("copy-all", "--source", "localhost:5000", *target), "http:// or https://"),
        (("copy-all", "--source", "databricks", *target), "http:// or https://"),
        (("copy-all", "--source", runs, "--target", f"file:{runs}"), "the same"),
    ]
    for args, words in cases:
        ended = cli(*args)
        assert ended.returncode == 2, (args, ended.stdout, ended.stderr)
        assert words in ended.stderr
        assert "Traceback" not in ended.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.campaign
def test_a_target_is_made_whole_or_not_at_all(made: Made, cli: Cli, tmp_path: Path) -> None:
    """A source that is refused, or a kill while the schema is made, leaves nothing that would be refused later."""
    target = f"sqlite:///{tmp_path}/new/target.db"
    refused = cli("copy-all", "--source", f"sqlite:///{tmp_path}/nothing.db", "--target", target)
    assert refused.returncode == 2
    assert not (tmp_path / "new").exists()
    args = ("copy-all", "--source", made.uri, "--target", target, "--objects", "experiments")
    process = cli.popen(*args)
    assert wait_for(lambda: any((tmp_path / "new").glob("target.db.*.part")), 60)
    process.kill()
    process.wait()
    assert not (tmp_path / "new" / "target.db").exists()
    assert wait_for(lambda: not processes_in(tmp_path / "temporary"), 12)
    for left in (tmp_path / "temporary").iterdir():
        shutil.rmtree(left)
    ended = cli(*args)
    assert ended.returncode == 0, ended.stderr
    assert [one.name for one in (tmp_path / "new").glob("*.part*")] == []
    assert (tmp_path / "new" / "mlartifacts").is_dir(), "such a source without it is taken for one that lost it"


@pytest.mark.campaign
def test_a_killed_move_leaves_no_server(made: Made, cli: Cli, tmp_path: Path) -> None:
    process = cli.popen("copy-all", "--source", made.uri, "--target", tmp_path / "mlruns")
    temporary = tmp_path / "temporary"
    assert wait_for(lambda: len(processes_in(temporary)) >= 4, 60), "two servers, each with its keeper"
    process.kill()
    process.wait()
    assert wait_for(lambda: not processes_in(temporary), 12)
    for left in temporary.iterdir():  # Only files: nobody was there to remove them.
        shutil.rmtree(left)


def test_files_that_lie_elsewhere_are_asked_for(made: Made, cli: Cli, tmp_path: Path) -> None:
    """A database without the folder that its server kept files in would look like one that never had any."""
    alone = tmp_path / "alone" / "mlflow.db"
    alone.parent.mkdir()
    shutil.copyfile(made.database, alone)
    uri = f"sqlite:///{alone}"
    refused = cli("export-all", "--tracking-uri", uri, "--output-dir", tmp_path / "archive")
    assert refused.returncode == 4
    assert f"there is no folder {alone.parent}/mlartifacts" in refused.stdout
    assert "--artifacts-destination" in refused.stdout


@pytest.mark.campaign
def test_a_private_server_that_dies_is_told_and_the_copy_continues(made: Made, cli: Cli, tmp_path: Path) -> None:
    """As when the system is short of memory: nothing is asked of it again and again, and the same command goes on."""
    target = tmp_path / "target.db"
    kept: tuple[str | Path, ...] = ("--source-artifacts-destination", made.artifacts)
    ends = ("--source", made.uri, "--target", f"sqlite:///{target}")
    args = ("copy-all", *ends, *kept, "--max-requests-per-second", "8")
    process = cli.popen(*args)
    assert wait_for(lambda: rows_of(target, "SELECT COUNT(*) FROM runs") > 2, 120), "the copy has begun"
    servers = [one for one in processes_in(tmp_path / "temporary") if "uvicorn" in " ".join(one.cmdline())]
    for one in servers:
        one.kill()
    began = time.monotonic()
    said, _ = process.communicate()
    assert process.returncode == 4
    assert time.monotonic() - began < 12
    assert "the private MLflow server for sqlite:///" in said and "has ended" in said
    assert "continue with: " in said
    again = cli(*args)
    assert again.returncode == 0, again.stderr
    assert cli("verify", made.uri, f"sqlite:///{target}", *kept).returncode == 0


def rows_of(database: Path, query: str) -> int:
    """One number out of a database that somebody else may be making; 0 while there is none."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute(query).fetchone()[0])
    return 0


@pytest.mark.campaign
@pytest.mark.debian
def test_postgres_as_an_end(
    made: Made, postgres: PostgresServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """By its own address. Its tags end at 8000 characters; no password is found anywhere."""
    secret = "unspeakable"
    plain = postgres.create_database()
    uri, artifacts, archive = plain.replace("postgres@", f"postgres:{secret}@"), tmp_path / "kept", tmp_path / "archive"
    into = done(
        cli, "copy-all", "--source", made.uri, "--source-artifacts-destination", made.artifacts, "--deleted",
        "--target", uri, "--target-artifacts-destination", artifacts, code=1,
    )  # fmt: skip
    assert [(loss["kind"], loss["id"]) for loss in into["losses"]] == [("tag", "long tag")]
    wanted = deepcopy(made.workspace)
    (run,) = (run for run in wanted.experiments["texts"].runs if "long tag" in run.tags)
    run.tags["long tag"] = "t" * (8000 - len(CUT)) + CUT
    assert differences(wanted, held(new_server, plain, artifacts)) == []

    out = ("--artifacts-destination", artifacts, "--output-dir", archive, "--deleted", "--json")
    ended = cli("export-all", "--tracking-uri", uri, *out)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["bytes"] > 0
    written = [path for folder in (archive, cli.home, tmp_path) for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if secret.encode() in path.read_bytes()]
    assert secret not in ended.stdout + ended.stderr
    postgres.execute("SET session_replication_role = replica; DELETE FROM experiments WHERE experiment_id = 0", plain)
    refused = cli("export-all", "--tracking-uri", uri, "--output-dir", tmp_path / "second")
    assert refused.returncode == 2
    assert "has no experiment 0" in refused.stderr

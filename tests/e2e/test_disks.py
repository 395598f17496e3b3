"""Disks that are full, read-only or not there, and journals that are lost: told in one line, and nothing is half."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer
from tests.rest import Rest
from tests.servers import MlflowServer, refill

LARGE = 3 * 1024 * 1024
"""Bytes of the largest file."""
POINTS = 15_000
REASONS = ("cannot continue: ", "cannot finish: ", "error: ")
LIMITED = """
import resource
from amigrate.cli.app import main
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
main()
"""


class Limited(Cli):
    """Runs amigrate where no file can become larger than `size` bytes: a full disk that needs no privileges."""

    size = resource.RLIM_INFINITY

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-c", LIMITED.format(size=self.size), *map(str, args)]


@dataclass(frozen=True, slots=True)
class Filled:
    """A source that nobody writes to any more."""

    server: MlflowServer
    held: Workspace


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> Filled:
    """A long history, a large file, small files, a tree of runs."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        experiment = rest.post("experiments/create", {"name": "busy"})["experiment_id"]
        runs: list[str] = []
        for number in range(3):
            tags = [{"key": "mlflow.parentRunId", "value": runs[0]}] if runs else []
            made = {"experiment_id": experiment, "run_name": f"run {number}", "start_time": number + 1, "tags": tags}
            info = rest.post("runs/create", made)["run"]["info"]
            runs.append(info["run_id"])
            rest.post("runs/log-batch", {"run_id": info["run_id"], "params": [{"key": "lr", "value": "0.1"}]})
            rest.post("runs/update", {"run_id": info["run_id"], "status": "FINISHED", "end_time": 9})
            rest.upload(info["artifact_uri"], "small/file.txt", b"small")
        rest.upload(info["artifact_uri"], "large.bin", bytes(range(256)) * (LARGE // 256))
    with closing(sqlite3.connect(server.database)) as database, database:
        rows = [("loss", step / 7, step, runs[0], step, 0) for step in range(POINTS)]
        columns = "(key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
        database.executemany(f"INSERT INTO metrics {columns}", rows)
        database.execute(f"INSERT INTO latest_metrics {columns}", rows[-1])
    return Filled(server, snapshot(server.uri))


@pytest.fixture(scope="module")
def second(new_module_server: NewServer) -> MlflowServer:
    return new_module_server()


@pytest.fixture
def target(second: MlflowServer, empty_database: Path) -> MlflowServer:
    refill(second, empty_database)
    return second


@pytest.fixture(scope="module")
def exported(source: Filled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source's archive. Copy it before something is written to it."""
    folder = tmp_path_factory.mktemp("exported")
    done = Cli(folder / "home")("export-all", "--tracking-uri", source.server.uri, "--output-dir", folder / "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "all"


@pytest.fixture
def archive(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "archive")


@pytest.fixture
def limited(tmp_path: Path) -> Limited:
    return Limited(tmp_path / "limited")


def export(cli: Cli, source: Filled, folder: Path) -> subprocess.CompletedProcess[str]:
    return cli("export-all", "--tracking-uri", source.server.uri, "--output-dir", folder)


def load(cli: Cli, archive: Path, target: MlflowServer) -> Any:
    """Import; returns the summary."""
    done = cli("import-all", "--tracking-uri", target.uri, "--input-dir", archive, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def cannot_continue(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit code 4 and exactly one line that says why, whatever else is summed up."""
    said = done.stdout + done.stderr
    assert done.returncode == 4, said
    assert "Traceback" not in said
    assert "internal error" not in said
    reasons = [line for line in said.splitlines() if line.startswith(REASONS)]
    assert len(reasons) == 1, said
    for word in words:
        assert word in reasons[0]


def nothing_half(folder: Path) -> None:
    """What lies under a final name is whole: documents parse, files have all of their bytes."""
    assert not list(folder.rglob("*.part"))
    for path in folder.rglob("*"):
        if path.is_file() and ".amigrate" not in path.parts:
            sizes = {".json": 0, ".txt": len(b"small"), ".bin": LARGE}
            assert path.suffix in sizes, path
            if path.suffix == ".json":
                json.loads(path.read_text("utf-8"))
            else:
                assert path.stat().st_size == sizes[path.suffix]


def complete(folder: Path, exported: Path) -> None:
    """An archive holds what one holds whose export nothing was in the way of."""
    nothing_half(folder)
    assert contents(folder) == contents(exported)
    assert (folder / "manifest.json").is_file()


def contents(archive: Path) -> dict[str, Any]:
    """The files of an archive by their paths: bytes, and of documents all but when they were written."""
    held: dict[str, Any] = {}
    for path in (archive / "experiments").rglob("*"):
        if path.is_file():
            held[str(path.relative_to(archive))] = path.read_bytes() if path.suffix != ".json" else stated(path)
    return held


def stated(path: Path) -> Any:
    document = json.loads(path.read_text("utf-8"))
    return document["mlflow"], {
        key: value for key, value in document["info"].items() if key not in ("status", "sha256")
    }


# ---- a disk that went dark --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reached_the_disk", [True, False])
def test_a_power_cut(source: Filled, exported: Path, archive: Path, cli: Cli, reached_the_disk: bool) -> None:
    """The journal calls files whole of which nothing had reached the disk; unless their session had come to its end."""
    with closing(sqlite3.connect(archive / ".amigrate/export/journal.db")) as journal, journal:
        changed = journal.execute("UPDATE meta SET value = '\"another\"' WHERE name = 'system start'")
        assert changed.rowcount == 1
        if not reached_the_disk:
            assert journal.execute("DELETE FROM meta WHERE name = 'on disk'").rowcount == 1
            (large,) = archive.rglob("large.bin")
            large.write_bytes(b"")
            (small, *_) = archive.rglob("file.txt")
            os.truncate(small.parents[2] / "run.json", 0)
    done = cli("export-all", "--tracking-uri", source.server.uri, "--output-dir", archive, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["not_read_again"] == ({"runs": 3} if reached_the_disk else {})
    assert ["system went down" in one for one in told["warnings"]] == [True] * (not reached_the_disk)
    complete(archive, exported)


# ---- a disk that is full ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (LARGE - 256 * 1024, "large.bin cannot be written: File too large"),
        (LARGE - 1, "large.bin cannot be written: File too large"),
        (POINTS * 40, "cannot be written: File too large"),
        (20_000, "the journal in"),
    ],
    ids=["a chunk of a file", "the last byte of a file", "a document", "the journal"],
)
def test_a_disk_that_takes_no_more(
    source: Filled, exported: Path, limited: Limited, cli: Cli, tmp_path: Path, size: int, words: str
) -> None:
    """No file under its final name is half, and the same command continues once there is room."""
    limited.size = size
    done = export(limited, source, tmp_path / "out")
    cannot_continue(done, words)
    nothing_half(tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert export(cli, source, tmp_path / "out").returncode == 0
    complete(tmp_path / "out", exported)


def test_a_report_that_cannot_be_written(source: Filled, cli: Cli, tmp_path: Path) -> None:
    """What was done is summed up all the same."""
    (tmp_path / "file").touch()
    out = ("--tracking-uri", source.server.uri, "--output-dir", tmp_path / "out")
    done = cli("export-all", *out, "--report", tmp_path / "file" / "report.json", "--json")
    cannot_continue(done, "report.json cannot be written", "is no folder")
    assert json.loads(done.stdout)["objects"]["runs"] == {"created": 3}
    assert (tmp_path / "out" / "manifest.json").is_file()


# ---- folders that are none --------------------------------------------------------------------------------------


def test_a_folder_below_a_file(source: Filled, target: MlflowServer, archive: Path, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    ends = ("--source", source.server.uri, "--target", target.uri)
    where = f"{file}{os.sep}new"
    cannot_continue(export(cli, source, file / "new"), where, "Not a directory")
    cannot_continue(cli("copy-all", *ends, "--state", file), str(file), "there is a file of that name")
    cannot_continue(cli("copy-all", *ends, "--state", file / "new"), where, "Not a directory")
    into = ("--tracking-uri", target.uri, "--input-dir", archive)
    cannot_continue(cli("import-all", *into, "--state", file / "new"), where, "Not a directory")
    assert file.read_text() == "mine"
    assert set(snapshot(target.uri).experiments) == {"Default"}


# ---- a disk that is read-only -----------------------------------------------------------------------------------


class Mounts(Cli):
    """Runs a shell script in which every `amigrate` is ours, with mounts of its own that go when it ends."""

    prefix: tuple[str, ...] = ()

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        script = f'amigrate() {{ "{sys.executable}" -m amigrate "$@"; }}\n{args[0]}'
        return [*self.prefix, "sh", "-euc", script, "sh", *map(str, args[1:])]


@pytest.fixture
def mounts(tmp_path: Path) -> Mounts:
    """With or without privileges. Many containers let nobody mount anything: a full and a read-only disk cannot be had
    there, and plain `pytest` has to pass where only Python and pip are."""
    runner = Mounts(tmp_path / "mounts")
    for prefix in (("unshare", "--mount"), ("unshare", "--mount", "--map-root-user")):
        runner.prefix = prefix
        if shutil.which("unshare") and runner('mount -t tmpfs none "$1"', tmp_path).returncode == 0:
            return runner
    pytest.skip("this system does not let us mount anything, not even for ourselves")


READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1"\n'


def test_a_small_disk(source: Filled, exported: Path, mounts: Mounts, tmp_path: Path) -> None:
    """It is full in the middle of an export; made larger, the same command continues."""
    (tmp_path / "disk").mkdir()
    script = """
        mount -t tmpfs -o size=2m none "$1"
        code=0
        amigrate export-all --tracking-uri "$2" --output-dir "$1/out" || code=$?
        echo "ended with $code"
        find "$1" -name '*.part' -exec echo half: {} +
        mount -o remount,size=64m "$1"
        amigrate export-all --tracking-uri "$2" --output-dir "$1/out" > "$3/again"
        cp -a "$1/out" "$3/out"
    """
    done = mounts(script, tmp_path / "disk", source.server.uri, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ended with 4" in done.stdout
    assert "No space left on device" in done.stdout or "disk is full" in done.stdout
    assert "continue with: amigrate export-all" in done.stdout
    assert "half:" not in done.stdout
    assert "Traceback" not in done.stderr
    complete(tmp_path / "out", exported)


def test_an_archive_on_a_read_only_disk(
    source: Filled, target: MlflowServer, archive: Path, mounts: Mounts, cli: Cli
) -> None:
    """Its journal goes to the user's state folder, is found there again, and the archive is as it was."""
    before = sorted(archive.rglob("*"))
    script = READ_ONLY + 'amigrate import-all --input-dir "$1" --tracking-uri "$2" --json'
    for expected in ("created", "present"):
        done = mounts(script, archive, target.uri)
        assert done.returncode == 0, done.stdout + done.stderr
        told = json.loads(done.stdout)
        assert told["objects"]["runs"] == {expected: 3}
        assert Path(told["report"]).is_relative_to(mounts.home / "state" / "amigrate")
    assert sorted(archive.rglob("*")) == before
    assert differences(source.held, snapshot(target.uri)) == []


def test_an_archive_that_its_reader_does_not_own(target: MlflowServer, archive: Path, tmp_path: Path) -> None:
    """The same by permissions, which count for everybody but root: it gives up that privilege first."""
    reader = Mounts(tmp_path / "reader")
    if os.geteuid() == 0:
        reader.prefix = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search")
    archive.chmod(0o500)
    try:
        done = reader('amigrate import-all --input-dir "$1" --tracking-uri "$2" --json', archive, target.uri)
    finally:
        archive.chmod(0o700)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["objects"]["runs"] == {"created": 3}
    assert Path(told["report"]).is_relative_to(reader.home / "state" / "amigrate")


def test_a_journal_on_a_read_only_disk(
    source: Filled, target: MlflowServer, mounts: Mounts, cli: Cli, tmp_path: Path
) -> None:
    """Whether there is one already or not: the disk is named, not a process that does not exist."""
    state = tmp_path / "state"
    state.mkdir()
    copy = 'amigrate copy-all --source "$2" --target "$3" --state "$1/here"\n'
    args = (state, source.server.uri, target.uri)
    cannot_continue(mounts(READ_ONLY + copy, *args), f"{state}/here", "Read-only file system")
    assert set(snapshot(target.uri).experiments) == {"Default"}
    assert mounts(copy, *args).returncode == 0
    cannot_continue(mounts(READ_ONLY + copy, *args), f"{state}/here", "the folder cannot be written to")
    cannot_continue(mounts(READ_ONLY + 'amigrate export-all --tracking-uri "$2" --output-dir "$1/x"', *args), "x")


# ---- journals that are lost -------------------------------------------------------------------------------------


def test_an_import_without_its_journal(source: Filled, target: MlflowServer, archive: Path, cli: Cli) -> None:
    assert load(cli, archive, target)["objects"]["runs"] == {"created": 3}
    shutil.rmtree(archive / ".amigrate")
    again = load(cli, archive, target)
    assert again["objects"]["runs"] == {"present": 3}
    assert again["objects"]["experiments"] == {"present": 2}
    assert differences(source.held, snapshot(target.uri)) == []


def test_an_import_after_a_copy(source: Filled, target: MlflowServer, archive: Path, cli: Cli) -> None:
    """Two ways to one target: what one brought, the other finds."""
    done = cli("copy-all", "--source", source.server.uri, "--target", target.uri)
    assert done.returncode == 0, done.stdout + done.stderr
    assert load(cli, archive, target)["objects"]["runs"] == {"present": 3}
    assert differences(source.held, snapshot(target.uri)) == []

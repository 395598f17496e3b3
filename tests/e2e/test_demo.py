"""`amigrate demo` as a user runs it: what it says, what it leaves, and that no server ever stays behind."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import psutil
import pytest

from amigrate import local
from amigrate.core.errors import NoServer, UsageError
from tests.conftest import Cli

SAMPLE = {"experiments": 7, "runs": 40, "artifacts": 33}
"""What the sample holds, and experiment 0, which every server has."""
QUICKLY = 12.0
"""Seconds within which everything has to be gone."""


def processes_in(folder: Path) -> list[psutil.Process]:
    """The processes that work in a folder: the keepers, the servers and whatever those have started."""
    return [process for process in psutil.process_iter() if str(folder) in cwd_of(process)]


def cwd_of(process: psutil.Process) -> str:
    try:
        return "" if process.status() == psutil.STATUS_ZOMBIE else process.cwd()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def wait_for(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it came to be in time."""
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def read_until(stream: IO[str] | None, words: str) -> None:
    assert stream is not None
    for line in stream:
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said")


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where the demo makes its temporary folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    return folder


def test_demo(cli: Cli, temporary: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    # A proxy that leads nowhere: nothing of this may ask it.
    nowhere = "http://127.0.0.1:9"
    began = time.monotonic()
    done = cli("demo", "--json", "--output-dir", archive, TMPDIR=str(temporary), HTTP_PROXY=nowhere, http_proxy=nowhere)
    elapsed = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert sum(part["seconds"] for part in [*said["moves"], said["comparison"]]) < elapsed, "each counts its own time"
    assert said["comparison"]["objects"] == {
        kind: {"=": number, "*": 0, "-": 0, "+": 0, "!": 0} for kind, number in SAMPLE.items()
    }
    assert said["comparison"]["equal"]
    assert said["comparison"]["differences"] == []
    assert [move["command"] for move in said["moves"]] == ["export-all", "import-all"]
    assert [move["exit_code"] for move in said["moves"]] == [0, 0]
    assert "all 80 objects are the same on both sides" in done.stderr
    assert said["archive"] == str(archive)
    assert (archive / "manifest.json").is_file()
    assert len(list(archive.glob("experiments/*/runs/*/run.json"))) == SAMPLE["runs"]
    assert processes_in(temporary) == []
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "number"),
    [
        pytest.param("starting two", signal.SIGINT, marks=pytest.mark.campaign, id="interrupted while servers start"),
        pytest.param("importing", signal.SIGINT, id="interrupted while runs are imported"),
        pytest.param("filling", signal.SIGKILL, marks=pytest.mark.campaign, id="killed"),
    ],
)
def test_no_server_stays_behind(cli: Cli, temporary: Path, words: str, number: signal.Signals) -> None:
    process = cli.popen("demo", TMPDIR=str(temporary))
    read_until(process.stderr, words)
    assert wait_for(lambda: len(processes_in(temporary)) >= 4, 60), "both servers should be there, each with its keeper"
    process.send_signal(number)
    assert process.wait(QUICKLY) == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert wait_for(lambda: not processes_in(temporary), QUICKLY), processes_in(temporary)


def test_a_folder_in_use_is_refused_at_once(cli: Cli, temporary: Path) -> None:
    (temporary / "mine.txt").write_text("mine")
    done = cli("demo", "--output-dir", temporary, timeout=30)
    assert done.returncode == 2
    assert "not an empty folder" in done.stderr


async def start(folder: Path) -> None:
    async with local.private_server(folder):
        raise AssertionError("it cannot have started")


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'amigrate\[local\]'"):
        asyncio.run(start(tmp_path))


def test_a_server_that_dies_is_told_with_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last_words = [sys.executable, "-c", "import sys; sys.exit('no such database')"]
    monkeypatch.setattr(local, "_command", lambda *_: last_words)
    with pytest.raises(NoServer, match=r"did not start: no such database"):
        asyncio.run(start(tmp_path))
    assert processes_in(tmp_path) == []

"""Killed, interrupted, run twice at once: the same command again completes the work, and nothing arrives twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy
from tests.workspace import ScaleName

pytestmark = pytest.mark.timeout(3600)

MOMENTS = (1.0, 1.8, 2.6)
"""Seconds after the start: while listing, while runs are made, while points and files move."""
ROUNDS = {"small": 1, "full": 10}
"""Each round kills at every moment: 3 kills of each command in the small campaign, 30 in the full one."""


@pytest.fixture
def slow(source_server: SourceServer) -> Iterator[str]:
    """The shared source, behind a network on which no machine is done before it is interrupted."""
    none: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
    with FaultProxy(source_server.uri, seed=1, latency=0.1, **none) as proxy:
        yield proxy.uri


def kill_and_resume(cli: Cli, args: Sequence[str | Path], shift: float) -> int:
    """Kill the command at each moment, then let it end; returns how many kills really hit."""
    kills = 0
    for moment in MOMENTS:
        process = cli.popen(*args)
        try:
            process.wait(moment + shift)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    done = cli(*args)
    assert done.returncode == 0, done.stdout + done.stderr
    return kills


def whole_documents(folder: Path) -> None:
    """Nothing half-written lies under a final name."""
    for path in folder.rglob("*.json"):
        if "artifacts" not in path.parts and ".amigrate" not in path.parts:
            json.loads(path.read_text("utf-8"))


def test_kills_during_a_copy(
    slow: str, source_snapshot: Workspace, new_server: NewServer, cli: Cli, campaign: ScaleName
) -> None:
    kills = 0
    for number in range(ROUNDS[campaign]):
        target = new_server()
        args = ("copy-all", "--source", slow, "--target", target.uri, "--deleted")
        kills += kill_and_resume(cli, args, number * 0.13)
        assert differences(source_snapshot, snapshot(target.uri)) == []
        target.stop()
    assert kills >= 2 * ROUNDS[campaign]


def test_kills_during_an_export_and_an_import(
    slow: str,
    source_snapshot: Workspace,
    new_server: NewServer,
    cli: Cli,
    campaign: ScaleName,
    tmp_path: Path,
) -> None:
    kills = 0
    for number in range(ROUNDS[campaign]):
        target, folder = new_server(), tmp_path / str(number)
        out = ("export-all", "--tracking-uri", slow, "--output-dir", folder, "--deleted")
        kills += kill_and_resume(cli, out, number * 0.13)
        whole_documents(folder)
        back = ("import-all", "--tracking-uri", target.uri, "--input-dir", folder, "--deleted")
        kills += kill_and_resume(cli, back, number * 0.13)
        assert differences(source_snapshot, snapshot(target.uri)) == []
        target.stop()
    assert kills >= 4 * ROUNDS[campaign]


def test_an_interrupted_export_leaves_no_half_file(slow: str, cli: Cli, tmp_path: Path) -> None:
    args = ("export-all", "--tracking-uri", slow, "--output-dir", tmp_path / "all")
    process = cli.popen(*args)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.kill()
    process.wait()
    whole_documents(tmp_path / "all")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.campaign), signal.SIGTERM])
def test_signals_end_in_seconds_and_the_named_command_continues(
    number: signal.Signals,
    slow: str,
    source_snapshot: Workspace,
    new_server: NewServer,
    cli: Cli,
) -> None:
    target = new_server()
    process = cli.popen("copy-all", "--source", slow, "--target", target.uri, "--deleted")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2.0)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=8)
    assert process.returncode == 130, stderr
    continues = next(line for line in stdout.splitlines() if line.startswith("continue with: amigrate "))
    done = cli(*continues.removeprefix("continue with: amigrate ").split())
    assert done.returncode == 0, done.stderr
    assert differences(source_snapshot, snapshot(target.uri)) == []


def test_a_second_process_on_one_journal_stops(source_server: SourceServer, cli: Cli, tmp_path: Path) -> None:
    args = ("export-all", "--tracking-uri", source_server.uri, "--output-dir", tmp_path / "all")
    first = cli.popen(*args)
    while not [*tmp_path.rglob("journal.db")]:  # Made once the lock is held.
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    second = cli(*args)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 4, second.stdout + second.stderr
    assert "in use by another amigrate process" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.wait(120) == 0


def test_a_new_server_at_an_old_address_gets_everything(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """The journal says whole, the target shows nothing: the target is right."""
    target = new_server()
    args = ("copy-all", "--source", source_server.uri, "--target", target.uri, "--deleted", "--json")
    assert cli(*args).returncode == 0
    target.stop()
    target.database.unlink()
    target.start()
    again = cli(*args)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["objects"]["runs"] == {"created": len(source_server.seeded.run_ids)}
    assert differences(source_snapshot, snapshot(target.uri)) == []

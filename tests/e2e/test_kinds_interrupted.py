"""Every kind survives kills at any moment: nothing is lost, nothing arrives twice, no placeholder is left."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from amigrate.kinds import REGISTRY
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import sample
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import ScaleName

pytestmark = pytest.mark.timeout(3600)

SEEDS = 2
"""Samples of each kind."""
STEP = {"small": 0.45, "full": 0.05}
"""Seconds between the moments of two kills; each is that much later than the one before."""


def names() -> list[tuple[str, str]]:
    return [(kind, f"{name_of(kind)} {number}") for kind in REGISTRY for number in range(SEEDS)]


def kill_later_and_later(cli: Cli, args: Sequence[str | Path], step: float) -> int:
    """Until the command has come to its end; returns the number of kills."""
    kills, moment = 0, 0.7
    while True:
        process = cli.popen(*args)
        try:
            stdout, stderr = process.communicate(timeout=moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills, moment = kills + 1, moment + step
            continue
        assert process.returncode == 0, stdout + stderr
        return kills


def same(source: MlflowServer, target: MlflowServer) -> None:
    """Equal to eyes that know nothing of amigrate."""
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for kind, name in names():
            if hasattr(sample(kind), "held"):
                assert sample(kind).held(old, name) == sample(kind).held(new, name), name


def test_kills_while_every_kind_moves(new_server: NewServer, cli: Cli, campaign: ScaleName, tmp_path: Path) -> None:
    source, copied, imported = new_server(), new_server(), new_server()
    with Rest(source.uri) as rest:
        for kind, name in names():
            sample(kind).seed(rest, name)
    archive = tmp_path / "archive"
    kills = 0
    for args in (
        ("copy-all", "--source", source.uri, "--target", copied.uri),
        ("export-all", "--tracking-uri", source.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", imported.uri, "--input-dir", archive),
    ):
        kills += kill_later_and_later(cli, args, STEP[campaign])
    assert kills >= 3
    same(source, copied)
    same(source, imported)


def test_every_kind_between_two_bad_networks(new_server: NewServer, cli: Cli) -> None:
    """Answers lost after their effect, resets, 503, cut bodies: exact, and nothing twice."""
    source, target = new_server(), new_server()
    with Rest(source.uri) as rest:
        for kind, name in names():
            sample(kind).seed(rest, name)
    with FaultProxy(source.uri, seed=3) as reading, FaultProxy(target.uri, seed=4) as writing:
        done = cli("copy-all", "--source", reading.uri, "--target", writing.uri, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sum(writing.faults.values()) > 10
    same(source, target)

"""Every kind survives kills at any moment, and being moved again: nothing is lost, nothing arrives twice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import objects, plain_kinds, prepare, sample
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import ScaleName

pytestmark = pytest.mark.timeout(3600)

SEEDS = {"small": 1, "full": 2}
"""Samples of each kind."""
STEP = {"small": 0.45, "full": 0.05}
"""Seconds between the moments of two kills; each is that much later than the one before."""

MOMENTS = (0.1, 0.5, 1.0, 1.5)
"""Seconds after the first experiment has arrived until one server restarts, and again until the other one does."""


def names(campaign: ScaleName) -> list[tuple[str, str]]:
    return [(kind, f"{name_of(kind)} {number}") for kind in plain_kinds() for number in range(SEEDS[campaign])]


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


def same(source: MlflowServer, target: MlflowServer, campaign: ScaleName) -> None:
    """Equal to eyes that know nothing of amigrate."""
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for kind, name in names(campaign):
            if hasattr(sample(kind), "held"):
                assert sample(kind).held(old, name) == sample(kind).held(new, name), name


NewTarget = Callable[[], MlflowServer]


@pytest.fixture(scope="module")
def source(new_module_server: NewServer, campaign: ScaleName) -> MlflowServer:
    """Samples of every kind. Nobody writes to it."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        for kind, name in names(campaign):
            sample(kind).seed(rest, name)
    return server


@pytest.fixture
def new_target(new_server: NewServer, campaign: ScaleName) -> NewTarget:
    """Starts a server that holds only what an operator enters by hand."""

    def start() -> MlflowServer:
        server = new_server()
        with Rest(server.uri) as rest:
            prepare(rest, names(campaign))
        return server

    return start


def test_kills_while_every_kind_moves(
    source: MlflowServer, new_target: NewTarget, cli: Cli, campaign: ScaleName, tmp_path: Path
) -> None:
    copied, imported, archive = new_target(), new_target(), tmp_path / "archive"
    kills = 0
    for args in (
        ("copy-all", "--source", source.uri, "--target", copied.uri),
        ("export-all", "--tracking-uri", source.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", imported.uri, "--input-dir", archive),
    ):
        kills += kill_later_and_later(cli, (*args, "--objects", objects()), STEP[campaign])
    assert kills >= 3
    same(source, copied, campaign)
    same(source, imported, campaign)


@pytest.mark.campaign
@pytest.mark.parametrize("moment", MOMENTS)
def test_both_servers_restart_in_the_middle(
    moment: float, source: MlflowServer, new_target: NewTarget, cli: Cli, campaign: ScaleName
) -> None:
    """Each is killed and comes back with what it had stored: the command goes on by itself."""
    target = new_target()
    process = cli.popen("copy-all", "--source", source.uri, "--target", target.uri, "--objects", objects())
    with Rest(target.uri) as rest:
        while len([*rest.pages("experiments/search", "experiments", {})]) < 2:
            assert process.poll() is None
    for server in (target, source):
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moment)
        server.stop()
        server.start()
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 0, stdout + stderr
    same(source, target, campaign)


@pytest.mark.campaign
def test_every_kind_between_two_bad_networks(
    source: MlflowServer, new_target: NewTarget, cli: Cli, campaign: ScaleName
) -> None:
    """Answers lost after their effect, resets, 503, cut bodies: exact, and nothing twice."""
    target = new_target()
    with FaultProxy(source.uri, seed=3) as reading, FaultProxy(target.uri, seed=4) as writing:
        ends = ("--source", reading.uri, "--target", writing.uri)
        done = cli("copy-all", *ends, "--objects", objects(), timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sum(writing.faults.values()) > 10
    same(source, target, campaign)


def created(done: subprocess.CompletedProcess[str]) -> dict[str, int]:
    """How many of each kind a command has made."""
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)["objects"]
    return {kind: counts["created"] for kind, counts in told.items() if counts.get("created")}


@pytest.mark.campaign
def test_archives_that_overlap_and_a_copy(
    source: MlflowServer, new_target: NewTarget, cli: Cli, campaign: ScaleName, tmp_path: Path
) -> None:
    """Some of the experiments, then all, then a copy: every object once."""
    target, some, everything = new_target(), tmp_path / "some", tmp_path / "all"
    kinds = ("--objects", objects(), "--json")
    # A scorer behind the gateway is refused until its endpoint is there, which no choice of experiments takes along.
    half = ",".join(name for kind, name in names(campaign)[::2] if "gateway" not in name_of(kind))
    made = ("--tracking-uri", source.uri, "--output-dir")
    assert created(cli("export-experiments", "--experiments", half, *made, some, *kinds))["runs"]
    assert created(cli("export-all", *made, everything, *kinds))["runs"]
    into = ("--tracking-uri", target.uri, "--input-dir")
    assert created(cli("import-experiments", *into, some, *kinds))["runs"]
    assert created(cli("import-all", *into, everything, *kinds))["runs"]
    same(source, target, campaign)
    assert created(cli("copy-all", "--source", source.uri, "--target", target.uri, *kinds)) == {}
    for command, archive in (("import-experiments", some), ("import-all", everything)):
        assert created(cli(command, *into, archive, *kinds)) == {}
    same(source, target, campaign)


@pytest.mark.campaign
def test_a_new_server_at_an_old_address(
    source: MlflowServer, new_target: NewTarget, cli: Cli, campaign: ScaleName
) -> None:
    """Whatever the journal says is whole, the empty target gets it again."""
    target = new_target()
    args = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", objects(), "--json")
    first = created(cli(*args))
    target.stop()
    target.database.unlink()
    target.start()
    with Rest(target.uri) as rest:
        prepare(rest, names(campaign))
    assert created(cli(*args)) == first
    same(source, target, campaign)

"""Old servers: what they can take goes in, what they hold comes out, and what they cannot take is named and counted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import IS_FULL
from tests.comparison import Run, Workspace, differences, snapshot
from tests.conftest import Cli, NewServer
from tests.environments import python_of
from tests.servers import MlflowServer
from tests.verified import verified
from tests.workspace import PLAIN, seed

pytestmark = pytest.mark.timeout(3600)

VERSIONS = ("1.30.1", "2.0.1", "2.9.2", "2.22.5", "3.0.1", "3.4.0") if IS_FULL else ("2.9.2",)
"""In the small campaign: one in the middle."""
CUT = " … [cut by amigrate]"


@pytest.fixture(scope="module", params=VERSIONS)
def old(request: pytest.FixtureRequest, new_module_server: NewServer) -> Iterator[tuple[str, MlflowServer]]:
    """An empty server of an old version."""
    version = request.param
    args = ("--serve-artifacts",) if version.startswith("1.") else ()
    server = new_module_server(python=python_of(version), args=args)
    yield version, server
    server.stop()


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    seed(server.uri, leave_out=() if IS_FULL else PLAIN)
    return server


@pytest.fixture(scope="module")
def source_snapshot(source: MlflowServer) -> Workspace:
    return snapshot(source.uri)


def copied(cli: Cli, source: str, target: str, state: Path) -> Any:
    done = cli("copy-all", "--source", source, "--target", target, "--deleted", "--json", "--state", state)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def test_into_an_old_server_and_out_of_it_again(
    old: tuple[str, MlflowServer],
    source: MlflowServer,
    source_snapshot: Workspace,
    new_server: NewServer,
    cli: Cli,
    tmp_path: Path,
) -> None:
    version, server = old
    expected, losses = taken_by(version, source_snapshot)
    planned = json.loads(cli("plan", source.uri, server.uri, "--deleted", "--json").stdout)
    told = copied(cli, source.uri, server.uri, tmp_path / "in")
    foreseen, left = ({(one["kind"], one["key"]) for one in said["losses"]} for said in (planned, told))
    assert foreseen <= left
    assert {kind for kind, _ in left - foreseen} <= ({"dataset-input"} if release_of(version) >= (2, 4) else set())
    held = snapshot(server.uri)
    assert differences(expected, shared_datasets(version, held)) == []
    assert {
        kind: counts["left behind"] for kind, counts in told["objects"].items() if "left behind" in counts
    } == losses
    assert "failed" not in {status for counts in told["objects"].values() for status in counts}
    again = copied(cli, source.uri, server.uri, tmp_path / "in")
    assert not {"created", "updated"} & set(again["objects"]["runs"])

    target = new_server()
    told = copied(cli, server.uri, target.uri, tmp_path / "out")
    assert told["losses"] == [], told
    assert differences(held, snapshot(target.uri)) == []
    assert verified(cli, server.uri, target.uri, "--deleted").found == []


# What a version takes -------------------------------------------------------------------------------------------------


def taken_by(version: str, workspace: Workspace) -> tuple[Workspace, dict[str, int]]:
    """What has to be on a server of this version when everything was copied, and what is lost, by kind."""
    release = release_of(version)
    wanted = shared_datasets(version, workspace)
    lost = {"metrics": 0, "params": 0, "dataset-inputs": 0}
    for run in _runs(wanted):
        if release < (2, 16):  # A colon is no part of a key.
            colons = [key for key in run.metrics if ":" in key]
            lost["metrics"] += len(colons)
            run.metrics = {key: points for key, points in run.metrics.items() if key not in colons}
        if release < (2, 8):  # Params end at 500 characters.
            lost["params"] += sum(len(value) > 500 for value in run.params.values())
            run.params = {key: _cut(value, 500) for key, value in run.params.items()}
        if release < (2, 4):  # There are no dataset inputs.
            lost["dataset-inputs"] += len(run.inputs)
            run.inputs = {}
    if (2, 4) <= release < (3, 10):
        lost["dataset-inputs"] = len(_runs_with_another_iris(workspace))
    return wanted, {kind: number for kind, number in lost.items() if number}


def release_of(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))


def shared_datasets(version: str, workspace: Workspace) -> Workspace:
    """Before 3.10 one dataset stands for all of its name and digest: which one is left open here."""
    workspace = deepcopy(workspace)
    if release_of(version) < (3, 10):
        for run in _runs(workspace):
            for key in {"iris aaaa1111"} & run.inputs.keys():
                run.inputs[key] = replace(run.inputs[key], source_type="", source="", schema="", profile="")
    return workspace


def _runs_with_another_iris(workspace: Workspace) -> Sequence[Run]:
    """The first one that comes is kept, and that is the one of most of the runs."""
    return [
        run
        for run in _runs(workspace)
        if "iris aaaa1111" in run.inputs and run.inputs["iris aaaa1111"].source != '{"uri": "/data/iris.csv"}'
    ]


def _runs(workspace: Workspace) -> list[Run]:
    return [run for experiment in workspace.experiments.values() for run in experiment.runs]


def _cut(value: str, limit: int) -> str:
    return value if len(value) <= limit else value[: limit - len(CUT)] + CUT

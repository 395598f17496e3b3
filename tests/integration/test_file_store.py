"""File stores: nothing is doubled in them whatever happens on the way, and everything comes out of them."""

from __future__ import annotations

import json
import math
import subprocess
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import IS_FULL
from tests.comparison import Point, Run, Workspace, differences, snapshot
from tests.conftest import Cli, NewServer
from tests.environments import python_of
from tests.fakes.fault_proxy import FaultProxy
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.verified import verified
from tests.workspace import HOSTILE_NAMES, PLAIN, seed, stored_value

pytestmark = pytest.mark.timeout(1800)

ALLOW = {"MLFLOW_ALLOW_FILE_STORE": "true"}
REFUSED_TAG = "a key // with every ../ mistake!!"
VERSIONS = ("", "2.22.5", "2.9.2") if IS_FULL else ("",)
"""The installed MLflow says that it has a file store; an older one has to be found out."""


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    seed(server.uri, leave_out=(*HOSTILE_NAMES, *("long series", "files", "crowd") * (not IS_FULL)))
    return server


@pytest.fixture(scope="module")
def expected(source: MlflowServer) -> Workspace:
    """What a file store holds when everything was copied: it checks the keys of tags."""
    workspace = snapshot(source.uri)
    for run in runs_of(workspace):
        run.tags.pop(REFUSED_TAG, None)
    return workspace


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def target(version: str, new_server: NewServer, tmp_path: Path) -> MlflowServer:
    python = python_of(version) if version else None
    return new_server(backend=str(tmp_path / "mlruns"), env=ALLOW, python=python)


def taken_by(version: str, workspace: Workspace) -> tuple[Workspace, list[str]]:
    """What a file store of this version takes of it, and the keys that it refuses: before 2.16 any with a colon."""
    taken, refused = deepcopy(workspace), [REFUSED_TAG]
    for run in runs_of(taken) if version == "2.9.2" else ():
        colons = [key for key in run.metrics if ":" in key]
        refused += colons
        run.metrics = {key: points for key, points in run.metrics.items() if key not in colons}
    return taken, refused


def runs_of(workspace: Workspace) -> list[Run]:
    return [run for experiment in workspace.experiments.values() for run in experiment.runs]


def copied(cli: Cli, source: str, target: str, *more: str) -> Any:
    done = cli("copy-all", "--source", source, "--target", target, "--deleted", "--json", *more)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout)


def test_lost_answers_double_nothing(
    source: MlflowServer, expected: Workspace, version: str, target: MlflowServer, cli: Cli
) -> None:
    """Half of the batches fail, most of them after they took effect: only what is missing is sent again."""
    taken, refused = taken_by(version, expected)
    only_batches = lambda method, path: path.endswith("/runs/log-batch")  # noqa: E731
    with FaultProxy(target.uri, seed=5, lost_answers=0.3, resets=0.1, cut_bodies=0.1, only=only_batches) as proxy:
        told = copied(cli, source.uri, proxy.uri)
        assert proxy.faults["lost_answers"] > 10
    assert sorted(loss["id"] for loss in told["losses"]) == sorted(refused)
    assert differences(taken, snapshot(target.uri)) == []


@pytest.mark.campaign
def test_a_param_of_several_lines_may_come_twice(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """A file store compares what it has without its \\r, and refuses the same param once more."""
    source, target = new_server(), new_server(backend=str(tmp_path / "mlruns"), env=ALLOW)
    with Rest(source.uri) as rest:
        for number in range(16):
            run = rest.post("runs/create", {"experiment_id": "0", "start_time": number})["run"]["info"]["run_id"]
            params = [{"key": "lines", "value": f"one\r\ntwo {number}"}, {"key": "line", "value": "one"}]
            rest.post("runs/log-batch", {"run_id": run, "params": params})
            rest.post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": number})
    only_batches = lambda method, path: path.endswith("/runs/log-batch")  # noqa: E731
    with FaultProxy(target.uri, seed=5, lost_answers=0.3, only=only_batches) as proxy:
        told = copied(cli, source.uri, proxy.uri)
        assert proxy.faults["lost_answers"] > 3
    assert told["losses"] == []
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []


@pytest.mark.campaign
def test_killed_and_resumed(
    source: MlflowServer, expected: Workspace, version: str, target: MlflowServer, cli: Cli
) -> None:
    """A run that was begun is read back first. Without any journal, too."""
    taken, _ = taken_by(version, expected)
    args = ("copy-all", "--source", source.uri, "--target", target.uri, "--deleted")
    kills = 0
    for seconds in (1.5, 2.0, 2.5, 3.0):
        process = cli.popen(*args)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
    assert kills
    copied(cli, source.uri, target.uri)
    assert differences(taken, snapshot(target.uri)) == []
    with Rest(source.uri) as rest:  # A run that goes on is written once more, with what is new.
        found = rest.post("experiments/search", {"max_results": 100})["experiments"]
        states = next(one["experiment_id"] for one in found if one["name"] == "states")
        running = next(
            run["info"]["run_id"]
            for run in rest.post("runs/search", {"experiment_ids": [states]})["runs"]
            if run["info"]["run_name"] == "running"
        )
        points = [{"key": "later", "value": step % 2, "timestamp": 5, "step": 0} for step in range(2)]
        rest.post("runs/log-batch", {"run_id": running, "metrics": points})
        copied(cli, source.uri, target.uri, "--state", str(cli.home / "another journal"))
        more = [{"key": "later", "value": 7, "timestamp": 9, "step": 1}]
        rest.post("runs/log-batch", {"run_id": running, "metrics": more})
    copied(cli, source.uri, target.uri)
    wanted = deepcopy(taken)
    late = next(run for run in runs_of(wanted) if run.run_id == running)
    late.metrics["later"] = [(0.0, 5, 0), (1.0, 5, 0), (7.0, 9, 1)]
    assert differences(wanted, snapshot(target.uri)) == []
    with Rest(source.uri) as rest:
        expected.experiments["states"].runs[:] = wanted.experiments["states"].runs


def test_out_of_a_file_store(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Points in any order, infinities, points that are there twice: as a SQL store keeps them."""
    source = new_server(backend=str(tmp_path / "mlruns"), env=ALLOW)
    seeded = seed(source.uri, leave_out=(*PLAIN, "texts", "families", "files"))
    with Rest(source.uri) as rest:
        twice = [{"key": "twice", "value": 1, "timestamp": 5, "step": step} for step in (1, 1, 0, 1)]
        rest.post("runs/log-batch", {"run_id": seeded.run_ids["running"], "metrics": twice})
    held = snapshot(source.uri)
    target = new_server()
    assert copied(cli, source.uri, target.uri)["exit_code"] == 0
    assert verified(cli, source.uri, target.uri, "--deleted").found == [], "what SQL makes of it is no difference"
    assert differences(as_sql(held), snapshot(target.uri)) == []
    assert differences(held, snapshot(source.uri)) == []


@pytest.mark.campaign
def test_a_long_series_comes_in_one_answer(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """A file store does not page: what is too large to be parsed at once is parsed from the disk."""
    source, number = new_server(backend=str(tmp_path / "mlruns"), env=ALLOW), 140_000
    with Rest(source.uri) as rest:
        run = rest.post("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
    metrics = tmp_path / "mlruns" / "0" / run / "metrics"
    (metrics / "long").write_text("".join(f"{10**12 + step} {step / 7} {step}\n" for step in range(number)))
    done = cli("export-all", "--tracking-uri", source.uri, "--output-dir", tmp_path / "archive")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "archive").rglob("run.json")
    (points,) = json.loads(path.read_text("utf-8"))["mlflow"]["metrics"].values()
    read = [(point["value"], point["timestamp"], point["step"]) for point in points]
    assert read == [(step / 7, 10**12 + step, step) for step in range(number)]


def test_what_a_file_store_cannot_hold_is_named(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """A metric cannot be named like the folder of another: one stays behind, and nothing is doubled on the way."""
    source, target = new_server(), new_server(backend=str(tmp_path / "mlruns"), env=ALLOW)
    keys = ("loss", "acc", "acc/top 5", "zeal")
    points = [{"key": key, "value": step, "timestamp": 1, "step": step} for key in keys for step in range(3)]
    with Rest(source.uri) as rest:
        run = rest.post("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
        rest.post("runs/log-batch", {"run_id": run, "metrics": points, "params": [{"key": "p", "value": "1"}]})
        rest.post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": 2})
    (loss,) = copied(cli, source.uri, target.uri)["losses"]
    assert (loss["kind"], loss["status"]) == ("metric", "left behind")
    assert loss["id"] in ("acc", "acc/top 5"), "whichever came second"
    wanted = snapshot(source.uri)
    del runs_of(wanted)[0].metrics[loss["id"]]
    assert differences(wanted, snapshot(target.uri)) == []


def as_sql(workspace: Workspace) -> Workspace:
    """What becomes of points in a SQL store: sorted, each once, infinities as the largest numbers, NaN as a zero."""
    workspace = deepcopy(workspace)
    for run in runs_of(workspace):
        run.metrics = {key: sorted(set(map(_stored, points)), key=_place) for key, points in run.metrics.items()}
    return workspace


def _stored(point: Point) -> Point:
    value = stored_value(point[0])
    return (math.nan if math.isnan(value) else value), point[1], point[2]


def _place(point: Point) -> tuple[int, int, float, bool]:
    is_nan = math.isnan(point[0])
    return point[1], point[2], 0.0 if is_nan else point[0], is_nan

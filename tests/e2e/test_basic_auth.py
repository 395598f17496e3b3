"""MLflow's own basic authentication: an administrator, and a user who may read half of the experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.basic_auth import started
from tests.conftest import Cli, NewServer
from tests.rest import API, Rest
from tests.secrets import PASSWORD
from tests.servers import MlflowServer

V3 = "/api/3.0/mlflow/"
ADMIN: dict[str, Any] = {"MLFLOW_TRACKING_USERNAME": "root", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
ADA: dict[str, Any] = {"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": PASSWORD}
KINDS = ("experiments", "runs", "artifacts", "issues", "evaluation-datasets")
SEEN = "all counts are of what this user may see"


@pytest.fixture(scope="module")
def server(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> MlflowServer:
    """The basic-auth application with `open` and `shut` experiments, one run in each."""
    server = started(new_module_server, tmp_path_factory.mktemp("auth"))
    with Rest(server.uri, auth=("root", PASSWORD)) as rest:
        rest.post(f"{API}users/create", {"username": "ada", "password": PASSWORD})
        for name in ("open 1", "shut 1", "open 2", "shut 2"):
            experiment = rest.post(f"{API}experiments/create", {"name": name})["experiment_id"]
            run = rest.post(f"{API}runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]
            rest.upload(run["artifact_uri"], "f.txt", name.encode())
            rest.post(f"{API}runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})
            rest.post(f"{V3}issues", {"experiment_id": experiment, "name": name, "description": "wrong"})
            rest.post(f"{V3}datasets/create", {"experiment_ids": [experiment], "name": name})
            if name.startswith("open"):
                grant = {"username": "ada", "resource_type": "experiment", "resource_id": experiment}
                rest.post(f"{V3}users/permissions/grant", {**grant, "permission": "READ"})
    return server


def test_ping_says_who_one_is_and_what_it_costs(server: MlflowServer, discreet: Cli) -> None:
    done = discreet("ping", server.uri, "--json", "--debug", **ADMIN)
    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert told["administrator"] is True
    assert told["experiments"] == 5
    assert told["artifacts_proxied"] is True
    assert told["login_ms"] > 100
    assert any("hashes the password" in warning for warning in told["warnings"])
    done = discreet("ping", server.uri, "--debug", **ADA)
    assert done.returncode == 0
    assert SEEN in done.stdout
    done = discreet("ping", server.uri, **(ADA | {"MLFLOW_TRACKING_PASSWORD": f"{PASSWORD}x"}))
    assert done.returncode == 4
    assert "check user name and password" in done.stderr


def test_exports_hold_what_the_user_may_see(server: MlflowServer, discreet: Cli, tmp_path: Path) -> None:
    """The administrator gets all; the user gets half, and is told that it may be a part only."""
    counts = {}
    for name, login in (("all", ADMIN), ("half", ADA)):
        folder = tmp_path / name
        done = discreet(
            "export-all", "--tracking-uri", server.uri, "--output-dir", folder, "--json", "--debug", **login
        )
        told = json.loads(done.stdout)
        assert done.returncode == 0, (told["losses"], done.stderr)
        assert any(SEEN in warning for warning in told["warnings"]) == (login is ADA)
        counts[name] = {kind: told["objects"][kind]["created"] for kind in KINDS}
    assert counts["all"] == {"experiments": 5, "runs": 4, "artifacts": 4, "issues": 4, "evaluation-datasets": 4}
    assert counts["half"] == {"experiments": 2, "runs": 2, "artifacts": 2, "issues": 2, "evaluation-datasets": 2}


def test_what_may_not_be_written_fails_alone(
    server: MlflowServer, new_server: NewServer, discreet: Cli, tmp_path: Path
) -> None:
    """Experiments that the user may only read refuse the new runs; the one that he creates gets its run."""
    source = new_server()
    with Rest(source.uri) as rest:
        for name in ("open 1", "his own"):
            experiment = rest.post(f"{API}experiments/create", {"name": name})["experiment_id"]
            rest.post(f"{V3}issues", {"experiment_id": experiment, "name": name, "description": "slow"})
            rest.post(f"{V3}datasets/create", {"experiment_ids": [experiment], "name": "of two"})
            run = rest.post(f"{API}runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]
            rest.post(f"{API}runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})
    copy = ("copy-all", "--source", source.uri, "--target", server.uri, "--state", tmp_path / "state", "--json")
    done = discreet(*copy, "--debug", AMIGRATE_TARGET_USERNAME="ada", AMIGRATE_TARGET_PASSWORD=PASSWORD)
    told = json.loads(done.stdout)
    assert "objects" in told, done.stderr
    assert done.returncode == 1, done.stderr
    assert told["objects"]["runs"]["created"] == 1, done.stderr
    assert told["objects"]["runs"]["failed"] == 1
    assert told["objects"]["issues"] == {"created": 1, "failed": 1}
    assert all("not permitted (403" in loss["reason"] for loss in told["losses"] if loss["kind"] == "run")

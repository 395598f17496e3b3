"""Users, roles and permissions between two servers with MLflow's basic authentication."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from amigrate.options import Basic
from tests import secrets
from tests.basic_auth import ROOT, started
from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.environments import python_of
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import experiment_of, new_experiment, role, sample, user
from tests.kinds.role import V3
from tests.kinds.user import users
from tests.rest import Rest, RestError
from tests.servers import MlflowServer
from tests.verified import compared

KINDS = ("role", "user")
LOGIN: dict[str, Any] = {
    f"AMIGRATE_{end}{name}": value
    for end in ("", "SOURCE_", "TARGET_")
    for name, value in (("USERNAME", ROOT[0]), ("PASSWORD", ROOT[1]))
}
EVERYTHING = ("--objects", "all,users")


def told(cli: Cli, code: int, *args: str | Path) -> Any:
    done = cli(*args, "--json", "--debug", **LOGIN)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def source(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> MlflowServer:
    server = started(new_module_server, tmp_path_factory.mktemp("source"), cached=True)
    with Rest(server.uri, auth=ROOT) as rest:
        for kind in KINDS:
            sample(kind).seed(rest, name_of(kind))
    return server


@pytest.fixture
def target(new_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> MlflowServer:
    """One whose experiments get other ids than the source's."""
    server = started(new_server, tmp_path_factory.mktemp("target"), cached=True)
    with Rest(server.uri, auth=ROOT) as rest:
        for number in range(3):
            rest.post("experiments/create", {"name": f"in the way {number}"})
    return server


@pytest.fixture
def passwords(elsewhere: Path) -> Path:
    """New ones for every user but the administrator that both servers have."""
    path = elsewhere / "passwords"
    path.write_text(json.dumps(dict.fromkeys(users(name_of("user")), secrets.TOKEN)))
    path.chmod(0o600)
    return path


def test_they_arrive_and_a_comparison_tells_what_changed(
    source: MlflowServer, target: MlflowServer, discreet: Cli, passwords: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    told(discreet, 0, "export-all", "--tracking-uri", source.uri, "--output-dir", archive, *EVERYTHING)
    into = ("import-all", "--tracking-uri", target.uri, "--input-dir", archive, *EVERYTHING)

    summary = told(discreet, 1, *into)
    assert summary["objects"]["users"] == {"present": 1, "left behind": 2}
    assert any("--passwords FILE" in loss["reason"] for loss in summary["losses"])

    summary = told(discreet, 0, *into, "--passwords", passwords)
    assert summary["objects"]["users"] == {"present": 1, "created": 2}
    admin, one = users(name_of("user"))
    with Rest(source.uri, auth=ROOT) as old, Rest(target.uri, auth=ROOT) as new:
        for kind in KINDS:
            assert sample(kind).held(old, name_of(kind)) == sample(kind).held(new, name_of(kind))
        with Rest(target.uri, auth=(admin, secrets.TOKEN)) as rest:
            assert len(rest.get("users/list")["users"]) == 3

        login = Basic(*ROOT)
        assert {finding.sigil for finding in found(source, target, login)} == {"="}
        for kind in KINDS:
            sample(kind).mutate(new, name_of(kind))
        different = [finding for finding in found(source, target, login) if finding.sigil != "="]
        assert sorted((finding.sigil, finding.ref.kind) for finding in different) == [("*", kind) for kind in KINDS]

        # What was taken from a user at the target stays away; his new password stays too.
        gone = {"username": one, "resource_type": "registered_model", "resource_id": "*"}
        new.post(f"{V3}users/permissions/revoke", gone)
        summary = told(discreet, 0, *into, "--passwords", passwords)
        assert summary["objects"]["users"] == {"present": 3}
        assert ("registered_model", "*", "READ") not in user.user(new, one, "no")[2]


def found(source: MlflowServer, target: MlflowServer, login: Basic) -> list[Any]:
    """What a comparison says of roles and users."""
    return [one for one in asyncio.run(compared(source, target, login)) if one.ref.kind in KINDS]


@pytest.mark.campaign
def test_what_was_there_stays_and_lost_answers_do_no_harm(
    source: MlflowServer, target: MlflowServer, discreet: Cli, passwords: Path
) -> None:
    """A user and a role of the same names are there; one permission is on what is not at the target."""
    admin, one = users(name_of("user"))
    home = name_of("user")
    with Rest(source.uri, auth=ROOT) as old, Rest(target.uri, auth=ROOT) as new:
        user.grant(old, one, "experiment", "4711", "READ")
        new.post("users/create", {"username": admin, "password": secrets.PASSWORD})
        new.post(f"{V3}roles/create", {"name": home, "workspace": "default", "description": "ours"})
        writes = lambda method, path: method != "GET" and ("/users/" in path or "/roles/" in path)  # noqa: E731
        lossy = FaultProxy(target.uri, seed=11, lost_answers=0.4, only=writes)
        with lossy as writing:
            copy = ("copy-all", "--source", source.uri, "--target", writing.uri, *EVERYTHING)
            summary = told(discreet, 1, *copy, "--passwords", passwords)
        assert lossy.faults["lost_answers"] > 3
        assert summary["objects"]["users"] == {"present": 2, "created": 1}
        assert summary["objects"]["grants"] == {"left behind": 1}
        assert any(f"role '{home}' was at the target before" in warning for warning in summary["warnings"])
        with pytest.raises(RestError), Rest(target.uri, auth=(admin, secrets.TOKEN)) as rest:
            rest.get("users/list")
        assert user.user(new, admin, "no")[0] is False
        arrived = user.user(new, one, experiment_of(new, home))
        assert arrived[1] == [home]
        assert ("experiment", "<home>", "MANAGE") in arrived[2]
        assert role.role(new, home)["permissions"] == []


@pytest.fixture
def old_server(new_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> MlflowServer:
    return started(new_server, tmp_path_factory.mktemp("old"), python=python_of("2.9.2"))


def test_an_old_server_is_asked_for_those_that_the_operator_names(
    old_server: MlflowServer, target: MlflowServer, discreet: Cli, elsewhere: Path
) -> None:
    given = elsewhere / "passwords"
    given.write_text(f"ada: {secrets.TOKEN}\n")
    with Rest(old_server.uri, auth=ROOT) as old, Rest(target.uri, auth=ROOT) as new:
        for name in ("ada", "bob"):
            old.post("users/create", {"username": name, "password": secrets.PASSWORD})
        home = new_experiment(old, "hers")
        old.post("registered-models/create", {"name": "hers"})
        for own, permission in ((home, "EDIT"), ("0", "NO_PERMISSIONS")):
            body = {"username": "ada", "experiment_id": own, "permission": permission}
            old.post("experiments/permissions/create", body)
        body = {"username": "ada", "name": "hers", "permission": "READ"}
        old.post("registered-models/permissions/create", body)
        copy = ("copy-all", "--source", old_server.uri, "--target", target.uri, *EVERYTHING, "--passwords", given)
        summary = told(discreet, 0, *copy)
        assert summary["objects"]["users"] == {"created": 1}
        assert any("those that --passwords names" in warning for warning in summary["warnings"])
        grants = [("experiment", "0", "DENY"), ("experiment", "<home>", "EDIT"), ("registered_model", "hers", "READ")]
        assert user.user(new, "ada", experiment_of(new, "hers")) == [False, [], grants]


def test_servers_that_have_no_users_say_so_once(
    source: MlflowServer, new_server: NewServer, discreet: Cli, passwords: Path
) -> None:
    plain = new_server()
    copy = ("copy-all", "--source", plain.uri, "--target", source.uri, *EVERYTHING, "--passwords", passwords)
    summary = told(discreet, 0, *copy)
    assert len([warning for warning in summary["warnings"] if "shows no users" in warning]) == 1
    copy = ("copy-all", "--source", source.uri, "--target", plain.uri, *EVERYTHING, "--passwords", passwords)
    summary = told(discreet, 1, *copy)
    assert set(summary["objects"]["users"]) == {"left behind"}
    assert set(summary["objects"]["roles"]) == {"left behind"}

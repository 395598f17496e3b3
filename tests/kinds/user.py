"""Sample users: an administrator, and one with a role and permissions of his own."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, role
from tests.kinds.role import V3, told
from tests.rest import Rest
from tests.secrets import PASSWORD

server = "basic-auth"


def users(name: str) -> tuple[str, str]:
    """The administrator and the other one."""
    return f"admin of {name}", f"user: {name} ü"


def seed(rest: Rest, name: str) -> None:
    role.seed(rest, name)
    admin, user = users(name)
    for one in (admin, user):
        rest.post("users/create", {"username": one, "password": PASSWORD})
    rest.patch("users/update-admin", {"username": admin, "is_admin": True})
    rest.post(f"{V3}roles/assign", {"username": user, "role_id": role.role(rest, name)["id"]})
    for kind, own, permission in (
        ("experiment", experiment_of(rest, name), "MANAGE"),
        ("registered_model", name, "DENY"),
        ("registered_model", "*", "READ"),
    ):
        grant(rest, user, kind, own, permission)


def grant(rest: Rest, user: str, kind: str, own: str, permission: str) -> None:
    body = {"username": user, "resource_type": kind, "resource_id": own, "permission": permission}
    rest.post(f"{V3}users/permissions/grant", body)


def roots(rest: Rest, name: str) -> set[str]:
    return {*users(name)}


def mutate(rest: Rest, name: str) -> None:
    grant(rest, users(name)[1], "experiment", "0", "READ")


def held(rest: Rest, name: str) -> Any:
    return [user(rest, one, experiment_of(rest, name)) for one in users(name)]


def user(rest: Rest, name: str, home: str) -> Any:
    """Whether a user is an administrator, his roles, and what he was given alone."""
    (found,) = (one for one in rest.get("users/list")["users"] if one["username"] == name)
    mine = f"__user_{found['id']}__"
    roles = sorted(one["name"] for one in found["roles"] if one["name"] != mine)
    own = [row for one in found["roles"] if one["name"] == mine for row in one["permissions"]]
    return [found["is_admin"], roles, told(own, home)]

"""A sample role: permissions on one experiment, one model, one scorer, and on everything of a kind."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, new_experiment
from tests.rest import Rest

server = "basic-auth"
V3 = "/api/3.0/mlflow/"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    rest.post("registered-models/create", {"name": name})
    role = {"name": name, "workspace": "default", "description": "who may what"}
    own = rest.post(f"{V3}roles/create", role)["role"]["id"]
    for kind, pattern, permission in (
        ("experiment", home, "EDIT"),
        ("experiment", "*", "READ"),
        ("registered_model", name, "MANAGE"),
        ("scorer", f"{home}/a%20scorer%2Fü", "USE"),
        ("trace", "*", "DENY"),
        ("workspace", "*", "USE"),
    ):
        rest.post(f"{V3}roles/permissions/add", permission_of(own, kind, pattern, permission))


def permission_of(role: int, kind: str, pattern: str, permission: str) -> dict[str, Any]:
    return {"role_id": role, "resource_type": kind, "resource_pattern": pattern, "permission": permission}


def role(rest: Rest, name: str) -> dict[str, Any]:
    (found,) = (one for one in rest.get(f"{V3}roles/list")["roles"] if one["name"] == name)
    return dict(found)


def told(rows: list[dict[str, Any]], home: str) -> list[tuple[str, str, str]]:
    """Permissions with the id of the sample's experiment replaced."""
    patterns = [row["resource_pattern"].replace(home, "<home>", 1) for row in rows]
    return sorted(
        (row["resource_type"], pattern, row["permission"]) for row, pattern in zip(rows, patterns, strict=True)
    )


def roots(rest: Rest, name: str) -> set[str]:
    return {str(role(rest, name)["id"])}


def mutate(rest: Rest, name: str) -> None:
    rest.post(f"{V3}roles/permissions/add", permission_of(role(rest, name)["id"], "experiment", "0", "READ"))


def held(rest: Rest, name: str) -> Any:
    found = role(rest, name)
    return [found["description"], found["workspace"], told(found["permissions"], experiment_of(rest, name))]

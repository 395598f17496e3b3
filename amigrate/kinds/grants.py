"""Permissions on objects, as roles and users of MLflow's basic authentication hold them.

A grant names a type and a pattern: `*`, or one object. That is an id for experiments and the gateway's objects, a name
for registered models, prompts and MCP servers, and `<experiment id>/<name>` for scorers, the name percent-encoded.
Types that only take `*` (runs, traces, …) name nothing. Before 3.13, NO_PERMISSIONS could be granted; DENY means that
today, where leaving it out would let the server's default in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from amigrate.client.api import Api
from amigrate.core.model import Doc, Outcome, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, items, mapping, text
from amigrate.kinds.limits import lost

DEFAULT = "default"
"""The workspace of servers that have none."""
ANY = "*"
DENY, NO_PERMISSIONS = "DENY", "NO_PERMISSIONS"
SCORER = "scorer"
KINDS: dict[str, tuple[str, ...]] = {
    "experiment": ("experiment",),
    "registered_model": ("registered_model", "prompt"),
    "prompt": ("prompt", "registered_model"),
    "gateway_secret": ("gateway_secret",),
    "gateway_endpoint": ("gateway_endpoint",),
    "gateway_model_definition": ("gateway_model_definition",),
    "mcp_server": ("mcp_server",),
}
"""By type, the kinds whose objects a pattern may name; to older servers, prompts were registered models."""
NEEDED = (
    "experiment",
    "registered_model",
    "prompt",
    "gateway_secret",
    "gateway_model_definition",
    "gateway_endpoint",
    "mcp_server",
)
"""Kinds that have to be at the target before grants on their objects."""


@dataclass(frozen=True, slots=True, order=True)
class Grant:
    """One permission."""

    type: str
    pattern: str
    permission: str

    @property
    def place(self) -> tuple[str, str]:
        """What it is a permission on."""
        return self.type, self.pattern

    def doc(self) -> Doc:
        return {"resource_type": self.type, "resource_pattern": self.pattern, "permission": self.permission}

    def __str__(self) -> str:
        return f"{self.permission} on {self.type} {self.pattern}"


def workspace_of(api: Api) -> str:
    """The workspace that is read or written."""
    return api.http.server.workspace or DEFAULT


def grants_of(rows: Iterable[Doc]) -> list[Grant]:
    """The grants of a role, as a server or a document lists them."""
    return sorted(Grant(str(row["resource_type"]), str(row["resource_pattern"]), row["permission"]) for row in rows)


def decoded(value: Any) -> list[Doc]:
    """Grants in a document."""
    rows = [mapping(one, "a permission") for one in items(value, "permissions")]
    return [
        Grant(
            text(row.get("resource_type") or None, "resource_type"),
            identity(row.get("resource_pattern"), "resource_pattern"),
            text(row.get("permission") or None, "permission"),
        ).doc()
        for row in rows
    ]


def mapped(grant: Grant, ids: Ids) -> Grant | None:
    """A grant in the target's terms; None where what it names is not there."""
    pattern = _elsewhere(grant, ids.new_id)
    return None if pattern is None else Grant(grant.type, pattern, _today(grant.permission))


def named(grants: Iterable[Grant], names: Names) -> list[list[str]]:
    """Grants in terms that both sides of a comparison share."""
    return sorted([one.type, _elsewhere(one, names) or one.pattern, _today(one.permission)] for one in grants)


def _today(permission: str) -> str:
    return DENY if permission == NO_PERMISSIONS else permission


def missing(grant: Grant, owner: Ref) -> Outcome:
    """A grant on what is not at the target."""
    return lost("grant", f"{grant.type} {grant.pattern}", owner, f"{grant}: that is not at the target (yet)")


def _elsewhere(grant: Grant, told: Callable[[str, str], str | None]) -> str | None:
    """What a pattern is on the other side."""
    if grant.pattern == ANY:
        return ANY
    if grant.type == SCORER:
        experiment, slash, name = grant.pattern.partition("/")
        new = told("experiment", experiment)
        return None if new is None else f"{new}{slash}{name}"
    found = (told(kind, grant.pattern) for kind in KINDS.get(grant.type, ()))
    return next((one for one in found if one is not None), None)

"""Roles of MLflow's basic authentication, with their permissions. See `grants`.

Endpoints (`/api/3.0/mlflow/roles/…`, 3.13+, administrators only): GET list shows those of every workspace with their
permissions, POST create, PATCH update, POST permissions/add, PATCH permissions/update. A role belongs to a workspace;
those of other workspaces than the one that moves stay. Roles named `__user_<id>__` are how a server keeps what single
users may do: see `user`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, Rejected, Unsupported
from amigrate.core.model import Deferred, Doc, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, mapping, text
from amigrate.kinds import grants
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.grants import DEFAULT, Grant, grants_of, workspace_of
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import WholeScan

ROLES = f"{V3}/roles"
LIST = Endpoint("GET", f"{ROLES}/list")
CREATE = Endpoint("POST", f"{ROLES}/create", Work.WRITE)
UPDATE = Endpoint("PATCH", f"{ROLES}/update", Work.WRITE)
ADD = Endpoint("POST", f"{ROLES}/permissions/add", Work.WRITE)
CHANGE = Endpoint("PATCH", f"{ROLES}/permissions/update", Work.WRITE)
OF_ONE_USER = re.compile(r"__user_\d+__")


@dataclass(slots=True)
class Open:
    """A role that is being written."""

    waiting: list[Grant] = field(default_factory=list)
    """Permissions on what is not at the target."""
    losses: list[Outcome] = field(default_factory=list)


class Role(Kind):
    """See the module."""

    name = "role"
    label = "roles"
    group = "users"
    needs = grants.NEEDED
    opt_in = True
    keeps_edits = True
    folder = "roles"
    document = "role.json"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest([record.doc.get("description"), [one.doc() for one in _grants(record.doc)]])

    def excluded(self, record: Record, deleted: bool) -> str:
        if record.doc.get("elsewhere"):
            return f"belongs to workspace '{record.doc['workspace']}', which is not the one that moves"
        return ""

    def match(self, record: Record) -> str:
        return record.name

    def comparable(self, record: Record, names: Names) -> Doc:
        return {"description": record.doc.get("description") or "", "grants": grants.named(_grants(record.doc), names)}

    def encode(self, record: Record) -> Doc:
        doc = {key: value for key, value in record.doc.items() if key not in ("archive", "permissions")}
        return {**doc, "permissions": [one.doc() for one in _grants(record.doc)]}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(document.get("mlflow"), "mlflow")
        return _record(
            {
                "id": identity(given.get("id"), "id") or ref_id,
                "name": text(given.get("name") or None, "name"),
                "workspace": text(given.get("workspace") or DEFAULT, "workspace"),
                "elsewhere": bool(given.get("elsewhere")),
                "description": text(given.get("description") or "", "description"),
                "permissions": grants.decoded(given.get("permissions")),
            }
        )

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: _listed(api))

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By name, among the roles of the target's workspace."""
        if not target.index.loaded(self.name):
            async for page in _listed(target.api):
                for held in page:
                    if not held.doc["elsewhere"]:
                        facts = codec.dumps(held.doc).decode()
                        target.index.add(self.name, [held.name], Found(held.ref.id, False), facts)
            target.index.mark(self.name)
        found = {record.ref.key: target.index.get(self.name, record.name) for record in records}
        return {key: held[0] for key, held in found.items() if held is not None}

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        body = {"name": record.name, "workspace": workspace_of(target.api)}
        if record.doc.get("description"):
            body["description"] = record.doc["description"]
        try:
            new_id = str((await target.api.call(CREATE, body))["role"]["id"])
        except Conflict:  # An earlier answer of ours got lost, or somebody was faster. Its message is not shown.
            new_id = await self._made_meanwhile(target.api, record.name)
        state = Open()
        for grant in _grants(record.doc):
            await self._add(target, record, new_id, grant, ids, state)
        return new_id, state

    async def _made_meanwhile(self, api: Api, name: str) -> str:
        async for page in _listed(api):
            for held in page:
                if held.name == name and not held.doc["elsewhere"]:
                    return held.ref.id
        raise Rejected("the target says that there is a role of this name, and lists none")

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What amigrate made is brought up to date. Others hold what their owners gave them, and get no more."""
        found = target.index.get(self.name, record.name)
        doc: Doc = codec.loads(found[1]) if found else {}
        held = {one.place: one for one in _grants(doc)}
        state = Open()
        if not made:
            wanted = [grants.mapped(one, ids) for one in _grants(record.doc)]
            if {*wanted} != {*held.values()}:
                target.notes.warn(_kept(record.name))
            return state
        if record.doc.get("description") and record.doc["description"] != doc.get("description"):
            await target.api.call(UPDATE, {"role_id": int(new_id), "description": record.doc["description"]})
        for grant in _grants(record.doc):
            new = grants.mapped(grant, ids)
            if new is None or new.place not in held:
                await self._add(target, record, new_id, grant, ids, state)
            elif held[new.place] != new:
                row = {"role_permission_id": _row(doc, new), "permission": new.permission}
                await target.api.call(CHANGE, row)
        return state

    async def _add(self, target: Target, record: Record, new_id: str, grant: Grant, ids: Ids, state: Open) -> None:
        new = grants.mapped(grant, ids)
        if new is None:
            state.waiting.append(grant)
            state.losses.append(grants.missing(grant, record.ref))
            return
        try:
            await add(target.api, new_id, new)
        except Rejected as error:
            state.losses.append(lost("grant", f"{grant.type} {grant.pattern}", record.ref, f"{grant}: {error}"))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses if state else []
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        waiting = [one.doc() for one in state.waiting] if state else []
        return [Deferred(Stage.REFERENCES, {"permissions": waiting})] if waiting else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        news = [grants.mapped(one, ids) for one in grants_of(what.doc["permissions"])]
        for new in news:
            if new is not None:
                await add(target.api, new_id, new)
        return None not in news


async def add(api: Api, role: str, grant: Grant) -> None:
    """Give a role a permission; one that it has already stays as it is."""
    try:
        await api.call(ADD, {"role_id": int(role), **grant.doc()})
    except Conflict:  # An earlier answer of ours got lost.
        return


def _kept(name: str) -> str:
    return (
        f"role '{name}' was at the target before and stays as it is, with other permissions than at the source; "
        "who had it there gets it here"
    )


def _grants(doc: Doc) -> list[Grant]:
    return grants_of(doc.get("permissions") or [])


def _row(doc: Doc, grant: Grant) -> int:
    """The id of the row that holds a role's permission on an object."""
    rows = (row for row in doc["permissions"] for one in grants_of([row]) if one.place == grant.place)
    return int(next(rows)["id"])


def _record(doc: Doc) -> Record:
    return Record(Ref(Role.name, str(doc["id"])), doc, str(doc["name"]))


async def _listed(api: Api) -> AsyncIterator[list[Record]]:
    try:
        rows = (await api.call(LIST)).get("roles") or []
    except Unsupported:
        if api.abilities.administrator is None:
            raise
        return  # An older one has users, but no roles.
    workspace = workspace_of(api)
    yield [
        _record({**row, "elsewhere": row.get("workspace", DEFAULT) != workspace})
        for row in rows
        if not OF_ONE_USER.fullmatch(str(row["name"]))
    ]

"""Users of MLflow's basic authentication: whether they are administrators, their roles, and what each may do alone.

GET `/api/2.0/mlflow/users/list` (administrators only) shows each with roles and permissions; what a user was given
alone is a role named `__user_<id>__`, which POST `/api/3.0/mlflow/users/permissions/grant` writes. Servers before have
no list: they tell of one user at a time (`users/get`), with permissions on experiments and registered models. No server
tells a password, so a user is made with a new one from an operator's file. A second user of one name is answered with
RESOURCE_ALREADY_EXISTS, in the database's own words: a hash of the password is among them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V2, V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, NotFound, Rejected, Uncarriable, Unsupported
from amigrate.core.model import Deferred, Doc, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text
from amigrate.kinds import grants
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.grants import DEFAULT, Grant, grants_of, workspace_of
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import WholeScan

LIST = Endpoint("GET", f"{V2}/users/list")
GET = Endpoint("GET", f"{V2}/users/get")
CREATE = Endpoint("POST", f"{V2}/users/create", Work.WRITE)
SET_ADMIN = Endpoint("PATCH", f"{V2}/users/update-admin", Work.WRITE)
GRANT = Endpoint("POST", f"{V3}/users/permissions/grant", Work.WRITE)
REVOKE = Endpoint("POST", f"{V3}/users/permissions/revoke", Work.WRITE)
ASSIGN = Endpoint("POST", f"{V3}/roles/assign", Work.WRITE)
ROLE = "role"
NO_LIST = "this MLflow has no list of them; those that --passwords names were asked for one by one"


@dataclass(slots=True)
class Open:
    """A user who is being given what he had."""

    waiting: list[Grant] = field(default_factory=list)
    """Permissions on what is not at the target."""
    roles: list[str] = field(default_factory=list)
    """Ids at the source of roles that are not there."""
    losses: list[Outcome] = field(default_factory=list)


class User(Kind):
    """See the module. The id of a user is his name."""

    name = "user"
    label = "users"
    group = "users"
    needs = (ROLE, *grants.NEEDED)
    opt_in = True
    keeps_edits = True
    folder = "users"
    document = "user.json"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        doc = record.doc
        return codec.digest([bool(doc.get("is_admin")), doc["roles"], [one.doc() for one in _grants(doc)]])

    def comparable(self, record: Record, names: Names) -> Doc:
        """An administrator may do everything, and servers give him a permission on whatever he makes."""
        is_admin = bool(record.doc.get("is_admin"))
        return {
            "is_admin": is_admin,
            "roles": sorted(names(ROLE, one["id"]) for one in record.doc["roles"]),
            "grants": [] if is_admin else grants.named(_grants(record.doc), names),
        }

    def encode(self, record: Record) -> Doc:
        doc = {key: record.doc[key] for key in ("username", "is_admin", "roles")}
        return {**doc, "permissions": [one.doc() for one in _grants(record.doc)]}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(document.get("mlflow"), "mlflow")
        return _record(
            text(given.get("username") or None, "username"),
            bool(given.get("is_admin")),
            [_role(one) for one in items(given.get("roles"), "roles")],
            grants.decoded(given.get("permissions")),
        )

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: _listed(api))

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(self.name):
            await self._load(target, records)
        found = {record.ref.key: target.index.get(self.name, record.name) for record in records}
        return {key: held[0] for key, held in found.items() if held is not None}

    async def _load(self, target: Target, records: Sequence[Record]) -> None:
        """Every user of the target."""
        try:
            async for page in _listed(target.api):
                for held in page:
                    facts = codec.dumps(held.doc).decode()
                    target.index.add(self.name, [held.name], Found(held.name, False), facts)
        except Unsupported as error:
            for record in records:
                target.passwords.known(record.name)
            raise Unsupported("the target has no users, or is too old to be given any") from error
        target.index.mark(self.name)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        password = target.passwords[record.name]
        if not password:
            raise Uncarriable(f"no server tells a password: give '{record.name}' a new one with --passwords FILE")
        with suppress(Conflict):  # An earlier answer of ours got lost.
            await target.api.call(CREATE, {"username": record.name, "password": password})
        if record.doc.get("is_admin"):
            await target.api.call(SET_ADMIN, {"username": record.name, "is_admin": True})
        state = Open()
        await self._give(target, record, _Held.of({}), ids, state)
        return record.name, state

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Who was there before keeps his password and his rank, and gets the permissions and roles that he lacks."""
        target.passwords.known(record.name)
        found = target.index.get(self.name, record.name)
        doc: Doc = codec.loads(found[1]) if found else {}
        is_admin = bool(record.doc.get("is_admin"))
        if made and bool(doc.get("is_admin")) != is_admin:
            await target.api.call(SET_ADMIN, {"username": record.name, "is_admin": is_admin})
        state = Open()
        await self._give(target, record, _Held.of(doc, replace=made), ids, state)
        return state

    async def keep(self, target: Target, record: Record, new_id: str, ids: Ids) -> Any:
        target.passwords.known(record.name)
        return None

    async def _give(self, target: Target, record: Record, held: _Held, ids: Ids, state: Open) -> None:
        """Permissions and roles that the target lacks."""
        for grant in _grants(record.doc):
            new = grants.mapped(grant, ids)
            if new is None:
                state.waiting.append(grant)
                state.losses.append(grants.missing(grant, record.ref))
                continue
            try:
                await self._grant(target.api, record.name, new, held)
            except Rejected as error:
                state.losses.append(lost("grant", f"{grant.type} {grant.pattern}", record.ref, f"{grant}: {error}"))
        for role in record.doc["roles"]:
            new_role = ids.new_id(ROLE, role["id"])
            if new_role is None:
                reason = f"role '{role['name']}' is not at the target (yet)"
                state.roles.append(role["id"])
                state.losses.append(lost("grant", f"role {role['name']}", record.ref, reason))
            elif new_role not in held.roles:
                await _assign(target.api, record.name, new_role)

    async def _grant(self, api: Api, username: str, new: Grant, held: _Held) -> None:
        """One permission; what the user has on the same object otherwise is only replaced where amigrate gave it."""
        old = held.grants.get(new.place)
        if old == new or (old is not None and not held.replace):
            return
        if old is not None:
            await api.call(REVOKE, _body(username, old))
        await _grant(api, username, new)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses if state else []
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if not state or not (state.waiting or state.roles):
            return []
        doc = {"permissions": [one.doc() for one in state.waiting], "roles": state.roles}
        return [Deferred(Stage.REFERENCES, doc)]

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        news = [grants.mapped(one, ids) for one in grants_of(what.doc["permissions"])]
        for new in news:
            if new is not None:
                await _grant(target.api, new_id, new)
        roles = [ids.new_id(ROLE, one) for one in what.doc["roles"]]
        for role in roles:
            if role is not None:
                await _assign(target.api, new_id, role)
        return None not in news and None not in roles


@dataclass(frozen=True, slots=True)
class _Held:
    """What a user has at the target."""

    grants: dict[tuple[str, str], Grant]
    roles: frozenset[str]
    replace: bool
    """Whether amigrate gave it."""

    @classmethod
    def of(cls, doc: Doc, *, replace: bool = False) -> _Held:
        return cls(
            {one.place: one for one in _grants(doc)}, frozenset(one["id"] for one in doc.get("roles") or ()), replace
        )


def _body(username: str, grant: Grant) -> Doc:
    return {"username": username, "resource_type": grant.type, "resource_id": grant.pattern}


async def _grant(api: Api, username: str, grant: Grant) -> None:
    try:
        await api.call(GRANT, {**_body(username, grant), "permission": grant.permission})
    except Conflict:  # An earlier answer of ours got lost.
        return


async def _assign(api: Api, username: str, role: str) -> None:
    try:
        await api.call(ASSIGN, {"username": username, "role_id": int(role)})
    except Conflict:  # An earlier answer of ours got lost.
        return


def _grants(doc: Doc) -> list[Grant]:
    return grants_of(doc.get("permissions") or [])


def _role(value: Any) -> Doc:
    """A role that a user has, in a document."""
    given = mapping(value, "a role")
    return {"id": identity(given.get("id"), "id"), "name": text(given.get("name") or "", "name")}


def _record(username: str, is_admin: bool, roles: list[Doc], permissions: list[Doc]) -> Record:
    roles = sorted(roles, key=lambda one: str(one["name"]))
    doc: Doc = {"username": username, "is_admin": is_admin, "roles": roles, "permissions": permissions}
    return Record(Ref(User.name, username), doc, username)


async def _listed(api: Api) -> AsyncIterator[list[Record]]:
    try:
        rows = (await api.call(LIST)).get("users") or []
    except Unsupported as error:
        found = [one for name in sorted(api.named_users) if (one := await _old_user(api, name)) is not None]
        yield found
        if api.abilities.administrator is None:
            raise
        raise Unsupported(f"{NO_LIST} ({error})") from error
    if rows and "roles" not in rows[0]:
        yield [one for row in rows if (one := await _old_user(api, str(row["username"]))) is not None]
        return
    yield [_user(row, workspace_of(api)) for row in rows]


def _user(row: Doc, workspace: str) -> Record:
    """A user of the list: what he was given alone, and the roles that he has in this workspace."""
    mine = f"__user_{row['id']}__"
    here = [one for one in row["roles"] if one.get("workspace", DEFAULT) == workspace]
    permissions = [grant.doc() for one in here if one["name"] == mine for grant in grants_of(one["permissions"])]
    roles = [{"id": str(one["id"]), "name": str(one["name"])} for one in here if one["name"] != mine]
    return _record(str(row["username"]), bool(row.get("is_admin")), roles, permissions)


async def _old_user(api: Api, name: str) -> Record | None:
    """A user as servers without a list tell of him."""
    try:
        row = (await api.call(GET, params=[("username", name)]))["user"]
    except NotFound:
        return None
    given = [("experiment", one["experiment_id"], one) for one in row.get("experiment_permissions") or []]
    given += [("registered_model", one["name"], one) for one in row.get("registered_model_permissions") or []]
    permissions = [Grant(kind, str(own), one["permission"]).doc() for kind, own, one in given]
    return _record(str(row["username"]), bool(row.get("is_admin")), [], permissions)

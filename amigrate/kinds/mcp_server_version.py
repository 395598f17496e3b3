"""Versions of MCP servers. See `mcp`.

GET `/{name}/versions` lists those that are not deleted (at most 1000 a page), POST creates one, as `draft` or `active`,
PATCH `/{name}/versions/{version}` changes its status by one step (draft, active, deprecated), its tools and its connect
options; `server_json` never changes. An answer shows no tools and an empty list of tools alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from amigrate.client.api import Api
from amigrate.core import codec
from amigrate.core.errors import Conflict, NotFound, Rejected
from amigrate.core.model import Doc, Found, Outcome, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import items, mapping, text, texts, whole, word
from amigrate.kinds.base import Kind, Target, pairs
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages
from amigrate.kinds.mcp import ICONS, PAGE, at, send_icons, without_nothing

PARENT = "mcp_server"
OTHER = "the target has another version of this number"
STEPS = ("draft", "active", "deprecated")
"""Each status can become the one beside it."""
OLDEST_FIRST = (("order_by", "created_at ASC"),)
TIMES = ("creation_timestamp", "last_updated_timestamp")


class McpServerVersion(Kind):
    """See the module. Its id is `<server>/<version>`."""

    name = "mcp_server_version"
    label = "mcp-server-versions"
    group = "mcp-servers"
    parent = PARENT
    needs = (PARENT,)
    opt_in = True
    keeps_edits = True
    sequential = True
    inside = "versions"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_told(record.doc))

    def comparable(self, record: Record, names: Names) -> Doc:
        return _told(record.doc)

    def encode(self, record: Record) -> Doc:
        told, doc = _told(record.doc), record.doc
        times = {time: doc[time] for time in TIMES if doc.get(time) is not None}
        return without_nothing({"version": doc["version"], **told, **times, "created_by": doc.get("created_by")})

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(document.get("mlflow"), "mlflow")
        version = text(given.get("version") or None, "version")
        doc: Doc = {
            "version": version,
            "server_json": mapping(given.get("server_json"), "server_json"),
            "status": word(given.get("status") or "draft", "status", STEPS),
            "source": text(given.get("source") or "", "source"),
            "tools": [mapping(one, "a tool") for one in items(given.get("tools"), "tools")],
            "connect_options": mapping(given.get("connect_options"), "connect_options"),
            "tags": texts(given.get("tags"), "tags"),
            **{time: whole(given[time], time) for time in TIMES if given.get(time) is not None},
        }
        return _record(parent.id if parent else ref_id, doc, parent)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return VersionScan(api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By version, from a listing of each server of the target that was there before."""
        found = {}
        for record in records:
            name = _name(record)
            if name not in target.fresh_servers:
                await self._load(target, name)
            held = target.index.get(f"{self.name} {name}", record.ref.id)
            if held is not None:
                found[record.ref.key] = Found(record.ref.id, codec.loads(held[1]) == _told(record.doc))
        return found

    async def _load(self, target: Target, name: str) -> None:
        place = f"{self.name} {name}"
        if target.index.loaded(place):
            return
        async for page in _listed(target.api, name, None):
            for held in page:
                facts = codec.dumps(_told(held.doc)).decode()
                target.index.add(place, [held.ref.id], Found(held.ref.id, False), facts)
        target.index.mark(place)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        told, name, losses = _told(record.doc), _name(record), list[Outcome]()
        body: Doc = {
            "server_json": dict(told["server_json"]),
            "status": STEPS[min(STEPS.index(told["status"]), 1)],
            **{key: told[key] for key in ("source", "tools", "connect_options") if told[key]},
        }
        create = at("POST", name, "versions")
        try:
            places = [body["server_json"], *body.get("tools", ())]
            await send_icons(target.api, create, body, places, record.ref, losses)
        except Conflict:  # An earlier answer of ours got lost; a version that was deleted keeps its number, too.
            await self._check(target, record, told)
        await self._step(target, record, body["status"], told["status"])
        await self._set_tags(target, record, told["tags"], losses)
        return record.ref.id, losses

    async def _check(self, target: Target, record: Record, told: Doc) -> None:
        """That the target's version of this number is the one that is meant."""
        try:
            held = _told(await target.api.call(at("GET", _name(record), "versions", record.doc["version"])))
        except NotFound as error:
            raise Rejected("the target had a version of this number, which was deleted there") from error
        if not _is_same(held, told):
            raise Rejected(OTHER)

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What the target lacks is added; what amigrate has made is brought up to date."""
        held = target.index.get(f"{self.name} {_name(record)}", record.ref.id)
        told, losses = _told(record.doc), list[Outcome]()
        old: Doc = codec.loads(held[1]) if held else {"tags": {}, "status": told["status"], **told}
        if not made and not _is_same(old, told):
            raise Rejected(OTHER)
        if made:
            await self._step(target, record, old["status"], told["status"])
            body = {key: told[key] for key in ("tools", "connect_options") if told[key] != old[key]}
            if body:
                await target.api.call(at("PATCH", _name(record), "versions", record.doc["version"]), body)
        tags = {
            key: value
            for key, value in told["tags"].items()
            if old["tags"].get(key) != value and (made or key not in old["tags"])
        }
        await self._set_tags(target, record, tags, losses)
        return losses

    async def _step(self, target: Target, record: Record, status: str, wanted: str) -> None:
        """From one status to another, step by step."""
        while status != wanted:
            status = STEPS[STEPS.index(status) + (1 if STEPS.index(wanted) > STEPS.index(status) else -1)]
            change = at("PATCH", _name(record), "versions", record.doc["version"])
            await target.api.call(change, {"status": status})

    async def _set_tags(self, target: Target, record: Record, tags: dict[str, str], losses: list[Outcome]) -> None:
        for key, value in tags.items():
            try:
                set_tag = at("POST", _name(record), "versions", record.doc["version"], "tags")
                await target.api.call(set_tag, {"key": key, "value": value})
            except Rejected as error:
                losses.append(lost("tag", key, record.ref, f"the target refuses it: {error}"))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state
        return losses


class VersionScan:
    """The versions of some servers, each one's in the order in which they were made."""

    def __init__(self, api: Api, parents: Sequence[Record]) -> None:
        self._api = api
        self._parents = parents

    async def pages(self) -> AsyncIterator[list[Record]]:
        for parent in self._parents:
            if parent.doc.get("latest_version"):
                async for page in _listed(self._api, parent.ref.id, parent.ref):
                    yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        for parent in self._parents:
            async for page in _listed(self._api, parent.ref.id, parent.ref):
                yield page


async def _listed(api: Api, name: str, parent: Ref | None) -> AsyncIterator[list[Record]]:
    listing = at("GET", name, "versions")
    async for page in pages(api, listing, "mcp_server_versions", {}, first=20, largest=PAGE, params=OLDEST_FIRST):
        yield [_record(name, doc, parent) for doc in page]


def _record(name: str, doc: Doc, parent: Ref | None) -> Record:
    ref = Ref(McpServerVersion.name, f"{name}/{doc['version']}", parent or Ref(PARENT, name))
    return Record(ref, doc, f"version {doc['version']}")


def _name(record: Record) -> str:
    assert record.ref.parent is not None
    return record.ref.parent.id


def _is_same(one: Doc, other: Doc) -> bool:
    """Whether two versions of one number are the same; icons may have been refused."""
    return _without_icons(one) == _without_icons(other)


def _without_icons(told: Doc) -> Doc:
    return {key: value for key, value in told["server_json"].items() if key != ICONS}


def _told(doc: Doc) -> Doc:
    """All that makes a version what it is."""
    return {
        "server_json": doc.get("server_json") or {},
        "status": doc.get("status") or STEPS[0],
        "source": doc.get("source") or "",
        "tools": [without_nothing(one) for one in doc.get("tools") or []],
        "connect_options": doc.get("connect_options") or {},
        "tags": pairs(doc.get("tags")),
    }

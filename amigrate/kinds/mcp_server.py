"""MCP servers: what a registry says of them, and where they can be reached. See `mcp`.

GET lists (at most 1000 a page) with tags, aliases and access endpoints; POST creates, PATCH `/{name}` changes, POST
`/{name}/tags`, `/{name}/aliases` and `/{name}/endpoints` add. Where a server has no description or icons of its own, a
listing shows those of its latest version; so a description is compared, and set if need be, when versions are there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import Api, Endpoint
from amigrate.core import codec
from amigrate.core.errors import Conflict, Transient
from amigrate.core.model import Deferred, Doc, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import items, mapping, text, texts, whole
from amigrate.kinds.base import Kind, Target, pairs
from amigrate.kinds.listing import WholeScan, pages
from amigrate.kinds.mcp import CREATE, ICONS, LIST, PAGE, at, send_icons, without_nothing
from amigrate.kinds.store import without_it

VERSION = "mcp_server_version"
LATEST = "latest"
"""An alias that every server has by itself."""
TEXTS = ("display_name", "description")
TIMES = ("creation_timestamp", "last_updated_timestamp")
ENDPOINT = ("url", "transport_type", "server_version", "server_alias")


@dataclass(slots=True)
class Open:
    """A server that is being written."""

    made: bool
    wanted: Doc = field(default_factory=dict)
    """What it still lacks, in the form of `_told`."""
    losses: list[Outcome] = field(default_factory=list)


class McpServer(Kind):
    """See the module."""

    name = "mcp_server"
    label = "mcp-servers"
    opt_in = True
    keeps_edits = True
    folder = "mcp_servers"
    document = "mcp_server.json"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_told(record.doc))

    def comparable(self, record: Record, names: Names) -> Doc:
        return _told(record.doc)

    def encode(self, record: Record) -> Doc:
        derived = ("latest_version", "status", "access_endpoints", "workspace", "archive")
        kept = {key: value for key, value in record.doc.items() if key not in derived}
        return without_nothing({**kept, "access_endpoints": _told(record.doc)["endpoints"]})

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(document.get("mlflow"), "mlflow")
        aliases = [mapping(one, "an alias") for one in items(given.get("aliases"), "aliases")]
        doc: Doc = {
            "name": text(given.get("name") or None, "name"),
            **{key: text(given[key], key) for key in TEXTS if given.get(key) is not None},
            **{time: whole(given[time], time) for time in TIMES if given.get(time) is not None},
            ICONS: _icons(given.get(ICONS)),
            "tags": texts(given.get("tags"), "tags"),
            "aliases": [{key: text(one.get(key), key) for key in ("alias", "version")} for one in aliases],
            "access_endpoints": [_endpoint(one) for one in items(given.get("access_endpoints"), "access_endpoints")],
            "versions": items(given.get("versions"), "versions"),
        }
        return Record(Ref(self.name, doc["name"]), doc, doc["name"])

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: _listed(api))

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(self.name):
            async for page in _listed(target.api):
                for held in page:
                    facts = codec.dumps(_told(held.doc)).decode()
                    target.index.add(self.name, [held.name], Found(held.name, False), facts)
            target.index.mark(self.name)
        found = {}
        for record in records:
            held_one = target.index.get(self.name, record.name)
            if held_one is not None:
                found[record.ref.key] = Found(record.name, codec.loads(held_one[1]) == _told(record.doc))
        return found

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        state = Open(True, _told(record.doc))
        body: Doc = {"name": record.name, **_own_icons(record.doc)}
        try:
            await send_icons(target.api, CREATE, body, [body], record.ref, state.losses)
        except Conflict:  # An earlier answer of ours got lost, or somebody was faster.
            return record.name, state
        target.fresh_servers.add(record.name)
        return record.name, state

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What the target lacks is added; what it has otherwise is replaced only where amigrate has made it."""
        held = target.index.get(self.name, record.name)
        told, old = _told(record.doc), codec.loads(held[1]) if held else {}
        state = Open(made, told if _lacks(told, old, made) else {})
        if made and told[ICONS] != old.get(ICONS) and (body := _own_icons(record.doc)):
            await send_icons(target.api, at("PATCH", record.name), body, [body], record.ref, state.losses)
        return state

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses if state else []
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if not state or not state.wanted:
            return []
        return [Deferred(Stage.REFERENCES, {"wanted": state.wanted, "made": state.made})]

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Everything that may name a version, or be told by one."""
        api, wanted, made = target.api, what.doc["wanted"], what.doc["made"]
        held = _told(await api.call(at("GET", new_id)))
        body = {key: wanted[key] for key in TEXTS if wanted[key] != held[key] and (made or not held[key])}
        if body:
            await api.call(at("PATCH", new_id), body)
        for key, value in wanted["tags"].items():
            if held["tags"].get(key) != value and (made or key not in held["tags"]):
                await api.call(at("POST", new_id, "tags"), {"key": key, "value": value})
        there = {alias for alias, version in wanted["aliases"].items() if _is_there(ids, record, version)}
        for alias in sorted(there):
            if held["aliases"].get(alias) != wanted["aliases"][alias]:
                body = {"alias": alias, "version": wanted["aliases"][alias]}
                await api.call(at("POST", new_id, "aliases"), body)
        reached = await self._reach(api, new_id, wanted, held, there)
        return reached and len(there) == len(wanted["aliases"])

    async def _reach(self, api: Api, name: str, wanted: Doc, held: Doc, there: set[str]) -> bool:
        """Add the access endpoints that are missing; true where all could be. Equal ones are counted."""
        missing = Counter(map(_text, wanted["endpoints"])) - Counter(map(_text, held["endpoints"]))
        complete = True
        for one in missing.elements():
            endpoint = codec.loads(one)
            if endpoint["server_alias"] not in (*there, LATEST, ""):
                complete = False
                continue
            await self._add_endpoint(api, name, endpoint)
        return complete

    async def _add_endpoint(self, api: Api, name: str, endpoint: Doc) -> None:
        before = await self._number(api, name, endpoint)

        async def recover() -> Doc | None:
            return {"added": True} if await self._number(api, name, endpoint) > before else None

        create = at("POST", name, "endpoints")
        once = Endpoint(create.method, create.path, create.work, resend=False)
        await api.call(once, {key: value for key, value in endpoint.items() if value}, recover=recover)

    async def _number(self, api: Api, name: str, endpoint: Doc) -> int:
        """How many access endpoints of this kind the target has."""
        endpoints: list[Doc] = _told(await api.call(at("GET", name)))["endpoints"]
        return endpoints.count(endpoint)


def _is_there(ids: Ids, record: Record, version: str) -> bool:
    return ids.new_id(VERSION, f"{record.ref.id}/{version}") is not None


def _lacks(told: Doc, held: Doc, made: bool) -> bool:
    """Whether anything is left to do for a server that the target has."""
    if made:
        return told != held
    gaps = [told[key] and not held.get(key) for key in TEXTS]
    gaps += [bool({*told["tags"]} - {*held.get("tags", {})}), told["aliases"] != held.get("aliases")]
    gaps.append(bool(Counter(map(_text, told["endpoints"])) - Counter(map(_text, held.get("endpoints", [])))))
    return any(gaps)


def _told(doc: Doc) -> Doc:
    """All that a server shows, but for its versions."""
    return {
        **{key: doc.get(key) or "" for key in TEXTS},
        ICONS: doc.get(ICONS),
        "tags": pairs(doc.get("tags")),
        "aliases": {str(one["alias"]): str(one["version"]) for one in doc.get("aliases") or []},
        "endpoints": sorted((_reached(one) for one in doc.get("access_endpoints") or []), key=_text),
    }


def _own_icons(doc: Doc) -> Doc:
    """Icons that are the server's own, not its latest version's, as a body takes them; an empty list means none."""
    icons = doc.get(ICONS)
    if icons is None or any(one.get("source") == "version" for one in icons):
        return {}
    return {ICONS: [{key: value for key, value in one.items() if key != "source"} for one in icons]}


def _icons(value: Any) -> list[Doc] | None:
    """Icons in a document."""
    return None if value is None else [mapping(one, "an icon") for one in items(value, ICONS)]


def _reached(one: Doc) -> Doc:
    return {key: one.get(key) or "" for key in ENDPOINT}


def _endpoint(value: Any) -> Doc:
    given = mapping(value, "an access endpoint")
    return {key: text(given[key], key) for key in ENDPOINT if given.get(key)}


def _text(told: Doc) -> str:
    return codec.dumps(dict(sorted(told.items()))).decode()


async def _listed(api: Api) -> AsyncIterator[list[Record]]:
    try:
        async for page in pages(api, LIST, "mcp_servers", {}, first=50, largest=PAGE):
            yield [Record(Ref(McpServer.name, str(doc["name"])), doc, str(doc["name"])) for doc in page]
    except Transient as error:
        raise await without_it(api, error) from error

"""What the kinds of the AI gateway have in common.

Endpoints (`/api/3.0/mlflow/gateway/…`, 3.10+, SQL stores only): GET `…/list` shows all at once, only budgets and
guardrails in pages of at most 50 000; POST `…/create` and `…/update`. With MLFLOW_ENABLE_AI_GATEWAY=false they answer
501. Secrets, model definitions and endpoints have names that are unique; a second endpoint of one name is answered with
400 BAD_REQUEST and the database's own words, a second one of the others with RESOURCE_ALREADY_EXISTS.

No server tells the value of a secret, so an operator enters it at the target. What needs it waits until it is there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, Transient
from amigrate.core.model import Doc, Found, Record, Ref
from amigrate.core.ports import Ids, Scan
from amigrate.core.typed import identity, mapping, text, whole
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.claims import Claims
from amigrate.kinds.listing import WholeScan, pages
from amigrate.kinds.store import without_it

GATEWAY = f"{V3}/gateway"
PAGE = 1000
TIMES = ("created_at", "last_updated_at")
PEOPLE = ("created_by", "last_updated_by")


class GatewayKind(Kind, ABC):
    """A kind of the gateway, listed as a whole."""

    group = "gateway"
    opt_in = True
    keeps_edits = True
    collection = ""
    """Its part of the path, such as `endpoints`."""
    plural = ""
    """What a listing calls them."""
    singular = ""
    """What an answer about one calls it."""
    own = ""
    """The field with its id."""
    paged = False

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: self.all_of(api))

    async def all_of(self, api: Api) -> AsyncIterator[list[Record]]:
        """All of them on a server, in pages."""
        try:
            async for docs in self._docs(api):
                yield [self.record(doc) for doc in docs]
        except Transient as error:
            raise await without_it(api, error) from error

    async def _docs(self, api: Api) -> AsyncIterator[list[Doc]]:
        endpoint = Endpoint("GET", f"{GATEWAY}/{self.collection}/list")
        if self.paged:
            async for page in pages(api, endpoint, self.plural, {}, first=100, largest=PAGE):
                yield page
            return
        yield (await api.call(endpoint)).get(self.plural) or []

    def record(self, doc: Doc) -> Record:
        """An object as a server tells of it."""
        return Record(Ref(self.name, str(doc[self.own])), doc, self.called(doc))

    def called(self, doc: Doc) -> str:
        """What people call it."""
        return str(doc.get("name") or "")

    @abstractmethod
    def told(self, record: Record) -> Doc:
        """All that makes it what it is, in its own server's ids."""

    def digest(self, record: Record) -> str:
        return codec.digest(self.told(record))

    async def make(self, target: Target, body: Doc, recover: Any) -> Doc:
        """Send a create call whose answer may be lost; `recover` looks for what it made then."""
        endpoint = Endpoint("POST", f"{GATEWAY}/{self.collection}/create", Work.WRITE, resend=False)
        answer = await target.api.call(endpoint, body, recover=recover)
        made: Doc = answer[self.singular]
        return made

    async def change(self, target: Target, body: Doc) -> None:
        """Send an update."""
        await target.api.call(Endpoint("POST", f"{GATEWAY}/{self.collection}/update", Work.WRITE), body)

    def dated(self, given: Doc) -> Doc:
        """What an archive keeps besides, although nobody can set it."""
        kept: Doc = {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        return kept | {one: text(given[one], one) for one in PEOPLE if given.get(one)}


class NamedGatewayKind(GatewayKind):
    """One whose names are unique."""

    def match(self, record: Record) -> str:
        return record.name

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(self.name):
            async for page in self.all_of(target.api):
                for held in page:
                    facts = codec.dumps(held.doc).decode()
                    target.index.add(self.name, [held.name], Found(held.ref.id, False), facts)
            target.index.mark(self.name)
        found = {}
        for record in records:
            held_one = target.index.get(self.name, record.name)
            if held_one is not None:
                found[record.ref.key] = held_one[0]
        return found

    def held(self, target: Target, record: Record) -> Record | None:
        """What the target has under the name of a record, as it was listed."""
        held = target.index.get(self.name, record.name)
        return self.record(codec.loads(held[1])) if held else None

    def note_other(self, target: Target, record: Record) -> None:
        """One of this name was there before, is another one, and stays."""
        target.notes.warn(
            f"{self.singular.replace('_', ' ')} '{record.name}' was at the target before and stays as it is, although "
            "the source's is another one; what names it there names that one here"
        )

    async def make_named(self, target: Target, name: str, body: Doc) -> str:
        """As `make`; where the name is taken meanwhile, it was by an answer of ours that got lost."""

        async def recover() -> Doc | None:
            async for page in self.all_of(target.api):
                for held in page:
                    if held.name == name:
                        return {self.singular: held.doc}
            return None

        try:
            made = await self.make(target, body, recover)
        except Conflict:
            found = await recover()
            if found is None:
                raise
            made = found[self.singular]
        return str(made[self.own])


class CountedGatewayKind(GatewayKind):
    """One whose names are not unique, or that has none: known by all its fields."""

    paged = True

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        claims = await self.claims(target)
        found = claims.pair(records, ids, lambda record: self.mapped(record, ids))
        return {key: Found(new_id, False) for key, new_id in found.items()}

    def mapped(self, record: Record, ids: Ids) -> Doc:
        """`told` in the target's ids; what has none there keeps its own."""
        return self.told(record)

    async def claims(self, target: Target) -> Claims:
        """What the target holds, listed once."""
        if self.name not in target.claims:
            claims = Claims()
            async for page in self.all_of(target.api):
                for held in page:
                    claims.hold(held, self.told(held))
            target.claims[self.name] = claims
        return target.claims[self.name]

    async def make_counted(self, target: Target, record: Record, told: Doc, body: Doc) -> str:
        """As `make`, one at a time."""
        claims = await self.claims(target)

        async def recover() -> Doc | None:
            async for page in self.all_of(target.api):
                for held in page:
                    if claims.is_new(held.ref.id) and self.told(held) == told:
                        return {self.singular: held.doc}
            return None

        async with claims.making:
            made = await self.make(target, body, recover)
            claims.take(str(made[self.own]), record)
        return str(made[self.own])


async def endpoint_names(api: Api) -> dict[str, str]:
    """The names of a server's endpoints, by id."""
    answer = await api.call(Endpoint("GET", f"{GATEWAY}/endpoints/list"))
    return {str(one["endpoint_id"]): str(one.get("name") or "") for one in answer.get("endpoints") or []}


def given_in(document: Doc) -> Doc:
    """The `mlflow` part of a document."""
    return mapping(document.get("mlflow"), "mlflow")


def id_in(given: Doc, field: str, ref_id: str) -> str:
    """An object's own id in its document; the name of its folder where there is none."""
    return identity(given.get(field), field) or ref_id


def by(doc: Doc) -> Doc:
    """Who made it, where somebody did: a create call takes that."""
    return {"created_by": doc["created_by"]} if doc.get("created_by") else {}

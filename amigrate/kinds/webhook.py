"""Webhooks of a model registry.

Endpoints (`/api/2.0/mlflow/webhooks`, 3.3+, SQL stores only): GET lists (at most 1000 a page, newest first), POST
creates, PATCH `/{id}` updates. Names may come twice, so a webhook is known by all its fields. Creating one resolves the
host of its address: what does not resolve, or resolves to a private address, is answered with 400.

A webhook arrives disabled, so that nothing of the import itself makes it fire; whether it fires at the target is its
owner's to say. No server tells its secret. One that was started without MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY cannot
read secrets of an earlier start any more, and then lists no webhook at all: 500 INTERNAL_ERROR (seen on 3.17.2).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Rejected, Transient, Uncarriable, Unsupported
from amigrate.core.model import Doc, Found, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text, whole, word
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.claims import Claims
from amigrate.kinds.listing import WholeScan, pages
from amigrate.kinds.store import is_sql

WEBHOOKS = f"{V2}/webhooks"
LIST = Endpoint("GET", WEBHOOKS)
CREATE = Endpoint("POST", WEBHOOKS, Work.WRITE, resend=False)
PAGE = 1000
ACTIVE, DISABLED = "ACTIVE", "DISABLED"
KEY = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"
TIMES = ("creation_timestamp", "last_updated_timestamp")


class Webhook(Kind):
    """See the module."""

    name = "webhook"
    label = "webhooks"
    needs = ("registered_model", "model_version", "prompt", "prompt_version")
    opt_in = True
    keeps_edits = True
    folder = "webhooks"
    document = "webhook.json"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_told(record))

    def match(self, record: Record) -> str:
        return f"{record.name} {record.doc.get('url')}"

    def comparable(self, record: Record, names: Names) -> Doc:
        return _told(record)

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(document.get("mlflow"), "mlflow")
        events = [mapping(one, "an event") for one in items(given.get("events"), "events")]
        doc: Doc = {
            "webhook_id": identity(given.get("webhook_id"), "webhook_id") or ref_id,
            "name": text(given.get("name") or None, "name"),
            "url": text(given.get("url") or None, "url"),
            "events": [{key: text(one.get(key), key) for key in ("entity", "action")} for one in events],
            "status": word(given.get("status") or DISABLED, "status", (ACTIVE, DISABLED)),
        }
        if given.get("description"):
            doc["description"] = text(given["description"], "description")
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        return Record(Ref(self.name, doc["webhook_id"]), doc, doc["name"])

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: _listed(api.registry))

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        claims = await self._claims(target)
        found = claims.pair(records, ids, _told)
        for record in records:
            new_id = found.get(record.ref.key)
            if new_id and record.doc.get("status") == ACTIVE != claims.doc(new_id).get("status"):
                target.notes.warn(_disabled(record.name))
        return {key: Found(new_id, False) for key, new_id in found.items()}

    async def _claims(self, target: Target) -> Claims:
        """What the target holds, listed once."""
        if self.name not in target.claims:
            claims = Claims()
            async for page in _listed(target.api.registry):
                for held in page:
                    claims.hold(held, _told(held))
            target.claims[self.name] = claims
        return target.claims[self.name]

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        claims, told = await self._claims(target), _told(record)
        secret = target.webhook_secrets[record.name]
        body = {**told, "status": DISABLED, **({"secret": secret} if secret else {})}

        async def recover() -> Doc | None:
            async for page in _listed(target.api.registry):
                for held in page:
                    if claims.is_new(held.ref.id) and _told(held) == told:
                        return {"webhook": held.doc}
            return None

        async with claims.making:
            try:
                answer = await target.api.registry.call(CREATE, body, recover=recover)
            except Rejected as error:
                raise Uncarriable(f"the target does not take it: {error}") from error
            new_id = str(answer["webhook"]["webhook_id"])
            claims.take(new_id, record)
        if record.doc.get("status") == ACTIVE:
            target.notes.warn(_disabled(record.name))
        if not secret:
            target.notes.warn(_without_secret(record.name))
        return new_id, None

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What amigrate made is brought up to date, but for its status, which is its owner's."""
        held = (await self._claims(target)).told(new_id)
        changed = {key: value for key, value in _told(record).items() if made and held.get(key) != value}
        await self._update(target, record, new_id, changed)
        if made and not target.webhook_secrets[record.name]:
            target.notes.warn(_without_secret(record.name))
        return None

    async def keep(self, target: Target, record: Record, new_id: str, ids: Ids) -> Any:
        await self._update(target, record, new_id, {})
        return None

    async def _update(self, target: Target, record: Record, new_id: str, changed: Doc) -> None:
        """Send what has changed, and the secret where one was given: nobody can tell whether it is there already."""
        secret = target.webhook_secrets[record.name]
        body = {**changed, **({"secret": secret} if secret else {})}
        if body:
            await target.api.registry.call(Endpoint("PATCH", f"{WEBHOOKS}/{new_id}", Work.WRITE), body)


def _disabled(name: str) -> str:
    return f"webhook '{name}' is active at the source and disabled at the target: enable it there when you want it"


def _without_secret(name: str) -> str:
    return (
        f"webhook '{name}' has no secret at the target, because no server tells one: "
        "give it with --webhook-secrets, or set it there"
    )


def _told(record: Record) -> Doc:
    """All that makes a webhook what it is, but for its secret and whether it is enabled."""
    doc = record.doc
    events = sorted((str(one["entity"]), str(one["action"])) for one in doc.get("events") or [])
    return {
        "name": record.name,
        "url": doc.get("url") or "",
        "description": doc.get("description") or "",
        "events": [{"entity": entity, "action": action} for entity, action in events],
    }


async def _listed(api: Api) -> AsyncIterator[list[Record]]:
    try:
        async for page in pages(api, LIST, "webhooks", {}, first=100, largest=PAGE):
            yield [Record(Ref(Webhook.name, str(doc["webhook_id"])), doc, str(doc["name"])) for doc in page]
    except Transient as error:
        if error.status != 500:
            raise
        if not await is_sql(api):
            raise Unsupported(f"a file store keeps no webhooks ({error})") from error
        hint = f"a server that was started without the {KEY} of its webhooks' secrets lists none"
        raise Rejected(f"{error}: {hint}") from error

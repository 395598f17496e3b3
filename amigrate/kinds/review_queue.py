"""Review queues: which traces reviewers look at, what they are asked, and what is done (MLflow 3.14, databases only).

Endpoints (`/api/3.0/mlflow/review-queues/…`): GET list, POST create, get-or-create-user, update, and those of the items
(`review_items`). A name is unique in its experiment, whatever its case. A queue has at most ten users; a user's own
queue has just that one and every label schema. Ids and times cannot be set. Once a queue has items, its label schemas
stay as they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import (
    AmigrateError,
    ApiError,
    AuthError,
    Conflict,
    NotFound,
    Rejected,
    Uncarriable,
    Unresolved,
    Unsupported,
)
from amigrate.core.model import Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text, whole, word
from amigrate.kinds.base import Kind, Target, home_of, lacking
from amigrate.kinds.limits import lost
from amigrate.kinds.review_items import STATUSES, Items, requests_for
from amigrate.kinds.review_listing import items_of, queues_of
from amigrate.kinds.traced import each, searched

QUEUES = f"{V3}/review-queues"
CREATE = Endpoint("POST", f"{QUEUES}/create", Work.WRITE)
CREATE_USER = Endpoint("POST", f"{QUEUES}/get-or-create-user", Work.WRITE)
UPDATE = Endpoint("POST", f"{QUEUES}/update", Work.WRITE)
BY_NAME = Endpoint("GET", f"{QUEUES}/get-by-name")
SCHEMA = Endpoint("GET", f"{V3}/label-schemas/get")
SINCE = (3, 14)
TYPES = ("CUSTOM", "USER")
TIMES = ("creation_time_ms", "last_update_time_ms")
ITEM_TIMES = ("completed_time_ms", "creation_time_ms", "last_update_time_ms")


@dataclass(slots=True)
class Open:
    """A queue being written."""

    items: Items
    losses: list[Outcome] = field(default_factory=list)
    waiting: list[Doc] = field(default_factory=list)
    """Items whose traces are not at the target."""


class ReviewQueue(Kind):
    """See the module."""

    name = "review_queue"
    label = "review-queues"
    parent = "experiment"
    needs = ("experiment", "label_schema", "trace")
    about = ("trace", "label_schema")
    folder = "review_queues"
    document = "review_queue.json"
    overlooks = "they have no traces, or are deleted"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest([_content(record.doc), _reviews(record.doc)])

    def match(self, record: Record) -> str:
        return record.name.lower()

    def comparable(self, record: Record, names: Names) -> Doc:
        told = _content(record.doc)
        told["schema_ids"] = sorted(names("label_schema", own) for own in told["schema_ids"])
        return told | {"items": _reviews(record.doc)}

    def encode(self, record: Record) -> Doc:
        return {"review_queue": {key: value for key, value in record.doc.items() if key != "archive"}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("review_queue"), "review_queue")
        doc: Doc = {
            "name": text(given.get("name") or None, "name"),
            "queue_type": word(given.get("queue_type"), "queue_type", TYPES),
            "created_by": text(given.get("created_by") or "", "created_by"),
            "users": [text(one, "a user") for one in items(given.get("users"), "users")],
            "schema_ids": [identity(one, "a schema id") for one in items(given.get("schema_ids"), "schema_ids")],
            "items": [_item(mapping(one, "an item")) for one in items(given.get("items"), "items")],
        }
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        own = identity(given.get("queue_id"), "queue_id") or ref_id
        return Record(Ref(self.name, own, parent), doc, doc["name"])

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return QueueScan(self, api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By name, or by the journal where it was renamed, from one listing of each of the target's experiments."""
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Unsupported(f"the target {reason}")
        found = {}
        for record in records:
            home = home_of(record, ids)
            await _load(target, home)
            known = ids.new_id(self.name, record.ref.id) or ""
            held = target.index.get(_place(home), known) or target.index.get(_place(home), _key(record.name))
            if held is not None:
                found[record.ref.key] = held[0]
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Uncarriable(f"the target {reason}")
        if made is not None:
            _check_type(record, target.index.get(_place(home_of(record, ids)), new_id))
        _schemas(record, ids)
        return Foreseen((made is None) + requests_for(record.doc.get("items") or []))

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        home, doc, losses = home_of(record, ids), record.doc, list[Outcome]()
        await target.wake(home)
        body: Doc = {"experiment_id": home, "user": record.name}
        if doc.get("queue_type") != "USER":
            body = {"experiment_id": home, "name": record.name, "queue_type": "CUSTOM", "users": doc.get("users") or []}
            body["schema_ids"] = _schemas(record, ids)
        try:
            answer = await target.api.call(CREATE_USER if "user" in body else CREATE, body)
        except Conflict:  # An earlier answer of ours got lost, or somebody was faster.
            answer = await target.api.call(BY_NAME, params=[("experiment_id", home), ("name", record.name)])
            if home not in target.fresh and not _is_as_sent(answer["review_queue"], body):
                _note(target, home, answer["review_queue"])
                new_id = str(answer["review_queue"]["queue_id"])
                return new_id, await self.resume(target, record, new_id, False, ids)
        made = answer["review_queue"]
        new_id = str(made["queue_id"])
        _note(target, home, made)
        if doc.get("created_by") and made.get("created_by") != doc["created_by"]:
            await _changed(target, record, {"queue_id": new_id, "new_owner": doc["created_by"]}, losses)
        return new_id, Open(Items(target.api, new_id), losses)

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """One that amigrate made is brought up to date; any other gets the items that it lacks."""
        home, losses = home_of(record, ids), list[Outcome]()
        await target.wake(home)
        shown = _check_type(record, target.index.get(_place(home), new_id))
        if made and shown["queue_type"] == "CUSTOM":
            await self._update(target, record, new_id, shown, ids, losses)
        held_items = {str(one["item_id"]): one for one in await items_of(target.api, new_id)}
        return Open(Items(target.api, new_id, held_items, made), losses)

    async def _update(
        self, target: Target, record: Record, new_id: str, shown: Doc, ids: Ids, losses: list[Outcome]
    ) -> None:
        """What differs of a queue that amigrate made."""
        wanted = _content(record.doc) | {"schema_ids": sorted(_schemas(record, ids))}
        body: Doc = {}
        if wanted["name"] != shown["name"]:
            body["name"] = wanted["name"]
        if wanted["created_by"] and wanted["created_by"] != shown["created_by"]:
            body["new_owner"] = wanted["created_by"]
        if wanted["users"] != shown["users"]:
            body |= {"update_users": True, "users": wanted["users"]}
        if body:
            await target.api.call(UPDATE, {"queue_id": new_id, **body})
        if not {*wanted["schema_ids"]} <= {*shown["schema_ids"]}:  # What the source has deleted stays at the target.
            body = {"queue_id": new_id, "update_schema_ids": True, "schema_ids": wanted["schema_ids"]}
            await _changed(target, record, body, losses)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses, state.waiting = await state.items.bring(record.ref, record.doc.get("items") or [], ids)
        return [*state.losses, *losses]

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        waiting = state.waiting if state else []
        return [Deferred(Stage.REFERENCES, {"items": waiting})] if waiting else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Items whose traces have arrived since."""
        there = [one for one in what.doc["items"] if ids.new_id("trace", str(one["item_id"]))]
        if there:
            home = home_of(record, ids)
            await target.wake(home)
            held = {str(one["item_id"]): one for one in await items_of(target.api, new_id)}
            losses, _ = await Items(target.api, new_id, held).bring(record.ref, there, ids)
            if losses:
                raise AmigrateError(losses[0].reason)
        return len(there) == len(what.doc["items"])


class QueueScan:
    """The review queues of some experiments, each with its items."""

    def __init__(self, kind: ReviewQueue, api: Api, experiments: Sequence[Record]) -> None:
        self._kind = kind
        self._api = api
        self._experiments = experiments

    async def pages(self) -> AsyncIterator[list[Record]]:
        if lacking(self._api, *SINCE):
            return
        places = await searched(self._api, self._kind, self._experiments)
        async for queues in each(self._of, places):
            for queue in queues:
                yield [await self._with_items(queue)]

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    async def _of(self, experiment: Record) -> list[Record]:
        """Those of one experiment; where they cannot be read, one record that says why."""
        try:
            found = self._api.review_queues.pop(experiment.ref.id, None)
            if found is None:
                found = await queues_of(self._api, experiment.ref.id)
            gone = await self._gone({str(own) for doc in found for own in doc.get("schema_ids") or []})
        except (AuthError, Unsupported):
            raise
        except ApiError as error:
            return [Record(Ref(self._kind.name, "*", experiment.ref), {}, error=error)]
        kept = [{**doc, "schema_ids": [one for one in doc.get("schema_ids") or [] if one not in gone]} for doc in found]
        return [
            Record(Ref(self._kind.name, str(doc["queue_id"]), experiment.ref), doc, str(doc["name"])) for doc in kept
        ]

    async def _gone(self, schemas: set[str]) -> set[str]:
        """Label schemas that were deleted: queues go on naming them, and nobody sees them any more."""
        gone = set()
        for own in sorted(schemas):
            try:
                await self._api.call(SCHEMA, params=[("schema_id", own)])
            except NotFound:
                gone.add(own)
        return gone

    async def _with_items(self, queue: Record) -> Record:
        if queue.error:
            return queue
        try:
            found = await items_of(self._api, queue.ref.id)
        except AuthError:
            raise
        except ApiError as error:
            return Record(queue.ref, queue.doc, queue.name, error=error)
        return Record(queue.ref, {**queue.doc, "items": found}, queue.name)


def _content(doc: Doc) -> Doc:
    return {
        **{field: str(doc.get(field) or "") for field in ("name", "queue_type", "created_by")},
        **{field: sorted(str(one) for one in doc.get(field) or []) for field in ("users", "schema_ids")},
    }


def _is_as_sent(found: Doc, body: Doc) -> bool:
    """Whether a queue that nobody has listed before is what this create call asks for."""
    asked = ("name", "queue_type", "users", "schema_ids")
    return "user" not in body and all(_content(found)[key] == _content(body)[key] for key in asked)


def _reviews(doc: Doc) -> Doc:
    """Status of each item, and who brought it about."""
    return {
        str(one["item_id"]): [str(one.get("status") or ""), str(one.get("completed_by") or "")]
        for one in doc.get("items") or []
    }


def _item(given: Doc) -> Doc:
    doc: Doc = {
        "item_id": text(given.get("item_id") or None, "item_id"),
        "item_type": word(given.get("item_type") or "TRACE", "item_type", ("TRACE",)),
        "status": word(given.get("status"), "status", STATUSES),
        "completed_by": text(given.get("completed_by") or "", "completed_by"),
    }
    return doc | {time: whole(given[time], time) for time in ITEM_TIMES if given.get(time) is not None}


async def _changed(target: Target, record: Record, body: Doc, losses: list[Outcome]) -> None:
    """Change what not every server lets everybody change."""
    what, field = ("reviewer", "created_by") if "new_owner" in body else ("question", "schema_ids")
    try:
        await target.api.call(UPDATE, body)
    except Rejected as error:
        losses.append(lost(what, field, record.ref, f"the target keeps its own: {error}"))


def _schemas(record: Record, ids: Ids) -> list[str]:
    """The target's ids of a queue's label schemas. Raises `Unresolved`: once it has items, it gets no more of them."""
    mapped = {str(own): ids.new_id("label_schema", str(own)) for own in record.doc.get("schema_ids") or []}
    missing = [own for own, new_id in mapped.items() if new_id is None]
    if missing:
        raise Unresolved(f"its label schema {missing[0]} is not at the target")
    return [new_id for new_id in mapped.values() if new_id]


# ---- what the target has ----------------------------------------------------------------------------------------


def _place(experiment: str) -> str:
    return f"review queues of {experiment}"


def _key(name: str) -> str:
    return f"named {name.lower()}"


def _check_type(record: Record, held: tuple[Found, str] | None) -> Doc:
    """What the target shows of a queue. Raises `Rejected` where it is of another type."""
    shown: Doc = codec.loads(held[1]) if held else {}
    if shown.get("queue_type") != record.doc.get("queue_type"):
        raise Rejected(f"the target has a queue of this name that is a {shown.get('queue_type')} queue: rename one")
    return shown


def _note(target: Target, experiment: str, doc: Doc) -> None:
    own = str(doc["queue_id"])
    facts = codec.dumps(_content(doc)).decode()
    target.index.add(_place(experiment), [own, _key(str(doc["name"]))], Found(own, False), facts)


async def _load(target: Target, experiment: str) -> None:
    if target.index.loaded(_place(experiment)) or experiment in target.fresh:
        return
    if target.dry and experiment in target.dormant:  # A server answers for no experiment that is deleted.
        return
    await target.wake(experiment)
    for doc in await queues_of(target.api, experiment):
        _note(target, experiment, doc)
    target.index.mark(_place(experiment))

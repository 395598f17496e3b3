"""Experiments.

Endpoints (`/api/2.0/mlflow/experiments/…`): POST search (view ALL, at most 50 000 a page), create, delete, restore,
set-experiment-tag. A name is unique, deleted experiments included; creating it again answers RESOURCE_ALREADY_EXISTS.
Id, creation time and last update time cannot be set. Deleting an experiment marks all its runs deleted, restoring it
marks them all active (MLflow 3.17.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, Rejected, Uncarriable
from amigrate.core.model import Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, mapping, text, texts, whole, word
from amigrate.kinds import recognition
from amigrate.kinds.base import STAGES, Kind, Target, content_tags, tag_list, tags_of
from amigrate.kinds.confirming import confirmed
from amigrate.kinds.experiment_scan import ExperimentScan, experiment_pages
from amigrate.kinds.limits import fitting, lost
from amigrate.kinds.naming import recognised
from amigrate.kinds.removal import strangers
from amigrate.kinds.source_tags import experiment_source_tags

CREATE = Endpoint("POST", f"{V2}/experiments/create", Work.WRITE)
DELETE = Endpoint("POST", f"{V2}/experiments/delete", Work.WRITE)
RENAME = Endpoint("POST", f"{V2}/experiments/update", Work.WRITE)
SET_TAG = Endpoint("POST", f"{V2}/experiments/set-experiment-tag", Work.WRITE)
GET = Endpoint("GET", f"{V2}/experiments/get")
BY_NAME = Endpoint("GET", f"{V2}/experiments/get-by-name")

EQUAL = ("lifecycle_stage", "tags")
ORDERS_ONLY = ("mlflow.trace.archiveNow",)
"""Tags that are commands to the server rather than facts: never carried."""
GATEWAY_ID = "mlflow.experiment.sourceId"
"""The endpoint of the AI gateway whose traces an experiment was made for, where it was."""
BY_ID = "by id"
"""Where the index keeps the target's experiments by id."""
DEFAULT = "0"
"""The experiment that every SQL store has from its beginning."""


class Experiment(Kind):
    """See the module."""

    name = "experiment"
    label = "experiments"
    folder = "experiments"
    document = "experiment.json"
    named = True
    merges = True

    def digest(self, record: Record) -> str:
        doc = record.doc
        return codec.digest([doc.get("name"), doc.get("lifecycle_stage"), sorted(tags_of(doc).items())])

    def is_deleted(self, record: Record) -> bool:
        return is_deleted(record)

    def excluded(self, record: Record, deleted: bool) -> str:
        if is_deleted(record) and not deleted:
            return "deleted at the source, and so are its runs; --deleted takes them along"
        return ""

    def match(self, record: Record) -> str:
        return str(record.doc.get("name") or record.ref.id)

    def comparable(self, record: Record, names: Names) -> Doc:
        tags = content_tags(tags_of(record.doc))
        if GATEWAY_ID in tags:
            tags[GATEWAY_ID] = names("gateway_endpoint", tags[GATEWAY_ID])
        return {
            "lifecycle_stage": record.doc.get("lifecycle_stage"),
            "tags": {key: value for key, value in tags.items() if key not in ORDERS_ONLY},
        }

    def encode(self, record: Record) -> Doc:
        return {"experiment": {**record.doc, "tags": dict(sorted(tags_of(record.doc).items()))}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        doc = dict(mapping(mapping(document.get("mlflow", document), "mlflow").get("experiment"), "experiment"))
        doc["name"] = text(doc.get("name") or None, "experiment.name")
        doc["tags"] = tag_list(texts(doc.get("tags"), "experiment.tags"))
        doc["lifecycle_stage"] = word(doc.get("lifecycle_stage") or "active", "experiment.lifecycle_stage", STAGES)
        for field in ("creation_time", "last_update_time"):
            if doc.get(field) is not None:
                doc[field] = whole(doc[field], f"experiment.{field}")
        own = identity(doc.get("experiment_id"), "experiment.experiment_id") or ref_id
        return Record(Ref(self.name, own), doc, doc["name"])

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return ExperimentScan(api)

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        async def ask(record: Record) -> Record:
            doc = (await api.call(GET, params=[("experiment_id", record.ref.id)]))["experiment"]
            return Record(record.ref, doc, str(doc.get("name", "")))

        return await confirmed(ask, records)

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(""):
            await _load(target)
        known = {record.ref.key: held for record in records if (held := _by_id(target, record, ids)) is not None}
        found = {}
        for record in records:
            name = target.naming.recall(record, ids, lambda name: target.index.get("", name) is not None)
            if not is_deleted(record):
                target.kept_alive.add(name)
            held = known.get(record.ref.key)
            if held is not None and codec.loads(held[1])["name"] != name and ids.made(record.ref):
                before = codec.loads(held[1])["name"]
                target.renaming[before] = held[0].new_id, name
                target.left_names.add(before)
        for record in records:
            held = known.get(record.ref.key) or _by_name(target, record)
            if held is not None:
                facts = codec.loads(held[1])
                same = all(facts[what] == value for what, value in _facts(record).items() if what in EQUAL)
                found[record.ref.key] = Found(held[0].new_id, same, held[0].deleted, stamp=facts["creation_time"])
        return found

    def everybodys(self, held: Found) -> bool:
        return held.new_id == DEFAULT

    async def recognises(
        self, target: Target, record: Record, held: Found, children: Sequence[Record], ids: Ids, given: bool = False
    ) -> bool:
        return recognised(await recognition.of_experiment(target, held.new_id, children), given)

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        """A tag that comes with a new experiment is checked by no SQLite, and by every other database."""
        if made is None:
            target.fresh.add(new_id)
        limit = target.limits.experiment_tag
        long = [key for key, value in tags_of(record.doc).items() if len(value) > limit]
        doubt = f"tags of experiments over {limit} characters: cut where the target checks them"
        return Foreseen(1 + is_deleted(record), doubts=[doubt] * len(long))

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        """Of several that become one, the first one makes it."""
        name = target_name(target, record)
        lock = target.in_line.setdefault(f"experiment {name}", asyncio.Lock())
        async with lock:
            if not target.naming.counts(record) and name in target.merged:
                return target.merged[name], list[Outcome]()
            new_id, losses = await self._make(target, record, name)
            target.merged[name] = new_id
            return new_id, losses

    async def _make(self, target: Target, record: Record, name: str) -> tuple[str, list[Outcome]]:
        losses: list[Outcome] = []
        await self._rename(target, record, name, losses)
        tags = {key: value for key, value in tags_of(record.doc).items() if key not in ORDERS_ONLY}
        if target.source_tags:
            tags |= experiment_source_tags(record, target.notes)
        late = await target.tags_to_send_later(tags)
        sent = {key: value for key, value in tags.items() if key not in late}
        try:
            answer = await target.api.call(CREATE, {"name": name, "tags": tag_list(sent)})
        except Conflict:
            return await self._made_meanwhile(target, record, name), losses
        new_id = str(answer["experiment_id"])
        target.fresh.add(new_id)
        self._retire(target, record)
        await self._set_tags(target, record, new_id, late, losses)
        return new_id, losses

    async def _made_meanwhile(self, target: Target, record: Record, name: str) -> str:
        """The name was free when we looked: an earlier answer of ours got lost, or somebody was faster."""
        if name in target.left_names:
            raise Rejected("the target has another experiment of this name, which could not be renamed")
        answer = await target.api.call(BY_NAME, params=[("experiment_name", name)])
        new_id = str(answer["experiment"]["experiment_id"])
        self._retire(target, record)
        return new_id

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        held = target.index.get(BY_ID, new_id)
        assert held is not None, f"{record.ref} was found in no listing"
        deleted = held[0].deleted
        if deleted and not (is_deleted(record) or made):
            raise Rejected("an experiment of this name is deleted at the target: restore or rename it there")
        if deleted:
            target.dormant.add(new_id)
        if deleted or made:
            self._retire(target, record)
        losses: list[Outcome] = []
        facts = codec.loads(held[1])
        if new_id == DEFAULT and not target.updates:
            await self._complete_default(target, record, facts, losses)
        elif (made or target.updates) and target.naming.counts(record):
            await self._update(target, record, new_id, facts, losses, ids)
        return losses

    async def _update(
        self, target: Target, record: Record, new_id: str, held: Doc, losses: list[Outcome], ids: Ids
    ) -> None:
        """The tags and the name of the source; tags that the target has besides stay. Nothing can be written to a
        deleted one."""
        tags = {key: value for key, value in tags_of(record.doc).items() if key not in ORDERS_ONLY}
        changed = {key: value for key, value in tags.items() if held["tags"].get(key) != value}
        entry = ids.entry("experiment", record.ref.id)
        revived = entry is not None and entry.deleted and not is_deleted(record)
        if revived or changed or held["name"] in target.renaming:
            await target.wake(new_id)
        await self._rename(target, record, held["name"], losses)
        await self._set_tags(target, record, new_id, changed, losses)

    async def _rename(self, target: Target, record: Record, name: str, losses: list[Outcome]) -> None:
        """The target's experiment of this name was renamed at the source; no other one can be called so before."""
        async with target.in_line.setdefault("renaming", asyncio.Lock()):
            if name not in target.renaming:
                return
            own, new = target.renaming.pop(name)
            try:
                await target.api.call(RENAME, {"experiment_id": own, "new_name": new})
            except Conflict:
                losses.append(lost("name", new, record.ref, "the target has another experiment of this name"))

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """With all that is in it, which the server keeps until `mlflow gc` comes; only where all of that is ours."""
        strange = await strangers(target.api, new_id, ids)
        if strange:
            raise Uncarriable(f"{strange} in it was not made by amigrate")
        await target.api.call(DELETE, {"experiment_id": new_id})

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state or []
        return losses

    async def _complete_default(self, target: Target, record: Record, held: Doc, losses: list[Outcome]) -> None:
        """Experiment 0 is there before anybody fills it: it gets the tags it lacks, none is replaced."""
        lacking = {
            key: value
            for key, value in tags_of(record.doc).items()
            if key not in held["tags"] and key not in ORDERS_ONLY
        }
        await self._set_tags(target, record, DEFAULT, lacking, losses)

    async def _set_tags(
        self, target: Target, record: Record, new_id: str, tags: dict[str, str], losses: list[Outcome]
    ) -> None:
        """One by one; what the target does not take is a loss."""
        for item in tag_list(tags):
            tag = fitting("tag", item, target.limits.experiment_tag, record.ref, losses)
            try:
                await target.api.call(SET_TAG, {"experiment_id": new_id, **tag})
            except Rejected as error:
                losses.append(lost("tag", item["key"], record.ref, f"the target refuses it: {error}"))

    def _retire(self, target: Target, record: Record) -> None:
        """What is deleted at the source goes at the end, unless another one that is not goes into the same."""
        if is_deleted(record) and target_name(target, record) not in target.kept_alive:
            target.retired.add(record.ref.id)

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        """Only experiments that are ours to delete were retired."""
        return [Deferred(Stage.DELETIONS, {})] if record.ref.id in target.retired else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        if new_id in target.dormant:
            return True
        if new_id not in target.fresh and (strange := await strangers(target.api, new_id, ids)):
            raise Uncarriable(f"deleted at the source, but {strange} in it was not made by amigrate: it stays")
        await target.api.call(DELETE, {"experiment_id": new_id})
        target.dormant.add(new_id)
        target.deleted_here.add(new_id)
        return True


def is_deleted(record: Record) -> bool:
    """True where the object is deleted at the source."""
    return record.doc.get("lifecycle_stage") == "deleted"


def target_name(target: Target, record: Record) -> str:
    """The name the experiment has at the target."""
    return target.naming.name(record.ref, record.name)


async def _load(target: Target) -> None:
    async for page in experiment_pages(target.api):
        for record in page:
            facts = codec.dumps(_facts(record)).decode()
            found = Found(record.ref.id, False, is_deleted(record))
            target.index.add("", [record.name], found, facts)
            target.index.add(BY_ID, [record.ref.id], found, facts)
    target.index.mark("")


def _by_id(target: Target, record: Record, ids: Ids) -> tuple[Found, str] | None:
    """The one that the journal knows, whatever either of them is called now.

    Ids are small numbers: on another server at the same address, the same number is another experiment. So the time
    when it was made must be the same, or its name, where that time is not known yet. What several experiments of the
    source go into has a name of its own.
    """
    entry = ids.entry("experiment", record.ref.id)
    if entry is None or entry.new_id is None or ids.shared("experiment", entry.new_id):
        return None
    held = target.index.get(BY_ID, entry.new_id)
    facts = codec.loads(held[1]) if held is not None else {}
    before = target.naming.wanted(record.ref, entry.name)
    is_same = facts.get("creation_time") == entry.stamp if entry.stamp else facts.get("name") == before
    return held if is_same else None


def _by_name(target: Target, record: Record) -> tuple[Found, str] | None:
    """One that is about to be renamed leaves its name to others."""
    name = target_name(target, record)
    return None if name in target.left_names else target.index.get("", name)


def _facts(record: Record) -> Doc:
    doc = record.doc
    return {
        "name": record.name,
        "lifecycle_stage": doc.get("lifecycle_stage"),
        "tags": tags_of(doc),
        "creation_time": str(doc.get("creation_time") or ""),
    }

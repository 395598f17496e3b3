"""Logged models (3.0+): how they are read, and the order in which a new one is written.

Endpoints (`/api/2.0/mlflow/logged-models…`): POST search (active ones of many experiments, with tags, params and the
whole history of their metrics), GET `/{id}?allow_deleted=true`, POST create (name, type, source run, params, tags; the
server picks the id), PATCH `/{id}` (status) and `/{id}/tags`, DELETE `/{id}` (there is no way back).

A model is written when every run is: create, files, metrics (see `model_metrics`), status. Its tag
`mlflow.modelVersions` comes last of all, because the server itself writes it whenever a version is made of the model.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.artifacts import Folder, model_folder_of
from amigrate.artifacts.walk import file_record, walk
from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core.errors import NotFound, Uncarriable, Unsupported
from amigrate.core.model import Body, Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.kinds import logged_model_document as document
from amigrate.kinds import model_links, origins, references
from amigrate.kinds.base import Kind, Target, home_of, pairs, tag_list
from amigrate.kinds.confirming import confirmed
from amigrate.kinds.listing import pages
from amigrate.kinds.log_batch import ENTITIES
from amigrate.kinds.logged_model_document import (
    FINAL,
    PENDING,
    SOURCE_MODEL,
    VERSIONS_TAG,
    info_of,
    is_deleted,
    metrics_of,
    tags_of,
)
from amigrate.kinds.model_metrics import lost_metrics, write_metrics
from amigrate.kinds.name_lists import rename_of, with_names
from amigrate.kinds.run_scan import RunScan
from amigrate.kinds.source_tags import logged_model_source_tags

SEARCH = Endpoint("POST", f"{V2}/logged-models/search")
CREATE = Endpoint("POST", f"{V2}/logged-models", Work.WRITE, resend=False)
FIRST_PAGE, LARGEST_PAGE = 100, 1000


@dataclass(slots=True)
class Open:
    """A logged model being written."""

    new_id: str
    folder: Folder
    waiting: list[Doc] = field(default_factory=list)
    """Points of runs that are not at the target."""


class LoggedModel(Kind):
    """See the module."""

    name = "logged_model"
    label = "logged-models"
    parent = "experiment"
    needs = ("experiment", "run")
    folder = "logged_models"
    document = "logged_model.json"
    by_origin = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return document.digest(record)

    def is_deleted(self, record: Record) -> bool:
        return is_deleted(record)

    def settled(self, record: Record) -> bool:
        return info_of(record).get("status") != PENDING

    def excluded(self, record: Record, deleted: bool) -> str:
        return "deleted at the source; --deleted takes it along" if is_deleted(record) and not deleted else ""

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        """The run that made it, and those that measured it."""
        runs = {
            str(info_of(record).get("source_run_id") or ""),
            *(str(one.get("run_id")) for one in metrics_of(record)),
        }
        return [("run", run) for run in sorted(runs - {"", "None"})]

    def comes_from(self, record: Record) -> Sequence[tuple[str, str]]:
        run = str(info_of(record).get("source_run_id") or "")
        return [("run", run)] if run else []

    def match(self, record: Record) -> str:
        return document.origin(record)

    def comparable(self, record: Record, names: Names) -> Doc:
        return document.comparable(record, names)

    def names_others(self, file: Record) -> bool:
        return references.names_others(file.ref.id, int(file.doc["size"]))

    def split_names(self, data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        return references.split_names(data)

    def encode(self, record: Record) -> Doc:
        return document.encode(record)

    def decode(self, doc: Doc, ref_id: str, parent: Ref | None) -> Record:
        return document.decode(doc, ref_id, parent)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return LoggedModelScan(api, parents)

    async def locate(self, api: Api, ids: Sequence[str]) -> list[Record]:
        found = [doc for one in ids if (doc := await _got_if_there(api, one)) is not None]
        return [_record(doc, Ref("experiment", str(doc["info"]["experiment_id"]))) for doc in found]

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        """No listing shows deleted ones; nor, while others are deleted, each of those that are there."""

        async def ask(record: Record) -> Record:
            assert record.ref.parent is not None, f"{record.ref} belongs to no experiment"
            return _record(await _got_as_it_is(api, record.ref.id), record.ref.parent)

        return await confirmed(ask, records)

    def location(self, record: Record) -> str:
        return str(info_of(record).get("artifact_uri") or "")

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        return [*batch]

    async def files(self, api: Api, record: Record) -> AsyncIterator[list[Record]]:
        if location := self.location(record):
            folder = model_folder_of(api, location, record.ref.id)
            async for page in walk(folder):
                yield [file_record(record.ref, entry, folder) for entry in page]

    def open(self, api: Api, record: Record, file: Record) -> Body:
        folder = model_folder_of(api, self.location(record), record.ref.id)
        return folder.body(file.ref.id, file.doc["size"])

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By provenance tag or by id. What the target has deleted is not listed: those are asked for by id."""
        if target.api.abilities.older_than(3, 0):
            raise Unsupported(f"the target is MLflow {target.api.abilities.version or '2.0'}: 3.0 has logged models")
        homes = {record.ref.key: home_of(record, ids) for record in records}
        await _load(target, {home for home in homes.values() if home not in target.fresh})
        found = await _found(target, records, homes, ids)
        hidden = [one for one in records if is_deleted(one) and one.ref.key not in found]
        older = {homes[one.ref.key] for one in hidden} - target.fresh
        if older:
            await _load_deleted(target, older)
            found |= await _found(target, hidden, homes, ids)
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        metrics = metrics_of(record)
        lost_all = bool(metrics) and not await target.is_sql()
        losses = lost_metrics(record.ref, metrics) if lost_all else []
        return Foreseen(2 + math.ceil(len(metrics) / ENTITIES) + is_deleted(record), losses)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        experiment = home_of(record, ids)
        await target.wake(experiment)
        info = info_of(record)
        tags = {key: value for key, value in _tags(target, record).items() if key not in (VERSIONS_TAG, SOURCE_MODEL)}
        if target.provenance:
            tags[SOURCE_MODEL] = document.origin(record)
        if target.source_tags:
            tags |= logged_model_source_tags(record, target.notes)
        body = {
            "experiment_id": experiment,
            "name": info.get("name") or "",
            "model_type": info.get("model_type") or "",
            "source_run_id": _source_run(record, ids),
            "params": record.doc.get("data", {}).get("params") or [],
            "tags": tag_list(tags),
        }

        own = document.origin(record) if target.provenance else ""
        # What looks alike is made one after the other, so that none takes what another one has made.
        alike = f"{experiment} {body['name']} {body['source_run_id']} {own}"

        async def recover() -> Doc | None:
            return await _made_already(target, body, own, ids)

        lock = target.in_line.setdefault(alike, asyncio.Lock())
        async with lock:
            answer = await target.api.call(CREATE, body, recover=recover)
        made = answer["model"]["info"]
        new_id = str(made["model_id"])
        target.note_root(new_id, made["artifact_uri"])
        return new_id, Open(new_id, model_folder_of(target.api, made["artifact_uri"], new_id))

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        held = await _got(target.api, new_id)
        tags, wanted = pairs(held["info"].get("tags")), _tags(target, record)
        changed = {key: value for key, value in wanted.items() if tags.get(key) != value}
        changed = {key: value for key, value in changed.items() if key not in (VERSIONS_TAG, SOURCE_MODEL)}
        if changed:
            await target.api.call(_tags_of(new_id), {"model_id": new_id, "tags": tag_list(changed)})
        return Open(new_id, model_folder_of(target.api, held["info"]["artifact_uri"], new_id))

    async def held_files(self, target: Target, record: Record, state: Any) -> dict[str, int]:
        return {entry.path: entry.size async for page in walk(state.folder) for entry in page}

    async def put_file(self, target: Target, record: Record, file: Record, body: Body, ids: Ids, state: Any) -> int:
        reason = state.folder.refusal(file.ref.id)
        if reason:
            raise Uncarriable(reason)
        if references.names_others(file.ref.id, body.size or 0):
            body = await references.with_new_ids(body, (record.ref.id, state.new_id), ids)
        size: int = await state.folder.put(file.ref.id, body)
        return size

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses, state.waiting = await write_metrics(target, record.ref, state.new_id, metrics_of(record), ids)
        status = info_of(record).get("status")
        if status in FINAL:
            await target.api.call(_patch(state.new_id), {"model_id": state.new_id, "status": status})
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if state is None:
            return []
        versions = tags_of(record).get(VERSIONS_TAG)
        doc = {"tags": {VERSIONS_TAG: versions} if versions else {}, "metrics": state.waiting}
        work = [Deferred(Stage.REFERENCES, doc)] if any(doc.values()) else []
        return [*work, *([Deferred(Stage.DELETIONS, {})] if is_deleted(record) else [])]

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        if what.stage is Stage.REFERENCES:
            _, waiting = await write_metrics(target, record.ref, new_id, what.doc["metrics"], ids)
            if what.doc["tags"]:
                tags = with_names(what.doc["tags"], rename_of(target))
                body = {"model_id": new_id, "tags": tag_list(tags)}
                await target.api.call(_tags_of(new_id), body)
            what.doc.update(metrics=waiting, tags={})
            return not waiting
        await _delete(target, new_id)
        return True

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        await _delete(target, new_id)


class LoggedModelScan:
    """The active models of some experiments, oldest first, then the deleted ones that their runs name."""

    def __init__(self, api: Api, experiments: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record.ref for record in experiments}
        self._seen: set[str] = set()

    async def pages(self) -> AsyncIterator[list[Record]]:
        if self._api.abilities.older_than(3, 0):
            return
        oldest_first = [{"field_name": "creation_timestamp", "ascending": True}]
        body = {"experiment_ids": [*self._parents], "order_by": oldest_first}
        async for page in pages(self._api, SEARCH, "models", body, first=FIRST_PAGE, largest=LARGEST_PAGE):
            self._seen.update(doc["info"]["model_id"] for doc in page)
            yield [self._record(doc) for doc in page]
        deleted = [record async for record in self.deleted()]
        if deleted:
            yield deleted

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        """All once more: a model is written to as long as anybody measures it."""
        async for page in self.pages():
            yield page

    async def deleted(self) -> AsyncIterator[Record]:
        """Those that runs name and no listing has. Each is asked for once: nobody knows which experiment it is in."""
        for model_id in sorted(self._api.named_models - self._seen):
            try:
                doc = await _got_as_it_is(self._api, model_id)
            except NotFound:
                self._api.named_models.discard(model_id)
                continue
            if str(doc["info"]["experiment_id"]) in self._parents:
                self._api.named_models.discard(model_id)
                yield self._record(doc)

    def _record(self, doc: Doc) -> Record:
        return _record(doc, self._parents[str(doc["info"]["experiment_id"])])


def _record(doc: Doc, parent: Ref) -> Record:
    info = doc["info"]
    return Record(Ref("logged_model", str(info["model_id"]), parent), doc, str(info.get("name") or ""))


def _path(model_id: str) -> str:
    return f"{V2}/logged-models/{model_id}"


def _patch(model_id: str) -> Endpoint:
    return Endpoint("PATCH", _path(model_id), Work.WRITE)


def _tags_of(model_id: str) -> Endpoint:
    return Endpoint("PATCH", f"{_path(model_id)}/tags", Work.WRITE)


async def _delete(target: Target, model_id: str) -> None:
    with suppress(NotFound):  # An answer of ours got lost, or it was deleted before.
        await target.api.call(Endpoint("DELETE", _path(model_id), Work.WRITE))


async def _got(api: Api, model_id: str) -> Doc:
    answer = await api.call(Endpoint("GET", _path(model_id)), params=[("allow_deleted", "true")])
    model: Doc = answer["model"]
    return model


async def _got_if_there(api: Api, model_id: str) -> Doc | None:
    try:
        return await _got(api, model_id)
    except NotFound:
        return None


async def _got_as_it_is(api: Api, model_id: str) -> Doc:
    """A model, marked where it is deleted: no answer says so, but without being asked a server shows no deleted one."""
    doc = await _got(api, model_id)
    with suppress(NotFound):
        await api.call(Endpoint("GET", _path(model_id)))
        return doc
    return {**doc, "lifecycle_stage": "deleted"}


async def _load(target: Target, experiments: set[str]) -> None:
    """List the models of target experiments into the index, each experiment once."""
    places = {f"models of {one}": one for one in sorted(experiments)}
    missing = {place: one for place, one in places.items() if not target.index.loaded(place)}
    if not missing:
        return
    parents = [Record(Ref("experiment", one), {}) for one in missing.values()]
    async for page in LoggedModelScan(target.api, parents).pages():
        for record in page:
            _note(target, record)
    for place in missing:
        target.index.mark(place)


async def _load_deleted(target: Target, experiments: set[str]) -> None:
    """Deleted models of target experiments: those that runs name which took them in, as no listing tells."""
    places = {f"inputs of {one}": one for one in sorted(experiments)}
    missing = {place: one for place, one in places.items() if not target.index.loaded(place)}
    if not missing:
        return
    parents = [Record(Ref("experiment", one), {}) for one in missing.values()]
    async for page in RunScan(target.api, parents).pages():
        await model_links.add(target.api, [record.doc for record in page])
    async for record in LoggedModelScan(target.api, parents).deleted():
        _note(target, record)
    for place in missing:
        target.index.mark(place)


def _note(target: Target, record: Record) -> None:
    tag, place = tags_of(record).get(SOURCE_MODEL), f"models of {info_of(record)['experiment_id']}"
    found = Found(record.ref.id, False, is_deleted(record), tag is not None)
    target.index.add(place, [record.ref.id], found, "")
    if tag:
        origins.note(target.index, place, tag, found, record.name, document.likeness(record))


async def _found(target: Target, records: Sequence[Record], homes: Mapping[str, str], ids: Ids) -> dict[str, Found]:
    found: dict[str, Found] = {}
    taken: set[str] = set()
    for record in records:
        held = await _held(target, homes[record.ref.key], record, ids, taken)
        if held is not None:
            taken.add(held.new_id)
            found[record.ref.key] = held
    return found


async def _held(target: Target, home: str, record: Record, ids: Ids, taken: Collection[str]) -> Found | None:
    """The target's model that stands for a model of the source, and for none of those that were found before."""

    def is_free(new_id: str) -> bool:
        return new_id not in taken and ids.old_id("logged_model", new_id) in (None, record.ref.id)

    known, origin, place = ids.new_id("logged_model", record.ref.id), document.origin(record), f"models of {home}"
    for key in (*([known] if known else []), record.ref.id, origin):
        held = target.index.get(place, key)
        if held is not None and is_free(held[0].new_id):
            return held[0]
    held = origins.held(target.index, place, origin, record.name, document.likeness(record), is_free)
    if held is not None:
        return held[0]
    if not target.provenance and ids.was_intended(record.ref):
        body = {"experiment_id": home, "name": record.name, "source_run_id": _source_run(record, ids)}
        made = await _made_already(target, body, "", ids, taken)
        return Found(str(made["model"]["info"]["model_id"]), False) if made else None
    if known is None or not is_deleted(record):
        return None
    try:
        return Found((await _got(target.api, known))["info"]["model_id"], False, deleted=True, ours=True)
    except NotFound:
        return None


def _tags(target: Target, record: Record) -> dict[str, str]:
    """The tags of a model, with the prompts and registered models that they name as the target calls them."""
    return with_names(tags_of(record), rename_of(target))


def _source_run(record: Record, ids: Ids) -> str:
    """A run that does not come along is named as the source names it: the server takes any id."""
    run = str(info_of(record).get("source_run_id") or "")
    return (ids.new_id("run", run) or run) if run else ""


async def _made_already(target: Target, body: Doc, own: str, ids: Ids, taken: Collection[str] = ()) -> Doc | None:
    """What an unanswered create call made after all: told by its tag, or without one by its name; of the same run,
    pending, and none of the source's models yet."""
    search: Doc = {"experiment_ids": [body["experiment_id"]], "max_results": 100}
    search["filter"] = f"tags.`{SOURCE_MODEL}` = '{own}'" if own else f"name = '{body['name']}'"
    for model in (await target.api.call(SEARCH, search)).get("models") or []:
        info, made = model["info"], str(model["info"]["model_id"])
        is_it = info.get("status") == PENDING and (info.get("source_run_id") or "") == body["source_run_id"]
        if is_it and made not in taken and ids.old_id("logged_model", made) is None:
            return {"model": model}
    return None

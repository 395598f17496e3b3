"""Experiments.

Endpoints (`/api/2.0/mlflow/experiments/…`): POST search (view ALL, at most 50 000 a page), create, delete, restore,
set-experiment-tag. A name is unique, deleted experiments included; creating it again answers RESOURCE_ALREADY_EXISTS.
Id, creation time and last update time cannot be set. Deleting an experiment marks all its runs deleted, restoring it
marks them all active (MLflow 3.17.2).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from amigrate.client.api import SEARCH_EXPERIMENTS, V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, Rejected
from amigrate.core.model import Deferred, Doc, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, mapping, text, texts, whole, word
from amigrate.kinds.base import STAGES, Kind, Target, content_tags, tag_list, tags_of
from amigrate.kinds.limits import fitting, lost
from amigrate.kinds.source_tags import experiment_source_tags

CREATE = Endpoint("POST", f"{V2}/experiments/create", Work.WRITE)
DELETE = Endpoint("POST", f"{V2}/experiments/delete", Work.WRITE)
SET_TAG = Endpoint("POST", f"{V2}/experiments/set-experiment-tag", Work.WRITE)
BY_NAME = Endpoint("GET", f"{V2}/experiments/get-by-name")

PAGE = 1000
ORDERS_ONLY = ("mlflow.trace.archiveNow",)
"""Tags that are commands to the server rather than facts: never carried."""
DEFAULT = "0"
"""The experiment that every SQL store has from its beginning."""


class Experiment(Kind):
    """See the module."""

    name = "experiment"
    label = "experiments"
    folder = "experiments"
    document = "experiment.json"

    def digest(self, record: Record) -> str:
        doc = record.doc
        return codec.digest([doc.get("name"), doc.get("lifecycle_stage"), sorted(tags_of(doc).items())])

    def excluded(self, record: Record, deleted: bool) -> str:
        if is_deleted(record) and not deleted:
            return "deleted at the source, and so are its runs; --deleted takes them along"
        return ""

    def match(self, record: Record) -> str:
        return str(record.doc.get("name") or record.ref.id)

    def comparable(self, record: Record, names: Names) -> Doc:
        tags = content_tags(tags_of(record.doc))
        return {
            "name": record.doc.get("name"),
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

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(""):
            await _load(target)
        found = {}
        for record in records:
            held = target.index.get("", target_name(target, record))
            if held is not None:
                found[record.ref.key] = Found(held[0].new_id, held[1] == _facts(record), held[0].deleted)
        return found

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        name, losses = target_name(target, record), list[Outcome]()
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
        answer = await target.api.call(BY_NAME, params=[("experiment_name", name)])
        new_id = str(answer["experiment"]["experiment_id"])
        self._retire(target, record)
        return new_id

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        held = target.index.get("", target_name(target, record))
        deleted = held is not None and held[0].deleted
        if deleted and not (is_deleted(record) or made):
            raise Rejected("an experiment of this name is deleted at the target: restore or rename it there")
        if deleted:
            target.dormant.add(new_id)
        if deleted or made:
            self._retire(target, record)
        losses: list[Outcome] = []
        if new_id == DEFAULT:
            await self._complete_default(target, record, losses)
        return losses

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state or []
        return losses

    async def _complete_default(self, target: Target, record: Record, losses: list[Outcome]) -> None:
        """Experiment 0 is there before anybody fills it: it gets the tags it lacks, none is replaced."""
        answer = await target.api.call(BY_NAME, params=[("experiment_name", target_name(target, record))])
        held = tags_of(answer["experiment"])
        lacking = {
            key: value for key, value in tags_of(record.doc).items() if key not in held and key not in ORDERS_ONLY
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
        if is_deleted(record):
            target.retired.add(record.ref.id)

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        """Only experiments that are ours to delete were retired."""
        return [Deferred(Stage.DELETIONS, {})] if record.ref.id in target.retired else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        if new_id not in target.dormant:
            await target.api.call(DELETE, {"experiment_id": new_id})
        return True


class ExperimentScan:
    """Every experiment, oldest first, so that what is created meanwhile comes at the end."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: set[str] = set()

    async def pages(self) -> AsyncIterator[list[Record]]:
        async for page in experiment_pages(self._api):
            self._seen.update(record.ref.id for record in page)
            yield page

    async def size(self) -> int | None:
        """Not worth a request: one page holds most servers."""
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in experiment_pages(self._api):
            new = [record for record in page if record.ref.id not in self._seen]
            self._seen.update(record.ref.id for record in new)
            if new:
                yield new


async def experiment_pages(api: Api) -> AsyncIterator[list[Record]]:
    """All experiments of a server, deleted ones included, in pages."""
    body: Doc = {"max_results": PAGE, "view_type": "ALL", "order_by": ["creation_time ASC", "experiment_id ASC"]}
    while True:
        answer = await api.call(SEARCH_EXPERIMENTS, body)
        yield [
            Record(Ref("experiment", str(doc["experiment_id"])), doc, str(doc.get("name", "")))
            for doc in answer.get("experiments") or []
        ]
        token = answer.get("next_page_token")
        if not token:
            return
        body["page_token"] = token


def is_deleted(record: Record) -> bool:
    """True where the object is deleted at the source."""
    return record.doc.get("lifecycle_stage") == "deleted"


def target_name(target: Target, record: Record) -> str:
    """The name the experiment has at the target."""
    return target.rename or str(record.doc.get("name") or record.ref.id)


async def _load(target: Target) -> None:
    async for page in experiment_pages(target.api):
        for record in page:
            target.index.add("", [record.name], Found(record.ref.id, False, is_deleted(record)), _facts(record))
    target.index.mark("")


def _facts(record: Record) -> str:
    return codec.digest([record.doc.get("lifecycle_stage"), sorted(tags_of(record.doc).items())])

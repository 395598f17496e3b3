"""Traces: how they are read, and the order in which one is written.

A trace keeps its id. Spans come first, many traces in one request; then POST `/api/3.0/mlflow/traces` sets the info
with tags, metadata and assessments, because spans that come later would change its times and state (MLflow 3.17.2).
Spans that do not lie in the tracking store are a file, `traces.json`, among the trace's artifacts, and so are
attachments. An assessment that another one overrides is made first: the server marks it when the other one comes.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.artifacts import Folder, trace_folder_of
from amigrate.artifacts.walk import file_record, walk
from amigrate.client.api import V2, V3, Api, Endpoint, Work
from amigrate.core.errors import AmigrateError, NotFound, Uncarriable, Unresolved, Unsupported
from amigrate.core.model import Body, Deferred, Doc, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.kinds import references, trace_spans
from amigrate.kinds import trace_document as document
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.limits import lost
from amigrate.kinds.trace_document import LOCATION, info_of
from amigrate.kinds.trace_scan import TraceScan

INFOS = Endpoint("POST", f"{V3}/traces/batchGetInfos")
START = Endpoint("POST", f"{V3}/traces", Work.WRITE)
LINK_PROMPTS = Endpoint("POST", f"{V2}/traces/link-prompts", Work.WRITE)
SPANS_FILE = "traces.json"
EXPERIMENT_IN_FILE = re.compile(rb'("mlflow\.experimentId": ?"\\")[^"\\]*(\\"")')


@dataclass(slots=True)
class Open:
    """A trace being written."""

    experiment: str
    as_file: bool
    """True where its spans go into a file."""
    held: Doc | None
    """The info that the target has of it."""
    folder: Folder | None = None
    """Known once the trace was started."""
    losses: list[Outcome] = field(default_factory=list)
    resolved: bool = True
    """False where it names a run or a logged model that is not at the target."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Trace(Kind):
    """See the module."""

    name = "trace"
    label = "traces"
    parent = "experiment"
    needs = ("experiment", "run", "logged_model")
    folder = "traces"
    document = "trace.json"
    heavy = True
    batched = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return document.facts(info_of(record))

    def settled(self, record: Record) -> bool:
        return info_of(record).get("state") != "IN_PROGRESS"

    def comparable(self, record: Record, names: Names) -> Doc:
        return document.comparable(record, names)

    def encode(self, record: Record) -> Doc:
        return document.encode(record)

    def decode(self, doc: Doc, ref_id: str, parent: Ref | None) -> Record:
        return document.decode(doc, ref_id, parent)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return TraceScan(api, parents)

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        async for portion in trace_spans.loaded(api, batch):
            if portion:
                yield portion

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        return [one for one in batch if not document.is_in_store(one) or document.has_attachments(one)]

    async def files(self, api: Api, record: Record) -> AsyncIterator[list[Record]]:
        folder = _folder(api, info_of(record), record.ref.id)
        if folder is not None:
            async for page in walk(folder):
                yield [file_record(record.ref, entry, folder) for entry in page]

    def open(self, api: Api, record: Record, file: Record) -> Body:
        folder = _folder(api, info_of(record), record.ref.id)
        assert folder is not None, f"{record.ref} has no files"
        return folder.body(file.ref.id, file.doc["size"])

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By id, in as many requests as there are pages."""
        if target.api.abilities.older_than(3, 4):
            raise Unsupported(
                f"the target is MLflow {target.api.abilities.version or '2.0'}: 3.4 takes traces with ids"
            )
        homes = {record.ref.id: _experiment(record, ids) for record in records}
        held = await _held(target, homes)
        target.held_traces |= held
        found = {}
        for record in records:
            info = held.get(record.ref.id)
            if info is not None:
                wanted = document.mapped_info(record, homes[record.ref.id], ids)
                found[record.ref.key] = Found(record.ref.id, document.facts(info) == document.facts(wanted))
        return found

    async def begin_batch(
        self, target: Target, records: Sequence[Record], ids: Ids
    ) -> dict[str, tuple[str, Any] | AmigrateError]:
        made: dict[str, tuple[str, Any] | AmigrateError] = {}
        by_home: dict[str, list[Record]] = {}
        for record in records:
            home, held = _experiment(record, ids), target.held_traces.pop(record.ref.id, None)
            if held is not None and document.experiment_of(held) != home:
                place = document.experiment_of(held)
                made[record.ref.key] = Uncarriable(f"the target has a trace of this id, in experiment {place}")
                continue
            as_file = "spans" in record.doc and not trace_spans.takes_spans(target.api, record.ref.id)
            made[record.ref.key] = (record.ref.id, Open(home, as_file, held))
            if "spans" in record.doc and not as_file:
                by_home.setdefault(home, []).append(record)
        for home, some in by_home.items():
            await target.wake(home)
            made |= await trace_spans.write(target.api, home, some)
        return made

    async def held_files(self, target: Target, record: Record, state: Any) -> dict[str, int]:
        folder = _folder(target.api, state.held, record.ref.id) if state.held else None
        return {entry.path: entry.size async for page in walk(folder) for entry in page} if folder else {}

    async def put_file(self, target: Target, record: Record, file: Record, body: Body, ids: Ids, state: Any) -> int:
        folder = await self._started(target, record, state, ids)
        reason = folder.refusal(file.ref.id)
        if reason:
            raise Uncarriable(reason)
        if file.ref.id == SPANS_FILE and (body.size or 0) <= references.SMALL_FILE:
            body = await _with_experiment(body, state.experiment)
        return await folder.put(file.ref.id, body)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        folder = await self._started(target, record, state, ids)
        if state.as_file:
            spans = document.mapped_spans(record, state.experiment)
            await folder.put(SPANS_FILE, references.body_of(document.as_artifact(spans)))
        state.resolved = document.is_resolved(info_of(record), ids)
        losses: list[Outcome] = state.losses
        return losses

    async def _started(self, target: Target, record: Record, state: Open, ids: Ids) -> Folder:
        """The folder of the trace, which is known once its info is written: with the first file, or at the end."""
        async with state.lock:
            if state.folder is None:
                state.folder = await self._start(target, record, state, ids)
        return state.folder

    async def _start(self, target: Target, record: Record, state: Open, ids: Ids) -> Folder:
        await target.wake(state.experiment)
        info = document.mapped_info(record, state.experiment, ids)
        assessments = info["assessments"]
        lacking = document.lacking_assessments(assessments, (state.held or {}).get("assessments") or [])
        late = [one for one in lacking if one.get("overrides") in {one["assessment_id"] for one in assessments}]
        info["assessments"] = [one for one in lacking if one not in late]
        answer = await target.api.call(START, {"trace": {"trace_info": info}})
        for one in late:
            await _assess(target, record, one)
        _note_validity(record, state)
        folder = _folder(target.api, answer["trace"]["trace_info"], record.ref.id)
        if folder is None:
            raise AmigrateError("the target says no place for its files")
        return folder

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if state is None:
            return []
        doc: Doc = {"prompts": document.linked_prompts(record)}
        if not state.resolved:
            doc["info"] = info_of(record)
        return [Deferred(Stage.REFERENCES, doc)] if any(doc.values()) else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Prompts keep their names and numbers; the server takes no link to one that it does not have."""
        wanted, info = what.doc["prompts"], what.doc.get("info")
        there = [one for one in wanted if ids.new_id("prompt_version", f"{one['name']}/{one['version']}")]
        if there:
            await target.api.call(LINK_PROMPTS, {"trace_id": new_id, "prompt_versions": there})
        resolved = info is None or document.is_resolved(info, ids)
        if info is not None and resolved:
            whole = Record(record.ref, {"info": info})
            told = document.mapped_info(whole, _experiment(whole, ids), ids)
            await target.api.call(START, {"trace": {"trace_info": {**told, "assessments": []}}})
            for old, new in zip(info.get("assessments") or [], told["assessments"], strict=True):
                if old != new:
                    await _update(target, record, new)
        return resolved and len(there) == len(wanted)


def _folder(api: Api, info: Doc, trace_id: str) -> Folder | None:
    location = (info.get("tags") or {}).get(LOCATION)
    return trace_folder_of(api, str(location), trace_id) if location else None


async def _held(target: Target, homes: dict[str, str]) -> dict[str, Doc]:
    """The infos of those traces that the target has: of any experiment, where the server finds them by id."""
    if target.api.abilities.older_than(3, 10):
        parents = [Record(Ref("experiment", one), {}) for one in sorted(set(homes.values()) - target.fresh)]
        listed = [record async for page in TraceScan(target.api, parents).pages() for record in page] if parents else []
        return {one.ref.id: info_of(one) for one in listed if one.ref.id in homes}
    answer = await target.api.call(INFOS, {"trace_ids": [*homes]})
    return {str(one["trace_id"]): one for one in answer.get("trace_infos") or []}


async def _assess(target: Target, record: Record, assessment: Doc) -> None:
    """An assessment of its own, by which the server marks the one that it overrides."""
    path = f"{V3}/traces/{record.ref.id}/assessments"

    async def recover() -> Doc | None:
        with suppress(NotFound):
            return await target.api.call(Endpoint("GET", f"{path}/{assessment['assessment_id']}"))
        return None

    create = Endpoint("POST", path, Work.WRITE, resend=False)
    await target.api.call(create, {"assessment": assessment}, recover=recover)


async def _update(target: Target, record: Record, assessment: Doc) -> None:
    """Give an assessment its metadata again; writing it whole would make it valid."""
    path = f"{V3}/traces/{record.ref.id}/assessments/{assessment['assessment_id']}"
    body = {"assessment": {"metadata": assessment["metadata"]}, "update_mask": "metadata"}
    await target.api.call(Endpoint("PATCH", path, Work.WRITE), body)


def _note_validity(record: Record, state: Open) -> None:
    """No request marks an assessment as overridden where the other one is gone."""
    assessments = info_of(record).get("assessments") or []
    overridden = {one.get("overrides") for one in assessments}
    for one in assessments:
        if one.get("valid") is False and one["assessment_id"] not in overridden:
            reason = "it is invalid at the source, and what overrides it is gone: it arrives as valid"
            state.losses.append(lost("assessment", one["assessment_id"], record.ref, reason))


async def _with_experiment(body: Body, experiment: str) -> Body:
    """The spans in a file with the target's experiment in them."""
    async with body.open() as stream:
        data = b"".join([chunk async for chunk in stream.chunks])
    return references.body_of(EXPERIMENT_IN_FILE.sub(rb"\g<1>" + experiment.encode() + rb"\g<2>", data))


def _experiment(record: Record, ids: Ids) -> str:
    parent = record.ref.parent
    new_id = ids.new_id("experiment", parent.id) if parent else None
    if new_id is None:
        raise Unresolved(f"its experiment {parent.id if parent else '?'} is not at the target")
    return new_id

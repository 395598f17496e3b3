"""Traces: how they are read, and the order in which one is written.

A trace keeps its id. Spans come first, many traces in one request; then POST `/api/3.0/mlflow/traces` sets the info
with tags, metadata and assessments, because spans that come later would change its times and state (MLflow 3.17.2).
Spans that do not lie in the tracking store are a file, `traces.json`, among the trace's artifacts, and so are
attachments. An assessment that another one overrides is made first: the server marks it when the other one comes.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.artifacts import Folder, trace_folder_of
from amigrate.artifacts.walk import file_record, walk
from amigrate.client.api import V2, V3, Api, Endpoint, Work
from amigrate.core.errors import AmigrateError, NotFound, Rejected, Uncarriable, Unsupported
from amigrate.core.model import Body, Deferred, Doc, Forecast, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.kinds import references, trace_scan, trace_spans
from amigrate.kinds import trace_document as document
from amigrate.kinds.base import Kind, Target, home_of
from amigrate.kinds.limits import lost
from amigrate.kinds.name_lists import rename_of
from amigrate.kinds.trace_document import LOCATION, info_of
from amigrate.kinds.trace_scan import TraceScan

START = Endpoint("POST", f"{V3}/traces", Work.WRITE)
DELETE = Endpoint("POST", f"{V2}/traces/delete-traces", Work.WRITE)
LINK_PROMPTS = Endpoint("POST", f"{V2}/traces/link-prompts", Work.WRITE)
SPANS_FILE = "traces.json"
EXPERIMENT_IN_FILE = re.compile(rb'("mlflow\.experimentId": ?"\\")([^"\\]*)(\\"")')


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
    sent: str = ""
    """A fingerprint of what it was written to say of others."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Trace(Kind):
    """See the module."""

    name = "trace"
    label = "traces"
    parent = "experiment"
    needs = ("experiment", "run", "logged_model", "issue", "gateway_endpoint")
    folder = "traces"
    document = "trace.json"
    heavy = True
    batched = True
    tells_parent = True
    global_ids = True
    ids_vary = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return document.facts(info_of(record))

    def is_all_listed(self, record: Record) -> bool:
        return not document.has_files(record) and not document.linked_prompts(record)

    def settled(self, record: Record) -> bool:
        return info_of(record).get("state") != "IN_PROGRESS"

    def comparable(self, record: Record, names: Names) -> Doc:
        return document.comparable(record, names)

    def names_others(self, file: Record) -> bool:
        """Spans in a file name the experiment."""
        return file.ref.id == SPANS_FILE and int(file.doc["size"]) <= references.SMALL_FILE

    def split_names(self, data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        found = [match[2].decode("utf-8", "replace") for match in EXPERIMENT_IN_FILE.finditer(data)]
        return EXPERIMENT_IN_FILE.sub(rb"\g<1>\g<3>", data), [("experiment", own) for own in found]

    def encode(self, record: Record) -> Doc:
        return document.encode(record)

    def decode(self, doc: Doc, ref_id: str, parent: Ref | None) -> Record:
        return document.decode(doc, ref_id, parent)

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        """Spans come with those of many traces."""
        in_store = sum(map(document.is_in_store, batch))
        return Forecast(requests=math.ceil(in_store / trace_spans.TRACES_PER_CALL))

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return TraceScan(api, parents)

    async def count(self, api: Api, parents: Sequence[Record]) -> int | None:
        return await trace_scan.count(api, parents)

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        async for portion in trace_spans.loaded(api, batch):
            if portion:
                yield portion

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        """By id, or before 3.10 in a second listing: pages move on while traces are deleted, over some that stay."""
        if api.abilities.older_than(3, 10):
            wanted = {one.ref.key for one in records}
            homes = [Record(one, {}) for one in dict.fromkeys(one.ref.parent for one in records) if one]
            listing = TraceScan(api, homes).pages()
            return [record async for page in listing for record in page if record.ref.key in wanted]
        found = []
        for start in range(0, len(records), trace_scan.IDS_PER_CALL):
            some = records[start : start + trace_scan.IDS_PER_CALL]
            infos = await trace_spans.infos_of(api, [one.ref.id for one in some])
            found += [trace_scan.record_of(infos[one.ref.id], one.ref) for one in some if one.ref.id in infos]
        return found

    def location(self, record: Record) -> str:
        return _location(info_of(record)) if document.has_files(record) else ""

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        return [one for one in batch if document.has_files(one)]

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
        homes = {record.ref.id: home_of(record, ids) for record in records}
        held = await _held(target, homes)
        target.held_traces |= held
        found = {}
        for record in records:
            info = held.get(record.ref.id)
            if info is not None:
                wanted = self._mapped(target, record, homes[record.ref.id], ids)
                # Where a server keeps spans in a file, it may have the info of a trace and not its spans.
                has_spans = document.is_in_store(Record(record.ref, {"info": info})) or not document.is_in_store(record)
                # What names something that is still to come has to be remembered.
                is_resolved = document.is_resolved(info_of(record), ids)
                same = has_spans and is_resolved and document.facts(info) == document.facts(wanted)
                found[record.ref.key] = Found(record.ref.id, same)
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        elsewhere = _elsewhere(target.held_traces.pop(record.ref.id, None), home_of(record, ids))
        if elsewhere is not None:
            raise elsewhere
        prompts = document.linked_prompts(record)
        return Foreseen(1 + 1 / trace_spans.TRACES_PER_CALL + bool(prompts), _made_valid(record))

    async def begin_batch(
        self, target: Target, records: Sequence[Record], ids: Ids
    ) -> dict[str, tuple[str, Any] | AmigrateError]:
        made: dict[str, tuple[str, Any] | AmigrateError] = {}
        by_home: dict[str, list[Record]] = {}
        for record in records:
            home, held = home_of(record, ids), target.held_traces.pop(record.ref.id, None)
            elsewhere = _elsewhere(held, home)
            if elsewhere is not None:
                made[record.ref.key] = elsewhere
                continue
            as_file = "spans" in record.doc and not trace_spans.takes_spans(target.api, record.ref.id)
            made[record.ref.key] = (record.ref.id, Open(home, as_file, held))
            if "spans" in record.doc and not as_file:
                by_home.setdefault(home, []).append(document.renamed(record, rename_of(target)))
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
            spans = document.mapped_spans(document.renamed(record, rename_of(target)), state.experiment)
            await folder.put(SPANS_FILE, references.body_of(document.as_artifact(spans)))
        state.resolved = document.is_resolved(info_of(record), ids)
        state.sent = document.references(self._mapped(target, record, state.experiment, ids))
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
        info = self._mapped(target, record, state.experiment, ids)
        assessments = info["assessments"]
        held = (state.held or {}).get("assessments") or []
        lacking = document.lacking_assessments(assessments, held)
        late = document.overriding(lacking, assessments)
        info["assessments"] = [one for one in lacking if one not in late]
        told = await _told(target, record, state, info, held)
        for one in late:
            await _assess(target, record, one)
        if held and not _takes_parts(target):
            known = {one["assessment_id"] for one in held}
            await _override_again(target, record, [one for one in assessments if one["assessment_id"] in known])
        state.losses += _made_valid(record)
        folder = _folder(target.api, told, record.ref.id)
        if folder is None:
            raise AmigrateError("the target says no place for its files")
        return folder

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if state is None:
            return []
        doc: Doc = {"prompts": document.linked_prompts(record)}
        if not state.resolved:
            doc |= {"info": info_of(record), "sent": state.sent}
        return [Deferred(Stage.REFERENCES, doc)] if any(doc.values()) else []

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """For good: a server keeps no deleted traces."""
        home = home_of(Record(ref, {}), ids)
        await target.api.call(DELETE, {"experiment_id": home, "request_ids": [new_id]})

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Prompts keep their numbers; the server takes no link to one that it does not have.

        What the trace says of others is written whenever more of them are there than when it was last written.
        """
        wanted, info = what.doc["prompts"], what.doc.get("info")
        known = [(ids.new_id("prompt_version", f"{one['name']}/{one['version']}"), one["version"]) for one in wanted]
        there = [{"name": new.rpartition("/")[0], "version": version} for new, version in known if new]
        if there:
            with suppress(Unsupported):  # Before 3.10, the tag of the trace is all that there is.
                await target.api.call(LINK_PROMPTS, {"trace_id": new_id, "prompt_versions": there})
        if info is not None:
            whole = Record(record.ref, {"info": info})
            told = self._mapped(target, whole, home_of(whole, ids), ids)
            if (now := document.references(told)) != what.doc.get("sent"):
                await self._tell_again(target, whole, told)
                what.doc["sent"] = now
        what.doc["prompts"] = [one for one, (new, _) in zip(wanted, known, strict=True) if not new]
        return (info is None or document.is_resolved(info, ids)) and len(there) == len(wanted)

    def _mapped(self, target: Target, record: Record, experiment: str, ids: Ids) -> Doc:
        """A trace's info in the target's terms."""
        return document.mapped_info(document.renamed(record, rename_of(target)), experiment, ids)

    async def _tell_again(self, target: Target, record: Record, told: Doc) -> None:
        pairs = zip(info_of(record).get("assessments") or [], told["assessments"], strict=True)
        changed = [new for old, new in pairs if old != new]
        renamed = [one for one in changed if document.names_issue(one)]  # No other request takes these.
        await _tell(target, {**told, "assessments": renamed}, told["assessments"])
        for one in changed:
            if one not in renamed:
                await _update(target, record, one)


def _folder(api: Api, info: Doc, trace_id: str) -> Folder | None:
    location = _location(info)
    return trace_folder_of(api, location, trace_id) if location else None


def _location(info: Doc) -> str:
    return str((info.get("tags") or {}).get(LOCATION) or "")


async def _held(target: Target, homes: dict[str, str]) -> dict[str, Doc]:
    """The infos of those traces that the target has: of any experiment, where the server finds them by id."""
    if target.api.abilities.older_than(3, 10):
        parents = [Record(Ref("experiment", one), {}) for one in sorted(set(homes.values()) - target.fresh)]
        listed = [record async for page in TraceScan(target.api, parents).pages() for record in page] if parents else []
        return {one.ref.id: info_of(one) for one in listed if one.ref.id in homes}
    return await trace_spans.infos_of(target.api, [*homes])


def _takes_parts(target: Target) -> bool:
    """Whether assessments stay that a trace's info does not name; before, they make the server refuse it (3.4.0)."""
    return not target.api.abilities.older_than(3, 13)


async def _tell(target: Target, info: Doc, held: Sequence[Doc]) -> Doc:
    """Write a trace's info; returns it as the server has it then."""
    if not _takes_parts(target):
        named = {one["assessment_id"] for one in info["assessments"]}
        info = {**info, "assessments": [*info["assessments"], *(o for o in held if o["assessment_id"] not in named)]}
    told: Doc = (await target.api.call(START, {"trace": {"trace_info": info}}))["trace"]["trace_info"]
    return told


async def _told(target: Target, record: Record, state: Open, info: Doc, held: Sequence[Doc]) -> Doc:
    """The same; where the server does not know what an issue is, without the assessments that name one."""
    try:
        return await _tell(target, info, held)
    except Rejected as error:
        issues = [one for one in info["assessments"] if document.names_issue(one)]
        if not issues:
            raise
        reason = f"it says that the trace shows an issue, which the target does not take: {error}"
        state.losses += [lost("assessment", one["assessment_id"], record.ref, reason) for one in issues]
        return await _tell(target, {**info, "assessments": [o for o in info["assessments"] if o not in issues]}, held)


async def _override_again(target: Target, record: Record, assessments: Sequence[Doc]) -> None:
    """What was overridden has become valid, because it had to be written again: so must be what overrides it."""
    for one in document.overriding([*assessments], [*assessments]):
        path = f"{V3}/traces/{record.ref.id}/assessments/{one['assessment_id']}"
        with suppress(NotFound):
            await target.api.call(Endpoint("DELETE", path, Work.WRITE))
        await _assess(target, record, one)


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


def _elsewhere(held: Doc | None, home: str) -> Uncarriable | None:
    """Why a trace cannot be written, where the target has one of its id in another experiment."""
    place = document.experiment_of(held) if held is not None else home
    return None if place == home else Uncarriable(f"the target has a trace of this id, in experiment {place}")


def _made_valid(record: Record) -> list[Outcome]:
    """No request marks an assessment as overridden where the other one is gone."""
    assessments = info_of(record).get("assessments") or []
    overridden = {one.get("overrides") for one in assessments}
    wrong = [one for one in assessments if one.get("valid") is False and one["assessment_id"] not in overridden]
    reason = "it is invalid at the source, and what overrides it is gone: it arrives as valid"
    return [lost("assessment", one["assessment_id"], record.ref, reason) for one in wrong]


async def _with_experiment(body: Body, experiment: str) -> Body:
    """The spans in a file with the target's experiment in them."""
    async with body.open() as stream:
        data = b"".join([chunk async for chunk in stream.chunks])
    return references.body_of(EXPERIMENT_IN_FILE.sub(rb"\g<1>" + experiment.encode() + rb"\g<3>", data))

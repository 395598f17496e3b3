"""Runs: how they are read, and the order in which a new one is written.

Endpoints (`/api/2.0/mlflow/runs/…`): POST create (start time, user, name and all tags; tags here are not cut),
log-batch (see `log_batch`), log-inputs (2.4+), update (status, end time), delete, restore. Omitting `start_time` stores
0, sending `end_time` 0 clears it. Everything that writes to a run fails once it is deleted (MLflow 3.17.2).

A run of up to 1000 points and params is written with three requests: create with its tags, one log-batch, update.
The update comes last, after points and files: a run that has its final status has everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from amigrate.artifacts import Folder, folder_of, proxy_path
from amigrate.artifacts.proxy import LIST as LIST_PROXY
from amigrate.artifacts.walk import file_record, walk
from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core.errors import ApiError, AuthError, NotFound, Rejected, Uncarriable
from amigrate.core.model import Body, Deferred, Doc, Forecast, Foreseen, Found, Outcome, Record, Ref, Rows, Stage
from amigrate.core.ports import Ids, Names, RowCall, Scan
from amigrate.kinds import dataset_inputs, lost_runs, model_links, origins, references, run_forecast, run_scan
from amigrate.kinds import run_document as document
from amigrate.kinds.base import Kind, Target, home_of, tag_list
from amigrate.kinds.deleted_runs import DELETE, GET, RESTORE, even_if_deleted
from amigrate.kinds.history import HistoryReader
from amigrate.kinds.limits import fitting
from amigrate.kinds.log_batch import BATCH, RunWriter, batches, metrics_of
from amigrate.kinds.name_lists import LINKED_PROMPTS, rename_of, with_names
from amigrate.kinds.run_document import ENDED, ID_TAGS, SOURCE_RUN, info_of, is_deleted, tags_of
from amigrate.kinds.run_scan import SEARCH, RunScan
from amigrate.kinds.source_tags import run_source_tags
from amigrate.kinds.traced import each

CREATE = Endpoint("POST", f"{V2}/runs/create", Work.WRITE, resend=False)
UPDATE = Endpoint("POST", f"{V2}/runs/update", Work.WRITE)

MADE = "made in this session"
"""Where the index keeps the runs that this session made, by their source: the listings it holds are older."""
FEW = 3
"""Runs that are asked for one by one: searching needs the experiments first."""
WORTH_A_LOOK = 3
"""Runs of one experiment for which one listing of its folder pays."""


@dataclass(slots=True)
class Open:
    """A run being written: what is still to be sent with its next batch."""

    new_id: str
    experiment: str
    folder: Folder
    writer: RunWriter
    params: list[Doc] = field(default_factory=list)
    tags: list[Doc] = field(default_factory=list)
    pending: dict[str, str] = field(default_factory=dict)
    """Tags of the source that name runs, as long as some of those have no new id."""
    held: dict[str, str] = field(default_factory=dict)
    """The tags that the target's run has."""
    waiting: list[Doc] = field(default_factory=list)
    """Dataset inputs that name evaluation datasets which are not at the target yet."""
    doubtful: Doc = field(default_factory=dict)
    """What tells a run whose create call had to be repeated: the first call may still take effect."""

    @property
    def losses(self) -> list[Outcome]:
        """Parts of the run that the target did not take."""
        return self.writer.losses


class Run(Kind):
    """See the module."""

    name = "run"
    label = "runs"
    parent = "experiment"
    needs = ("experiment",)
    folder = "runs"
    document = "run.json"
    by_origin = True
    points = True
    tells_parent = True
    heavy = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return document.digest(record)

    def series(self, record: Record) -> Sequence[str]:
        return [metric["key"] for metric in record.doc["data"].get("metrics") or []]

    def is_deleted(self, record: Record) -> bool:
        return is_deleted(record)

    def settled(self, record: Record) -> bool:
        return info_of(record).get("status") in ENDED

    def excluded(self, record: Record, deleted: bool) -> str:
        return "deleted at the source; --deleted takes it along" if is_deleted(record) and not deleted else ""

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

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        return run_forecast.forecast(batch)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return RunScan(api, parents, in_parts=True)

    async def count(self, api: Api, parents: Sequence[Record]) -> int | None:
        return await run_scan.count(api, parents)

    async def locate(self, api: Api, ids: Sequence[str]) -> list[Record]:
        """A few by one request each, many by searching for a hundred at a time everywhere."""
        if len(ids) > FEW and not api.abilities.older_than(2, 1):
            return await run_scan.located(api, ids)
        found = []
        for run_id in ids:
            with suppress(NotFound):
                run = (await api.call(GET, params=[("run_id", run_id)]))["run"]
                found.append(document.from_rest(run, Ref("experiment", str(run["info"]["experiment_id"]))))
        return found

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        """The logged models that they took in, which no listing tells."""
        await model_links.add(api, [record.doc for record in batch])
        yield [*batch]

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        parents = {one.ref.parent: Record(one.ref.parent, {}) for one in records if one.ref.parent}
        scan = RunScan(api, [*parents.values()])
        return [record async for page in scan.of([one.ref.id for one in records]) for record in page]

    async def rows(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        async for call in HistoryReader(api, batch).calls():
            yield call

    def location(self, record: Record) -> str:
        return str(info_of(record).get("artifact_uri") or "")

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        """One listing of an experiment's folder tells which of its runs have a folder at all.

        Only for runs whose files lie behind the server's proxy.
        """
        homes: dict[str, list[Record]] = {}
        chosen = []
        for record in batch:
            home = _home(record, api.uri)
            if home is None:
                chosen.append(record)
            else:
                homes.setdefault(home[0], []).append(record)

        async def listed(home: str) -> list[Record]:
            return await _with_folder(api, home, homes[home])

        return [*chosen, *[record async for some in each(listed, [*homes]) for record in some]]

    async def files(self, api: Api, record: Record) -> AsyncIterator[list[Record]]:
        location = self.location(record)
        if not location:
            return
        folder = folder_of(api, location, record.ref.id)
        async for page in walk(folder):
            yield [file_record(record.ref, entry, folder) for entry in page]

    def open(self, api: Api, record: Record, file: Record) -> Body:
        return folder_of(api, self.location(record), record.ref.id).body(file.ref.id, file.doc["size"])

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By provenance tag or by id, from one listing of those target experiments that were there before us.

        What this session made is known without a listing: a run that goes on at the source is met twice.
        A target run answers for one source run only, also where several claim the same origin.
        """
        homes = {record.ref.key: home_of(record, ids) for record in records}
        await _load(target, {home for home in homes.values() if home not in target.fresh})
        target.copies |= document.copies(records)
        found: dict[str, Found] = {}
        taken: set[str] = set()
        for record in records:
            held = _held(target, homes[record.ref.key], record, ids, taken)
            if held is not None:
                taken.add(held[0].new_id)
                same = held[1] == document.facts(_called(target, record).doc)
                found[record.ref.key] = Found(held[0].new_id, same, held[0].deleted, held[0].ours)
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        return await run_forecast.foreseen(target, record, is_there=made is not None)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        record, experiment = _called(target, record), home_of(record, ids)
        await target.wake(experiment)
        info, own = info_of(record), _origin(target, record)
        tags = document.mapped_tags(record, ids)
        tags.pop(SOURCE_RUN, None)
        if target.provenance:
            tags[SOURCE_RUN] = own
        if target.source_tags:
            tags |= run_source_tags(record, target.notes)
        late = await target.tags_to_send_later(tags)
        body: Doc = {
            "experiment_id": experiment,
            "user_id": info.get("user_id", ""),
            "run_name": _name(record),
            "start_time": info.get("start_time") or 0,
            "tags": tag_list({key: value for key, value in tags.items() if key not in late}),
        }
        wanted = lost_runs.sought(target, body, own)
        asked_again = False

        async def recover() -> Doc | None:
            nonlocal asked_again
            asked_again = True
            runs = await lost_runs.made_already(target, wanted, ids)
            return {"run": runs[0]} if runs else None

        losses: list[Outcome] = []
        async with lost_runs.alone(target, wanted):
            try:
                answer = await target.api.call(CREATE, body, recover=recover)
            except Rejected:
                # SQLite stores a tag of any length; the columns of PostgreSQL and MySQL have an end.
                body["tags"] = [fitting("tag", tag, target.limits.tag, record.ref, losses) for tag in body["tags"]]
                if not losses:
                    raise
                answer = await target.api.call(CREATE, body, recover=recover)
        made = answer["run"]["info"]
        state = _opened(target, record, made, tags, resumed=asked_again)
        state.losses.extend(losses)
        state.tags = _fitting_tags(target, record, state, tag_list(late))
        state.doubtful = {**wanted.doc(), "origin": own} if asked_again else {}
        target.index.add(MADE, [record.ref.key], Found(state.new_id, False, ours=True), "")
        return state.new_id, state

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Everything is sent again; a SQL store drops what it has already, for others the writer looks first."""
        record = _called(target, record)
        await target.wake(home_of(record, ids))
        answer = await target.api.call(SEARCH, _by_id(home_of(record, ids), new_id))
        held = answer["runs"][0]
        if held["info"].get("lifecycle_stage") == "deleted":
            await target.api.call(RESTORE, {"run_id": new_id})
        state = _opened(target, record, held["info"], tags_of(held), resumed=True)
        changed = {key: value for key, value in tags_of(record.doc).items() if state.held.get(key) != value}
        wanted = {key: value for key, value in changed.items() if key not in (*ID_TAGS, SOURCE_RUN)}
        state.tags = _fitting_tags(target, record, state, tag_list(wanted))
        return state

    async def put_rows(self, target: Target, record: Record, rows: Sequence[Rows], ids: Ids, state: Any) -> None:
        _settle_tags(target, record, state, ids)
        points = [point for chunk in rows for point in metrics_of(chunk.series, await state.writer.lacking(chunk))]
        if points:
            await _send(state, points)

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
        _settle_tags(target, record, state, ids)
        await _send(state, [])
        state.waiting = await dataset_inputs.write(target, record, state, ids)
        info = info_of(record)
        if info.get("status") != "RUNNING" or info.get("end_time"):
            body = {"run_id": state.new_id, "status": info.get("status", "FINISHED")}
            await target.api.call(UPDATE, body | ({"end_time": info["end_time"]} if info.get("end_time") else {}))
        losses: list[Outcome] = state.losses
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        work = []
        if state is not None:
            doc = {
                "tags": state.pending,
                "inputs": model_links.inputs_of(record.doc),
                "outputs": model_links.outputs_of(record.doc),
                "datasets": state.waiting,
                "doubtful": state.doubtful,
            }
            if any(doc.values()):
                work.append(Deferred(Stage.REFERENCES, {**doc, "experiment": state.experiment}))
            if self._dies(target, record):
                work.append(Deferred(Stage.DELETIONS, {}))
        if record.ref.parent and record.ref.parent.id in target.retired and not is_deleted(record):
            work.append(Deferred(Stage.REVIVALS, {}))
        return work

    def _dies(self, target: Target, record: Record) -> bool:
        """Deleted by itself; where its whole experiment is deleted, that takes the run along."""
        return is_deleted(record) and not (record.ref.parent and record.ref.parent.id in target.retired)

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """The server keeps what is deleted, until `mlflow gc` comes."""
        await target.api.call(DELETE, {"run_id": new_id})

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        if what.stage is not Stage.REFERENCES:
            home = ids.new_id("experiment", record.ref.parent.id) if record.ref.parent else None
            slept = home in target.dormant and home not in target.deleted_here
            if not slept:  # In a deleted experiment that nobody has touched, every run is as it was left.
                await target.api.call(DELETE if what.stage is Stage.DELETIONS else RESTORE, {"run_id": new_id})
            return True
        doc = what.doc
        if doc["doubtful"]:
            told = dict(doc["doubtful"])
            await lost_runs.remove_twins(target, told.pop("origin"), new_id, lost_runs.Sought(**told), ids)
        links, unresolved = _resolved(doc, (record.ref.id, new_id), ids)
        datasets = dataset_inputs.mapped(doc.get("datasets") or [], ids)
        if links.tags or links.inputs or links.outputs or datasets:
            await target.wake(doc["experiment"])
            await even_if_deleted(target, new_id, lambda: links.write(target, new_id))
            await even_if_deleted(target, new_id, lambda: dataset_inputs.link(target, new_id, datasets))
        doc |= unresolved
        return not any(unresolved[what] for what in ("tags", "inputs", "outputs"))


@dataclass(frozen=True, slots=True)
class Links:
    """What a run says of other objects, with the ids of the target."""

    tags: list[Doc]
    inputs: list[str]
    outputs: list[tuple[str, int]]

    async def write(self, target: Target, run_id: str) -> None:
        if self.tags:
            await target.api.call(BATCH, {"run_id": run_id, "tags": self.tags})
        await model_links.write(target, run_id, self.inputs, self.outputs)


def _called(target: Target, record: Record) -> Record:
    """The run with the prompts that it names as the target calls them."""
    rename, tags = rename_of(target), tags_of(record.doc)
    if rename is None or LINKED_PROMPTS not in tags:
        return record
    data = {**record.doc["data"], "tags": tag_list(with_names(tags, rename))}
    return replace(record, doc={**record.doc, "data": data})


def _name(record: Record) -> str:
    """Without a name the server would invent one."""
    return str(tags_of(record.doc).get("mlflow.runName") or info_of(record).get("run_name") or record.ref.id)


def _resolved(doc: Doc, own: references.Own, ids: Ids) -> tuple[Links, Doc]:
    """What can be written by now of what a run says of others, and what has to wait on; `sent` was written before."""
    sent: dict[str, str] = doc.get("sent") or {}
    mapped = {key: references.mapped(value, own, ids) for key, value in doc["tags"].items()}
    tags = {key: text for key, (text, _) in mapped.items() if text not in (doc["tags"][key], sent.get(key))}
    inputs = {one: ids.new_id(references.LOGGED_MODEL, one) for one in doc["inputs"]}
    outputs = [(one, ids.new_id(references.LOGGED_MODEL, one), step) for one, step in doc["outputs"]]
    links = Links(
        tag_list(tags),
        [new for new in inputs.values() if new],
        [(new, step) for _, new, step in outputs if new],
    )
    unresolved = {
        "doubtful": {},
        "tags": {key: doc["tags"][key] for key, (_, complete) in mapped.items() if not complete},
        "sent": sent | tags,
        "inputs": [one for one, new in inputs.items() if not new],
        "outputs": [(one, step) for one, new, step in outputs if not new],
    }
    return links, unresolved


def _by_id(experiment: str, run_id: str) -> Doc:
    filters = f"attributes.run_id = '{run_id}'"
    return {"experiment_ids": [experiment], "filter": filters, "run_view_type": "ALL", "max_results": 1}


# ---- reading files ----------------------------------------------------------------------------------------------


def _home(record: Record, server: str) -> tuple[str, str] | None:
    """The proxied folder that holds the run's own folder, and that folder's name; None for any other layout."""
    path = proxy_path(info_of(record).get("artifact_uri") or "", server)
    parts = (path or "").split("/")
    if len(parts) < 3 or parts[-1] != "artifacts" or parts[-2] != record.ref.id:
        return None
    return "/".join(parts[:-2]), parts[-2]


async def _with_folder(api: Api, home: str, records: list[Record]) -> list[Record]:
    if len(records) < WORTH_A_LOOK:
        return records
    try:
        answer = await api.call(LIST_PROXY, params=[("path", home)])
    except AuthError:
        raise
    except ApiError:
        return records  # Each run's own listing will say what is wrong.
    folders = {str(item["path"]).rpartition("/")[2] for item in answer.get("files") or []}
    return [record for record in records if record.ref.id in folders]


def _origin(target: Target, record: Record) -> str:
    return record.ref.id if record.ref.key in target.copies else document.origin(record)


# ---- finding what the target has --------------------------------------------------------------------------------


async def _load(target: Target, experiments: set[str]) -> None:
    """List the runs of target experiments into the index, each experiment once."""
    missing = [Record(Ref("experiment", one), {}) for one in sorted(experiments) if not target.index.loaded(one)]
    if not missing:
        return
    async for page in RunScan(target.api, missing).pages():
        for record in page:
            info, tag = info_of(record), tags_of(record.doc).get(SOURCE_RUN)
            found = Found(record.ref.id, False, is_deleted(record), tag is not None)
            home, facts = str(info["experiment_id"]), document.facts(record.doc)
            looks = [] if target.provenance else [_free_key(target, home, lost_runs.likeness(info))]
            target.index.add(home, [record.ref.id, *looks], found, facts)
            await dataset_inputs.note_held(target, home, record.doc)
            if tag:
                origins.note(target.index, home, tag, found, _look(record), facts)
    for one in missing:
        target.index.mark(one.ref.id)


def _free_key(target: Target, home: str, likeness: str) -> str:
    """Runs that look alike are numbered."""
    return next(key for number in count() if target.index.get(home, key := f"{likeness}#{number}") is None)


def _held(target: Target, home: str, record: Record, ids: Ids, taken: set[str]) -> tuple[Found, str] | None:
    """The target run that stands for a source run and for no other one."""
    made = target.index.get(MADE, record.ref.key)
    if made is not None or home in target.fresh:
        return made

    def is_free(new_id: str) -> bool:
        return new_id not in taken and ids.old_id("run", new_id) in (None, record.ref.id)

    known, origin = ids.new_id("run", record.ref.id), _origin(target, record)
    for key in (*([known] if known else []), record.ref.id, origin):
        held = target.index.get(home, key)
        if held is not None and is_free(held[0].new_id):
            return held
    facts = document.facts(_called(target, record).doc)
    held = origins.held(target.index, home, origin, _look(record), facts, is_free)
    if held is None and not target.provenance and ids.was_intended(record.ref):
        alike = (target.index.get(home, key) for key in _alike(target, home, record))
        held = next((one for one in alike if one is not None and is_free(one[0].new_id)), None)
    return held


def _look(record: Record) -> str:
    """What never changes in a run."""
    return str(info_of(record).get("start_time") or 0)


def _alike(target: Target, home: str, record: Record) -> Iterator[str]:
    """Where the journal is all there is: the keys of what an earlier session may have made before it was killed."""
    likeness = lost_runs.likeness({**info_of(record), "run_name": _name(record)})
    for number in count():
        key = f"{likeness}#{number}"
        if target.index.get(home, key) is None:
            return
        yield key


# ---- what is written --------------------------------------------------------------------------------------------


def _opened(target: Target, record: Record, made: Doc, tags: dict[str, str], *, resumed: bool) -> Open:
    """A run at the target, which has these tags, with the params and tags that are still to be sent."""
    new_id = str(made["run_id"])
    folder = folder_of(target.api, made["artifact_uri"], new_id)
    target.note_root(new_id, made["artifact_uri"])
    writer = RunWriter(target, record.ref, new_id, resumed=resumed)
    state = Open(new_id, str(made["experiment_id"]), folder, writer, held=tags)
    state.pending = {key: value for key, value in tags_of(record.doc).items() if key in ID_TAGS}
    params = record.doc["data"].get("params") or []
    state.params = [fitting("param", item, target.limits.param, record.ref, state.losses) for item in params]
    return state


def _settle_tags(target: Target, record: Record, state: Open, ids: Ids) -> None:
    """Tags that name runs go with the next batch as soon as every run they name has a new id.

    The run's own new id is not known before it is made, so tags that name the run itself always come this way.
    """
    for key, old in list(state.pending.items()):
        text, complete = references.mapped(old, (record.ref.id, state.new_id), ids)
        if complete:
            del state.pending[key]
            if state.held.get(key) != text:
                state.tags += _fitting_tags(target, record, state, [{"key": key, "value": text}])


def _fitting_tags(target: Target, record: Record, state: Open, tags: list[Doc]) -> list[Doc]:
    return [fitting("tag", item, target.limits.tag, record.ref, state.losses) for item in tags]


async def _send(state: Open, points: list[Doc]) -> None:
    """Points, together with the params and tags that wait."""
    for batch in batches(points, state.params, state.tags):
        await state.writer.send(batch)

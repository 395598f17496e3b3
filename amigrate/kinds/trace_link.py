"""Links of traces to runs other than the one that made them: what an evaluation has looked at (MLflow 3.4, databases).

A record is a run that has any, with the ids of the traces and of the other experiments that hold some. POST
`/api/2.0/mlflow/traces/link-to-run` takes at most 100 traces of one run; the same again does no harm, but a trace or a
run that is not there is taken without a word. Nothing tells the links of a trace, or of several runs at once: POST
`traces/search` with `run_id = '…'` gives the traces that a run has made or is linked to. That is one search for each
run, which makes the server look at every trace of the experiments that it names. So only the runs of experiments with
traces are asked for, each in its own experiment, where MLflow's own clients put links; asked for by name, every run is
asked for everywhere.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V2, V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import ApiError, AuthError, Uncarriable, Unsupported
from amigrate.core.model import Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Stage, Status
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text
from amigrate.kinds.base import Kind, Target, home_of, lacking, pairs
from amigrate.kinds.listing import pages
from amigrate.kinds.run_document import ENDED, SOURCE_RUN
from amigrate.kinds.searches import searches_of
from amigrate.kinds.store import is_sql
from amigrate.kinds.trace_document import experiment_of
from amigrate.kinds.traced import each, overlook, places_of, with_traces

RUNS = Endpoint("POST", f"{V2}/runs/search")
TRACES = Endpoint("POST", f"{V3}/traces/search")
LINK = Endpoint("POST", f"{V2}/traces/link-to-run", Work.WRITE)
MADE_BY = "mlflow.sourceRun"
PER_CALL = 100
FIRST_PAGE, LARGEST_PAGE = 100, 500
RUNS_PAGE = 1000
HELD = "linked traces"
"""Where the index keeps what a run of the target is linked to."""
OLDEST_FIRST = ["attributes.start_time ASC", "attributes.run_id ASC"]


@dataclass(slots=True)
class Open:
    """The links of a run being written."""

    run: str
    held: frozenset[str]
    waiting: list[str] = field(default_factory=list)
    """Traces that are not at the target."""


class TraceLink(Kind):
    """See the module."""

    name = "trace_link"
    label = "trace-links"
    parent = "experiment"
    by_origin = True
    needs = ("experiment", "run", "trace")
    about = ("run", "trace")
    folder = "trace_links"
    document = "trace_link.json"
    overlooks = "traces of other experiments may be linked to their runs, but it takes a search for each run"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(sorted(record.doc["trace_ids"]))

    def match(self, record: Record) -> str:
        return str(record.doc.get("origin") or record.ref.id)

    def comes_from(self, record: Record) -> Sequence[tuple[str, str]]:
        return [("run", record.ref.id)]

    def comparable(self, record: Record, names: Names) -> Doc:
        return {"traces": dict.fromkeys(sorted(record.doc["trace_ids"]), "linked")}

    def encode(self, record: Record) -> Doc:
        return {"trace_link": {key: value for key, value in record.doc.items() if key != "archive"}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("trace_link"), "trace_link")
        own = identity(given.get("run_id"), "run_id") or ref_id
        doc: Doc = {
            "run_id": own,
            "origin": identity(given.get("origin"), "origin") or own,
            "trace_ids": [text(one, "a trace id") for one in items(given.get("trace_ids"), "trace_ids")],
            "experiment_ids": [identity(one, "an id") for one in items(given.get("experiment_ids"), "experiment_ids")],
        }
        return Record(Ref(self.name, own, parent), doc, text(given.get("run_name") or "", "run_name"))

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return LinkScan(self, api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """What the target's runs are linked to already: one search each, but for experiments that are new."""
        reason = await _lacking(target)
        if reason:
            raise Unsupported(f"the target {reason}")

        async def held(record: Record) -> tuple[str, Found | None]:
            run, home = ids.new_id("run", record.ref.id), home_of(record, ids)
            if run is None or home in target.fresh:
                return record.ref.key, None
            others = [ids.new_id("experiment", str(one)) for one in record.doc.get("experiment_ids") or []]
            linked = await linked_to(target.api, run, sorted({home, *(one for one in others if one)}))
            target.index.add(HELD, [run], Found(run, False), codec.dumps([*linked]).decode())
            return record.ref.key, Found(run, {*record.doc["trace_ids"]} <= {*linked}) if linked else None

        return {key: found async for key, found in each(held, records) if found is not None}

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        reason = await _lacking(target)
        if reason:
            raise Uncarriable(f"the target {reason}")
        _run_at(record, ids)
        return Foreseen(math.ceil(len(record.doc["trace_ids"]) / PER_CALL))

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        run = _run_at(record, ids)
        return run, Open(run, frozenset())

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        held = target.index.get(HELD, new_id)
        return Open(new_id, frozenset(codec.loads(held[1]) if held else ()))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        state.waiting = await _link(target, state.run, [*record.doc["trace_ids"]], state.held, ids)
        number = len(state.waiting)
        reason = f"{number} of the traces that are linked to this run are not at the target"
        ref = Ref("linked-trace", "*", record.ref)
        status = Status.EXCLUDED if target.narrowed else Status.LEFT_BEHIND
        return [Outcome(ref, status, reason=reason, count=number)] if number else []

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        waiting = state.waiting if state else []
        return [Deferred(Stage.REFERENCES, {"traces": waiting})] if waiting else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Traces that have arrived since."""
        return not await _link(target, new_id, what.doc["traces"], frozenset(), ids)


class LinkScan:
    """The runs of some experiments that traces are linked to."""

    def __init__(self, kind: TraceLink, api: Api, experiments: Sequence[Record]) -> None:
        self._kind = kind
        self._api = api
        self._experiments = experiments
        self._parents = {record.ref.id: record.ref for record in experiments}
        self._everywhere = kind.label in api.asked
        self._asked: set[str] = set()
        """Runs that had ended when they were asked for."""

    async def pages(self) -> AsyncIterator[list[Record]]:
        self._asked = set()
        async for page in self.again():
            yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        """Of those runs that are new, or had not ended."""
        if lacking(self._api, 3, 4) or not await is_sql(self._api):
            return
        traced = {one.ref.id for one in await with_traces(self._api, self._experiments)}
        if self._everywhere:
            traced = {one for one, has_traces in self._api.has_traces.items() if has_traces}
        elif any(self._api.has_traces.values()):
            overlook(self._api, self._kind, {*self._parents})
        homes = [*self._parents] if self._everywhere and traced else [one for one in self._parents if one in traced]
        if not homes:
            return
        body: Doc = {"experiment_ids": homes, "order_by": OLDEST_FIRST}
        body["run_view_type"] = "ALL" if self._api.with_deleted else "ACTIVE_ONLY"
        for search in searches_of(self._api.choice.runs):
            async for found in self._found({**body, "filter": search}):
                yield found

    async def _found(self, body: Doc) -> AsyncIterator[list[Record]]:
        async for page in pages(self._api, RUNS, "runs", body, first=FIRST_PAGE, largest=RUNS_PAGE):
            runs = [one for one in page if one["info"]["run_id"] not in self._asked]
            self._asked.update(one["info"]["run_id"] for one in runs if one["info"].get("status") in ENDED)
            found = [record async for record in each(self._of, runs) if record is not None]
            if found:
                yield found

    async def _of(self, run: Doc) -> Record | None:
        """The links of one run; where they cannot be read, a record that says why."""
        info, origin = run["info"], pairs(run.get("data", {}).get("tags")).get(SOURCE_RUN)
        own, home = str(info["run_id"]), str(info["experiment_id"])
        ref, name = Ref(self._kind.name, own, self._parents[home]), str(info.get("run_name") or "")
        places = [one for one, has_traces in self._api.has_traces.items() if has_traces] if self._everywhere else [home]
        try:
            linked = await linked_to(self._api, own, places)
        except (AuthError, Unsupported):
            raise
        except ApiError as error:
            return Record(ref, {}, name, error=error)
        doc: Doc = {"run_id": own, "run_name": name, "origin": origin or own, "trace_ids": [*linked]}
        doc["experiment_ids"] = sorted({*linked.values()} - {home})
        return Record(ref, doc, name) if linked else None


async def _lacking(target: Target) -> str:
    """Why the target cannot have such links."""
    return lacking(target.api, 3, 4) or ("" if await target.is_sql() else "has a file store, which keeps none")


def _run_at(record: Record, ids: Ids) -> str:
    run = ids.new_id("run", record.ref.id)
    if run is None:
        raise Uncarriable("its run is not at the target: the links come when that does")
    return run


async def linked_to(api: Api, run: str, experiments: Sequence[str]) -> dict[str, str]:
    """The traces in some experiments that are linked to a run and were not made by it, each with its experiment."""
    body: Doc = {"locations": places_of(experiments), "filter": f"run_id = '{run}'"}
    listing = pages(api, TRACES, "traces", body, first=FIRST_PAGE, largest=LARGEST_PAGE)
    return {
        str(one["trace_id"]): experiment_of(one)
        async for page in listing
        for one in page
        if (one.get("trace_metadata") or {}).get(MADE_BY) != run
    }


async def _link(target: Target, run: str, wanted: Sequence[str], held: frozenset[str], ids: Ids) -> list[str]:
    """Link those traces that are at the target; returns the others."""
    there = [one for one in wanted if one not in held and ids.new_id("trace", one) is not None]
    for start in range(0, len(there), PER_CALL):
        await target.api.call(LINK, {"trace_ids": there[start : start + PER_CALL], "run_id": run})
    return [one for one in wanted if one not in held and ids.new_id("trace", one) is None]

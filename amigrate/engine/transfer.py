"""The walk: list, compare, transfer, account. Export, import and copy are this one walk with different ends.

Kinds come in the order of what they need. Those that belong to no other are listed whole and walked in groups, each
group with those of its children that need nothing else, in pages; a page is a shard (`engine.shard`). Children that
need more than their parents, as a logged model needs the runs of any experiment, are walked over all the groups when
what they need is there. Only a few pages are in work at once, so memory does not grow with the workspace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from amigrate.core.errors import AmigrateError, CannotContinue, Unsupported
from amigrate.core.model import Deferred, Outcome, Record, Ref, Stage, Status
from amigrate.core.ports import Kind, Scan, Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.closure import Closure
from amigrate.engine.crowd import Crowd
from amigrate.engine.journal import Journal
from amigrate.engine.plan import groups, order, own_children
from amigrate.engine.shard import RECORDS_AT_ONCE, Shards, Task, lost, outcome
from amigrate.engine.stats import Stats

EXPERIMENT = "experiment"
"""The kind that a selection chooses from; others come with the whole workspace only."""
PAGES_AT_ONCE = 3
"""Pages in work at once: while one is finished, the next keeps the servers busy."""

Match = Callable[[str, str], str | None]
"""From an object's name and id to the pattern that asks for it, or None."""


class Wants:
    """Decides which experiments are asked for, and remembers what was asked for in vain."""

    def __init__(self, patterns: Sequence[str], match: Match) -> None:
        self._match = match
        self.unused = set(patterns)

    def __call__(self, record: Record) -> bool:
        pattern = self._match(record.name, record.ref.id)
        self.unused.discard(pattern or "")
        return pattern is not None


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be moved."""

    deleted: bool
    wants: Wants
    whole: bool
    """True where the whole workspace was asked for, so that kinds that belong to no experiment count too."""
    left_out: frozenset[str] = frozenset()
    """Names of kinds that were not asked for."""
    closure: Closure | None = None
    """Where only some objects were asked for and what they need: which those are."""

    def asks(self, record: Record) -> bool:
        """Whether a parent is to be moved."""
        if self.closure is not None:
            return self.closure.wants(record)
        return record.ref.kind != EXPERIMENT or self.wants(record)


@dataclass(slots=True)
class Group:
    """Some parents of one kind that were moved, and the listings of their children."""

    kind: str
    parents: Sequence[Record]
    scans: dict[str, Scan] = field(default_factory=dict)


class Transfer:
    """One move from a Source to a Sink."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        kinds: Mapping[str, Kind],
        journal: Journal,
        stats: Stats,
        budget: ByteBudget,
    ) -> None:
        self._source = source
        self._sink = sink
        self._kinds = kinds
        self._journal = journal
        self._stats = stats
        self._shards = Shards(source, sink, kinds, journal, stats, budget)
        self._in_work: set[str] = set()
        self._moved = 0
        """Children that were taken to be moved; tells whether a parent has to be written again."""

    async def run(self, request: Request) -> None:
        """Move everything that is asked for. Outcomes are in the journal; raises only what ends the session."""
        walked: list[Group] = []
        for name in order(self._kinds):
            kind = self._kinds[name]
            if kind.parent is None:
                if name != EXPERIMENT and not request.whole:
                    continue
                walked += await self._tree(name, request)
            elif kind.listed and name not in own_children(self._kinds, kind.parent):
                for group in walked:
                    if group.kind == kind.parent:
                        await self._more(group, [name], request)
                await self._shards.unblock()
        for group in walked:
            await self._more(group, [*group.scans], request, again=True)
        await self._shards.unblock()
        experiments = [record for group in walked if group.kind == EXPERIMENT for record in group.parents]
        uncarried = await self._source.uncarried(experiments, request.whole)
        self._shards.account([one for one in uncarried if one.name not in request.left_out])
        self._shards.account(
            [
                Outcome(Ref(name, "(all)"), Status.EXCLUDED, reason="not asked for", name=name)
                for name in request.left_out
            ]
        )
        await self._second_pass()

    # ---- parents ------------------------------------------------------------------------------------------------

    async def _tree(self, kind: str, request: Request) -> list[Group]:
        """Every object of a kind that belongs to no other, in groups, each with its own children."""
        scan = self._source.scan(kind, [])
        chosen = self._chosen(kind, [record async for page in scan.pages() for record in page], request)
        walked = [await self._group(kind, some, request) for some in groups(chosen)]
        late = self._chosen(kind, [record async for page in scan.again() for record in page], request)
        return walked + [await self._group(kind, some, request) for some in groups(late)]

    def _chosen(self, name: str, records: Sequence[Record], request: Request) -> list[Record]:
        """The parents to move; the others get their outcome here."""
        chosen, ended = [], []
        kind = self._kinds[name]
        self._stats.listed[name] += len(records)
        for record in records:
            wanted = request.asks(record)
            if record.error and (wanted or not record.name):  # One without a name may be what is asked for.
                ended.append(lost(record, record.error))
            elif not wanted:
                ended.append(outcome(record, Status.EXCLUDED, "not asked for"))
            elif reason := kind.excluded(record, request.deleted):
                ended.append(outcome(record, Status.EXCLUDED, reason))
            else:
                chosen.append(record)
        self._shards.account(ended)
        self._stats.total_experiments += len(chosen) if name == EXPERIMENT else 0
        return chosen

    async def _group(self, kind: str, records: Sequence[Record], request: Request) -> Group:
        """Some parents and the children that need nothing else."""
        tasks = await self._shards.begin(records)
        group = Group(kind, [task.record for task in tasks])
        unlisted = await self._children(group, own_children(self._kinds, kind), request)
        for task in tasks:
            if unlisted:
                self._shards.fail(task, AmigrateError("; ".join(unlisted)))
            else:
                await self._commit(task)
        self._stats.ended_experiments += len(records) if kind == EXPERIMENT else 0
        self._journal.forget_cache()
        return group

    async def _commit(self, task: Task) -> None:
        """A parent whose children have come to their end."""
        try:
            losses = await self._sink.commit(task.record, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._shards.account([outcome(task.record, Status.FAILED, str(error))])
            return
        self._shards.account(losses)
        self._shards.finish(task, anew=True)

    async def _more(self, group: Group, kinds: Sequence[str], request: Request, again: bool = False) -> None:
        """More children of parents that were written: of other kinds, or what came `again` at a live source.

        The parents are written once more then.
        """
        before = self._moved
        unlisted = await self._children(group, kinds, request, again)
        if self._moved != before:
            for record in group.parents:
                await self._sink.commit(record, self._journal)
        if unlisted:
            reason = "; ".join(unlisted)
            self._shards.account([outcome(record, Status.FAILED, reason) for record in group.parents])

    # ---- pages of children --------------------------------------------------------------------------------------

    async def _children(self, group: Group, kinds: Sequence[str], request: Request, again: bool = False) -> list[str]:
        """Walk children of these kinds, kind after kind. Returns which could not be listed to their end, and why."""
        unlisted = []
        for kind in kinds if group.parents else ():
            if not again:
                group.scans[kind] = self._source.scan(kind, group.parents)
            error = await self._walk_sized(group, kind, request, again)
            if error is not None:
                came = " that came meanwhile" if again else ""
                unlisted.append(f"its {kind.replace('_', ' ')}s{came} could not be listed to the end: {error}")
        return unlisted

    async def _walk_sized(self, group: Group, kind: str, request: Request, again: bool) -> AmigrateError | None:
        scan = group.scans[kind]
        if again:
            return await self._walk(kind, scan.again(), request, again)
        async with asyncio.TaskGroup() as work:
            size = work.create_task(self._size(kind, scan, len(group.parents)))
            error = await self._walk(kind, scan.pages(), request, again)
            size.cancel()
        return error

    async def _size(self, kind: str, scan: Scan, experiments: int) -> None:
        """How many runs there will be, for the display only: where it cannot be told, nothing is lost."""
        try:
            runs = await scan.size() if kind == "run" else None
        except CannotContinue:
            raise
        except AmigrateError:
            return
        if runs is not None:
            self._stats.expected_runs += runs
            self._stats.sized_experiments += experiments

    async def _walk(
        self, kind: str, pages: AsyncIterator[list[Record]], request: Request, again: bool
    ) -> AmigrateError | None:
        """Move pages of children, a few at once; the next page is read when one of them is done.

        Returns what ended the listing early, where something did. A source that lacks the kind has none of it.
        """
        slots = asyncio.Semaphore(1 if self._kinds[kind].sequential else PAGES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            await slots.acquire()
            try:
                async for page in pages:
                    job = group.create_task(self._page(self._fresh(page, request, again)))
                    job.add_done_callback(lambda _: slots.release())
                    await slots.acquire()
            except CannotContinue:
                raise
            except Unsupported:
                return None
            except AmigrateError as error:
                return error
            finally:
                slots.release()
        return None

    def _fresh(self, page: Sequence[Record], request: Request, again: bool) -> list[Record]:
        """The records of a page that are to be moved and were not met, as they are now, in this session."""
        met = self._journal.seen(page)
        unchanged = met & self._settled(page) if again else met
        chosen, ended = [], []
        for record in page:
            key = f"{record.ref.kind} {record.ref.key}"
            if record.ref.key in unchanged or key in self._in_work:
                continue
            if request.closure is not None and not request.closure.wants(record):
                continue
            if record.ref.key not in met:
                self._stats.listed[record.ref.kind] += 1
            if record.error:
                ended.append(lost(record, record.error))
            elif reason := self._kinds[record.ref.kind].excluded(record, request.deleted):
                if record.ref.key not in met:  # What was carried before it was deleted has been carried.
                    ended.append(outcome(record, Status.EXCLUDED, reason))
            else:
                self._in_work.add(key)
                chosen.append(record)
        self._shards.account(ended)
        self._moved += len(chosen)
        return chosen

    def _settled(self, page: Sequence[Record]) -> set[str]:
        """Those whose state is the one that was moved: nothing new to carry."""
        entries = self._journal.entries(page)
        return {
            record.ref.key
            for record in page
            if (entry := entries.get(record.ref.key)) and entry.digest == self._kinds[record.ref.kind].digest(record)
        }

    async def _page(self, records: Sequence[Record]) -> None:
        try:
            await self._shards.move(records)
        finally:
            self._in_work.difference_update(f"{record.ref.kind} {record.ref.key}" for record in records)

    # ---- second pass --------------------------------------------------------------------------------------------

    async def _second_pass(self) -> None:
        """References that had no new id before, then deletions, then what a deletion took too much."""
        for stage in Stage:
            async with Crowd(RECORDS_AT_ONCE) as crowd:
                for ref, what in self._journal.deferred(stage):
                    await crowd.start(self._link, ref, stage, what)

    async def _link(self, ref: Ref, stage: Stage, what: Deferred) -> None:
        new_id = self._journal.new_id(ref.kind, ref.id)
        if new_id is None:
            return
        try:
            settled = await self._sink.link(Record(ref, {}), new_id, what, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._shards.account([Outcome(ref, Status.FAILED, new_id, f"not finished: {error}")])
            return
        self._journal.settle(ref)
        if settled:
            self._journal.undefer(ref, stage)

"""The walk: list, compare, transfer, account. Export, import and copy are this one walk with different ends.

The workspace is walked in groups of experiments, each group in pages of runs. A page is the shard: its runs are begun,
then filled (points through `Gather`, files), then committed one by one as their own parts are done. Only a few pages
are in work at once, and bytes are taken before any slot of a server, so memory does not grow with the workspace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amigrate.core.errors import AmigrateError, CannotContinue, Transient, Uncarriable, Unsupported
from amigrate.core.model import (
    POINT_BYTES,
    Deferred,
    Entry,
    Found,
    Outcome,
    Progress,
    Record,
    Ref,
    Rows,
    Stage,
    Status,
)
from amigrate.core.ports import Kind, RowCall, Scan, Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.gather import WORTH_A_WRITE, Gather, Held
from amigrate.engine.journal import Journal
from amigrate.engine.plan import groups, order
from amigrate.engine.stats import Stats

PAGES_AT_ONCE = 3
"""Pages of runs in work at once: while one is finished, the next keeps the servers busy."""
RECORDS_AT_ONCE = 64
"""Records of a page whose small requests are under way at once; the guards decide how many really are."""
FILES_AT_ONCE = 64
FILE_BYTES = 512 * 1024
"""What a file costs of the memory budget while it moves: a chunk at each end."""


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


@dataclass(slots=True)
class Task:
    """A record on its way."""

    record: Record
    digest: str
    new_id: str = ""
    found: bool = False
    """True where the sink had it before."""
    same: bool = False
    """True where it was found and its listing shows no difference: only its files are looked at."""
    lacks: str = ""
    """Why a file or a series of it did not arrive, where one did not."""
    parts: int = 0
    """What still has to end before it can be committed: its rows, its files."""
    known: bool = False
    """True where an earlier session carried it as it is now: it is read again only because it has not ended."""
    moved: bool = False
    """True where something was written that may be new."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: bool = False
    """True where it has failed: its other parts only have to come to their end."""


@dataclass(frozen=True, slots=True)
class Walked:
    """Some parents of one kind that were moved, and the listings of their children."""

    kind: str
    group: Sequence[Record]
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
        self._budget = budget
        self._files = asyncio.Semaphore(FILES_AT_ONCE)
        self._in_work: set[str] = set()
        self._moved_again = 0

    async def run(self, request: Request) -> None:
        """Move everything that is asked for. Outcomes are in the journal; raises only what ends the session."""
        walked: list[Walked] = []
        for kind in order(self._kinds):
            if self._kinds[kind].parent is None:
                walked += await self._tree(kind, request)
        await self._late_children(walked, request)
        experiments = [record for one in walked if one.kind == "experiment" for record in one.group]
        self._account(await self._source.uncarried(experiments, request.whole))
        await self._second_pass()

    # ---- parents ------------------------------------------------------------------------------------------------

    async def _tree(self, kind: str, request: Request) -> list[Walked]:
        """Every object of a kind that belongs to no other, in groups, each with its children."""
        scan = self._source.scan(kind, [])
        chosen = self._chosen(kind, [record async for page in scan.pages() for record in page], request)
        walked = [await self._group(kind, group, request) for group in groups(chosen)]
        late = self._chosen(kind, [record async for page in scan.again() for record in page], request)
        return walked + [await self._group(kind, group, request) for group in groups(late)]

    def _chosen(self, name: str, records: Sequence[Record], request: Request) -> list[Record]:
        """The parents to move; the others get their outcome here."""
        chosen, ended = [], []
        kind = self._kinds[name]
        self._stats.listed[name] += len(records)
        for record in records:
            wanted = request.wants(record)
            if record.error and (wanted or not record.name):  # One without a name may be what is asked for.
                ended.append(_lost(record, record.error))
            elif not wanted:
                ended.append(_outcome(record, Status.EXCLUDED, "not asked for"))
            elif reason := kind.excluded(record, request.deleted):
                ended.append(_outcome(record, Status.EXCLUDED, reason))
            else:
                chosen.append(record)
        self._account(ended)
        self._stats.total_experiments += len(chosen) if name == "experiment" else 0
        return chosen

    async def _group(self, name: str, group: Sequence[Record], request: Request) -> Walked:
        """Some parents and all of their children, kind after kind."""
        tasks = await self._begin(group)
        walked = Walked(name, [task.record for task in tasks])
        unlisted: list[str] = []
        for kind in self._children(name) if tasks else ():
            scan = self._source.scan(kind, walked.group)
            walked.scans[kind] = scan
            async with asyncio.TaskGroup() as work:
                size = work.create_task(self._size(kind, scan, len(walked.group)))
                error = await self._walk(kind, scan.pages(), request)
                size.cancel()
            unlisted += [f"its {kind}s could not be listed to the end: {error}"] if error else []
        for task in tasks:
            if unlisted:
                self._fail(task, AmigrateError("; ".join(unlisted)))
            else:
                await self._commit_parent(task)
        self._stats.ended_experiments += len(group) if name == "experiment" else 0
        self._journal.forget_cache()
        return walked

    def _children(self, name: str) -> list[str]:
        """The kinds that are walked below this one: those that have a listing of their own."""
        return [kind for kind in order(self._kinds) if self._kinds[kind].parent == name and self._kinds[kind].listed]

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

    async def _commit_parent(self, task: Task) -> None:
        try:
            losses = await self._sink.commit(task.record, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._account([_outcome(task.record, Status.FAILED, str(error))])
            return
        self._account(losses)
        self._finish(task)

    async def _late_children(self, walked: Sequence[Walked], request: Request) -> None:
        """The source is live: what came, or ended, since it was listed. Parents are written again then."""
        for one in walked:
            before = self._moved_again
            failed = {
                kind: await self._walk(kind, scan.again(), request, again=True) for kind, scan in one.scans.items()
            }
            if self._moved_again != before:
                for record in one.group:
                    await self._sink.commit(record, self._journal)
            for kind, error in failed.items():
                if error is not None:
                    reason = f"{kind}s that came meanwhile could not be listed: {error}"
                    self._account([_outcome(record, Status.FAILED, reason) for record in one.group])

    # ---- pages of runs ------------------------------------------------------------------------------------------

    async def _walk(
        self, kind: str, pages: AsyncIterator[list[Record]], request: Request, again: bool = False
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
            if record.ref.key not in met:
                self._stats.listed[record.ref.kind] += 1
            if record.error:
                ended.append(_lost(record, record.error))
            elif reason := self._kinds[record.ref.kind].excluded(record, request.deleted):
                if record.ref.key not in met:  # What was carried before it was deleted has been carried.
                    ended.append(_outcome(record, Status.EXCLUDED, reason))
            else:
                self._in_work.add(key)
                chosen.append(record)
        self._account(ended)
        self._moved_again += len(chosen) if again else 0
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
        """One shard, from its beginning to its end."""
        try:
            tasks = await self._begin(records)
            await self._fill(tasks)
        finally:
            self._in_work.difference_update(f"{record.ref.kind} {record.ref.key}" for record in records)

    # ---- compare and begin --------------------------------------------------------------------------------------

    async def _begin(self, records: Sequence[Record]) -> list[Task]:
        """Make what the sink lacks; returns what has to be filled."""
        if not records:
            return []
        try:
            found = await self._sink.find(records, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._account([_outcome(record, Status.FAILED, str(error)) for record in records])
            return []
        entries = self._journal.entries(records)
        missing = [record for record in records if record.ref.key not in found]
        self._journal.intend(missing)
        tasks: list[Task] = []
        limit = asyncio.Semaphore(RECORDS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for row in self._rows_of(records):
                await limit.acquire()
                job = self._begin_row(row, found, entries, tasks)
                group.create_task(job).add_done_callback(lambda _: limit.release())
        return tasks

    def _rows_of(self, records: Sequence[Record]) -> Iterable[list[Record]]:
        """What is begun one after the other: the children of one parent for a sequential kind, else each for itself."""
        if not self._kinds[records[0].ref.kind].sequential:
            return [[record] for record in records]
        rows: dict[Ref | None, list[Record]] = {}
        for record in records:
            rows.setdefault(record.ref.parent, []).append(record)
        return rows.values()

    async def _begin_row(
        self, row: Sequence[Record], found: Mapping[str, Found], entries: Mapping[str, Entry], tasks: list[Task]
    ) -> None:
        for record in row:
            await self._begin_one(record, found.get(record.ref.key), entries.get(record.ref.key), tasks)

    async def _begin_one(self, record: Record, found: Found | None, entry: Entry | None, tasks: list[Task]) -> None:
        kind = self._kinds[record.ref.kind]
        task = Task(record, kind.digest(record), found=found is not None)
        try:
            if found is None:
                task.new_id = await self._sink.begin(record, self._journal)
                self._journal.begun(record, task.new_id)
            elif not await self._continue(task, found, entry):
                return
            tasks.append(task)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._fail(task, error)

    async def _continue(self, task: Task, found: Found, entry: Entry | None) -> bool:
        """Whether something is left to do for a record that the sink has."""
        record, kind = task.record, self._kinds[task.record.ref.kind]
        task.new_id = found.new_id
        self._journal.known(record, found.new_id)
        ours = entry is not None and entry.new_id == found.new_id
        unchanged = ours and entry is not None and entry.digest == task.digest and kind.settled(record)
        is_parent = not kind.parent
        if unchanged and entry is not None and entry.progress is Progress.WHOLE and not is_parent:
            self._finish(task)
            return False
        if unchanged and entry is not None and entry.progress is Progress.FILLED and not is_parent:
            self._account([_outcome(record, Status.PRESENT, new_id=task.new_id)])
            return False
        task.known = ours and entry is not None and entry.digest == task.digest and entry.progress is Progress.WHOLE
        task.same = found.same and entry is None and kind.settled(record)
        await self._sink.resume(record, found.new_id, bool(entry and entry.made), self._journal)
        return True

    # ---- fill ---------------------------------------------------------------------------------------------------

    async def _fill(self, tasks: Sequence[Task]) -> None:
        """Rows and files of a shard. A record is committed as soon as its own parts are there."""
        by_key = {task.record.ref.key: task for task in tasks}
        with_files = await self._source.with_files([task.record for task in tasks])
        for record in with_files:
            by_key[record.ref.key].parts += 1
        for task in tasks:
            task.parts += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(self._rows(by_key))
            walkers = asyncio.Semaphore(RECORDS_AT_ONCE)
            for record in with_files:
                await walkers.acquire()
                job = group.create_task(self._files_of(by_key[record.ref.key]))
                job.add_done_callback(lambda _: walkers.release())

    async def _part_done(self, task: Task) -> None:
        """One part has come to its end; after the last one, the record is committed, or dropped where it failed."""
        task.parts -= 1
        if task.parts:
            return
        if task.ended:
            self._sink.drop(task.record)
            return
        try:
            losses = await self._sink.commit(task.record, self._journal)
            self._account(losses)
            self._finish(task)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._fail(task, error)

    def _finish(self, task: Task) -> None:
        """Everything of a record is at the sink."""
        record, work = task.record, self._sink.deferred(task.record)
        self._journal.defer(record.ref, work)
        waiting = task.lacks or any(one.stage is Stage.REFERENCES for one in work)
        progress = Progress.BEGUN if task.lacks else Progress.FILLED if waiting else Progress.WHOLE
        self._journal.reached(record, progress, task.digest)
        changed = task.moved and not task.known
        status = Status.CREATED if not task.found else Status.UPDATED if changed else Status.PRESENT
        self._account([_outcome(record, status, new_id=task.new_id)])

    def _fail(self, task: Task, error: AmigrateError) -> None:
        if task.ended:
            return
        task.ended = True
        self._account([_outcome(task.record, Status.FAILED, str(error), task.new_id)])

    def _account(self, outcomes: Sequence[Outcome]) -> None:
        self._journal.outcomes(outcomes)
        for outcome in outcomes:
            self._stats.done[outcome.ref.kind, outcome.status] += outcome.count

    # ---- rows ---------------------------------------------------------------------------------------------------

    async def _rows(self, tasks: Mapping[str, Task]) -> None:
        wanted = [task for task in tasks.values() if not task.same]
        series = {task.record.ref.key: self._kinds[task.record.ref.kind].series(task.record) for task in wanted}
        with_rows = [task for task in wanted if series[task.record.ref.key]]
        gather = Gather((task.record, series[task.record.ref.key]) for task in with_rows)
        async with asyncio.TaskGroup() as group:
            for task in tasks.values():
                if task.same or not series.get(task.record.ref.key):
                    group.create_task(self._part_done(task))
            if with_rows:
                kind = with_rows[0].record.ref.kind
                async for call in self._source.rows(kind, [task.record for task in with_rows]):
                    await self._bytes(call.cost, gather, tasks)
                    group.create_task(self._ask(call, gather, tasks))
        for held in gather.incomplete():
            await self._lose(held, tasks, f"the history of '{min(held.missing)}' never ended")

    async def _bytes(self, size: int, gather: Gather, tasks: Mapping[str, Task]) -> None:
        """Take bytes of the budget; while there are none, hand on early what is held."""
        taking = asyncio.ensure_future(self._budget.take(size))
        try:
            while not taking.done():
                await asyncio.wait([taking], timeout=0)
                held = None if taking.done() else gather.fullest()
                if held is None:
                    break
                await self._hand_on(held, tasks)
            await taking
        except BaseException:
            taking.cancel()
            raise

    async def _ask(self, call: RowCall, gather: Gather, tasks: Mapping[str, Task]) -> None:
        """Send one call for rows and pass on what it completes."""
        cost = call.cost
        try:
            answer = await call()
            held_bytes = sum(len(rows.points) for rows in answer) * POINT_BYTES
            self._budget.give(cost - held_bytes)
            cost = 0
        except CannotContinue:
            raise
        except AmigrateError as error:
            for ref in call.refs:
                held = gather.drop(ref.key)
                if held is not None:
                    await self._lose(held, tasks, str(error))
            return
        finally:
            if cost:
                self._budget.give(cost)
        self._take_in(answer, gather, tasks)
        for key in {rows.ref.key: None for rows in answer}:
            await self._advance(key, gather, tasks)

    def _take_in(self, answer: Sequence[Rows], gather: Gather, tasks: Mapping[str, Task]) -> None:
        """All rows of an answer at once, before anything is awaited, so that chunks of a series keep their order."""
        for rows in answer:
            if not gather.add(rows):
                assert tasks[rows.ref.key].ended, f"rows of {rows.ref} came after it was complete"
                self._budget.give(len(rows.points) * POINT_BYTES)

    async def _advance(self, key: str, gather: Gather, tasks: Mapping[str, Task]) -> None:
        """A record has got rows: complete it, or hand on what is worth it."""
        held = gather.get(key)
        if held is None:
            return
        if held.error:
            gather.drop(key)
            await self._lose(held, tasks, held.error)
        elif not held.missing:
            gather.drop(key)
            await self._complete(held, tasks)
        elif held.points >= WORTH_A_WRITE:
            await self._hand_on(held, tasks)
        elif self._budget.short and (fullest := gather.fullest()) is not None:
            await self._hand_on(fullest, tasks)

    async def _complete(self, held: Held, tasks: Mapping[str, Task]) -> None:
        """All series of a record are there."""
        await self._hand_on(held, tasks)
        task = tasks[held.record.ref.key]
        for series in sorted(series for series, count in held.counts.items() if not count):
            task.lacks = "the metric is listed, but its history is empty"
            self._account([Outcome(Ref("metric", series, held.record.ref), Status.FAILED, reason=task.lacks)])
        await self._part_done(task)

    async def _hand_on(self, held: Held, tasks: Mapping[str, Task]) -> None:
        """Write what is held of a record and give its bytes back."""
        task = tasks[held.record.ref.key]
        rows, points = held.rows, held.points
        held.take()
        try:
            async with task.lock:
                if rows and not task.ended:
                    await self._sink.put_rows(held.record, rows, self._journal)
                    self._stats.points += points
                    task.moved = True
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._fail(task, error)
        finally:
            self._budget.give(points * POINT_BYTES)

    async def _lose(self, held: Held, tasks: Mapping[str, Task], reason: str) -> None:
        """The rows of a record cannot be had."""
        self._budget.give(held.points * POINT_BYTES)
        held.take()
        task = tasks[held.record.ref.key]
        self._fail(task, AmigrateError(reason))
        await self._part_done(task)

    # ---- files --------------------------------------------------------------------------------------------------

    async def _files_of(self, task: Task) -> None:
        """Every file of one record. A file that fails does not fail its record."""
        held = await self._held_files(task)
        pages = self._source.files(task.record)
        async with asyncio.TaskGroup() as group:
            while (page := await self._next_files(task, pages)) is not None:
                for file in page:
                    await self._files.acquire()
                    job = group.create_task(self._file(task, file, held))
                    job.add_done_callback(lambda _: self._files.release())
        await self._part_done(task)

    async def _held_files(self, task: Task) -> Mapping[str, int]:
        """What the sink has of a record that was there before."""
        if not task.found:
            return {}
        try:
            return await self._sink.held_files(task.record)
        except CannotContinue:
            raise
        except AmigrateError:
            return {}  # Unknown is not there: the files are written again.

    async def _next_files(self, task: Task, pages: AsyncIterator[list[Record]]) -> list[Record] | None:
        """The next files of a record; None at the end, and where they cannot be listed, which is accounted."""
        try:
            return await anext(pages, None)
        except CannotContinue:
            raise
        except AmigrateError as error:
            task.lacks = f"its artifacts cannot be listed: {error}"
            ref = Ref("artifact", "*", task.record.ref)
            self._account([Outcome(ref, Status.LEFT_BEHIND, reason=task.lacks, name="all artifacts of the run")])
            return None

    async def _file(self, task: Task, file: Record, held: Mapping[str, int]) -> None:
        if task.ended:
            return
        if task.same and not file.error and held.get(file.ref.id) == file.doc.get("size"):
            self._account([_outcome(file, Status.PRESENT)])
            return
        try:
            if file.error:
                raise file.error
            await self._budget.take(FILE_BYTES)
            try:
                size = await self._move(task, file)
            finally:
                self._budget.give(FILE_BYTES)
            self._stats.bytes += size
            task.moved = True
            self._account([_outcome(file, Status.UPDATED if file.ref.id in held else Status.CREATED)])
        except CannotContinue:
            raise
        except AmigrateError as error:
            task.lacks = str(error)
            self._account([_lost(file, error)])

    async def _move(self, task: Task, file: Record) -> int:
        """Move one file; a body that breaks off is opened again."""
        for attempt in range(5):
            try:
                body = self._source.open(task.record, file)
                return await self._sink.put_file(task.record, file, body, self._journal)
            except Transient:
                if attempt == 4:
                    raise
        raise AssertionError("the last attempt returns or raises")

    # ---- second pass --------------------------------------------------------------------------------------------

    async def _second_pass(self) -> None:
        """References that had no new id before, then deletions, then what a deletion took too much."""
        limit = asyncio.Semaphore(RECORDS_AT_ONCE)
        for stage in Stage:
            async with asyncio.TaskGroup() as group:
                for ref, what in self._journal.deferred(stage):
                    await limit.acquire()
                    job = group.create_task(self._link(ref, stage, what))
                    job.add_done_callback(lambda _: limit.release())

    async def _link(self, ref: Ref, stage: Stage, what: Deferred) -> None:
        new_id = self._journal.new_id(ref.kind, ref.id)
        if new_id is None:
            return
        try:
            settled = await self._sink.link(Record(ref, {}), new_id, what, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._account([Outcome(ref, Status.FAILED, new_id, f"not finished: {error}")])
            return
        self._journal.settle(ref)
        if settled:
            self._journal.undefer(ref, stage)


def _outcome(record: Record, status: Status, reason: str = "", new_id: str | None = None) -> Outcome:
    return Outcome(record.ref, status, new_id or None, reason, record.name)


def _lost(record: Record, error: AmigrateError) -> Outcome:
    """Why a record did not arrive: something went wrong, or it cannot be carried at all."""
    status = Status.LEFT_BEHIND if isinstance(error, Uncarriable) else Status.FAILED
    return _outcome(record, status, str(error))

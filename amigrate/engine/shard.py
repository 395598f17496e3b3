"""One shard: the records of a page, from their comparison with the sink to their commit.

They are begun, then filled (points through `Gather`, files), then committed one by one as their own parts are done.
Bytes are taken before any slot of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from amigrate.core.errors import AmigrateError, CannotContinue, Transient, Uncarriable, Unresolved, Unsupported
from amigrate.core.model import POINT_BYTES, Entry, Found, Outcome, Progress, Record, Ref, Rows, Stage, Status
from amigrate.core.ports import Kind, RowCall, Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.crowd import Crowd
from amigrate.engine.gather import WORTH_A_WRITE, Gather, Held
from amigrate.engine.journal import Journal
from amigrate.engine.stats import Stats

ARTIFACT = "artifact"
RECORDS_AT_ONCE = 64
"""Records of a page whose small requests are under way at once; the guards decide how many really are."""
FILES_AT_ONCE = 64
FILE_BYTES = 512 * 1024
"""What a file costs of the memory budget while it moves: a chunk at each end."""


@dataclass(slots=True)
class Task:
    """A record on its way."""

    record: Record
    digest: str
    found: Found | None
    """What the sink had of it before."""
    entry: Entry | None
    """What earlier sessions noted of it."""
    new_id: str = ""
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
    begun: bool = False
    """True once the sink has it, ready to be filled."""
    waits_for: Unresolved | None = None
    """What it needs that is not at the sink yet."""
    ended: bool = False
    """True where it has failed: its other parts only have to come to their end."""


class Shards:
    """Moves records of one kind at a time; every one of them ends in an outcome."""

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
        self._blocked: dict[Ref | None, list[Task]] = {}
        """Children of a sequential kind, by their parent, whose first one needs what is not at the sink yet."""

    async def move(self, records: Sequence[Record]) -> None:
        """One shard, from its beginning to its end."""
        async for tasks in self._loaded(await self._compared(records)):
            await self._fill(await self._make(tasks))

    async def unblock(self) -> None:
        """Make what had to wait for others of its kind; what nothing more comes for has failed."""
        while self._blocked:
            rows, self._blocked = self._blocked, {}
            tasks = [task for row in rows.values() for task in row]
            await self._fill(await self._make(tasks))
            if sum(map(len, self._blocked.values())) == len(tasks):
                for task in tasks:
                    self.fail(task, task.waits_for or Unresolved("the one before it could not be made"))
                self._blocked = {}

    # ---- compare and begin --------------------------------------------------------------------------------------

    async def begin(self, records: Sequence[Record]) -> list[Task]:
        """Make what the sink lacks; returns what has to be filled and committed."""
        return await self._make(await self._compared(records))

    async def _compared(self, records: Sequence[Record]) -> list[Task]:
        """What the sink lacks, or does not have as it is now."""
        if not records:
            return []
        try:
            found = await self._sink.find(records, self._journal)
        except CannotContinue:
            raise
        except Unsupported as error:  # The target lacks the kind.
            self.account([lost(record, Uncarriable(str(error))) for record in records])
            return []
        except AmigrateError as error:
            self.account([outcome(record, Status.FAILED, str(error)) for record in records])
            return []
        entries = self._journal.entries(records)
        kind = self._kinds[records[0].ref.kind]
        tasks = [Task(one, kind.digest(one), found.get(one.ref.key), entries.get(one.ref.key)) for one in records]
        return [task for task in tasks if not self._is_done(task)]

    def _is_done(self, task: Task) -> bool:
        """True where nothing is left to do for a record: the sink has it as it is."""
        record, kind, entry = task.record, self._kinds[task.record.ref.kind], task.entry
        if task.found is None:
            return False
        task.new_id = task.found.new_id
        self._journal.known(record, task.new_id)
        carried = entry is not None and entry.new_id == task.new_id and entry.digest == task.digest
        unchanged = carried and kind.settled(record) and kind.parent is not None
        progress = entry.progress if entry is not None else None
        if unchanged and progress is Progress.WHOLE:
            self.finish(task, anew=False)
            return True
        if unchanged and progress is Progress.FILLED:
            self.account([outcome(record, Status.PRESENT, new_id=task.new_id)])
            return True
        if kind.batched and task.found.same and entry is None and kind.settled(record):
            self.finish(task, anew=False)
            return True
        task.known = carried and progress is Progress.WHOLE
        task.same = task.found.same and entry is None and kind.settled(record)
        return False

    async def _loaded(self, tasks: Sequence[Task]) -> AsyncIterator[list[Task]]:
        """Tasks whose records hold all that a begin call needs, as many at a time as fit into memory."""
        if not tasks or not self._kinds[tasks[0].record.ref.kind].heavy:
            yield [*tasks]
            return
        waiting = {task.record.ref.key: task for task in tasks}
        try:
            async for portion in self._source.load([task.record for task in tasks]):
                ready = []
                for record in portion:
                    task = waiting.pop(record.ref.key)
                    task.record = record
                    if record.error:
                        self.account([lost(record, record.error)])
                    else:
                        ready.append(task)
                yield ready
        except CannotContinue:
            raise
        except AmigrateError as error:
            self.account([outcome(task.record, Status.FAILED, str(error)) for task in waiting.values()])

    async def _make(self, tasks: Sequence[Task]) -> list[Task]:
        """Begin, or go on with, these records; returns those where that went well."""
        if not tasks:
            return []
        kind = self._kinds[tasks[0].record.ref.kind]
        self._journal.intend([task.record for task in tasks if task.found is None])
        if kind.batched:
            await self._make_together(tasks)
        else:
            async with Crowd(RECORDS_AT_ONCE) as crowd:
                for row in _rows_of(tasks) if kind.sequential else [[task] for task in tasks]:
                    await crowd.start(self._make_row, row)
        return [task for task in tasks if task.begun]

    async def _make_row(self, row: Sequence[Task]) -> None:
        """One after the other, in their order; behind one that has to wait, all wait."""
        for number, task in enumerate(row):
            parent = task.record.ref.parent
            if parent in self._blocked:
                self._blocked[parent] += row[number:]
                return
            try:
                await self._make_one(task)
            except CannotContinue:
                raise
            except Unresolved as error:
                if not self._kinds[task.record.ref.kind].sequential:
                    self.fail(task, error)
                    continue
                task.waits_for = error
                self._blocked[parent] = [*row[number:]]
                return
            except Transient as error:
                for one in row[number:] if self._kinds[task.record.ref.kind].sequential else [task]:
                    self.fail(one, error)  # A later try may make it, as long as nothing is made behind it.
                return
            except AmigrateError as error:
                self.fail(task, error)

    async def _make_one(self, task: Task) -> None:
        if task.found is None:
            task.new_id = await self._sink.begin(task.record, self._journal)
            self._journal.begun(task.record, task.new_id)
        else:
            await self._sink.resume(task.record, task.new_id, bool(task.entry and task.entry.made), self._journal)
        task.begun = True

    async def _make_together(self, tasks: Sequence[Task]) -> None:
        """All in as few requests as the kind can; what is there already is written again to the same effect."""
        made = await self._sink.begin_batch([task.record for task in tasks], self._journal)
        for task in tasks:
            result = made[task.record.ref.key]
            if isinstance(result, AmigrateError):
                self.fail(task, result)
            else:
                task.new_id, task.begun = result, True
                self._journal.begun(task.record, result)

    # ---- fill ---------------------------------------------------------------------------------------------------

    async def _fill(self, tasks: Sequence[Task]) -> None:
        """Rows and files of a shard. A record is committed as soon as its own parts are there."""
        by_key = {task.record.ref.key: task for task in tasks}
        wants_files = ARTIFACT in self._kinds
        with_files = await self._source.with_files([task.record for task in tasks]) if wants_files else []
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
            self.account(losses)
            self.finish(task, anew=True)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self.fail(task, error)

    def finish(self, task: Task, *, anew: bool) -> None:
        """Everything of a record is at the sink: written `anew`, or known to be there."""
        record, work = task.record, self._sink.deferred(task.record)
        self._journal.defer(record.ref, work, anew=anew)
        waiting = task.lacks or any(one.stage is Stage.REFERENCES for one in work)
        # Where files are left out, the object is looked at again once they are asked for.
        lacking = task.lacks or ARTIFACT not in self._kinds
        progress = Progress.BEGUN if lacking else Progress.FILLED if waiting else Progress.WHOLE
        self._journal.reached(record, progress, task.digest)
        changed = task.moved and not task.known
        status = Status.CREATED if not task.found else Status.UPDATED if changed else Status.PRESENT
        self.account([outcome(record, status, new_id=task.new_id)])

    def fail(self, task: Task, error: AmigrateError) -> None:
        if task.ended:
            return
        task.ended = True
        self.account([outcome(task.record, Status.FAILED, str(error), task.new_id)])

    def account(self, outcomes: Sequence[Outcome]) -> None:
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
            self.account([Outcome(Ref("metric", series, held.record.ref), Status.FAILED, reason=task.lacks)])
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
            self.fail(task, error)
        finally:
            self._budget.give(points * POINT_BYTES)

    async def _lose(self, held: Held, tasks: Mapping[str, Task], reason: str) -> None:
        """The rows of a record cannot be had."""
        self._budget.give(held.points * POINT_BYTES)
        held.take()
        task = tasks[held.record.ref.key]
        self.fail(task, AmigrateError(reason))
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
            self.account([Outcome(ref, Status.LEFT_BEHIND, reason=task.lacks, name="all artifacts of the run")])
            return None

    async def _file(self, task: Task, file: Record, held: Mapping[str, int]) -> None:
        if task.ended:
            return
        if task.same and not file.error and held.get(file.ref.id) == file.doc.get("size"):
            self.account([outcome(file, Status.PRESENT)])
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
            self.account([outcome(file, Status.UPDATED if file.ref.id in held else Status.CREATED)])
        except CannotContinue:
            raise
        except AmigrateError as error:
            task.lacks = str(error)
            self.account([lost(file, error)])

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


def _rows_of(tasks: Sequence[Task]) -> Iterable[list[Task]]:
    """The children of each parent, in their order."""
    rows: dict[Ref | None, list[Task]] = {}
    for task in tasks:
        rows.setdefault(task.record.ref.parent, []).append(task)
    return rows.values()


def outcome(record: Record, status: Status, reason: str = "", new_id: str | None = None) -> Outcome:
    return Outcome(record.ref, status, new_id or None, reason, record.name)


def lost(record: Record, error: AmigrateError) -> Outcome:
    """Why a record did not arrive: something went wrong, or it cannot be carried at all."""
    status = Status.LEFT_BEHIND if isinstance(error, Uncarriable) else Status.FAILED
    return outcome(record, status, str(error))

"""One shard: the records of a page, from their comparison with the sink to their commit.

They are begun, filled (points through `Gather`, files), and committed one by one as their own parts are done. What some
of them are filled with is read while others are begun. Bytes are taken before any slot of a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from amigrate.core import codec
from amigrate.core.errors import AmigrateError, CannotContinue, Transient, Uncarriable, Unresolved, Unsupported
from amigrate.core.model import POINT_BYTES, Entry, Found, Outcome, Progress, Record, Ref, Rows, Stage, Status
from amigrate.core.ports import Kind, RowCall, Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.crowd import Crowd
from amigrate.engine.gather import WORTH_A_WRITE, Gather, Held
from amigrate.engine.journal import Journal
from amigrate.engine.plan import below
from amigrate.engine.reread import Content, Hashed, Rereader
from amigrate.engine.stats import Stats

ARTIFACT = "artifact"
RECORDS_AT_ONCE = 64
"""Records of a page whose small requests are under way at once; the guards decide how many really are."""
FILES_AT_ONCE = 64
NOT_OURS = "deleted at the source; what is at the target was not made by amigrate, so it stays"
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
    partial: bool = False
    """True where a file of it was left out."""
    parts: int = 0
    """What still has to end before it can be committed: its rows, its files."""
    carried: bool = False
    """True where an earlier session came to its end with it as it is now."""
    kept: bool = False
    """True where it stays as its owner has it at the sink."""
    known: bool = False
    """True where an earlier session carried it as it is now: it is read again only because it has not ended."""
    moved: bool = False
    """True where something was written that may be new."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    begun: bool = False
    """True once the sink has it, ready to be filled."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once all that are filled with it were begun, or could not be: they may name each other."""
    waits_for: Unresolved | None = None
    """What it needs that is not at the sink yet."""
    ended: bool = False
    """True where it has failed: its other parts only have to come to their end."""
    content: Content = field(default_factory=Content)
    """What it holds beyond its listing, as far as that has been read."""


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
        self._rereader = Rereader(source, kinds, budget, ARTIFACT in kinds)
        self.recheck = False
        """Whether what had come to its end is read again."""
        self._files = asyncio.Semaphore(FILES_AT_ONCE)
        self._writers = asyncio.Semaphore(RECORDS_AT_ONCE)
        self.files_choice = ""
        """Which files a user's choice may leave out, in any words; empty where it leaves out none."""
        self.leaves_out: Callable[[Record], str] = lambda file: ""
        """Why a user's choice leaves a file out; empty where it does not."""
        self._blocked: dict[Ref | None, list[Task]] = {}
        """Children of a sequential kind, by their parent, whose first one needs what is not at the sink yet."""

    async def move(self, records: Sequence[Record]) -> None:
        """One shard, from its beginning to its end."""
        async for tasks in self._loaded(await self._compared(records)):
            wanted = await self._grown(self._without_whole(tasks))
            kind = self._kinds[wanted[0].record.ref.kind] if wanted else None
            if kind is None or kind.batched or kind.sequential:
                await self._fill(await self._make(wanted))
            else:
                await self._fill(wanted, begun=False)

    async def unblock(self, narrow: bool = False) -> None:
        """Make what had to wait for others of its kind; what nothing more comes for has failed.

        Where the user chose among the source's objects (`narrow`), what it waits for was left out, and so it is.
        """
        while self._blocked:
            rows, self._blocked = self._blocked, {}
            tasks = [task for row in rows.values() for task in row]
            await self._fill(await self._make(tasks))
            if sum(map(len, self._blocked.values())) < len(tasks):
                continue
            if narrow:
                self._leave_out()
                continue
            for task in tasks:
                self.fail(task, task.waits_for or Unresolved("the one before it could not be made"))
            self._blocked = {}

    def _leave_out(self) -> None:
        """Those that all others wait behind stay; the others need not wait any longer."""
        for parent, (first, *others) in [*self._blocked.items()]:
            self.account([outcome(first.record, Status.EXCLUDED, str(first.waits_for))])
            if others:
                self._blocked[parent] = others
            else:
                del self._blocked[parent]

    async def forget_lost(self, parents: Sequence[Record]) -> None:
        """Forget what an earlier session carried and the sink does not have any more, with all that belonged to it.

        Before any of it is made anew, because others name it by its id: a new server behind an old address.
        """
        entries = self._journal.entries(parents)
        known = [one for one in parents if one.ref.key in entries and entries[one.ref.key].new_id is not None]
        if not known:
            return
        try:
            found = await self._sink.find(known, self._journal)
        except CannotContinue:
            raise
        except AmigrateError:  # It is asked once more when their turn comes, and told then.
            return
        for one in known:
            if one.ref.key not in found:
                self._journal.forget(one.ref, below(self._kinds, one.ref.kind))

    # ---- compare and begin --------------------------------------------------------------------------------------

    async def begin(self, records: Sequence[Record]) -> list[Task]:
        """Make what the sink lacks; returns what has to be filled and committed."""
        made = []
        async for tasks in self._loaded(await self._compared(records)):
            made += await self._make(tasks)
        return made

    async def _compared(self, records: Sequence[Record]) -> list[Task]:
        """What the sink lacks, or does not have as it is now."""
        if not records:
            return []
        try:
            found = await self._sink.find(records, self._journal)
        except CannotContinue:
            raise
        except Unsupported as error:  # The target lacks the kind.
            label = self._kinds[records[0].ref.kind].label.replace("-", " ")
            # What only the server says ("404") tells nobody what it lacks.
            reason = f"the target has no {label}: {error}" if error.endpoint else str(error)
            self.account([lost(record, Uncarriable(reason)) for record in records])
            return []
        except AmigrateError as error:
            self.account([outcome(record, Status.FAILED, str(error)) for record in records])
            return []
        entries, kind = self._journal.entries(records), self._kinds[records[0].ref.kind]
        tasks = [Task(one, kind.digest(one), found.get(one.ref.key), entries.get(one.ref.key)) for one in records]
        rest = [task for task in tasks if not self._is_kept(task)]
        return self._without(rest, [task for task in rest if self._is_done(task)])

    def _is_kept(self, task: Task) -> bool:
        """True for what is deleted at the source only, and that amigrate did not make: to be left as it is."""
        record, found = task.record, task.found
        kind = self._kinds[record.ref.kind]
        if found is None or found.deleted or kind.parent is None or not kind.is_deleted(record):
            return False
        if found.ours or (task.entry is not None and task.entry.made):
            return False
        self.account([outcome(record, Status.EXCLUDED, NOT_OURS, found.new_id)])
        return True

    def _is_done(self, task: Task) -> bool:
        """True where nothing is left to do for a record: the sink has it as it is."""
        record, kind, entry = task.record, self._kinds[task.record.ref.kind], task.entry
        if task.found is None:
            return False
        task.new_id = task.found.new_id
        self._journal.known(record, task.found)
        there = entry is not None and entry.new_id == task.new_id and entry.arrived
        carried = entry is not None and there and self.covers(entry, task.digest)
        task.carried = carried
        if carried and kind.settled(record) and kind.parent is not None and not self.recheck:
            self._stats.unread[record.ref.kind] += 1
            return True
        task.known = carried and kind.parent is not None
        task.same = task.found.same and entry is None and kind.settled(record) and not self.recheck
        return False

    def covers(self, entry: Entry, digest: str) -> bool:
        """Whether an object was carried as this digest has it, with all of its files that are asked for."""
        return entry.digest == digest or (bool(self._choice) and entry.digest == f"{digest} {self._choice}")

    @property
    def _choice(self) -> str:
        """Which files may be left out; empty where none are."""
        return self.files_choice if ARTIFACT in self._kinds else "without files"

    def _carried(self, task: Task) -> str:
        """The fingerprint of what has arrived: what of its files was left out comes once that is asked for."""
        kind = self._kinds[task.record.ref.kind]
        partial = task.partial or (ARTIFACT not in self._kinds and not kind.keeps_edits)
        return f"{task.digest} {self._choice}" if partial else task.digest

    def _without(self, tasks: Sequence[Task], same: Sequence[Task]) -> list[Task]:
        """Leave those that are the `same` as they are; returns the rest."""
        for task in same:
            if task.entry is not None and task.entry.progress is Progress.FILLED:
                self.account([outcome(task.record, Status.PRESENT, new_id=task.new_id)])
            else:
                self.finish(task, anew=False)
        listed = [kind.name for kind in self._kinds.values() if kind.listed]
        self._journal.renew([task.record.ref for task in same], listed)
        left = {task.record.ref.key for task in same}
        return [task for task in tasks if task.record.ref.key not in left]

    def _without_whole(self, tasks: Sequence[Task]) -> list[Task]:
        """Without those of a batched kind that are the same at the sink, and have nothing that its listing hides."""
        kind = self._kinds[tasks[0].record.ref.kind] if tasks else None
        if kind is None or not kind.batched:
            return [*tasks]
        return self._without(tasks, [task for task in tasks if task.same and kind.is_all_listed(task.record)])

    async def _grown(self, tasks: Sequence[Task]) -> list[Task]:
        """Without those that an earlier session carried and that hold nothing new, as only reading them can tell."""
        for task in tasks:
            task.content.document = codec.digest(task.record.doc)
        known = [task for task in tasks if task.known and task.entry and task.entry.content]
        if not known:
            return [*tasks]
        contents = await self._rereader.contents([task.record for task in known], with_bytes=self.recheck)
        for task in known:
            task.known = self._is_same(task, contents.get(task.record.ref.key))
        return self._without(tasks, [task for task in known if task.known])

    def _is_same(self, task: Task, content: Content | None) -> bool:
        """Whether it holds what an earlier session has carried."""
        if content is None or task.entry is None or content.digest != task.entry.content:
            return False
        return not self.recheck or (content.bytes_digest == task.entry.files != "")

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
        self._intend(tasks)
        if kind.batched:
            await self._make_together(tasks)
        else:
            async with Crowd(RECORDS_AT_ONCE) as crowd:
                for row in _rows_of(tasks) if kind.sequential else [[task] for task in tasks]:
                    await crowd.start(self._make_row, row)
        return [task for task in tasks if task.begun]

    def _intend(self, tasks: Sequence[Task]) -> None:
        self._journal.intend([task.record for task in tasks if task.found is None])

    async def _make_all(self, tasks: Sequence[Task], ready: asyncio.Event) -> None:
        """The same while they are filled already: each has one part more, which is this one."""
        self._intend(tasks)
        async with Crowd(RECORDS_AT_ONCE) as crowd:
            for task in tasks:
                await crowd.start(self._make_row, [task])
        ready.set()
        async with Crowd(RECORDS_AT_ONCE) as crowd:
            for task in tasks:
                await crowd.start(self._part_done, task)

    async def _make_row(self, row: Sequence[Task]) -> None:
        """One after the other, in their order; behind one that has to wait, all wait."""
        for number, task in enumerate(row):
            if task.ended:  # What it is filled with could not be had.
                continue
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
            self._journal.begun(task.record, task.new_id, can_wait=self._sink.local)
        else:
            made = bool(task.entry and task.entry.made)
            task.kept = made and task.carried and self._kinds[task.record.ref.kind].keeps_edits
            if task.kept:
                await self._sink.keep(task.record, task.new_id, self._journal)
            else:
                await self._sink.resume(task.record, task.new_id, made, self._journal)
        task.begun = True

    async def _make_together(self, tasks: Sequence[Task]) -> None:
        """All in as few requests as the kind can; what is there already is written again to the same effect."""
        try:
            made = await self._sink.begin_batch([task.record for task in tasks], self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            for task in tasks:
                self.fail(task, error)
            return
        for task in tasks:
            result = made[task.record.ref.key]
            if isinstance(result, AmigrateError):
                self.fail(task, result)
            else:
                task.new_id, task.begun = result, True
                task.moved = task.found is not None and not task.found.same
                self._journal.begun(task.record, result, can_wait=self._sink.local)

    # ---- fill ---------------------------------------------------------------------------------------------------

    async def _fill(self, tasks: Sequence[Task], *, begun: bool = True) -> None:
        """Rows and files of a shard, whose records are `begun` meanwhile where they are not.

        A record is committed as soon as its own parts are there.
        """
        by_key = {task.record.ref.key: task for task in tasks}
        wants_files = ARTIFACT in self._kinds
        ready = asyncio.Event()
        for task in tasks:
            task.parts, task.ready = 1 + wants_files + (not begun), ready
        async with asyncio.TaskGroup() as group:
            if begun:
                ready.set()
            else:
                group.create_task(self._make_all(tasks, ready))
            group.create_task(self._rows(by_key))
            if wants_files:
                group.create_task(self._all_files(by_key))

    async def _all_files(self, tasks: Mapping[str, Task]) -> None:
        """The files of those records that have any; for the others, this part is done."""
        with_files = {one.ref.key for one in await self._source.with_files([task.record for task in tasks.values()])}
        async with Crowd(RECORDS_AT_ONCE) as crowd:
            for task in [task for key, task in tasks.items() if key not in with_files]:
                await crowd.start(self._part_done, task)
            for task in [task for key, task in tasks.items() if key in with_files]:
                await crowd.start(self._files_of, task)

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
            if losses and self._kinds[task.record.ref.kind].retried:
                task.lacks = losses[0].reason
            self.finish(task, anew=True)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self.fail(task, error)

    def finish(self, task: Task, *, anew: bool) -> None:
        """Everything of a record is at the sink: written `anew`, or known to be there."""
        work = self._sink.deferred(task.record)
        if not task.kept:
            # Of what is new, nothing has been waiting since it was intended.
            self._journal.defer(task.record.ref, work, anew=anew and task.found is not None)
            waiting = any(one.stage is Stage.REFERENCES for one in work)
            # What is left to do is kept together with the word that all the rest is done.
            entry = self._entry(task, waiting=waiting, anew=anew)
            self._journal.reached(task.record, entry, can_wait=not work)
        changed = task.moved and not task.known
        status = Status.CREATED if not task.found else Status.UPDATED if changed else Status.PRESENT
        self.account([outcome(task.record, status, new_id=task.new_id)])

    def _entry(self, task: Task, *, waiting: bool, anew: bool) -> Entry:
        """What the journal has to know of an object that is at the sink."""
        progress = Progress.BEGUN if task.lacks else Progress.FILLED if waiting else Progress.WHOLE
        if task.entry is not None and not anew:
            return replace(task.entry, progress=progress)
        deleted = self._kinds[task.record.ref.kind].is_deleted(task.record)
        entry = Entry(progress, task.new_id, self._carried(task), made=False, deleted=deleted)
        if not anew or task.same:  # Nobody has read all of it.
            return entry
        return replace(entry, content=task.content.digest, files=task.content.bytes_digest)

    def fail(self, task: Task, error: AmigrateError) -> None:
        if task.ended:
            return
        task.ended = True
        self.account([lost(task.record, error, task.new_id)])

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
                    group.create_task(self._ask(call, gather, tasks, group))
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

    async def _ask(self, call: RowCall, gather: Gather, tasks: Mapping[str, Task], group: asyncio.TaskGroup) -> None:
        """Send one call for rows and pass on what it completes: an answer may complete many records, all at once."""
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
            if self._is_worth_it(gather.get(key)):
                await self._writers.acquire()
                job = group.create_task(self._advance(key, gather, tasks))
                job.add_done_callback(lambda _: self._writers.release())

    def _is_worth_it(self, held: Held | None) -> bool:
        """Whether something is to be done with what is held of a record."""
        return held is not None and bool(
            held.error or not held.missing or held.points >= WORTH_A_WRITE or self._budget.short
        )

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
            tasks[key].content.series = gather.sums.of(key)
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
            await task.ready.wait()
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
        await task.ready.wait()
        if task.ended:
            await self._part_done(task)
            return
        held = await self._held_files(task)
        pages = self._source.files(task.record)
        async with asyncio.TaskGroup() as group:
            while (page := await self._next_files(task, pages)) is not None:
                task.content.add_files(page)
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
        if reason := self.leaves_out(file):
            task.partial = True
            self.account([outcome(file, Status.EXCLUDED, reason)])
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
                hashed = Hashed(self._source.open(task.record, file))
                size = await self._sink.put_file(task.record, file, hashed.body, self._journal)
                task.content.sums[file.ref.id] = hashed.sum
                return size
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


def lost(record: Record, error: AmigrateError, new_id: str | None = None) -> Outcome:
    """Why a record did not arrive: something went wrong, or it cannot be carried at all."""
    status = Status.LEFT_BEHIND if isinstance(error, Uncarriable) else Status.FAILED
    return outcome(record, status, str(error), new_id)

"""The walk: list, compare, transfer, account. Export, import and copy are this one walk with different ends.

Kinds come in the order of what they need. Those that belong to no other are listed whole and walked in groups, each
group with those of its children that need nothing else, in pages; a page is a shard (`engine.shard`). Children that
need more than their parents, as a logged model needs the runs of any experiment, are walked over all the groups when
what they need is there. Only a few pages are in work at once, so memory does not grow with the workspace.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from amigrate.core.errors import AmigrateError, CannotContinue, Unsupported, UsageError
from amigrate.core.model import Deferred, Known, Outcome, Record, Ref, Stage, Status
from amigrate.core.patterns import Patterns
from amigrate.core.ports import Kind, Scan, Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.closure import Closure
from amigrate.engine.crowd import Crowd
from amigrate.engine.due import ALL, DUE, REASON, Due
from amigrate.engine.journal import Journal
from amigrate.engine.plan import EXPERIMENT, below, groups, order, own_children
from amigrate.engine.shard import RECORDS_AT_ONCE, Shards, lost, outcome
from amigrate.engine.stats import Stats
from amigrate.engine.unbroken import unbroken
from amigrate.engine.vanished import Vanished

PAGES_AT_ONCE = 2
"""Pages in work at once: while one is finished, the next keeps the servers busy, and the one after it is read."""

SIZED_AFTER = 2.0
"""Seconds of a walk after which it is asked how long it will be: a short one is over before anybody wants to know."""


class Wants:
    """Decides which experiments are asked for, and remembers what was asked for in vain."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self.unused = set(patterns.texts)

    def __call__(self, record: Record) -> bool:
        pattern = self._patterns.which(record.name, record.ref.id)
        self.unused.discard(pattern or "")
        return pattern is not None


def _nothing(record: Record) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be moved."""

    deleted: bool
    wants: Mapping[str, Callable[[Record], bool]]
    """For kinds that belong to no other, which of their objects are asked for; all of a kind that is not in it."""
    whole: bool
    """True where the whole workspace was asked for, so that kinds that belong to no experiment count too."""
    leaves_out: Callable[[Record], str] = _nothing
    """Why a user's choice leaves an object out; empty where it does not."""
    files_choice: str = ""
    """What it says of files, in any words; empty where it takes all of them."""
    hidden: frozenset[str] = frozenset()
    """Kinds of which the source lists only what is asked for."""
    narrow: bool = False
    """True where the user chose among the source's objects, so that what comes from others stays too."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Names of kinds that do not move, each with its reason."""
    closure: Closure | None = None
    """Where only some objects were asked for and what they need: which those are."""
    agrees: bool = False
    """True where the names of everything have to be settled before anything is written."""
    recheck: bool = False
    """Whether objects that had come to their end are read again too."""
    propagate: bool = False
    """Whether what was deleted at the source since it was carried is removed from the sink."""
    only_failed: bool = False
    """Whether only what failed, or was begun and is not whole, is taken up again."""

    def lists_all(self, kind: Kind) -> bool:
        """True where an object of this kind that no listing shows is not at the source.

        Nothing is concluded where somebody chose among the objects, or where some are not looked for.
        """
        some = self.narrow or self.only_failed or self.closure is not None
        return not (some or kind.overlooks or kind.name in self.hidden)

    def asks(self, record: Record) -> bool:
        """Whether a parent is to be moved."""
        if self.closure is not None:
            return self.closure.wants(record)
        wants = self.wants.get(record.ref.kind)
        return wants is None or wants(record)


@dataclass(frozen=True, slots=True)
class Roots:
    """The objects of a kind that belongs to no other, and their listing."""

    kind: str
    scan: Scan
    chosen: Sequence[Record]
    deleted: Sequence[Known]
    """Those that were carried once and are deleted now."""


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
        self._vanished = Vanished(source, sink, kinds, journal, stats, self._shards.account)
        self._due: Due | None = None
        self._in_work: set[str] = set()
        self._unlisted: set[str] = set()
        """Kinds whose listing did not come to its end."""
        self._moved = 0
        """Children that were taken to be moved; tells whether a parent has to be written again."""

    async def run(self, request: Request) -> None:
        """Move everything that is asked for. Outcomes are in the journal; raises only what ends the session."""
        self._shards.recheck, self._vanished.propagate = request.recheck, request.propagate
        self._due = Due(self._journal, self._kinds) if request.only_failed else None
        walked: list[Group] = []
        self._shards.leaves_out, self._shards.files_choice = request.leaves_out, request.files_choice
        listed = await self._agreed(request) if request.agrees else {}
        for name in order(self._kinds):
            kind = self._kinds[name]
            if kind.parent is None:
                if name != EXPERIMENT and not request.whole:
                    continue
                walked += await self._tree(listed.get(name) or await self._roots(name, request), request)
                await self._shards.unblock(request.narrow)
            elif kind.listed and name not in own_children(self._kinds, kind.parent):
                for group in walked:
                    if group.kind == kind.parent:
                        await self._more(group, [name], request)
                await self._shards.unblock(request.narrow)
        for group in walked:
            await self._more(group, [*group.scans], request, again=True)
        await self._shards.unblock(request.narrow)
        experiments = [record for group in walked if group.kind == EXPERIMENT for record in group.parents]
        if not request.only_failed:
            uncarried = await self._source.uncarried(experiments, request.whole)
            self._note([one for one in uncarried if one.name not in request.left_out])
        self._shards.account(
            [
                Outcome(Ref(name, ALL), Status.EXCLUDED, reason=reason, name=name)
                for name, reason in request.left_out.items()
            ]
        )
        await self._second_pass()
        if not request.narrow:
            self._journal.note(DUE, [])

    def _note(self, uncarried: Sequence[Outcome]) -> None:
        """What was counted instead of moved, and where kinds that do move were not looked for."""
        for one in uncarried:
            self._stats.listed[one.ref.kind] += one.count
            if one.ref.kind in self._kinds:
                self._stats.notes.unseen.append(f"{one.name} {one.reason}")
        self._shards.account(uncarried)

    # ---- parents ------------------------------------------------------------------------------------------------

    async def _agreed(self, request: Request) -> dict[str, Roots]:
        """Everything that has a name, listed before anything is written, because of what the sink has already."""
        named = [
            name for name in order(self._kinds) if self._kinds[name].named and (request.whole or name == EXPERIMENT)
        ]
        listed = {name: await self._roots(name, request) for name in named}
        for roots in listed.values():
            await self._agree(roots.chosen)
        return listed

    async def _agree(self, records: Sequence[Record]) -> None:
        names = await self._sink.agree(records, self._some_children, self._journal)
        for record in records:
            if record.ref.key in names:
                self._journal.call(record.ref, *names[record.ref.key])

    async def _agreed_late(self, kind: str, records: list[Record]) -> list[Record]:
        """The same for what came meanwhile: where it cannot be, it fails alone."""
        try:
            await self._agree(records)
        except UsageError as error:
            self._shards.account([outcome(record, Status.FAILED, str(error)) for record in records])
            return []
        return records

    async def _some_children(self, parent: Record) -> list[Record]:
        """The first objects of a parent that tell whose they are."""
        for name, kind in self._kinds.items():
            if kind.parent == parent.ref.kind and kind.tells_parent:
                with suppress(Unsupported):  # A source that lacks a kind has none of it.
                    async for page in self._source.scan(name, [parent]).pages():
                        return page
        return []

    async def _roots(self, kind: str, request: Request) -> Roots:
        """Every object of a kind that belongs to no other, as far as it is asked for."""
        scan = self._source.scan(kind, [])
        return Roots(kind, scan, *self._chosen(kind, await self._listed(kind, scan.pages()), request))

    async def _tree(self, roots: Roots, request: Request) -> list[Group]:
        """Every object of a kind that belongs to no other, in groups, each with its own children."""
        kind, scan = roots.kind, roots.scan
        chosen = await self._with_children(roots, request)
        if below(self._kinds, kind):
            await self._shards.forget_lost(chosen)
        walked = [await self._group(kind, some, request) for some in groups(chosen)]
        if kind in self._unlisted:
            return walked
        if chosen or request.agrees:  # Else it has been listed only now.
            walked += await self._late(kind, await self._listed(kind, scan.again(), shown=True), request)
        for one in roots.deleted:
            await self._vanished.settle(one)
        if kind not in self._unlisted and request.lists_all(self._kinds[kind]):
            walked += await self._late(kind, await self._vanished.unmet(kind, [None], request.deleted), request)
        return walked

    async def _late(self, kind: str, records: Sequence[Record], request: Request) -> list[Group]:
        """What came while others were walked, and what no listing has shown."""
        late, deleted = self._chosen(kind, records, request)
        if late and self._kinds[kind].named and request.agrees:
            late = await self._agreed_late(kind, late)
        walked = [await self._group(kind, some, request) for some in groups(late)]
        for one in deleted:
            await self._vanished.settle(one)
        return walked

    async def _with_children(self, roots: Roots, request: Request) -> Sequence[Record]:
        """Without those that have children of which none comes: see `Kind.comes_with`."""
        child = self._kinds[roots.kind].comes_with
        if not request.narrow or child not in self._kinds or not roots.chosen:
            return roots.chosen
        children = [record async for page in self._source.scan(child, roots.chosen).pages() for record in page]
        left = {record.ref.key: self._reason(record, request) for record in children}
        homes = {record.ref.parent for record in children}
        kept = {record.ref.parent for record in children if not left[record.ref.key]}
        out = [record for record in children if record.ref.parent not in kept]
        self._stats.listed[child] += len(out)
        self._shards.account([outcome(record, Status.EXCLUDED, left[record.ref.key]) for record in out])
        reason = f"none of its {self._kinds[child].label.replace('-', ' ')} is asked for"
        empty = [record for record in roots.chosen if record.ref in homes - kept]
        self._shards.account([outcome(record, Status.EXCLUDED, reason) for record in empty])
        return [record for record in roots.chosen if record.ref not in homes - kept]

    async def _listed(self, kind: str, pages: AsyncIterator[list[Record]], shown: bool = False) -> list[Record]:
        """All that a listing of parents shows. A source that lacks the kind has none of it."""
        found: list[Record] = []
        try:
            async for page in unbroken(kind, pages, shown):
                found += page
        except CannotContinue:
            raise
        except Unsupported as error:
            self._unlisted.add(kind)
            self._miss(self._kinds[kind], error)
        except AmigrateError as error:
            if kind == EXPERIMENT:
                raise
            self._unlisted.add(kind)
            reason = f"could not be listed to the end: {error}"
            self._stats.listed[kind] += 1
            self._shards.account([Outcome(Ref(kind, ALL), Status.FAILED, reason=reason)])
        else:
            self._journal.no_failure(Ref(kind, ALL))
        return found

    def _miss(self, kind: Kind, error: Unsupported) -> None:
        """What was asked for by name is worth a word where it cannot be there; what belongs together has one reason."""
        if kind.opt_in:
            self._stats.notes.warn(f"{self._source.label} shows no {kind.group or kind.label}: {error}")

    def _chosen(self, name: str, records: Sequence[Record], request: Request) -> tuple[list[Record], list[Known]]:
        """The parents to move, and those that were carried once and are deleted now; the others get their outcome."""
        chosen, ended, deleted = [], [], []
        retired = self._retired(records, request)
        self._stats.listed[name] += len(records)
        for record in records:
            wanted = request.asks(record)
            if record.error and (wanted or not record.name):  # One without a name may be what is asked for.
                ended.append(lost(record, record.error))
            elif not wanted:
                ended.append(outcome(record, Status.EXCLUDED, "not asked for"))
            elif self._due and not self._due(record):
                ended.append(outcome(record, Status.EXCLUDED, REASON))
            elif record.ref.key in retired:
                deleted.append(retired[record.ref.key])
            elif reason := self._reason(record, request):
                ended.append(outcome(record, Status.EXCLUDED, reason))
            else:
                chosen.append(record)
        self._shards.account(ended)
        self._stats.total_experiments += len(chosen) if name == EXPERIMENT else 0
        return chosen, deleted

    def _retired(self, page: Sequence[Record], request: Request) -> dict[str, Known]:
        """What was deleted since it was carried, by key: those that are not to arrive as deleted ones."""
        chosen = [] if request.propagate and request.deleted else [one for one in page if not request.leaves_out(one)]
        return self._vanished.retired(chosen)

    async def _group(self, kind: str, records: Sequence[Record], request: Request) -> Group:
        """Some parents and the children that need nothing else."""
        tasks = await self._shards.begin(records)
        group = Group(kind, [task.record for task in tasks])
        unlisted = await self._children(group, own_children(self._kinds, kind), request)
        for task in tasks:
            if unlisted:
                self._shards.fail(task, AmigrateError("; ".join(unlisted)))
            elif await self._committed(task.record):
                self._shards.finish(task, anew=True)
        self._stats.ended_experiments += len(records) if kind == EXPERIMENT else 0
        self._journal.forget_cache()
        return group

    async def _committed(self, record: Record) -> bool:
        """Write a parent whose children have come to their end; False where that failed, which is accounted."""
        try:
            losses = await self._sink.commit(record, self._journal)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._shards.account([outcome(record, Status.FAILED, str(error))])
            return False
        self._shards.account(losses)
        return True

    async def _more(self, group: Group, kinds: Sequence[str], request: Request, again: bool = False) -> None:
        """More children of parents that were written: of other kinds, or what came `again` at a live source.

        The parents are written once more then.
        """
        before = self._moved, self._vanished.settled
        unlisted = await self._children(group, kinds, request, again)
        if (self._moved, self._vanished.settled) != before:
            for record in group.parents:
                await self._committed(record)
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
            before = self._stats.listed[kind]
            error = await self._walk_sized(group, kind, request, again)
            if kind in request.hidden and not again:
                await self._count_hidden(group, kind, self._stats.listed[kind] - before)
            if error is None and not again and request.lists_all(self._kinds[kind]):
                there = await self._vanished.unmet(kind, group.parents, request.deleted)
                await self._page(*self._fresh(there, request, again))
            elif isinstance(error, Unsupported):  # A source that lacks a kind has none of it, nor is asked again.
                group.scans.pop(kind)
            elif error is not None:
                came = " that came meanwhile" if again else ""
                unlisted.append(f"its {kind.replace('_', ' ')}s{came} could not be listed to the end: {error}")
        return unlisted

    async def _count_hidden(self, group: Group, kind: str, listed: int) -> None:
        """What the source did not list because it was not asked for is counted all the same."""
        number = await self._source.count(kind, group.parents)
        if number is not None and number <= listed:
            return
        reason = "not asked for" + (", and nobody counts them" if number is None else "")
        others = Ref(kind, "(others)", group.parents[0].ref)
        count = 1 if number is None else number - listed
        self._stats.listed[kind] += count
        self._shards.account([Outcome(others, Status.EXCLUDED, reason=reason, count=count)])

    async def _walk_sized(self, group: Group, kind: str, request: Request, again: bool) -> AmigrateError | None:
        scan = group.scans[kind]
        if again:
            return await self._walk(kind, scan.again(), request, again)
        async with asyncio.TaskGroup() as work:
            size = work.create_task(self._size(kind, scan, group.parents))
            error = await self._walk(kind, scan.pages(), request, again)
            size.cancel()
        return error

    async def _size(self, kind: str, scan: Scan, experiments: Sequence[Record]) -> None:
        """How many runs there will be, for the display only: where it cannot be told, nothing is lost."""
        if kind != "run":
            return
        runs: int | None = self._journal.number(kind, [record.ref for record in experiments])
        try:
            if not runs:
                await asyncio.sleep(SIZED_AFTER)
                runs = await scan.size()
        except CannotContinue:
            raise
        except AmigrateError:
            return
        if runs is not None:
            self._stats.expected_runs += runs
            self._stats.sized_experiments += len(experiments)

    async def _walk(
        self, kind: str, pages: AsyncIterator[list[Record]], request: Request, again: bool
    ) -> AmigrateError | None:
        """Move pages of children, a few at once, while the next one is read.

        Returns what ended the listing early, where something did.
        """
        slots = asyncio.Semaphore(1 if self._kinds[kind].sequential else PAGES_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            try:
                async for page in unbroken(kind, pages, again):
                    await slots.acquire()
                    job = group.create_task(self._page(*self._fresh(page, request, again)))
                    job.add_done_callback(lambda _: slots.release())
            except CannotContinue:
                raise
            except AmigrateError as error:
                return error
        return None

    def _fresh(self, page: Sequence[Record], request: Request, again: bool) -> tuple[list[Record], list[Known]]:
        """The records of a page that are to be moved and were not met, as they are now, in this session; and those
        that were carried once and are deleted now."""
        met = self._journal.seen(page)
        unchanged = met & self._settled(page) if again else met
        retired = self._retired(page, request)
        chosen, ended, deleted = [], [], []
        for record in page:
            key = f"{record.ref.kind} {record.ref.key}"
            if record.ref.key in unchanged or key in self._in_work:
                continue
            if request.closure is not None and not request.closure.wants(record):
                continue
            if record.ref.key not in met:
                self._stats.listed[record.ref.kind] += 1
            reason = "" if record.ref.key in retired else self._reason(record, request)
            if self._due and not self._due(record):
                ended += [] if record.ref.key in met else [outcome(record, Status.EXCLUDED, REASON)]
            elif record.error and not reason:
                ended.append(lost(record, record.error))
            elif record.ref.key in retired:
                deleted += [] if record.ref.key in met else [retired[record.ref.key]]
            elif reason:
                if record.ref.key not in met:  # What was carried before it was deleted has been carried.
                    ended.append(outcome(record, Status.EXCLUDED, reason))
            else:
                self._in_work.add(key)
                chosen.append(record)
        self._shards.account(ended)
        self._moved += len(chosen)
        return chosen, deleted

    def _reason(self, record: Record, request: Request) -> str:
        """Why an object is left out: as its kind says, as the user says, or because what it comes from is."""
        kind = self._kinds[record.ref.kind]
        excluded = "" if record.error else kind.excluded(record, request.deleted)
        return excluded or request.leaves_out(record) or (self._missing(kind, record) if request.narrow else "")

    def _missing(self, kind: Kind, record: Record) -> str:
        """Where what an object comes from was left out. What has failed is no matter of choice."""
        for name, own in () if record.error else kind.comes_from(record):
            left_out = self._journal.fate(name, own) in (None, Status.EXCLUDED)
            if left_out and self._journal.new_id(name, own) is None:
                return f"{name.replace('_', ' ')} {own}, which it comes from, is not asked for"
        return ""

    def _settled(self, page: Sequence[Record]) -> set[str]:
        """Those whose state is the one that was moved: nothing new to carry."""
        entries = self._journal.entries(page)
        known = [(record, entry) for record in page if (entry := entries.get(record.ref.key))]
        return {
            record.ref.key
            for record, entry in known
            if self._shards.covers(entry, self._kinds[record.ref.kind].digest(record))
        }

    async def _page(self, records: Sequence[Record], deleted: Sequence[Known]) -> None:
        try:
            await self._shards.move(records)
            for one in deleted:
                await self._vanished.settle(one)
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
        else:
            self._journal.defer(ref, [what], anew=False)

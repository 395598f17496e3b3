"""What was carried before and has been deleted at the source since: reported, and taken away where that is asked for.

The source shows it as deleted, or it shows it no more. Nothing is concluded from a listing that did not come to its
end, nor from one that hides what this user may not read; and nothing is ever removed that amigrate did not make.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from amigrate.core.errors import AmigrateError, CannotContinue, Uncarriable
from amigrate.core.model import Entry, Known, Outcome, Record, Status
from amigrate.core.ports import Kind, Sink, Source
from amigrate.engine.journal import Journal
from amigrate.engine.plan import below
from amigrate.engine.stats import Stats

STAYS = "deleted at the source since it was carried"
GONE = "deleted at the source, and now here too"
ASK = "--propagate-deletes deletes it there too"
HIDDEN = "the source shows it no more, but hides what this user may not read"

Account = Callable[[Sequence[Outcome]], None]


class Vanished:
    """Decides what becomes of objects whose originals are deleted."""

    def __init__(
        self, source: Source, sink: Sink, kinds: Mapping[str, Kind], journal: Journal, stats: Stats, account: Account
    ) -> None:
        self._source = source
        self._sink = sink
        self._kinds = kinds
        self._journal = journal
        self._stats = stats
        self._account = account
        self.propagate = False
        """Whether what was deleted at the source is to be removed from the sink."""
        self.settled = 0
        """Objects that got an outcome here: their parents have to say so."""

    def retired(self, page: Sequence[Record]) -> dict[str, Known]:
        """Those of a page that are deleted at the source and were not when an earlier session carried them, by key."""
        deleted = [one for one in page if not one.error and self._kinds[one.ref.kind].is_deleted(one)]
        entries = self._journal.entries(deleted)
        return {
            one.ref.key: Known(one.ref, one.name, entry)
            for one in deleted
            if (entry := entries.get(one.ref.key)) and entry.arrived and not entry.deleted and not entry.fresh
        }

    async def unmet(self, kind: str, parents: Sequence[Record | None], deleted: bool) -> list[Record]:
        """Settle what a whole listing has not shown; returns what is there all the same.

        `deleted` says whether deleted objects are carried: one that was left out may be asked for now.
        """
        known = [one for parent in parents for one in self._journal.unmet(kind, parent.ref if parent else None)]
        carried = [one for one in known if one.entry and one.entry.arrived and one.entry.deleted]
        self._stats.listed[kind] += len(carried)
        self._account([self._outcome(one, Status.PRESENT, "") for one in carried])
        open_ = {one.ref.key: one for one in known if one not in carried and (one.entry or deleted)}
        try:
            there = await self._source.missed(kind, [Record(one.ref, {}, one.name) for one in open_.values()])
        except CannotContinue:
            raise
        except AmigrateError as error:
            await self._unknown([one for one in open_.values() if one.entry], error)
            return []
        for record in there:
            open_.pop(record.ref.key, None)
        for one in open_.values():
            if one.entry is None:
                self._journal.forget(one.ref, ())
            else:
                self._stats.listed[kind] += 1
                await self._gone(one)
        return there

    async def _unknown(self, lost: Sequence[Known], error: AmigrateError) -> None:
        """No listing shows these, and nobody can tell whether they are there."""
        reason = f"no listing shows it any more, and it cannot be asked for: {error}"
        for one in lost:
            self._stats.listed[one.ref.kind] += 1
            if self._source.shows_all:
                self._account([self._outcome(one, Status.FAILED, reason)])
            else:
                await self._gone(one)

    async def _gone(self, one: Known) -> None:
        if not self._source.shows_all:
            self._account([self._outcome(one, Status.EXCLUDED, HIDDEN)])
            return
        if self.propagate and not self._journal.met_again():
            raise CannotContinue(
                f"the source shows nothing of what was carried before, such as {one.ref}: is it another server, or an "
                "empty one? Nothing was deleted at the target"
            )
        await self.settle(one)

    async def settle(self, one: Known) -> None:
        """Report an object whose original is deleted, or remove it."""
        entry = one.entry
        assert entry is not None, f"{one.ref} was never carried"
        if not self.propagate:
            self._stats.vanished[one.ref.kind] += 1
            self._account([self._outcome(one, Status.EXCLUDED, f"{STAYS}: {ASK}")])
        elif not entry.made:
            await self._keep(one, "amigrate did not make it")
        else:
            await self._remove(one, entry)

    async def _remove(self, one: Known, entry: Entry) -> None:
        try:
            if entry.new_id is not None:
                await self._sink.remove(one.ref, entry.new_id, self._journal)
        except CannotContinue:
            raise
        except Uncarriable as error:
            await self._keep(one, str(error))
        except AmigrateError as error:
            self._account([self._outcome(one, Status.FAILED, f"{STAYS}, and cannot be deleted here: {error}")])
        else:
            self._journal.forget(one.ref, below(self._kinds, one.ref.kind))
            self._account([self._outcome(one, Status.UPDATED, GONE)])

    async def _keep(self, one: Known, reason: str) -> None:
        """An object that has to stay, but perhaps not all that belongs to it."""
        self._account([self._outcome(one, Status.EXCLUDED, f"{STAYS}, but it stays: {reason}")])
        for kind in self._kinds.values():
            if kind.parent == one.ref.kind and kind.listed:
                for child in self._journal.unmet(kind.name, one.ref):
                    if child.entry is not None:
                        self._stats.listed[kind.name] += 1
                        await self.settle(child)

    def _outcome(self, one: Known, status: Status, reason: str) -> Outcome:
        self.settled += 1
        return Outcome(one.ref, status, one.entry.new_id if one.entry else None, reason, one.name)

"""Reading one side of a comparison to its end: objects, points, files, noted in the inventory.

Everything is read in bulk, as a move reads it, within the same budget of bytes; points and files are hashed as they
come and never held.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from amigrate.core.errors import AmigrateError, CannotContinue, Missing, Transient, Unsupported
from amigrate.core.model import Doc, Record, Status
from amigrate.core.ports import Kind, RowCall, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.crowd import Crowd
from amigrate.engine.digests import Digests
from amigrate.engine.inventory import NOT_COMPARED, Inventory, Noted
from amigrate.engine.plan import EXPERIMENT, groups, order
from amigrate.engine.stats import Stats
from amigrate.engine.unbroken import unbroken

ARTIFACT = "artifact"
PAGES_AT_ONCE = 2
CALLS_AT_ONCE = 32
RECORDS_AT_ONCE = 32
FILES_AT_ONCE = 32
FILE_BYTES = 512 * 1024
"""What a file costs of the memory budget while it is read."""
ATTEMPTS = 5
"""How often a file is read whose bytes break off."""


def everything(_: Record) -> bool:
    return True


def as_it_is(_: str, match: str) -> str:
    return match


@dataclass(frozen=True, slots=True)
class Scope:
    """What of one side is compared."""

    deleted: bool = True
    """Whether what is deleted is."""
    wants: Callable[[Record], bool] = everything
    """Chooses the experiments."""
    whole: bool = True
    """False where `wants` does not want every experiment."""
    content: bool = True
    """False where the size of a file says enough."""
    renamed: Callable[[str, str], str] = as_it_is
    """What the other side calls an object, from its kind and what this side calls it."""


@dataclass(frozen=True, slots=True)
class Store:
    """What the surveys of both sides share."""

    inventory: Inventory
    budget: ByteBudget
    stats: Stats


class Survey:
    """Notes everything of one side."""

    def __init__(self, side: str, source: Source, kinds: Mapping[str, Kind], scope: Scope, store: Store) -> None:
        self._side = side
        self._source = source
        self._kinds = kinds
        self._scope = scope
        self._stats = store.stats
        self._inventory = store.inventory
        self._budget = store.budget

    async def read(self) -> None:
        """Kind after kind, each below the parents it belongs to, with points and files.

        Raises `CannotContinue` where a listing cannot be read to its end: what was never listed could not be said to
        be missing.
        """
        parents: dict[str, list[Record]] = {}
        for name in order(self._kinds):
            kind = self._kinds[name]
            if not kind.listed:
                continue
            some = groups(parents[kind.parent]) if kind.parent else [()]
            parents[name] = [record for group in some for record in await self._children(kind, group)]

    async def _children(self, kind: Kind, parents: Sequence[Record]) -> list[Record]:
        """Every object of a kind below some parents; returns those that others may belong to."""
        is_parent = any(other.parent == kind.name and other.listed for other in self._kinds.values())
        readable: list[Record] = []
        async with Crowd(PAGES_AT_ONCE) as crowd:
            async for page in self._pages(kind, parents):
                chosen = self._chosen(page)
                readable += [record for record in chosen if not record.error] if is_parent else []
                await crowd.start(self._page, chosen)
        self._stats.total_experiments += len(readable) if kind.name == EXPERIMENT else 0
        self._stats.ended_experiments += len(parents) if kind.name == "run" else 0
        return readable

    async def _pages(self, kind: Kind, parents: Sequence[Record]) -> AsyncIterator[list[Record]]:
        """The pages of a listing; who lacks a kind has none of it."""
        try:
            async for page in unbroken(kind.name, self._source.scan(kind.name, parents).pages()):
                yield page
        except CannotContinue:
            raise
        except Unsupported:
            return
        except AmigrateError as error:
            what = kind.name.replace("_", " ")
            raise CannotContinue(f"the {what}s of {self._source.label} cannot be listed to the end: {error}") from error

    def _chosen(self, page: Sequence[Record]) -> list[Record]:
        """What of a page is to be compared. Others may refer to the rest of it, so it is known as left out."""
        chosen = []
        for record in page:
            kind = self._kinds[record.ref.kind]
            wanted = kind.name != EXPERIMENT or self._scope.wants(record)
            excluded = bool(not record.error and kind.excluded(record, self._scope.deleted))
            match = NOT_COMPARED if excluded or not wanted else self._match(record)
            self._inventory.call(self._side, kind.name, record.ref.id, match)
            if excluded and wanted:
                self._stats.done[kind.name, Status.EXCLUDED] += 1
            if wanted and not excluded:
                chosen.append(record)
                self._stats.listed[kind.name] += 1
        return chosen

    def _match(self, record: Record) -> str:
        """What both sides call an object. One that cannot be read is known by its id."""
        kind = self._kinds[record.ref.kind]
        return record.ref.id if record.error else self._scope.renamed(kind.name, kind.match(record))

    def _note(self, record: Record, series: Mapping[str, Doc] | None = None, error: str = "") -> None:
        doc = {} if record.error else record.doc
        told, absent = str(record.error or error), isinstance(record.error, Missing)
        match = self._match(record)
        self._inventory.note(
            Noted(self._side, record.ref, match, record.name, doc, series or {}, told, absent, record.place)
        )
        self._stats.done[record.ref.kind, Status.PRESENT] += 1

    async def _page(self, page: Sequence[Record]) -> None:
        """Some objects with all that belongs to them."""
        readable = [record for record in page if not record.error]
        if readable and self._kinds[readable[0].ref.kind].heavy:
            await self._load(readable)
        else:
            await self._loaded(readable)
        for record in page:
            if record.error:
                self._note(record)

    async def _load(self, records: Sequence[Record]) -> None:
        """Records whose listing does not tell everything."""
        waiting = {record.ref.key: record for record in records}
        try:
            async for portion in self._source.load(records):
                for record in portion:
                    del waiting[record.ref.key]
                await self._loaded(portion)
        except CannotContinue:
            raise
        except AmigrateError as error:
            for record in waiting.values():
                self._note(record, error=f"it cannot be read: {error}")

    async def _loaded(self, records: Sequence[Record]) -> None:
        """Records that hold all that their listing left out."""
        readable = [record for record in records if not record.error]
        series = {record.ref.key: self._kinds[record.ref.kind].series(record) for record in readable}
        digests, unlisted = Digests(series), dict[str, str]()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._rows([record for record in readable if digests.wants(record.ref)], digests))
            if ARTIFACT in self._kinds:
                parts.create_task(self._files(readable, unlisted))
        disordered = [record for record in readable if not digests.in_order(record.ref)]
        ordered = Digests({record.ref.key: series[record.ref.key] for record in disordered}, self._inventory.db)
        await self._rows(disordered, ordered)
        for record in records:
            told, error = (digests if digests.in_order(record.ref) else ordered).of(record.ref)
            self._note(record, told, error or unlisted.get(record.ref.key, ""))

    # ---- rows ---------------------------------------------------------------------------------------------------

    async def _rows(self, records: Sequence[Record], digests: Digests) -> None:
        if not records:
            return
        async with Crowd(CALLS_AT_ONCE) as crowd:
            async for call in self._source.rows(records[0].ref.kind, records):
                await self._budget.take(call.cost)
                await crowd.start(self._ask, call, digests)

    async def _ask(self, call: RowCall, digests: Digests) -> None:
        """One call for rows. They are taken in at once, because the chunks of a series come in their order."""
        try:
            for rows in await call():
                digests.add(rows)
                self._stats.points += len(rows.points)
        except CannotContinue:
            raise
        except AmigrateError as error:
            for ref in call.refs:
                digests.fail(ref, f"its points cannot be read: {error}")
        finally:
            self._budget.give(call.cost)

    # ---- files --------------------------------------------------------------------------------------------------

    async def _files(self, records: Sequence[Record], unlisted: dict[str, str]) -> None:
        """Every file of some records; `unlisted` takes in why the files of one could not be listed."""
        async with Crowd(FILES_AT_ONCE) as files, Crowd(RECORDS_AT_ONCE) as owners:
            for record in await self._source.with_files(records):
                await owners.start(self._files_of, record, files, unlisted)

    async def _files_of(self, record: Record, files: Crowd, unlisted: dict[str, str]) -> None:
        try:
            async for page in self._source.files(record):
                self._stats.listed[ARTIFACT] += len(page)
                for file in page:
                    await files.start(self._file, record, file)
        except CannotContinue:
            raise
        except AmigrateError as error:
            unlisted[record.ref.key] = f"its files cannot be listed: {error}"

    async def _file(self, record: Record, file: Record) -> None:
        if file.error:
            self._note(file)
            return
        try:
            read = await self._summed(record, file) if self._scope.content else self._weighed(record, file)
            self._note(replace(file, doc=read))
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._note(file, error=f"it cannot be read: {error}")

    def _weighed(self, record: Record, file: Record) -> Doc:
        """What the listing tells of a file: its size, unless that depends on the ids in it."""
        kind = self._kinds[record.ref.kind]
        return {} if kind.ids_vary and kind.names_others(file) else {"size": file.doc["size"]}

    async def _summed(self, record: Record, file: Record) -> Doc:
        """Size and sha256 of a file; a body that breaks off is opened again."""
        names_others = self._kinds[record.ref.kind].names_others(file)
        cost = FILE_BYTES + (file.doc["size"] if names_others else 0)
        await self._budget.take(cost)
        try:
            for attempt in range(ATTEMPTS):
                try:
                    return await (self._split(record, file) if names_others else self._hashed(record, file))
                except Transient:
                    if attempt == ATTEMPTS - 1:
                        raise
        finally:
            self._budget.give(cost)
        raise AssertionError("the last attempt returns or raises")

    async def _hashed(self, record: Record, file: Record) -> Doc:
        digest, size = hashlib.sha256(), 0
        async with self._source.open(record, file).open() as stream:
            async for chunk in stream.chunks:
                digest.update(chunk)
                size += len(chunk)
        self._stats.bytes += size
        return {"size": size, "sha256": digest.hexdigest()}

    async def _split(self, record: Record, file: Record) -> Doc:
        """A small file that names objects by id: the ids are kept beside what is measured, and not in it."""
        async with self._source.open(record, file).open() as stream:
            data = b"".join([chunk async for chunk in stream.chunks])
        self._stats.bytes += len(data)
        rest, names = self._kinds[record.ref.kind].split_names(data)
        return {"size": len(rest), "sha256": hashlib.sha256(rest).hexdigest(), "names": names}

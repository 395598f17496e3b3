"""Reading one side of a comparison to its end: objects, points, files, noted in the inventory.

Everything is read in bulk, as a move reads it, within the same budget of bytes; points and files are hashed as they
come and never held.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from amigrate.core.errors import AmigrateError, CannotContinue, Transient, Unsupported
from amigrate.core.model import Doc, Record, Ref, Status
from amigrate.core.ports import Kind, RowCall, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.crowd import Crowd
from amigrate.engine.inventory import Digests, Inventory, Noted
from amigrate.engine.plan import groups, order
from amigrate.engine.stats import Stats

PAGES_AT_ONCE = 2
CALLS_AT_ONCE = 32
RECORDS_AT_ONCE = 32
FILES_AT_ONCE = 32
FILE_BYTES = 512 * 1024
"""What a file costs of the memory budget while it is read."""
ATTEMPTS = 5
"""How often a file is read whose bytes break off."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared: the experiments that `wants` says yes to, and what is deleted where `deleted` asks for it."""

    deleted: bool
    wants: Callable[[Record], bool]


@dataclass(frozen=True, slots=True)
class Store:
    """What the surveys of both sides share."""

    inventory: Inventory
    budget: ByteBudget


class Survey:
    """Notes everything of one side."""

    def __init__(
        self, side: str, source: Source, kinds: Mapping[str, Kind], scope: Scope, stats: Stats, store: Store
    ) -> None:
        self._side = side
        self._source = source
        self._kinds = kinds
        self._scope = scope
        self._stats = stats
        self._inventory = store.inventory
        self._budget = store.budget
        self._homes: dict[str, Ref] = {}
        """What both sides call the parents of this side, by kind and key."""

    async def read(self) -> None:
        """Kind after kind, each below the parents it belongs to, with points and files."""
        parents: dict[str, list[Record]] = {}
        for name in order(self._kinds):
            kind = self._kinds[name]
            if kind.listed:
                groups_of = groups(parents[kind.parent]) if kind.parent else [()]
                parents[name] = [record for group in groups_of for record in await self._children(kind, group)]

    async def _children(self, kind: Kind, parents: Sequence[Record]) -> list[Record]:
        """Every object of a kind below some parents; returns those that others may belong to."""
        is_parent = any(other.parent == kind.name and other.listed for other in self._kinds.values())
        readable: list[Record] = []
        try:
            async with Crowd(PAGES_AT_ONCE) as crowd:
                async for page in self._source.scan(kind.name, parents).pages():
                    chosen = self._chosen(page)
                    if is_parent:
                        self._homes |= {f"{one.ref.kind} {one.ref.key}": self._shared(one) for one in chosen}
                        readable += [record for record in chosen if not record.error]
                    await crowd.start(self._page, chosen)
        except Unsupported:  # Who lacks a kind has none of it.
            return []
        self._stats.total_experiments += len(readable) if kind.name == "experiment" else 0
        self._stats.ended_experiments += len(parents) if kind.name == "run" else 0
        return readable

    def _chosen(self, page: Sequence[Record]) -> list[Record]:
        """What of a page is to be compared. Others may refer to the rest of it, so its names are kept too."""
        chosen = []
        for record in page:
            kind = self._kinds[record.ref.kind]
            if kind.name == "experiment" and not self._scope.wants(record):
                continue
            if not record.error:
                self._inventory.call(self._side, kind.name, record.ref.id, kind.match(record))
                if kind.excluded(record, self._scope.deleted):
                    self._stats.done[kind.name, Status.EXCLUDED] += 1
                    continue
            chosen.append(record)
            self._stats.listed[kind.name] += 1
        return chosen

    def _shared(self, record: Record) -> Ref:
        """What both sides call an object. One that cannot be read is known by its id."""
        parent = self._homes[f"{record.ref.parent.kind} {record.ref.parent.key}"] if record.ref.parent else None
        match = record.ref.id if record.error else self._kinds[record.ref.kind].match(record)
        return Ref(record.ref.kind, match, parent)

    def _note(self, record: Record, shared: Ref, series: Mapping[str, str] | None = None, error: str = "") -> None:
        doc = {} if record.error else record.doc
        error = str(record.error or error)
        self._inventory.note(Noted(self._side, record.ref, shared.key, record.name, doc, series or {}, error))

    async def _page(self, page: Sequence[Record]) -> None:
        """Some objects with all that belongs to them."""
        broken = [record for record in page if record.error]
        readable = [record for record in page if not record.error]
        if readable and self._kinds[readable[0].ref.kind].heavy:
            async for portion in self._source.load(readable):
                await self._loaded(portion)
        else:
            await self._loaded(readable)
        for record in broken:
            self._note(record, self._shared(record))

    async def _loaded(self, records: Sequence[Record]) -> None:
        """Records that hold all that their listing left out."""
        readable = [record for record in records if not record.error]
        digests = Digests({record.ref.key: self._kinds[record.ref.kind].series(record) for record in readable})
        unlisted: dict[str, str] = {}
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._rows([record for record in readable if digests.wants(record.ref)], digests))
            parts.create_task(self._files(readable, unlisted))
        for record in records:
            series, error = digests.of(record.ref)
            self._note(record, self._shared(record), series, error or unlisted.get(record.ref.key, ""))

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
                self._stats.listed["artifact"] += len(page)
                for file in page:
                    await files.start(self._file, record, file)
        except CannotContinue:
            raise
        except AmigrateError as error:
            unlisted[record.ref.key] = f"its files cannot be listed: {error}"

    async def _file(self, record: Record, file: Record) -> None:
        shared = Ref(file.ref.kind, self._kinds[file.ref.kind].match(file), self._shared(record))
        if file.error:
            self._note(file, shared)
            return
        try:
            read = await self._summed(record, file)
            self._stats.bytes += read["size"]
            self._note(Record(file.ref, read, file.name), shared)
        except CannotContinue:
            raise
        except AmigrateError as error:
            self._note(file, shared, error=f"it cannot be read: {error}")

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
        return {"size": size, "sha256": digest.hexdigest()}

    async def _split(self, record: Record, file: Record) -> Doc:
        """A small file that names objects by id: the ids are kept beside the digest, and not in it."""
        async with self._source.open(record, file).open() as stream:
            data = b"".join([chunk async for chunk in stream.chunks])
        rest, names = self._kinds[record.ref.kind].split_names(data)
        return {"size": len(data), "sha256": hashlib.sha256(rest).hexdigest(), "names": names}

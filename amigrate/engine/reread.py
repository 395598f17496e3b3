"""Reading again what was carried before and may have grown: has anything come that no listing shows?

Only the source is asked. Points and documents are hashed as they come; of files, paths and sizes count, and their
bytes where they are read as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256

from amigrate.core import codec
from amigrate.core.errors import AmigrateError, CannotContinue
from amigrate.core.model import Body, Record, Stream
from amigrate.core.ports import Kind, RowCall, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.crowd import Crowd
from amigrate.engine.sums import Sums

CALLS_AT_ONCE = 32
RECORDS_AT_ONCE = 32
FILES_AT_ONCE = 32
FILE_BYTES = 256 * 1024
"""What a file costs of the memory budget while it is read."""


@dataclass(slots=True)
class Content:
    """What one object holds beyond its listing."""

    document: str = ""
    """A fingerprint of its document with all that its listing left out."""
    series: Mapping[str, str] | None = field(default_factory=dict)
    """None where one could not be read to its end."""
    files: dict[str, int] = field(default_factory=dict)
    """Path and size."""
    sums: dict[str, str] = field(default_factory=dict)
    """Path and sha256, of those whose bytes have been read."""

    def add_files(self, page: Sequence[Record]) -> None:
        self.files |= {file.ref.id: int(file.doc.get("size") or 0) for file in page}

    @property
    def digest(self) -> str:
        """Of all but the bytes of files."""
        return codec.digest([self.document, self.series, self.files])

    @property
    def bytes_digest(self) -> str:
        """Of the bytes of its files; empty where not all of them have been read."""
        return codec.digest(self.sums) if self.sums.keys() == self.files.keys() else ""


class Hashed:
    """A body whose sha256 is known once it has been read to its end; nobody reads an empty one."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.sum = sha256().hexdigest()

    @property
    def body(self) -> Body:
        return Body(self._open, self._body.size)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Stream]:
        async with self._body.open() as stream:
            yield Stream(self._chunks(stream.chunks), stream.size)

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        held = sha256()
        async for chunk in chunks:
            held.update(chunk)
            yield chunk
        self.sum = held.hexdigest()


class Rereader:
    """Reads objects of one kind again."""

    def __init__(self, source: Source, kinds: Mapping[str, Kind], budget: ByteBudget, wants_files: bool) -> None:
        self._source = source
        self._kinds = kinds
        self._budget = budget
        self._wants_files = wants_files

    async def contents(self, records: Sequence[Record], *, with_bytes: bool) -> dict[str, Content]:
        """What each of them holds now, by key; those that cannot be read are left out."""
        found = {record.ref.key: Content(codec.digest(record.doc)) for record in records}
        series = {record.ref.key: self._kinds[record.ref.kind].series(record) for record in records}
        sums = Sums(series)
        unread: set[str] = set()
        async with asyncio.TaskGroup() as parts:
            parts.create_task(self._rows([record for record in records if series[record.ref.key]], sums))
            if self._wants_files:
                parts.create_task(self._files(records, found, unread, with_bytes))
        for key, content in found.items():
            content.series = sums.of(key)
        return {key: one for key, one in found.items() if key not in unread and one.series is not None}

    async def _rows(self, records: Sequence[Record], sums: Sums) -> None:
        if not records:
            return
        async with Crowd(CALLS_AT_ONCE) as crowd:
            async for call in self._source.rows(records[0].ref.kind, records):
                await self._budget.take(call.cost)
                await crowd.start(self._ask, call, sums)

    async def _ask(self, call: RowCall, sums: Sums) -> None:
        """What a call does not bring is missing then."""
        try:
            for rows in await call():
                sums.add(rows)
        except CannotContinue:
            raise
        except AmigrateError:
            return
        finally:
            self._budget.give(call.cost)

    async def _files(
        self, records: Sequence[Record], found: Mapping[str, Content], unread: set[str], with_bytes: bool
    ) -> None:
        async with Crowd(FILES_AT_ONCE) as files, Crowd(RECORDS_AT_ONCE) as owners:
            for record in await self._source.with_files(records):
                await owners.start(self._listed, record, found[record.ref.key], unread, files if with_bytes else None)

    async def _listed(self, record: Record, content: Content, unread: set[str], files: Crowd | None) -> None:
        try:
            async for page in self._source.files(record):
                content.add_files(page)
                for file in page:
                    if files is not None:
                        await files.start(self._sum, record, file, content)
        except CannotContinue:
            raise
        except AmigrateError:
            unread.add(record.ref.key)

    async def _sum(self, record: Record, file: Record, content: Content) -> None:
        """The bytes of one file; where they cannot be read, the object is carried again and that will say why."""
        if file.error:
            return
        await self._budget.take(FILE_BYTES)
        try:
            hashed = Hashed(self._source.open(record, file))
            async with hashed.body.open() as stream:
                async for _ in stream.chunks:
                    continue
            content.sums[file.ref.id] = hashed.sum
        except CannotContinue:
            raise
        except AmigrateError:
            return
        finally:
            self._budget.give(FILE_BYTES)

"""A tracking server as a Sink: remembers what is open, leaves the writing to the kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from amigrate.core.errors import AmigrateError, Unsupported
from amigrate.core.model import Body, Deferred, Foreseen, Found, Outcome, Record, Ref, Rows
from amigrate.core.ports import Children, Ids
from amigrate.kinds.base import Kind, Target
from amigrate.kinds.naming import agree


class ServerSink:
    """See `core.ports.Sink`."""

    local = False

    def __init__(self, target: Target, kinds: Mapping[str, Kind]) -> None:
        self.label = target.api.shown
        self._target = target
        self._kinds = kinds
        self._open: dict[str, Any] = {}
        self._committed: dict[str, Any] = {}

    def _kind(self, record: Record) -> Kind:
        return self._kinds[record.ref.kind]

    async def agree(self, records: Sequence[Record], children: Children, ids: Ids) -> dict[str, tuple[str, str]]:
        """A target that lacks the kind has none of it; that they are left behind, each of them is told later."""
        with suppress(Unsupported):
            return await agree(self._kind(records[0]), self._target, records, children, ids) if records else {}
        return {}

    async def find(self, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        return await self._kind(records[0]).find(self._target, records, ids) if records else {}

    async def begin(self, record: Record, ids: Ids) -> str:
        new_id, self._open[_key(record)] = await self._kind(record).begin(self._target, record, ids)
        return new_id

    async def rehearse(self, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        return await self._kind(record).rehearse(self._target, record, new_id, made, ids)

    def judged(self, file: Record) -> Record:
        return self._kind(file).judged(self._target, file)

    async def begin_batch(self, records: Sequence[Record], ids: Ids) -> dict[str, str | AmigrateError]:
        made = await self._kind(records[0]).begin_batch(self._target, records, ids)
        results: dict[str, str | AmigrateError] = {}
        for record in records:
            result = made[record.ref.key]
            if isinstance(result, AmigrateError):
                results[record.ref.key] = result
            else:
                results[record.ref.key], self._open[_key(record)] = result
        return results

    async def resume(self, record: Record, new_id: str, made: bool, ids: Ids) -> None:
        self._open[_key(record)] = await self._kind(record).resume(self._target, record, new_id, made, ids)

    async def keep(self, record: Record, new_id: str, ids: Ids) -> None:
        self._open[_key(record)] = await self._kind(record).keep(self._target, record, new_id, ids)

    async def put_rows(self, record: Record, rows: Sequence[Rows], ids: Ids) -> None:
        await self._kind(record).put_rows(self._target, record, rows, ids, self._open[_key(record)])

    async def held_files(self, record: Record) -> dict[str, int]:
        return await self._kind(record).held_files(self._target, record, self._open[_key(record)])

    async def put_file(self, record: Record, file: Record, body: Body, ids: Ids) -> int:
        return await self._kind(record).put_file(self._target, record, file, body, ids, self._open[_key(record)])

    async def commit(self, record: Record, ids: Ids) -> list[Outcome]:
        key = _key(record)
        losses = await self._kind(record).commit(self._target, record, ids, self._open.get(key))
        if key in self._open:  # A parent is committed again where children came late.
            self._committed[key] = self._open.pop(key)
        return losses

    def drop(self, record: Record) -> None:
        self._open.pop(_key(record), None)

    def deferred(self, record: Record) -> list[Deferred]:
        return self._kind(record).deferred(self._target, record, self._committed.pop(_key(record), None))

    async def remove(self, ref: Ref, new_id: str, ids: Ids) -> None:
        await self._kinds[ref.kind].remove(self._target, ref, new_id, ids)

    async def link(self, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return await self._kind(record).link(self._target, record, new_id, what, ids)


def _key(record: Record) -> str:
    return f"{record.ref.kind} {record.ref.key}"

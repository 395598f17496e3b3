"""A tracking server as a Source. Only reading requests; listings that create defaults are never sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence

from amigrate.client.api import Api
from amigrate.core.model import Body, Outcome, Record
from amigrate.core.ports import RowCall, Scan
from amigrate.kinds.base import Kind
from amigrate.kinds.uncarried import count_uncarried


class ServerSource:
    """See `core.ports.Source`."""

    def __init__(self, api: Api, kinds: Mapping[str, Kind]) -> None:
        self.label = api.shown
        self._api = api
        self._kinds = kinds

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan:
        return self._kinds[kind].scan(self._api, parents)

    async def locate(self, kind: str, ids: Sequence[str]) -> list[Record]:
        return await self._kinds[kind].locate(self._api, ids)

    def load(self, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        return self._kinds[batch[0].ref.kind].load(self._api, batch)

    def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        return self._kinds[kind].rows(self._api, batch)

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        return await self._kinds[batch[0].ref.kind].with_files(self._api, batch) if batch else []

    def files(self, record: Record) -> AsyncIterator[list[Record]]:
        return self._kinds[record.ref.kind].files(self._api, record)

    def open(self, record: Record, file: Record) -> Body:
        return self._kinds[record.ref.kind].open(self._api, record, file)

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        return await count_uncarried(self._api, parents, whole)

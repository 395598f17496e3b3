"""A tracking server as a Source. Only reading requests; listings that create defaults are never sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

from amigrate.client.api import Api
from amigrate.core.choice import Choice
from amigrate.core.errors import CannotContinue
from amigrate.core.model import Body, Forecast, Outcome, Record, Ref, Status
from amigrate.core.ports import RowCall, Scan
from amigrate.kinds.base import Kind
from amigrate.kinds.run_scan import check_filter
from amigrate.kinds.store import is_sql


class ServerSource:
    """See `core.ports.Source`."""

    local = False

    def __init__(self, api: Api, kinds: Mapping[str, Kind]) -> None:
        self.label = api.shown
        self._api = api
        self._kinds = kinds
        self.shows_all = api.abilities.administrator is not False

    async def choose(self, choice: Choice) -> None:
        """Ask for this only. Raises `UsageError` where the server does not take the filter."""
        await check_filter(self._api, choice.runs.filter)
        self._api.choice = choice

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan:
        return self._kinds[kind].scan(self._api, parents)

    async def count(self, kind: str, parents: Sequence[Record]) -> int | None:
        return await self._kinds[kind].count(self._api, parents)

    async def locate(self, kind: str, ids: Sequence[str]) -> list[Record]:
        return await self._kinds[kind].locate(self._api, ids)

    def load(self, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        return self._kinds[batch[0].ref.kind].load(self._api, batch)

    async def missed(self, kind: str, records: Sequence[Record]) -> list[Record]:
        return await self._kinds[kind].missed(self._api, records) if records else []

    def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        return self._kinds[kind].rows(self._api, batch)

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        return self._kinds[batch[0].ref.kind].forecast(batch) if batch else Forecast()

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        if not batch:
            return []
        kind = self._kinds[batch[0].ref.kind]
        self._check_destination(kind, batch)
        return await kind.with_files(self._api, batch)

    def _check_destination(self, kind: Kind, batch: Sequence[Record]) -> None:
        """A private server that looks for files in the wrong place finds none, and says nothing."""
        store = self._api.store
        if store is None or not store.lacks_artifacts:
            return
        if any(kind.is_proxied(self._api, record) for record in batch):
            raise CannotContinue(
                f"{self.label} names files that its server kept, and there is no folder {store.artifacts}: tell where "
                "they are with --artifacts-destination, or leave them out with --no-artifacts"
            )

    def files(self, record: Record) -> AsyncIterator[list[Record]]:
        return self._kinds[record.ref.kind].files(self._api, record)

    def open(self, record: Record, file: Record) -> Body:
        return self._kinds[record.ref.kind].open(self._api, record, file)

    async def keeps_repeats(self) -> bool:
        return not await is_sql(self._api)

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        return [*self._overlooked()]

    def _overlooked(self) -> Iterator[Outcome]:
        """Where kinds that are not looked for everywhere were left out."""
        for kind in self._kinds.values():
            number = len(self._api.overlooked.get(kind.name, ()))
            if number:
                where = f"in {number} experiment{'s' * (number > 1)}"
                reason = f"{where}: {kind.overlooks} (--objects all,{kind.label} looks there too)"
                yield Outcome(Ref(kind.name, "(elsewhere)"), Status.EXCLUDED, reason=reason, name=kind.label)

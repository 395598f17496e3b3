"""A move that is not made: what it would come to, found by looking only.

The walk is the real one (`engine.transfer`). Its source lists what there is and brings no rows and no files; its sink
looks for what it has already, says what it would not take, and makes nothing. What a listing does not tell is taken
from a sample, which is read afterwards: the rows of some records, the files of some owners.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from amigrate.core.errors import AmigrateError, CannotContinue
from amigrate.core.model import PLANNED, Body, Deferred, Forecast, Foreseen, Found, Outcome, Record, Ref, Rows
from amigrate.core.ports import Children, Ids, Kind, RowCall, Scan, Sink, Source, Work
from amigrate.engine.shard import lost
from amigrate.engine.stats import Requests, Stats

OWNERS = 50
"""Records whose files are listed to learn how many there are."""
RECORDS = 20
"""Records whose rows are read to learn how many there are."""
ROWS = 50_000
"""Rows that are read for that at most."""
FILES, LARGEST = 3, 4 * 1024 * 1024
"""Files that are read to learn how fast that is, and the most bytes of each."""
READ_SECONDS, WRITE_SECONDS, FILE_SECONDS = 0.01, 0.015, 0.01
"""What a request takes where none was measured; a write never less, because none can be tried."""
ROW_READ, ROW_WRITTEN = 60e-6, 150e-6
"""Seconds that a server takes for a row, besides its request (MLflow 3.17.2, SQLite, one process)."""
BYTES_PER_SECOND = 50e6
AT_ONCE = 2
"""Requests of one end under way at once, on the average."""


class Sample:
    """Some of many records that pass by, each as likely as any other."""

    def __init__(self, size: int) -> None:
        self.chosen: list[Record] = []
        self.seen = 0
        self._size = size
        self._random = Random(0)

    def pass_by(self, record: Record) -> None:
        self.seen += 1
        if len(self.chosen) < self._size:
            self.chosen.append(record)
        elif (place := self._random.randrange(self.seen)) < self._size:
            self.chosen[place] = record


@dataclass(slots=True)
class Tally:
    """What a move would read and write, as far as the walk tells."""

    rows: int = 0
    """As the listings say, or let guess."""
    reads: float = 0.0
    """Requests for rows and for what listings leave out."""
    writes: float = 0.0
    """Requests that write, files aside."""
    files: int = 0
    bytes: int = 0
    owners: Sample = field(default_factory=lambda: Sample(OWNERS))
    """Records whose files nobody has listed."""
    with_rows: Sample = field(default_factory=lambda: Sample(RECORDS))
    found: set[str] = field(default_factory=set)
    """Owners of files that the sink has, from when they are looked at until their files are."""
    there: dict[tuple[str, str], None] = field(default_factory=dict)
    """Kind and name of what the sink has already, not made by amigrate."""
    doubts: Counter[str] = field(default_factory=Counter)
    """What may be lost, depending on what the sink does not tell, and how often."""


@dataclass(slots=True)
class Expected:
    """What a move would come to."""

    rows: int = 0
    rows_sampled: int = 0
    """Records whose rows were read to learn that; 0 where the listings tell."""
    rows_exact: bool = True
    files: int = 0
    bytes: int = 0
    owners: int = 0
    """Records that may have files, where those are not listed with them."""
    owners_listed: int = 0
    reads: int = 0
    """Requests to the source, those of its listings included."""
    writes: int = 0
    """Requests to the sink, those that look for what is there included."""
    seconds: float = 0.0
    there: Sequence[tuple[str, str]] = ()
    doubts: Mapping[str, int] = field(default_factory=dict)
    losses: Sequence[Outcome] = ()
    """Files of the sample that cannot be carried."""


class Rehearsal:
    """A source and a sink between which nothing moves, and what would."""

    def __init__(self, source: Source, sink: Sink | None, kinds: Mapping[str, Kind]) -> None:
        """Without a sink there is nothing yet, and everything is taken."""
        self.tally = Tally()
        self._source = source
        self.source = LookingSource(source, sink, kinds, self.tally)
        self.sink = LookingSink(sink, kinds, self.tally)

    async def expected(self, stats: Stats) -> Expected:
        """To be asked after the walk: reads the samples."""
        tally = self.tally
        told = Expected(
            rows=tally.rows, files=tally.files, bytes=tally.bytes, there=[*tally.there], doubts=tally.doubts
        )
        told.reads = stats.source.sent.total() + round(tally.reads)
        told.writes = stats.sink.sent.total() + round(tally.writes) * (not self.sink.local)
        pace = Pace(stats.source)
        await self._rows(told, pace)
        await self._files(told, pace, stats.source)
        if not self.source.local:
            told.seconds = pace.seconds(told.reads, told.rows, ROW_READ, told.files, told.bytes)
        if not self.sink.local:
            told.writes += told.files
            writing = Pace(stats.sink).seconds(told.writes, told.rows, ROW_WRITTEN, told.files, told.bytes, writes=True)
            told.seconds = max(told.seconds, writing)
        return told

    async def _rows(self, told: Expected, pace: Pace) -> None:
        """How many rows some records really have, of those that the listings let expect."""
        chosen, least = [], 0
        for record in self.tally.with_rows.chosen:
            rows = self._source.forecast([record]).rows
            if least + rows <= ROWS:
                chosen.append(record)
                least += rows
        told.rows_exact = not self.tally.with_rows.seen
        if not least:
            return
        found, began = 0, time.monotonic()
        try:
            async for call in self._source.rows(chosen[0].ref.kind, chosen):
                found += sum(len(rows.points) for rows in await call())
        except CannotContinue:
            raise
        except AmigrateError:
            return
        pace.row = (time.monotonic() - began) / max(found, 1)
        told.rows_sampled = len(chosen)
        told.rows = round(told.rows * found / least)

    async def _files(self, told: Expected, pace: Pace, requests: Requests) -> None:
        """How many files some owners have; a few of the files are read."""
        owners, files, losses = self.tally.owners, list[tuple[Record, Record]](), list[Outcome]()
        before = requests.sent.total()
        for owner in owners.chosen:
            try:
                async for page in self._source.files(owner):
                    judged = [self.source.judged(file) for file in page]
                    files += [(owner, file) for file in judged if not file.error]
                    losses += [lost(file, file.error) for file in judged if file.error]
            except CannotContinue:
                raise
            except AmigrateError as error:
                losses.append(lost(Record(Ref("artifact", "*", owner.ref), {}), error))
        share = owners.seen / max(len(owners.chosen), 1)
        told.losses = losses
        told.owners, told.owners_listed = owners.seen, len(owners.chosen)
        told.files += round(len(files) * share)
        told.bytes += round(sum(int(file.doc["size"]) for _, file in files) * share)
        told.reads += round((requests.sent.total() - before) * share) + told.files * (not self._source.local)
        await pace.try_files(self._source, [one for one in files if int(one[1].doc["size"]) <= LARGEST][:FILES])


class Pace:
    """How long the requests of one end take."""

    def __init__(self, requests: Requests) -> None:
        self._request = requests.latency(Work.READ) or READ_SECONDS
        self._file = FILE_SECONDS
        self._bytes = BYTES_PER_SECOND
        self.row: float | None = None
        """Seconds for a row that was read."""

    async def try_files(self, source: Source, files: Sequence[tuple[Record, Record]]) -> None:
        """Read some files and see how long that takes."""
        read, began = 0, time.monotonic()
        for owner, file in files:
            try:
                async with source.open(owner, file).open() as stream:
                    async for chunk in stream.chunks:
                        read += len(chunk)
            except CannotContinue:
                raise
            except AmigrateError:
                continue
        if files:
            self._file = max(0.001, (time.monotonic() - began) / len(files) - read / BYTES_PER_SECOND)

    def seconds(self, requests: int, rows: int, row: float, files: int, size: int, *, writes: bool = False) -> float:
        """About how long this end is busy."""
        small = max(self._request, WRITE_SECONDS) if writes else self._request
        each = row if self.row is None else self.row
        return ((requests - files) * small + rows * each + files * self._file + size / self._bytes) / AT_ONCE


# ---- the two ends ---------------------------------------------------------------------------------------------------


class LookingSource:
    """A source whose objects are listed and not read. See `core.ports.Source`."""

    def __init__(self, source: Source, sink: Sink | None, kinds: Mapping[str, Kind], tally: Tally) -> None:
        self.label = source.label
        self.local = source.local
        self.shows_all = source.shows_all
        self._source = source
        self._sink = sink
        self._kinds = kinds
        self._tally = tally

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan:
        return _Once(self._source.scan(kind, parents))

    async def count(self, kind: str, parents: Sequence[Record]) -> int | None:
        return await self._source.count(kind, parents)

    async def locate(self, kind: str, ids: Sequence[str]) -> list[Record]:
        return await self._source.locate(kind, ids)

    async def missed(self, kind: str, records: Sequence[Record]) -> list[Record]:
        return await self._source.missed(kind, records)

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        return self._source.forecast(batch)

    async def load(self, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        self._tally.reads += self._source.forecast(batch).requests
        yield [*batch]

    async def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        expected = self._source.forecast(batch)
        self._tally.rows += expected.rows
        self._tally.reads += expected.requests
        if not self.local:
            for record in batch:
                self._tally.with_rows.pass_by(record)
        yield _Stand(self._kinds[kind], batch)

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        return await self._source.with_files(batch)

    async def files(self, record: Record) -> AsyncIterator[list[Record]]:
        """Those that cannot be carried. The others are counted; or only their owner, where a listing has its price.

        Files of what the sink has already are not: most of them are there too.
        """
        key = f"{record.ref.kind} {record.ref.key}"
        if key in self._tally.found:
            self._tally.found.discard(key)
        elif not self.local:
            self._tally.owners.pass_by(record)
        else:
            async for page in self._source.files(record):
                judged = [self.judged(file) for file in page]
                yield [file for file in judged if file.error]
                sizes = [int(file.doc["size"]) for file in judged if not file.error]
                self._tally.files += len(sizes)
                self._tally.bytes += sum(sizes)

    def judged(self, file: Record) -> Record:
        """A file with the reason why the sink would not take it, where there is one."""
        return file if file.error or not self._sink else self._sink.judged(file)

    def open(self, record: Record, file: Record) -> Body:
        raise AssertionError(f"a plan reads no files: {file.ref}")

    async def keeps_repeats(self) -> bool:
        return await self._source.keeps_repeats()

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        return await self._source.uncarried(parents, whole)


class _Once:
    """A listing that is read once, however the source goes on."""

    def __init__(self, scan: Scan) -> None:
        self._scan = scan

    def pages(self) -> AsyncIterator[list[Record]]:
        return self._scan.pages()

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        nothing: tuple[list[Record], ...] = ()
        for page in nothing:
            yield page


class _Stand:
    """Stands in for the calls that bring rows: one row of each series. See `core.ports.RowCall`."""

    cost = 0

    def __init__(self, kind: Kind, batch: Sequence[Record]) -> None:
        self.refs = [record.ref for record in batch]
        self._rows = [Rows(one.ref, name, [(0.0, 0, 0)], total=1) for one in batch for name in kind.series(one)]

    async def __call__(self) -> list[Rows]:
        return self._rows


class LookingSink:
    """A sink that is only looked at. See `core.ports.Sink`."""

    def __init__(self, sink: Sink | None, kinds: Mapping[str, Kind], tally: Tally) -> None:
        self.label = sink.label if sink else ""
        self.local = sink is None or sink.local
        self._sink = sink
        self._kinds = kinds
        self._tally = tally
        self._losses: dict[str, list[Outcome]] = {}

    async def agree(self, records: Sequence[Record], children: Children, ids: Ids) -> dict[str, tuple[str, str]]:
        return await self._sink.agree(records, children, ids) if self._sink else {}

    async def find(self, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        sought = [record for record in records if self._may_be_there(record, ids)]
        found = await self._sink.find(sought, ids) if self._sink and sought else {}
        for record in sought:
            held = found.get(record.ref.key)
            kind = self._kinds[record.ref.kind]
            if held and kind.named and not (held.ours or ids.made(record.ref) or kind.everybodys(held)):
                self._tally.there[record.ref.kind, record.name] = None
        return found

    def _may_be_there(self, record: Record, ids: Ids) -> bool:
        """What belongs to an object that is only planned cannot be there, unless it lies elsewhere."""
        parent = record.ref.parent
        planned = parent is not None and (ids.new_id(parent.kind, parent.id) or "").startswith(PLANNED)
        return not planned or self._kinds[record.ref.kind].global_ids

    async def begin(self, record: Record, ids: Ids) -> str:
        new_id = f"{PLANNED}{record.ref.id}"
        await self._rehearse(record, new_id, None, ids)
        return new_id

    async def begin_batch(self, records: Sequence[Record], ids: Ids) -> dict[str, str | AmigrateError]:
        made: dict[str, str | AmigrateError] = {}
        for record in records:
            try:
                made[record.ref.key] = await self.begin(record, ids)
            except CannotContinue:
                raise
            except AmigrateError as error:
                made[record.ref.key] = error
        return made

    async def resume(self, record: Record, new_id: str, made: bool, ids: Ids) -> None:
        await self._rehearse(record, new_id, made, ids)

    async def _rehearse(self, record: Record, new_id: str, made: bool | None, ids: Ids) -> None:
        foreseen = await self._sink.rehearse(record, new_id, made, ids) if self._sink else Foreseen()
        self._tally.writes += foreseen.requests
        self._tally.doubts.update(foreseen.doubts)
        if foreseen.losses:
            self._losses[f"{record.ref.kind} {record.ref.key}"] = [*foreseen.losses]

    async def rehearse(self, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        raise AssertionError("a rehearsal is not rehearsed")

    def judged(self, file: Record) -> Record:
        return self._sink.judged(file) if self._sink else file

    async def keep(self, record: Record, new_id: str, ids: Ids) -> None:
        return None

    async def put_rows(self, record: Record, rows: Sequence[Rows], ids: Ids) -> None:
        return None

    async def held_files(self, record: Record) -> dict[str, int]:
        self._tally.found.add(f"{record.ref.kind} {record.ref.key}")
        return {}

    async def put_file(self, record: Record, file: Record, body: Body, ids: Ids) -> int:
        raise AssertionError(f"a plan writes no files: {file.ref}")

    async def commit(self, record: Record, ids: Ids) -> list[Outcome]:
        return self._losses.pop(f"{record.ref.kind} {record.ref.key}", [])

    async def remove(self, ref: Ref, new_id: str, ids: Ids) -> None:
        return None

    def drop(self, record: Record) -> None:
        self._losses.pop(f"{record.ref.kind} {record.ref.key}", None)

    def deferred(self, record: Record) -> list[Deferred]:
        return []

    async def link(self, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return True

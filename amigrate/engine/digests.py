"""The points of a comparison: each series as the number of its points and a digest of them, whatever store has them.

Stores differ in the order in which they give points, in whether they keep a point twice, and in what they make of
values that are no plain numbers. So points are digested once each, in an order of their own, with every NaN the same
NaN, one zero, and the infinities as the largest numbers that there are.

A series is digested while it comes in. Each chunk is sorted; where that does not put the whole series into order, the
record is read once more and its points are sorted on disk.
"""

from __future__ import annotations

import hashlib
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from struct import Struct
from typing import Protocol

from amigrate.core.model import Doc, Point, Ref, Rows

Placed = tuple[int, int, float, bool]
"""A point in the order of comparisons: timestamp, step, value (0 for NaN), whether it is NaN."""

PACKED = Struct("<qqd?")
LARGEST = sys.float_info.max
SORTED = """
CREATE TABLE IF NOT EXISTS sorted (
    place TEXT, time INTEGER, step INTEGER, value REAL, nan INTEGER, PRIMARY KEY (place, time, step, value, nan)
) WITHOUT ROWID;
"""
READ = 10_000


def placed(point: Point) -> Placed:
    """A point as every store can keep it."""
    value, time, step = point
    if value != value:
        return time, step, 0.0, True
    return time, step, max(-LARGEST, min(LARGEST, value)) + 0.0, False


class Series(Protocol):
    """One series on its way."""

    total: int | None
    """How many points there are, once that is known."""
    points: int
    """Points that have come."""
    in_order: bool
    """False where the digest means nothing, because the points came in no order."""

    def add(self, rows: Rows) -> None: ...

    def told(self) -> Doc:
        """How many different points there are, how many came again, and the digest of them."""
        ...


class Passing:
    """A series of which nothing is kept but its last point."""

    def __init__(self) -> None:
        self.total: int | None = None
        self.points = 0
        self.in_order = True
        self._different = 0
        self._last: Placed | None = None
        self._digest = hashlib.blake2b(digest_size=8)

    def add(self, rows: Rows) -> None:
        self.points += len(rows.points)
        self.total = self.total if rows.total is None else rows.total
        points = sorted(map(placed, rows.points))
        if not points:
            return
        if self._last is not None and points[0] < self._last:
            self.in_order = False
        different = [one for one, before in zip(points, [self._last, *points], strict=False) if one != before]
        self._digest.update(_packed(different))
        self._different += len(different)
        self._last = points[-1]

    def told(self) -> Doc:
        return _told(self._different, self.points, self._digest.hexdigest())


class OnDisk:
    """A series that is sorted on disk."""

    def __init__(self, db: sqlite3.Connection, place: str) -> None:
        self.total: int | None = None
        self.points = 0
        self.in_order = True
        self._db = db
        self._place = place
        db.executescript(SORTED)

    def add(self, rows: Rows) -> None:
        self.points += len(rows.points)
        self.total = self.total if rows.total is None else rows.total
        self._db.executemany(
            "INSERT OR IGNORE INTO sorted VALUES (?, ?, ?, ?, ?)",
            ((self._place, *placed(point)) for point in rows.points),
        )

    def told(self) -> Doc:
        digest, different = hashlib.blake2b(digest_size=8), 0
        query = "SELECT time, step, value, nan FROM sorted WHERE place = ? ORDER BY time, step, value, nan"
        rows = self._db.execute(query, (self._place,))
        while some := rows.fetchmany(READ):
            different += len(some)
            digest.update(_packed((time, step, value, bool(nan)) for time, step, value, nan in some))
        self._db.execute("DELETE FROM sorted WHERE place = ?", (self._place,))
        return _told(different, self.points, digest.hexdigest())


def _packed(points: Iterable[Placed]) -> bytes:
    return b"".join([PACKED.pack(*one) for one in points])


def _told(different: int, points: int, digest: str) -> Doc:
    return {"points": different, "again": points - different, "digest": digest}


class Digests:
    """The series of some records, while they come in."""

    def __init__(self, series: Mapping[str, Sequence[str]], disk: sqlite3.Connection | None = None) -> None:
        """`series` has the names of each record's series, by the record's key. With `disk` points are sorted there."""
        self._missing = {key: set(names) for key, names in series.items()}
        self._open: dict[tuple[str, str], Series] = {}
        self._done: dict[str, dict[str, Doc]] = {key: {} for key in series}
        self._errors: dict[str, str] = {}
        self._disordered: set[str] = set()
        self._disk = disk

    def wants(self, ref: Ref) -> bool:
        """True where the record has series at all."""
        return bool(self._missing[ref.key])

    def add(self, rows: Rows) -> None:
        """Take in the next chunk of a series."""
        place = (rows.ref.key, rows.series)
        series = self._open.pop(place, None) or self._new("\0".join(place))
        series.add(rows)
        if rows.error:
            self.fail(rows.ref, rows.error)
        elif series.points == series.total:
            self._missing[rows.ref.key].discard(rows.series)
            self._done[rows.ref.key][rows.series] = series.told()
            if not series.in_order:
                self._disordered.add(rows.ref.key)
        else:
            self._open[place] = series

    def _new(self, place: str) -> Series:
        return OnDisk(self._disk, place) if self._disk else Passing()

    def fail(self, ref: Ref, reason: str) -> None:
        """The series of a record cannot be had."""
        self._errors.setdefault(ref.key, reason)

    def in_order(self, ref: Ref) -> bool:
        """False where a series of the record has to be read once more, to be sorted on disk."""
        return ref.key not in self._disordered

    def of(self, ref: Ref) -> tuple[dict[str, Doc], str]:
        """What was summed up of a record's series, and what is wrong with them."""
        missing = self._missing.get(ref.key)
        error = f"the history of '{min(missing)}' never ended" if missing else ""
        return self._done.get(ref.key, {}), self._errors.get(ref.key) or error

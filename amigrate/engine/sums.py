"""What some series hold, as the number of their points and a hash of them: to tell later whether one has grown.

Their order does not matter, because different requests for the same points bring them in different orders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from amigrate.core.model import Point, Rows

MASK = 2**64 - 1


class Sums:
    """The series of some records, while they come in."""

    def __init__(self, series: Mapping[str, Sequence[str]]) -> None:
        """`series` has the names of each record's series, by the record's key."""
        self._series = {key: {name: _Series() for name in names} for key, names in series.items()}

    def add(self, rows: Rows) -> None:
        """Take in a chunk of a series."""
        series = self._series[rows.ref.key].setdefault(rows.series, _Series())
        series.points += len(rows.points)
        series.total = series.total if rows.total is None else rows.total
        series.hash = (series.hash + _hash(rows.points)) & MASK

    def of(self, key: str) -> dict[str, str] | None:
        """What the series of a record hold; None where one of them has not come to its end."""
        series = self._series.get(key, {})
        if any(one.points != one.total for one in series.values()):
            return None
        return {name: f"{one.points} {one.hash:x}" for name, one in series.items()}


class _Series:
    __slots__ = ("hash", "points", "total")

    def __init__(self) -> None:
        self.points = 0
        self.total: int | None = None
        self.hash = 0


def _hash(points: Iterable[Point]) -> int:
    """Hashes of numbers are the same in every process; that of a NaN is not, so that it stands for something else."""
    return sum([hash(one) if one[0] == one[0] else hash((0, *one[1:], 1)) for one in points])

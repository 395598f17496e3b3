"""Joining rows that arrive by metric key into what each record needs.

The server answers by key over many runs; a run is written whole. Rows wait here until a record has all of its series,
or enough to be worth a write. When bytes run short nothing waits: the fullest record is handed on early, because the
rows that are held are the very bytes that the missing ones need.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from amigrate.core.model import Record, Rows
from amigrate.engine.sums import Sums

WORTH_A_WRITE = 20_000
"""Points of one record that are handed on although more may come."""


@dataclass(slots=True)
class Held:
    """The rows of one record that wait, and the series that have not ended."""

    record: Record
    missing: set[str]
    rows: list[Rows] = field(default_factory=list)
    points: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    error: str = ""
    """Why one of its series cannot be had."""

    def add(self, rows: Rows) -> None:
        series = rows.series
        self.rows.append(rows)
        self.points += len(rows.points)
        self.counts[series] = self.counts.get(series, 0) + len(rows.points)
        if rows.total is not None:
            self.totals[series] = rows.total
        if self.counts[series] == self.totals.get(series):
            self.missing.discard(series)
        self.error = self.error or rows.error

    def take(self) -> list[Rows]:
        """Hand on what is held."""
        rows, self.rows, self.points = self.rows, [], 0
        return rows


class Gather:
    """The rows of a batch of records."""

    def __init__(self, records: Iterable[tuple[Record, Sequence[str]]]) -> None:
        series = {record.ref.key: (record, names) for record, names in records}
        self._held = {key: Held(record, set(names)) for key, (record, names) in series.items()}
        self.sums = Sums({key: names for key, (_, names) in series.items()})

    def add(self, rows: Rows) -> bool:
        """Take in a chunk; False where nobody waits for it any more, because its record has failed."""
        held = self._held.get(rows.ref.key)
        if held is not None:
            held.add(rows)
            self.sums.add(rows)
        return held is not None

    def get(self, key: str) -> Held | None:
        """What waits of a record; None once it was dropped."""
        return self._held.get(key)

    def fullest(self) -> Held | None:
        """The record that holds the most, where any holds something."""
        held = max(self._held.values(), key=lambda one: one.points, default=None)
        return held if held is not None and held.points else None

    def drop(self, key: str) -> Held | None:
        """Forget a record: it is done or has failed."""
        return self._held.pop(key, None)

    def incomplete(self) -> list[Held]:
        """Records with series that never ended."""
        return [held for held in self._held.values() if held.missing]

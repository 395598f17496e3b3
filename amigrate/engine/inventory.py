"""What a comparison has read of both sides: a private temporary database that lies on disk where it grows.

Every object with its document, every series as its number of points and a digest of them in their order.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from struct import Struct
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc, Point, Ref, Rows

A, B = "A", "B"

SCHEMA = """
CREATE TABLE objects (
    side TEXT, kind TEXT, ref TEXT, key TEXT, name TEXT, doc BLOB, series BLOB, error TEXT,
    PRIMARY KEY (side, kind, ref)
) WITHOUT ROWID;
CREATE TABLE names (side TEXT, kind TEXT, id TEXT, match TEXT, PRIMARY KEY (side, kind, id)) WITHOUT ROWID;
"""
POINT = Struct("<dqq").pack
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Noted:
    """One object of one side."""

    side: str
    ref: Ref
    key: str
    """Its place in terms that both sides share: names and origins instead of ids."""
    name: str
    doc: Doc
    series: Mapping[str, str] = field(default_factory=dict)
    error: str = ""
    """Why it could not be read."""


class Inventory:
    """Everything that was read of both sides."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)

    def note(self, one: Noted) -> None:
        """Keep an object; one that was listed twice is kept as it was read last."""
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                one.side,
                one.ref.kind,
                codec.dumps(_chain(one.ref)).decode(),
                one.key,
                one.name,
                codec.dumps(one.doc),
                codec.dumps(dict(one.series)),
                one.error,
            ),
        )

    def call(self, side: str, kind: str, id: str, match: str) -> None:
        """Remember what both sides call the object with this id."""
        if id != match:
            self._db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", (side, kind, id, match))

    def name(self, side: str, kind: str, id: str) -> str:
        """See `core.ports.Names`; an id that names nothing stands for itself."""
        row = self._db.execute(
            "SELECT match FROM names WHERE side = ? AND kind = ? AND id = ?", (side, kind, id)
        ).fetchone()
        return id if row is None else str(row[0])

    def by_key(self, kind: str) -> Iterator[tuple[list[Noted], list[Noted]]]:
        """For each key the objects of A and the objects of B that claim it; mostly one each."""
        rows = self._db.execute(
            "SELECT side, ref, key, name, doc, series, error FROM objects WHERE kind = ? ORDER BY key, side, ref",
            (kind,),
        )
        for _, same in groupby(map(_noted, rows), key=lambda one: one.key):
            claims = list(same)
            yield [one for one in claims if one.side == A], [one for one in claims if one.side == B]

    def close(self) -> None:
        self._db.close()


def _noted(row: Sequence[Any]) -> Noted:
    side, ref, key, name, doc, series, error = row
    return Noted(side, _ref(codec.loads(ref)), key, name, codec.loads(doc), codec.loads(series), error)


def _chain(ref: Ref) -> list[list[str]]:
    """A reference as (kind, id) from the outermost parent to the object."""
    return [*(_chain(ref.parent) if ref.parent else []), [ref.kind, ref.id]]


def _ref(chain: Sequence[Sequence[str]]) -> Ref:
    ref: Ref | None = None
    for kind, identity in chain:
        ref = Ref(kind, identity, ref)
    assert ref is not None
    return ref


class _Series:
    """One series on its way: so many of its points have come, and that is their digest."""

    def __init__(self) -> None:
        self.points = 0
        self.total: int | None = None
        self._digest = hashlib.blake2b(digest_size=8)

    def add(self, rows: Rows) -> None:
        self._digest.update(_packed(rows.points))
        self.points += len(rows.points)
        self.total = self.total if rows.total is None else rows.total

    def __str__(self) -> str:
        return f"{self.points} points, digest {self._digest.hexdigest()}"


class Digests:
    """The series of some records, hashed while they come in."""

    def __init__(self, series: Mapping[str, Sequence[str]]) -> None:
        self._missing = {key: set(names) for key, names in series.items()}
        self._open: dict[tuple[str, str], _Series] = {}
        self._done: dict[str, dict[str, str]] = {key: {} for key in series}
        self._errors: dict[str, str] = {}

    def wants(self, ref: Ref) -> bool:
        """True where the record has series at all."""
        return bool(self._missing[ref.key])

    def add(self, rows: Rows) -> None:
        """Take in the next chunk of a series."""
        place = (rows.ref.key, rows.series)
        series = self._open.pop(place, None) or _Series()
        series.add(rows)
        if rows.error:
            self.fail(rows.ref, rows.error)
        elif series.points == series.total:
            self._missing[rows.ref.key].discard(rows.series)
            self._done[rows.ref.key][rows.series] = str(series)
        else:
            self._open[place] = series

    def fail(self, ref: Ref, reason: str) -> None:
        """The series of a record cannot be had."""
        self._errors.setdefault(ref.key, reason)

    def of(self, ref: Ref) -> tuple[dict[str, str], str]:
        """What was summed up of a record's series, and what is wrong with them."""
        missing = self._missing.get(ref.key)
        error = f"the history of '{min(missing)}' never ended" if missing else ""
        return self._done.get(ref.key, {}), self._errors.get(ref.key) or error


def _packed(points: Sequence[Point]) -> bytes:
    """Points as bytes; every NaN is the same NaN, and minus zero is not zero."""
    return b"".join(POINT(NAN if value != value else value, time, step) for value, time, step in points)

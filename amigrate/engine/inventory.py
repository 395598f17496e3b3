"""What a comparison has read of both sides: a private temporary database that lies on disk where it grows.

Objects are noted as they come, with the object that they belong to. What both sides call them, their key, is settled
when everything is there: an object that says it was made as another one is that one's copy, unless that one is there
too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any
from urllib.parse import quote

from amigrate.core import codec
from amigrate.core.model import Doc, Ref

A, B = "A", "B"
OTHER = {A: B, B: A}
NOT_COMPARED = ""
"""What an object is called that is none of the comparison's business."""

SCHEMA = """
CREATE TABLE objects (
    side TEXT, ref TEXT, kind TEXT, id TEXT, parent TEXT, origin TEXT, match TEXT, key TEXT,
    name TEXT, place TEXT, doc BLOB, series BLOB, error TEXT, absent INTEGER,
    PRIMARY KEY (side, ref)
) WITHOUT ROWID;
CREATE TABLE names (side TEXT, kind TEXT, id TEXT, match TEXT, PRIMARY KEY (side, kind, id)) WITHOUT ROWID;
"""
INDEXES = """
CREATE INDEX objects_by_key ON objects (kind, key, side, ref);
CREATE INDEX names_by_match ON names (side, kind, match);
"""
IS_THERE_TOO = """
EXISTS (SELECT 1 FROM objects o WHERE o.side = objects.side AND o.ref = objects.origin AND o.ref != objects.ref)
"""


@dataclass(frozen=True, slots=True)
class Noted:
    """One object of one side."""

    side: str
    ref: Ref
    match: str
    """What both sides call it, within what they call its parent."""
    name: str
    doc: Doc
    series: Mapping[str, Doc] = field(default_factory=dict)
    error: str = ""
    """Why it could not be read."""
    absent: bool = False
    """True where it is not there, although its side says that it should be."""
    place: str = ""
    """See `core.model.Record`."""


class Inventory:
    """Everything that was read of both sides."""

    def __init__(self, by_origin: Collection[str], complete: Collection[str]) -> None:
        """`by_origin` are the kinds that are matched by the id under which they were first made.

        Of the kinds in `complete` everything is read; of others, an id that is not known may be anybody's.
        """
        self.db = sqlite3.connect("", isolation_level=None)
        self.db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + SCHEMA)
        self._by_origin = by_origin
        self._complete = complete
        self.repeats = False
        """True where a side has a point twice."""

    def note(self, one: Noted) -> None:
        """Keep an object; one that was listed twice is kept as it was read last."""
        self.repeats = self.repeats or any(told["again"] for told in one.series.values())
        chain = _chain(one.ref)
        self.db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, NULL, ?, ?, ?, ?, ?, ?)",
            (
                one.side,
                _text(chain),
                one.ref.kind,
                one.ref.id,
                _text(chain[:-1]),
                _text([*chain[:-1], [one.ref.kind, one.match]]) if one.ref.kind in self._by_origin else "",
                one.match,
                one.name,
                one.place,
                codec.dumps(codec.finite(one.doc)),
                codec.dumps(dict(one.series)),
                one.error,
                one.absent,
            ),
        )

    def call(self, side: str, kind: str, id: str, match: str) -> None:
        """Remember what both sides call the object with this id; `NOT_COMPARED` for one that is left out."""
        self.db.execute("INSERT OR REPLACE INTO names VALUES (?, ?, ?, ?)", (side, kind, id, match))

    def settle(self, kinds: Sequence[str]) -> None:
        """Everything is there: give each object its key. Each of the kinds comes after those it may belong to."""
        copies = f"origin != '' AND {IS_THERE_TOO}"
        self.db.execute(
            f"UPDATE names SET match = id WHERE (side, kind, id) IN (SELECT side, kind, id FROM objects WHERE {copies})"
        )
        self.db.execute(f"UPDATE objects SET match = id WHERE {copies}")
        self.db.create_function("quoted", 1, lambda text: quote(text, safe=""), deterministic=True)
        for kind in kinds:
            self.db.execute(
                "UPDATE objects SET key = coalesce((SELECT p.key || '/' FROM objects p"
                " WHERE p.side = objects.side AND p.ref = objects.parent), '') || quoted(match) WHERE kind = ?",
                (kind,),
            )
        self.db.executescript(INDEXES)

    def name(self, side: str, kind: str, id: str) -> str:
        """See `core.ports.Names`.

        An id of the other side stands for what it names there, as long as this side does not have that: what has not
        arrived keeps its old name. An id that nobody knows stands for itself.
        """
        own = self._match(side, kind, id)
        if own is not None:
            return own
        match = self._match(OTHER[side], kind, id)
        if match is None:
            return id if kind in self._complete else NOT_COMPARED
        if match and self._has(side, kind, match):
            return f"{id}, as {OTHER[side]} calls it"
        return match

    def _match(self, side: str, kind: str, id: str) -> str | None:
        query = "SELECT match FROM names WHERE side = ? AND kind = ? AND id = ?"
        row = self.db.execute(query, (side, kind, id)).fetchone()
        return None if row is None else str(row[0])

    def _has(self, side: str, kind: str, match: str) -> bool:
        query = "SELECT 1 FROM names WHERE side = ? AND kind = ? AND match = ?"
        return self.db.execute(query, (side, kind, match)).fetchone() is not None

    def by_key(self, kind: str) -> Iterator[tuple[list[Noted], list[Noted]]]:
        """For each key the objects of A and the objects of B that claim it; mostly one each."""
        rows = self.db.execute(
            "SELECT key, side, ref, match, name, doc, series, error, absent, place FROM objects WHERE kind = ?"
            " ORDER BY key, side, ref",
            (kind,),
        )
        for _, same in groupby(rows, key=lambda row: row[0]):
            claims = [_noted(row[1:]) for row in same]
            yield [one for one in claims if one.side == A], [one for one in claims if one.side == B]

    def close(self) -> None:
        self.db.close()


def _noted(row: Sequence[Any]) -> Noted:
    side, ref, match, name, doc, series, error, absent, place = row
    return Noted(
        side, _ref(codec.loads(ref)), match, name, codec.loads(doc), codec.loads(series), error, bool(absent), place
    )


def _chain(ref: Ref) -> list[list[str]]:
    """A reference as (kind, id) from the outermost parent to the object."""
    return [*(_chain(ref.parent) if ref.parent else []), [ref.kind, ref.id]]


def _text(chain: Sequence[Sequence[str]]) -> str:
    return codec.dumps([*chain]).decode()


def _ref(chain: Sequence[Sequence[str]]) -> Ref:
    ref: Ref | None = None
    for kind, identity in chain:
        ref = Ref(kind, identity, ref)
    assert ref is not None
    return ref

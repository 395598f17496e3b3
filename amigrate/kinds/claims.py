"""Which object of the target is which of the source, where the server lets names come twice.

An object is known by the id that a journal holds, or by all its fields. Equal ones are counted, never merged: each of
the target's stands for one of the source's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from amigrate.core import codec
from amigrate.core.model import Doc, Record
from amigrate.core.ports import Ids


class Claims:
    """What the target holds of one kind, and what of it is spoken for."""

    def __init__(self) -> None:
        self._held: dict[str, Doc] = {}
        self._docs: dict[str, Doc] = {}
        self._alike: dict[str, list[str]] = {}
        """Ids of those that are equal, by a fingerprint."""
        self._taken: dict[str, str] = {}
        """What is spoken for, and by which record: its key. One that goes on at the source is met twice."""
        self.making = asyncio.Lock()
        """Held while one is made: a lost answer is looked for among those that nobody else can just have made."""

    def hold(self, held: Record, told: Doc) -> None:
        """An object of the target, and all of it that must be equal."""
        self._held[held.ref.id] = told
        self._docs[held.ref.id] = held.doc
        self._alike.setdefault(codec.digest(told), []).append(held.ref.id)

    def told(self, new_id: str) -> Doc:
        """What must be equal of an object of the target; nothing of one that is not there."""
        return self._held.get(new_id, {})

    def doc(self, new_id: str) -> Doc:
        """The same, with all that the target says of it."""
        return self._docs.get(new_id, {})

    def pair(self, records: Sequence[Record], ids: Ids, told: Callable[[Record], Doc]) -> dict[str, str]:
        """The target's id of each record that it holds, by `ref.key`. Those that a journal knows come first."""
        found = {}
        for record in records:
            known = ids.new_id(record.ref.kind, record.ref.id) or ""
            if not self.is_new(known) and self._taken.get(known, record.ref.key) == record.ref.key:
                found[record.ref.key] = known
                self.take(known, record)
        for record in records:
            if record.ref.key not in found and (equal := self._equal(record, ids, told(record))):
                found[record.ref.key] = equal
                self.take(equal, record)
        return found

    def is_new(self, new_id: str) -> bool:
        """True for an object that came after all were listed, and is not one that we know to have made."""
        return new_id not in self._held and new_id not in self._taken

    def take(self, new_id: str, record: Record) -> None:
        """This one stands for this record."""
        self._taken[new_id] = record.ref.key

    def _equal(self, record: Record, ids: Ids, told: Doc) -> str | None:
        for new_id in self._alike.get(codec.digest(told), ()):
            if new_id not in self._taken and ids.old_id(record.ref.kind, new_id) in (None, record.ref.id):
                return new_id
        return None

"""What is taken up again where only what failed is asked for: what failed, what was begun and did not become whole,
what belongs to something that failed, what was never listed because its listing failed, and what such things belong to.
"""

from __future__ import annotations

from collections.abc import Mapping

from amigrate.core.model import Record, Ref
from amigrate.core.ports import Kind
from amigrate.engine.journal import Journal

ALL = "(all)"
"""Stands for the objects of a kind where it is their listing that something is said of."""
REASON = "neither failed nor unfinished"


DUE = "due"
"""Where the journal keeps what a session took up, until one comes to its end: what failed is met again before all that
belongs to it is."""


class Due:
    """Knows it as it was before this session, and before those that took it up and did not come to their end."""

    def __init__(self, journal: Journal, kinds: Mapping[str, Kind]) -> None:
        self._journal = journal
        parents = {kind.parent for kind in kinds.values() if kind.parent}
        taken_up = {(str(kind), str(key)) for kind, key in journal.noted(DUE) or ()}
        unlisted = {(name, ALL) for name in kinds if journal.is_due(Ref(name, ALL))}
        self._failed = journal.failed(sorted(parents)) | unlisted | taken_up
        journal.note(DUE, sorted(self._failed))

    def __call__(self, record: Record) -> bool:
        one: Ref | None = record.ref
        while one is not None:
            if not self._failed.isdisjoint(((one.kind, ALL), (one.kind, one.key))):
                return True
            one = one.parent
        return self._journal.is_due(record.ref)

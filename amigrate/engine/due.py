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


class Due:
    """Knows it as it was before this session."""

    def __init__(self, journal: Journal, kinds: Mapping[str, Kind]) -> None:
        self._journal = journal
        parents = {kind.parent for kind in kinds.values() if kind.parent}
        self._failed = journal.failed(sorted(parents))
        self._unlisted = {name for name in kinds if journal.is_due(Ref(name, ALL))}

    def __call__(self, record: Record) -> bool:
        one: Ref | None = record.ref
        while one is not None:
            if one.kind in self._unlisted or (one.kind, one.key) in self._failed:
                return True
            one = one.parent
        return self._journal.is_due(record.ref)

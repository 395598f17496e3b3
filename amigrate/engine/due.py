"""What is taken up again where only what failed is asked for: what failed, what was begun and did not become whole,
what belongs to something that failed, and what such things belong to."""

from __future__ import annotations

from collections.abc import Mapping

from amigrate.core.model import Record
from amigrate.core.ports import Kind
from amigrate.engine.journal import Journal

REASON = "neither failed nor unfinished"


class Due:
    """Knows it as it was before this session."""

    def __init__(self, journal: Journal, kinds: Mapping[str, Kind]) -> None:
        self._journal = journal
        parents = {kind.parent for kind in kinds.values() if kind.parent}
        self._failed = journal.failed(sorted(parents))

    def __call__(self, record: Record) -> bool:
        parent = record.ref.parent
        if parent is not None and (parent.kind, parent.key) in self._failed:
            return True
        return (record.ref.kind, record.ref.key) in self._failed or self._journal.is_due(record.ref)

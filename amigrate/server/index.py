"""What a target was seen to hold: looked up by parent and key. On disk where it grows large, never in memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from amigrate.core.model import Found


class TargetIndex:
    """See `kinds.base.Index`. A private temporary database that goes with the process."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.execute(
            "CREATE TABLE held (parent TEXT, key TEXT, new_id TEXT, deleted INTEGER, ours INTEGER, facts TEXT,"
            " PRIMARY KEY (parent, key)) WITHOUT ROWID"
        )
        self._loaded: set[str] = set()

    def loaded(self, parent: str) -> bool:
        """True where the children of this parent have been listed."""
        return parent in self._loaded

    def mark(self, parent: str) -> None:
        """The children of this parent are all there."""
        self._loaded.add(parent)

    def add(self, parent: str, keys: Sequence[str], found: Found, facts: str) -> None:
        """Note an object under each of its keys; of two that claim one key, one that is active counts."""
        for key in keys:
            self._db.execute(
                "INSERT INTO held VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (parent, key) DO UPDATE SET"
                " new_id = excluded.new_id, deleted = excluded.deleted, ours = excluded.ours, facts = excluded.facts"
                " WHERE held.deleted > excluded.deleted",
                (parent, key, found.new_id, found.deleted, found.ours, facts),
            )

    def get(self, parent: str, key: str) -> tuple[Found, str] | None:
        """The object that claims a key, and the fingerprint of what its listing showed."""
        row = self._db.execute(
            "SELECT new_id, deleted, ours, facts FROM held WHERE parent = ? AND key = ?", (parent, key)
        ).fetchone()
        return None if row is None else (Found(row[0], False, bool(row[1]), bool(row[2])), row[3])

    def drop(self, parent: str, key: str) -> None:
        """An object is no longer there."""
        self._db.execute("DELETE FROM held WHERE parent = ? AND key = ?", (parent, key))

    def close(self) -> None:
        self._db.close()

"""A journal as others may read it, while its owner writes and after that: only read, nothing waits for anybody.

SQLite lets others read a database in WAL mode without a lock that a writer would feel. Where the folder cannot be
written to and no write-ahead log is left, the file is read as it lies there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from amigrate.core import codec
from amigrate.core.errors import JournalError
from amigrate.core.model import Doc, Progress, Status
from amigrate.engine.journal import COMMAND, FORMAT, JOURNAL, LOCK, PULSE

MOST = 20
"""Reasons that are told."""
OPEN = (Progress.INTENDED, Progress.BEGUN)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why objects of one kind failed, or were left behind."""

    kind: str
    status: Status
    reason: str
    count: int
    example: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a journal says."""

    folder: Path
    ends: str
    """Source and target, in words."""
    session: int
    running: bool
    """True while the process that writes it is there."""
    command: Doc
    """`argv`, `cwd`, `ends`: how it was called, without secrets; empty where no command has written it."""
    pulse: Doc
    """The counters as the running process last wrote them: see `report.heartbeat`."""
    totals: Mapping[str, Mapping[Status, int]]
    """Objects of the last session, by kind and status."""
    open: Mapping[str, int]
    """Objects of any session that were begun and are not whole, by kind."""
    reasons: Sequence[Reason]


def read(folder: Path) -> Ledger:
    """Raises `JournalError` where there is no journal of ours in the folder, or it cannot be read."""
    path = folder / JOURNAL
    if not path.is_file():
        raise JournalError(f"there is no journal in {folder}")
    try:
        with closing(_opened(path)) as db:
            return _read(folder, db)
    except sqlite3.Error as error:
        raise JournalError(f"the journal in {folder} cannot be read: {error}") from error


def is_journal(folder: Path) -> bool:
    return (folder / JOURNAL).is_file()


def _opened(path: Path) -> sqlite3.Connection:
    """Read-only: with the write-ahead log where that can be had, else as the file lies there."""
    address = f"file:{quote(str(path.resolve()))}?mode=ro"
    db = sqlite3.connect(address, uri=True, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM meta LIMIT 1")
    except sqlite3.OperationalError:
        db.close()
        db = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
    return db


def _read(folder: Path, db: sqlite3.Connection) -> Ledger:
    """Everything in one transaction, so that the numbers belong together."""
    db.execute("BEGIN")
    meta = {str(name): str(value) for name, value in db.execute("SELECT name, value FROM meta")}
    if meta.get("format") != FORMAT:
        raise JournalError(f"the journal in {folder} was written by another version of amigrate")
    session = int(meta.get("session") or 0)
    return Ledger(
        folder,
        meta.get("ends", ""),
        session,
        is_in_use(folder),
        codec.loads(meta.get(COMMAND, "{}")),
        codec.loads(meta.get(PULSE, "{}")),
        _totals(db, session),
        dict(_open_objects(db)),
        [*_reasons(db, session)],
    )


def is_in_use(folder: Path) -> bool:
    """Whether a process holds the journal: nobody else can read what it has locked."""
    path = folder / LOCK
    if not path.is_file():
        return False
    with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True, timeout=0)) as lock:
        try:
            lock.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.OperationalError as error:
            return "locked" in str(error)
    return False


def _totals(db: sqlite3.Connection, session: int) -> dict[str, dict[Status, int]]:
    totals: dict[str, dict[Status, int]] = {}
    query = "SELECT kind, status, SUM(count) FROM objects WHERE session = ? AND status IS NOT NULL GROUP BY 1, 2"
    for kind, status, count in db.execute(query, (session,)):
        totals.setdefault(kind, {})[Status(status)] = int(count)
    return totals


def _open_objects(db: sqlite3.Connection) -> Iterator[tuple[str, int]]:
    rows: list[Any] = db.execute(
        "SELECT kind, COUNT(*) FROM objects WHERE progress IN (?, ?) GROUP BY kind", OPEN
    ).fetchall()
    yield from ((str(kind), int(count)) for kind, count in rows)


def _reasons(db: sqlite3.Connection, session: int) -> Iterator[Reason]:
    rows: list[Any] = db.execute(
        "SELECT kind, status, reason, SUM(count), MIN(CASE name WHEN '' THEN id ELSE name END) FROM objects"
        " WHERE session = ? AND status IN (?, ?) GROUP BY kind, status, reason ORDER BY status, 4 DESC, kind LIMIT ?",
        (session, Status.FAILED, Status.LEFT_BEHIND, MOST),
    ).fetchall()
    for kind, status, reason, count, example in rows:
        yield Reason(kind, Status(status), reason, int(count), example)

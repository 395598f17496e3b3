"""What was begun and what is whole: a SQLite file (WAL) that survives a kill at any moment.

It holds the intent before a create call, the new id before any part moves, and `whole` only after the last part was
confirmed. Everything in it is a hint about the sink: `whole` counts only while a listing of the sink still shows the
id. The same file holds the outcomes of the running session, so no list of them has to be kept in memory.

What is about to be made and what was made is in the file once the statement returned. What has arrived since may go
into it together with the next of these, at the latest with the next note of the session's counters, every few seconds:
a kill costs that much to be looked at again, and nothing is lost. The disk is synced at checkpoints only: what a power
cut means is for `engine.power` to say.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amigrate.core import codec
from amigrate.core.errors import JournalError
from amigrate.core.model import Deferred, Entry, Found, Known, Outcome, Progress, Record, Ref, Stage, Status

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    kind TEXT NOT NULL, key TEXT NOT NULL, parent TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL DEFAULT '',
    new_id TEXT, made INTEGER NOT NULL DEFAULT 0, progress TEXT, digest TEXT NOT NULL DEFAULT '',
    content TEXT NOT NULL DEFAULT '', files TEXT NOT NULL DEFAULT '', deleted INTEGER NOT NULL DEFAULT 0,
    stamp TEXT NOT NULL DEFAULT '', met INTEGER NOT NULL DEFAULT 0,
    session INTEGER NOT NULL DEFAULT 0, status TEXT, reason TEXT NOT NULL DEFAULT '', count INTEGER NOT NULL DEFAULT 1,
    PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS objects_by_id ON objects (kind, id);
CREATE INDEX IF NOT EXISTS objects_by_new_id ON objects (kind, new_id);
CREATE INDEX IF NOT EXISTS objects_by_parent ON objects (parent, kind);
CREATE TABLE IF NOT EXISTS called (
    kind TEXT NOT NULL, key TEXT NOT NULL, wanted TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS deferred (
    kind TEXT NOT NULL, key TEXT NOT NULL, stage INTEGER NOT NULL, ids TEXT NOT NULL, doc TEXT NOT NULL,
    PRIMARY KEY (kind, key, stage)
) WITHOUT ROWID;
"""
FORMAT = "2"
TOGETHER = 100
"""Writes that may wait for one another."""
PATIENCE = 0.5
"""Seconds: who looks whether somebody holds the journal holds it for a moment."""
JOURNAL, LOCK = "journal.db", "lock.db"
COMMAND, PULSE = "command", "pulse"
"""What is noted beside the objects: how the command was called, and its counters every few seconds."""
UPSERT = """
INSERT INTO objects (kind, key, parent, id, name, {columns}) VALUES (?, ?, ?, ?, ?, {marks})
ON CONFLICT (kind, key) DO UPDATE SET name = excluded.name, {updates}
"""


def _upsert(*columns: str) -> str:
    return UPSERT.format(
        columns=", ".join(columns),
        marks=", ".join("?" * len(columns)),
        updates=", ".join(f"{column} = excluded.{column}" for column in columns),
    )


INTEND = _upsert("met", "progress", "made", "new_id")
BEGUN = _upsert("progress", "made", "new_id")
KNOWN = _upsert("met", "new_id", "stamp", "made").replace("made = excluded.made", "made = MAX(made, excluded.made)")
PROGRESS = _upsert("progress", "digest", "content", "files", "deleted")
ENTRY = "name, progress, new_id, digest, made, content, files, deleted, session = ? AND status = ?, stamp"
OUTCOME = _upsert("met", "session", "status", "reason", "count").replace(
    "status = excluded.status",
    # What was made in this session stays made, however often it is looked at again.
    "status = CASE WHEN session = excluded.session AND status = 'created'"
    " AND excluded.status IN ('updated', 'present') THEN 'created' ELSE excluded.status END",
)
BY_ID, BY_NEW_ID, BY_PARENT = (f"objects INDEXED BY objects_by_{what}" for what in ("id", "new_id", "parent"))
"""SQLite does not know how many objects of a kind there are, and would rather look at all of them."""
Identity = tuple[str, str, str, str, str]


class Journal:
    """One journal, locked by this process until it is closed."""

    def __init__(self, folder: Path, ends: str, *, alone: bool = False) -> None:
        """Open or make the journal in `folder`. `ends` names source and target; a journal serves one pair only.

        Where it `alone` knows what was made, every write goes to the disk at once: a power cut takes none.
        Raises `JournalError` where another process holds it, it belongs to other ends, or it cannot be written.
        """
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked(folder)
            self._db = sqlite3.connect(folder / JOURNAL, isolation_level=None)
            synced = "FULL" if alone else "NORMAL"
            self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous={synced};" + SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"the journal in {folder} cannot be opened: {_why(folder, error)}") from error
        self._alone = alone
        self._waiting = 0
        """Rows that may wait and are not in the file yet."""
        self._broken = ""
        """Why such rows were lost: from then on this is no journal of what has happened."""
        self._claim(ends)
        self.session = int(self._meta("session") or 0) + 1
        self._set_meta("session", str(self.session))
        self._ids: dict[tuple[str, str], str] = {}

    @staticmethod
    def _locked(folder: Path) -> sqlite3.Connection:
        """A transaction that is never committed: the system ends it with the process, however that dies."""
        lock = sqlite3.connect(folder / LOCK, isolation_level=None, timeout=PATIENCE)
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            lock.close()
            raise JournalError(
                f"the journal in {folder} is in use by another amigrate process: wait for it or stop it"
            ) from error
        return lock

    def _claim(self, ends: str) -> None:
        if self._meta("format") not in (None, FORMAT):
            raise JournalError(f"the journal in {self.folder} was written by another version of amigrate: move it away")
        if self._meta("ends") not in (None, ends):
            raise JournalError(f"the journal in {self.folder} belongs to {self._meta('ends')}: use another folder")
        self._set_meta("format", FORMAT)
        self._set_meta("ends", ends)

    def _meta(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def _set_meta(self, name: str, value: str) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES (?, ?)", [(name, value)])

    def note(self, name: str, value: Any) -> None:
        """Note something about the command itself, as JSON."""
        self._set_meta(name, codec.dumps(value).decode())

    def noted(self, name: str) -> Any:
        """What was noted; None where nothing was."""
        value = self._meta(name)
        return None if value is None else codec.loads(value)

    def doubt(self, session: int) -> bool:
        """What later sessions than this one have met is not known to be whole. True where there is anything."""
        doubtful = "progress IN (?, ?) AND met > ?"
        states = (Progress.FILLED, Progress.WHOLE)
        found = self._db.execute(f"SELECT 1 FROM objects WHERE {doubtful} LIMIT 1", (*states, session)).fetchone()
        if found:
            self._write(f"UPDATE objects SET progress = ? WHERE {doubtful}", [(Progress.BEGUN, *states, session)])
        return found is not None

    def close(self) -> None:
        """Write everything into the main file and let go of the lock."""
        with suppress(sqlite3.Error):  # The write-ahead log stays beside the file and is read at the next start.
            self._commit()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()
        self._lock.close()

    def _write(self, statement: str, rows: Sequence[tuple[object, ...]], *, can_wait: bool = False) -> None:
        """Write some rows with one statement, and all that wait with them; or let them wait too."""
        with self._writing():
            if not self._db.in_transaction:
                self._db.execute("BEGIN")
            self._db.executemany(statement, rows)
            self._waiting += len(rows) if can_wait else 0
            if not can_wait or self._alone or self._waiting >= TOGETHER:
                self._commit()

    def keep(self) -> None:
        """Everything that waits is in the file. Raises `JournalError` where any of it was lost, now or before."""
        with self._writing():
            self._commit()

    def _commit(self) -> None:
        if self._db.in_transaction:
            self._db.execute("COMMIT")
        self._waiting = 0

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """What fails takes all that waits with it: nobody may go on then as if that were there."""
        if self._broken:
            raise JournalError(self._broken)
        try:
            yield
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            reason = f"the journal in {self.folder} cannot be written: {error}"
            self._broken = reason if self._waiting else ""
            raise JournalError(reason) from error

    # ---- what was begun, what is whole ------------------------------------------------------------------------

    def entries(self, records: Sequence[Record]) -> dict[str, Entry]:
        """What earlier sessions noted of these records, by `ref.key`."""
        found = {}
        for record in records:
            row = self._db.execute(
                f"SELECT {ENTRY} FROM objects WHERE kind = ? AND key = ? AND progress IS NOT NULL",
                (self.session, Status.CREATED, record.ref.kind, record.ref.key),
            ).fetchone()
            if row is not None:
                found[record.ref.key] = _entry(row)
        return found

    def intend(self, records: Sequence[Record]) -> None:
        """These records are about to be made at the sink."""
        if not records:
            return
        self._write("DELETE FROM deferred WHERE kind = ? AND key = ?", [(one.ref.kind, one.ref.key) for one in records])
        told = (self.session, Progress.INTENDED, 1, None)
        self._write(INTEND, [(*_identity(one.ref, one.name), *told) for one in records])
        for one in records:
            self._ids.pop((one.ref.kind, one.ref.id), None)

    def begun(self, record: Record, new_id: str, *, can_wait: bool = False) -> None:
        """The record was made and has this id; nothing of it has moved yet. It `can_wait` where the id says nothing."""
        row = (*_identity(record.ref, record.name), Progress.BEGUN, 1, new_id)
        self._write(BEGUN, [row], can_wait=can_wait)
        self._ids[record.ref.kind, record.ref.id] = new_id

    def known(self, record: Record, found: Found) -> None:
        """The record was found at the sink."""
        told = (self.session, found.new_id, found.stamp, found.ours)
        self._write(KNOWN, [(*_identity(record.ref, record.name), *told)], can_wait=True)
        self._ids[record.ref.kind, record.ref.id] = found.new_id

    def reached(self, record: Record, entry: Entry, *, can_wait: bool = False) -> None:
        """All parts have arrived (`FILLED`), or nothing at all is left to do (`WHOLE`)."""
        told = (entry.progress, entry.digest, entry.content, entry.files, entry.deleted)
        self._write(PROGRESS, [(*_identity(record.ref, record.name), *told)], can_wait=can_wait)

    def settle(self, ref: Ref) -> None:
        """A filled record has had its second pass."""
        self._write(
            "UPDATE objects SET progress = ? WHERE kind = ? AND key = ? AND progress = ?",
            [(Progress.WHOLE, ref.kind, ref.key, Progress.FILLED)],
            can_wait=True,
        )

    # ---- the id map -------------------------------------------------------------------------------------------

    def new_id(self, kind: str, old: str) -> str | None:
        """See `core.ports.Ids`."""
        cached = self._ids.get((kind, old))
        if cached is not None:
            return cached
        row = self._db.execute(
            f"SELECT new_id FROM {BY_ID} WHERE kind = ? AND id = ? AND new_id IS NOT NULL", (kind, old)
        ).fetchone()
        return None if row is None else str(row[0])

    def old_id(self, kind: str, new: str) -> str | None:
        """See `core.ports.Ids`."""
        row = self._db.execute(f"SELECT id FROM {BY_NEW_ID} WHERE kind = ? AND new_id = ?", (kind, new)).fetchone()
        return None if row is None else str(row[0])

    def made(self, ref: Ref) -> bool:
        """See `core.ports.Ids`."""
        row = self._db.execute("SELECT made FROM objects WHERE kind = ? AND key = ?", (ref.kind, ref.key)).fetchone()
        return row is not None and bool(row[0])

    def call(self, ref: Ref, wanted: str, name: str) -> None:
        """An object cannot have the name that was wanted, and gets another one."""
        self._write("INSERT OR REPLACE INTO called VALUES (?, ?, ?, ?)", [(ref.kind, ref.key, wanted, name)])

    def gave_names(self) -> bool:
        """True where any object has another name at the sink than was wanted."""
        return self._db.execute("SELECT 1 FROM called LIMIT 1").fetchone() is not None

    def called(self, ref: Ref) -> tuple[str, str] | None:
        """See `core.ports.Ids`."""
        row = self._db.execute(
            "SELECT wanted, name FROM called WHERE kind = ? AND key = ?", (ref.kind, ref.key)
        ).fetchone()
        return None if row is None else (str(row[0]), str(row[1]))

    def was_intended(self, ref: Ref) -> bool:
        """See `core.ports.Ids`."""
        row = self._db.execute(
            "SELECT 1 FROM objects WHERE kind = ? AND key = ? AND progress = ?", (ref.kind, ref.key, Progress.INTENDED)
        ).fetchone()
        return row is not None

    def shared(self, kind: str, new: str) -> bool:
        """See `core.ports.Ids`."""
        query = f"SELECT COUNT(*) FROM {BY_NEW_ID} WHERE kind = ? AND new_id = ?"
        row = self._db.execute(query, (kind, new)).fetchone()
        return bool(row[0] > 1)

    def entry(self, kind: str, old: str) -> Entry | None:
        """See `core.ports.Ids`."""
        row = self._db.execute(
            f"SELECT {ENTRY} FROM {BY_ID} WHERE kind = ? AND id = ? AND progress IS NOT NULL",
            (self.session, Status.CREATED, kind, old),
        ).fetchone()
        return None if row is None else _entry(row)

    def forget_cache(self) -> None:
        """Drop the ids held in memory; they are read from the file when asked for."""
        self._ids.clear()

    def children(self, kind: str, parent: Ref) -> Iterator[tuple[str, Status, str]]:
        """See `core.ports.Ids`."""
        rows = self._db.execute(
            f"SELECT id, status, reason FROM {BY_PARENT} WHERE kind = ? AND parent = ? AND session = ? ORDER BY key",
            (kind, parent.key, self.session),
        )
        return ((row[0], Status(row[1]), row[2]) for row in rows)

    def id_map(self) -> Iterator[tuple[str, str, str]]:
        """Kind, old id and new id of everything that has one."""
        rows = self._db.execute("SELECT kind, id, new_id FROM objects WHERE new_id IS NOT NULL ORDER BY kind, key")
        return ((row[0], row[1], row[2]) for row in rows)

    # ---- what failed ------------------------------------------------------------------------------------------

    def failed(self, kinds: Sequence[str]) -> set[tuple[str, str]]:
        """Kind and key of the objects of these kinds that failed when they were last met."""
        marks = ", ".join("?" * len(kinds))
        rows = self._db.execute(
            f"SELECT kind, key FROM objects WHERE status = ? AND kind IN ({marks})", (Status.FAILED, *kinds)
        )
        return {(str(kind), str(key)) for kind, key in rows}

    def is_due(self, ref: Ref) -> bool:
        """Whether an object, or anything that belongs to it, failed or was begun and is not whole."""
        due = "(status = ? OR progress IN (?, ?))"
        states = (Status.FAILED, Progress.INTENDED, Progress.BEGUN)
        row = self._db.execute(
            f"SELECT 1 FROM objects WHERE kind = ? AND key = ? AND {due}"
            f" UNION ALL SELECT 1 FROM objects WHERE parent = ? AND {due} LIMIT 1",
            (ref.kind, ref.key, *states, ref.key, *states),
        ).fetchone()
        return row is not None

    def no_failure(self, ref: Ref) -> None:
        """What failed when an earlier session tried has gone well."""
        where = "kind = ? AND key = ? AND status = ? AND session < ?"
        self._write(f"DELETE FROM objects WHERE {where}", [(ref.kind, ref.key, Status.FAILED, self.session)])

    # ---- what is not at the source any more -------------------------------------------------------------------

    def unmet(self, kind: str, parent: Ref | None) -> list[Known]:
        """What earlier sessions met of a kind below a parent, and this one did not."""
        rows = self._db.execute(
            f"SELECT id, {ENTRY} FROM {BY_PARENT}"
            " WHERE kind = ? AND parent = ? AND met < ? AND (progress IS NOT NULL OR status = ?) ORDER BY key",
            (self.session, Status.CREATED, kind, parent.key if parent else "", self.session, Status.EXCLUDED),
        ).fetchall()
        return [Known(Ref(kind, own, parent), row[0], _entry(row) if row[1] else None) for own, *row in rows]

    def number(self, kind: str, parents: Sequence[Ref]) -> int:
        """How many objects of a kind earlier sessions met below these parents."""
        count = f"SELECT COUNT(*) FROM {BY_PARENT} WHERE parent = ? AND kind = ? AND met < ? AND met > 0"
        return sum(self._db.execute(count, (one.key, kind, self.session)).fetchone()[0] for one in parents)

    def met_again(self) -> bool:
        """Whether this session has met anything that an earlier one carried, below what every server has."""
        row = self._db.execute(
            "SELECT 1 FROM objects WHERE session = ? AND status != ? AND progress IS NOT NULL AND parent != '' LIMIT 1",
            (self.session, Status.CREATED),
        ).fetchone()
        return row is not None

    def forget(self, ref: Ref, below: Sequence[str]) -> None:
        """An object is not at the sink any more, and with it went all of the kinds `below` that belonged to it."""
        gone = (
            "progress = NULL, new_id = NULL, digest = '', content = '', files = '', stamp = '', deleted = 0, made = 0"
        )
        places = [(ref.kind, ref.key, ref.key), *((kind, f"{ref.key}/", f"{ref.key}/\x7f") for kind in below)]
        self._write(f"UPDATE objects SET {gone} WHERE kind = ? AND key BETWEEN ? AND ?", places)
        self._write("DELETE FROM deferred WHERE kind = ? AND key BETWEEN ? AND ?", places)
        self._ids.clear()

    # ---- the second pass --------------------------------------------------------------------------------------

    def defer(self, ref: Ref, work: Iterable[Deferred], *, anew: bool) -> None:
        """Keep what has to be done for an object when everything else has arrived: beside, or `anew` instead of, what
        an earlier session left."""
        if anew:
            self._write("DELETE FROM deferred WHERE kind = ? AND key = ?", [(ref.kind, ref.key)], can_wait=True)
        rows = [(ref.kind, ref.key, int(one.stage), _chain(ref), codec.dumps(one.doc).decode()) for one in work]
        if rows:
            self._write("INSERT OR REPLACE INTO deferred VALUES (?, ?, ?, ?, ?)", rows, can_wait=True)

    def deferred(self, stage: Stage) -> Iterator[tuple[Ref, Deferred]]:
        """What waits for one stage of the second pass, of the objects that this session has met and not failed."""
        rows = self._db.execute(
            "SELECT ids, doc FROM deferred JOIN objects USING (kind, key)"
            " WHERE stage = ? AND session = ? AND status != ? ORDER BY kind, key",
            (int(stage), self.session, Status.FAILED),
        ).fetchall()
        return ((_unchain(ids), Deferred(stage, codec.loads(doc))) for ids, doc in rows)

    def undefer(self, ref: Ref, stage: Stage) -> None:
        """It is done."""
        done = (ref.kind, ref.key, int(stage))
        self._write("DELETE FROM deferred WHERE kind = ? AND key = ? AND stage = ?", [done], can_wait=True)

    # ---- outcomes of this session -----------------------------------------------------------------------------

    def outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Note what became of some objects."""
        if outcomes:
            self._write(
                OUTCOME,
                [
                    (*_identity(one.ref, one.name), self.session, self.session, one.status, one.reason, one.count)
                    for one in outcomes
                ],
                can_wait=True,
            )

    def renew(self, refs: Sequence[Ref], listed: Sequence[str]) -> None:
        """What was lost of objects that are left as they are is lost still: parts, of no kind that is `listed`."""
        if not refs:
            return
        marks = ", ".join("?" * len(listed))
        lost = (Status.FAILED, Status.LEFT_BEHIND)
        self._write(
            f"UPDATE objects SET session = ? WHERE parent = ? AND kind NOT IN ({marks}) AND status IN (?, ?)",
            [(self.session, ref.key, *listed, *lost) for ref in refs],
            can_wait=True,
        )

    def seen(self, records: Sequence[Record]) -> set[str]:
        """The keys of those records that have an outcome in this session already."""
        return {
            record.ref.key
            for record in records
            if self._db.execute(
                "SELECT 1 FROM objects WHERE kind = ? AND key = ? AND session = ?",
                (record.ref.kind, record.ref.key, self.session),
            ).fetchone()
        }

    def fate(self, kind: str, own: str) -> Status | None:
        """What became of an object of this id in this session; None where it was not met."""
        query = f"SELECT status FROM {BY_ID} WHERE kind = ? AND id = ? AND session = ?"
        row = self._db.execute(query, (kind, own, self.session)).fetchone()
        return None if row is None else Status(row[0])

    def totals(self) -> dict[str, dict[Status, int]]:
        """Objects of this session by kind and status."""
        totals: dict[str, dict[Status, int]] = {}
        rows = self._db.execute(
            "SELECT kind, status, SUM(count) FROM objects WHERE session = ? GROUP BY kind, status", (self.session,)
        )
        for kind, status, count in rows:
            totals.setdefault(kind, {})[Status(status)] = int(count)
        return totals

    def report(self, losses_only: bool = False) -> Iterator[dict[str, object]]:
        """Every outcome of this session as a JSON object."""
        wanted = f"AND status IN ('{Status.FAILED}', '{Status.LEFT_BEHIND}')" if losses_only else ""
        rows = self._db.execute(
            f"SELECT kind, key, id, name, new_id, status, reason, count FROM objects WHERE session = ? {wanted}"
            " ORDER BY kind, key",
            (self.session,),
        )
        names = ("kind", "key", "id", "name", "new_id", "status", "reason", "count")
        for row in rows:
            yield {name: value for name, value in zip(names, row, strict=True) if value not in (None, "")}


def _why(folder: Path, error: Exception) -> str:
    """What keeps a journal from being opened, where SQLite or the system only say that something does."""
    if isinstance(error, FileExistsError):
        return "there is a file of that name"
    if folder.is_dir() and not os.access(folder, os.W_OK):
        return "the folder cannot be written to"
    return str(error)


def _identity(ref: Ref, name: str) -> Identity:
    return ref.kind, ref.key, ref.parent.key if ref.parent else "", ref.id, name


def _entry(row: Sequence[Any]) -> Entry:
    name, progress, new_id, digest, made, content, files, deleted, fresh, stamp = row
    return Entry(
        Progress(progress), new_id, digest, bool(made), content, files, bool(deleted), bool(fresh), name, stamp
    )


def _chain(ref: Ref) -> str:
    """The ref with its parents, outermost last, as JSON."""
    chain, one = [], ref
    while True:
        chain.append([one.kind, one.id])
        if one.parent is None:
            return codec.dumps(chain).decode()
        one = one.parent


def _unchain(text: str) -> Ref:
    ref: Ref | None = None
    for kind, identity in reversed(codec.loads(text)):
        ref = Ref(kind, identity, ref)
    assert ref is not None
    return ref

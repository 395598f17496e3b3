"""A private server for a local store. It looks before it starts: `mlflow server` changes what it is pointed at.

MLflow 3.17.2 upgrades the schema of a database that lacks one of its tables without asking, makes a database that is
not there, makes experiment 0 where it is missing, and makes `.trash` in a folder that has none. So a database is asked
for its revision first; a source is opened read-only where the database can do that (SQLite, PostgreSQL), and what the
server insists on writing goes to a copy (SQLite without experiment 0, or with workspaces) or beside the folder.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote, unquote, urlsplit

from amigrate.core import codec
from amigrate.core.errors import DiskError, NoServer, UsageError
from amigrate.local import BACKEND, Private, Serving, environment, need_mlflow, private_server
from amigrate.stores import TRASH, Store, holds_runs

ALLOW_FILES = {"MLFLOW_ALLOW_FILE_STORE": "true"}
DRIVERS = {"MySQLdb": "mysqlclient", "psycopg2": "psycopg2-binary", "psycopg": "'psycopg[binary]'"}
"""Packages of database drivers, where they are called otherwise than what is imported."""
WITH_WORKSPACES = {"MLFLOW_ENABLE_WORKSPACES": "true"}
READ_ONLY = {"PGOPTIONS": "-c default_transaction_read_only=on"}

LOOK = """
import json, os, sys
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import create_engine, inspect, text
script = ScriptDirectory(sys.argv[1])
with create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"]).connect() as database:
    tables = inspect(database).get_table_names()
    revision = database.scalar(text("SELECT version_num FROM alembic_version")) if "alembic_version" in tables else None
    default = database.scalar(text("SELECT count(*) FROM experiments WHERE experiment_id = 0")) if revision else 0
    others = "SELECT count(*) FROM workspaces WHERE name <> 'default'"
    workspaces = database.scalar(text(others)) if "workspaces" in tables else 0
try:
    known = revision is None or script.get_revision(revision) is not None
except CommandError:
    known = False
print(json.dumps({"tables": len(tables), "revision": revision, "known": known, "default": bool(default),
                  "workspaces": bool(workspaces), "current": revision == script.get_current_head()}))
"""
MAKE = """
import os
from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine
_initialize_tables(create_sqlalchemy_engine(os.environ["MLFLOW_BACKEND_STORE_URI"]))
"""
UPGRADE = """
import os
from mlflow.cli import cli
cli(["db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])
"""


@dataclass(frozen=True, slots=True)
class Found:
    """What was found at the address of a database."""

    tables: int = 0
    revision: str | None = None
    known: bool = True
    """False where the installed MLflow has never heard of the schema's revision: it is newer."""
    default: bool = False
    """True where experiment 0 is there."""
    workspaces: bool = False
    """True where it holds workspaces besides the default one: MLflow serves it with workspaces only."""
    current: bool = False


@asynccontextmanager
async def served(
    store: Store, *, writable: bool, workspaces: bool, checked: asyncio.Event | None = None
) -> AsyncIterator[Private]:
    """A private server for the store; `writable` for a target, `workspaces` where they are needed.

    A source sets `checked` when it turned out to be one, and a target is not touched before that.

    Raises `UsageError` where there is no store, or one that the installed MLflow cannot serve as it is.
    """
    need_mlflow()
    with TemporaryDirectory(prefix="amigrate-server-", ignore_cleanup_errors=True) as home:
        if writable and checked:
            await checked.wait()
        serving = (
            await _folder(store, Path(home), writable)
            if store.folder
            else await _database(store, Path(home), writable, workspaces)
        )
        if checked:
            checked.set()
        if writable and store.lacks_artifacts:
            _make_folder(Path(store.artifacts))
        async with private_server(Path(home), serving) as private:
            yield private


def _make_folder(artifacts: Path) -> None:
    """Where a target's files go. It is there even if none come: a source without it is taken for one that lost it."""
    try:
        artifacts.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DiskError(f"{artifacts} cannot be made: {error.strerror or error}") from error


# ---- folders ----------------------------------------------------------------------------------------------------


async def _folder(store: Store, home: Path, writable: bool) -> Serving:
    """A file store. MLflow makes experiment 0 only in a folder that it makes itself."""
    folder = store.folder
    assert folder is not None
    if writable:
        _claim(folder)
    elif not folder.exists():
        raise UsageError(f"there is no folder {folder}; the address of a server begins with http:// or https://")
    elif not holds_runs(folder):
        raise UsageError(f"{folder} holds no MLflow runs: no experiment with a meta.yaml in it")
    elif not (folder / TRASH).is_dir():
        folder = _mirror(folder, home / folder.name)
    return Serving(str(folder), store.artifacts, ALLOW_FILES)


def _claim(folder: Path) -> None:
    """A target is a file store already, or a new or empty folder."""
    if holds_runs(folder) or not folder.exists():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        raise UsageError(f"{folder} is neither a folder of MLflow runs nor empty: give a new folder")
    folder.rmdir()


def _mirror(folder: Path, mirror: Path) -> Path:
    """A folder of links, so that what the server adds is not added to a source."""
    mirror.mkdir()
    for item in folder.iterdir():
        (mirror / item.name).symlink_to(item)
    return mirror


# ---- databases --------------------------------------------------------------------------------------------------


async def _database(store: Store, home: Path, writable: bool, workspaces: bool) -> Serving:
    """A database: the installed MLflow serves it only with the schema that it knows."""
    found = await _look(store)
    spaces = WITH_WORKSPACES if workspaces or found.workspaces else {}
    if not found.tables:
        if not writable:
            raise UsageError(f"there is no MLflow database at {store.shown}")
        if store.database:
            await _make(store, store.database)
        return Serving(store.uri, store.artifacts, spaces)
    if found.revision is None:
        raise UsageError(f"{store.shown} holds tables, but none of MLflow's: give the database of a tracking server")
    if not found.known:
        raise UsageError(f"{store.shown} was made by a newer MLflow than the one installed here: pip install -U mlflow")
    if not found.current:
        await _upgrade(store)
    if writable:
        return Serving(store.uri, store.artifacts, spaces)
    if found.default and not spaces:
        return Serving(_read_only(store), store.artifacts, READ_ONLY)
    if store.database is None:
        why = (
            "holds workspaces, and MLflow would write to it" if spaces else "has no experiment 0: MLflow would make one"
        )
        raise UsageError(f"{store.shown} {why}: serve it yourself, as a server")
    return Serving(f"sqlite:///{await asyncio.to_thread(_copied, store.database, home)}", store.artifacts, spaces)


async def _make(store: Store, database: Path) -> None:
    """A new SQLite database. It gets its name when it is whole: half a one would be taken for an older MLflow's."""
    part = database.with_name(f"{database.name}.{os.getpid()}.part")  # Who was killed may still be at another one.
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        for left in database.parent.glob(f"{escape(database.name)}.*.part*"):
            left.unlink(missing_ok=True)
        await _python(MAKE, [], {BACKEND: f"sqlite:///{part}"}, store)
        part.replace(database)
    except OSError as error:
        raise DiskError(f"{store.shown} cannot be made: {error.strerror or error}") from error


async def _upgrade(store: Store) -> None:
    if not store.upgrade:
        raise UsageError(
            f"{store.shown} has the schema of an older MLflow, and nothing was changed: make a backup, then give "
            "--upgrade-schema, which upgrades it for good"
        )
    await _python(UPGRADE, [], {BACKEND: store.uri}, store)


async def _look(store: Store) -> Found:
    """Ask a database what it holds, without changing it."""
    if store.database and not store.database.exists():
        return Found()
    if store.database and store.database.is_dir():
        raise UsageError(f"{store.database} is a folder, not a database file")
    spec = importlib.util.find_spec("mlflow")
    assert spec is not None and spec.origin is not None
    migrations = Path(spec.origin).parent / "store" / "db_migrations"
    answer = await _python(LOOK, [str(migrations)], {BACKEND: _read_only(store)} | READ_ONLY, store)
    return Found(**codec.loads(answer))


def _read_only(store: Store) -> str:
    """SQLite itself refuses to write then; PostgreSQL is told by `READ_ONLY`."""
    return f"sqlite:///file:{quote(str(store.database))}?mode=ro&uri=true" if store.database else store.uri


def _copied(database: Path, home: Path) -> Path:
    """A copy by SQLite's own means, also of a database that is in use."""
    copy = home / "copy.db"
    address = f"file:{quote(str(database))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True)) as old, closing(sqlite3.connect(copy)) as new:
        old.backup(new)
    return copy


async def _python(code: str, args: list[str], variables: Mapping[str, str], store: Store) -> bytes:
    """Run a few lines in a Python of their own and return what they print: MLflow never runs in this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-c",
        code,
        *args,
        env={**environment(), **variables},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, errors = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise NoServer(f"{store.shown} cannot be opened: {_reason(errors, store)}")
    return out


def _reason(errors: bytes, store: Store) -> str:
    """The line of a traceback that says what is wrong, without the password."""
    lines = errors.decode("utf-8", "replace").strip().splitlines()
    said = [line for line in lines if line[:1].strip() and "Error" in line.partition(":")[0]] or lines or ["no reason"]
    password = urlsplit(store.uri).password
    text = said[-1]
    if missing := re.search(r"No module named '(\w+)'", text):
        return f"its driver is not installed: pip install {DRIVERS.get(missing[1], missing[1])}"
    for secret in {password, unquote(password)} if password else ():
        text = text.replace(secret, "…")
    return text

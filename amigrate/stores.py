"""Local stores: addresses that name no server but the database or the folder that a server would serve.

`sqlite:///…`, `postgresql://…`, `mysql://…`, `mssql://…`, `file:…`, or the path of a `mlruns` folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from amigrate.core.errors import UsageError

DATABASES = ("postgresql", "mysql", "mssql")
NO_PATHS = ("databricks", "databricks-uc", "uc")
"""Addresses without a scheme that MLflow takes for something else than a folder."""
RUNS = "mlruns"
ARTIFACTS = "mlartifacts"
META = "meta.yaml"
TRASH = ".trash"


@dataclass(frozen=True, slots=True)
class Store:
    """One local store."""

    shown: str
    """Its address for people, journals and archives: absolute, without credentials."""
    uri: str = field(repr=False)
    """Its address for MLflow, which may hold a password."""
    artifacts: str
    """Where a server of this store kept the artifacts that it proxied: a path or a URI."""
    base: Path
    """What relative artifact locations refer to: the folder that holds the database or the runs."""
    upgrade: bool = False
    """True where the database's schema may be upgraded."""
    database: Path | None = None
    """The file of an SQLite database."""
    folder: Path | None = None
    """The folder of a file store."""

    def exists(self) -> bool:
        """False for a file or a folder that is not there yet."""
        place = self.database or self.folder
        return place is None or place.exists()

    @property
    def lacks_artifacts(self) -> bool:
        """True where its server can have kept no artifact in the folder that we know of: it is not there."""
        return not urlsplit(self.artifacts).scheme and not Path(self.artifacts).is_dir()

    @property
    def runs(self) -> Path:
        """Where MLflow puts artifacts of this store by default when no server does it."""
        return self.folder or self.base / RUNS


def local_store(address: str, artifacts: str | None = None, *, upgrade: bool = False) -> Store | None:
    """The local store that an address names; None where it is the address of a server, or of nothing we know.

    Relative paths refer to the working directory. Raises `UsageError` for a database that lives in memory only.
    """
    parts = urlsplit(address)
    dialect = parts.scheme.partition("+")[0]
    if dialect == "sqlite":
        path = _database(address)
        uri, home = f"sqlite:///{path}", path.parent
        return Store(uri, uri, _artifacts(artifacts, home), home, upgrade, database=path)
    if dialect in DATABASES:
        home = Path.cwd()
        return Store(_without_secrets(address), address, _artifacts(artifacts, home), home, upgrade)
    if parts.scheme in ("", "file") and address not in NO_PATHS:
        path = Path(unquote(parts.path) if parts.scheme else address).expanduser().absolute()
        return Store(str(path), str(path), _artifacts(artifacts, path.parent), path.parent, folder=path)
    return None


def holds_runs(folder: Path) -> bool:
    """True for a folder that a file store has written: `mlruns`, whatever it is called."""
    return folder.is_dir() and ((folder / TRASH).is_dir() or any(folder.glob(f"*/{META}")))


def _database(address: str) -> Path:
    """`sqlite:///relative` or `sqlite:////absolute`."""
    path, question, _ = address.partition(":///")[2].partition("?")
    if not path or path == ":memory:" or path.startswith("file:") or question:
        raise UsageError(f"'{address}' is no database file: write sqlite:///path/to/mlflow.db")
    return Path(path).expanduser().absolute()


def _artifacts(given: str | None, home: Path) -> str:
    if given is None:
        return str(home / ARTIFACTS)
    parts = urlsplit(given)
    if parts.scheme == "file":
        return str(Path(unquote(parts.path)).absolute())
    return given if parts.scheme else str(Path(given).expanduser().absolute())


def _without_secrets(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))

"""What the user asked for, as frozen values, and where it comes from in the environment.

Credentials follow one rule: `MLFLOW_TRACKING_*` credentials go only to the server that `MLFLOW_TRACKING_URI` names.
A command with one server and no `MLFLOW_TRACKING_URI` in the environment takes them for that server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from amigrate.core.errors import UsageError
from amigrate.stores import Store, local_store

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One tracking server and how to talk to it. `uri` never holds credentials."""

    uri: str
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_bundle: Path | None = None
    timeout: float = 300.0
    """Seconds without a byte before an answer is given up. An overloaded server takes 30 s to say so."""
    store: Store | None = None
    """The local store that this is, where it is none of a server: a private one is started for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings. What is really used below them is found while running."""

    concurrency: int = 32
    requests_per_second: float | None = None
    memory: int = 128 * MEBIBYTE
    """Bytes of rows and file chunks in flight, both ends together."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of the source are asked for."""

    experiments: tuple[str, ...] = ()
    """Names, ids, or `prefix*` of names; empty means all."""
    deleted: bool = False
    exact: bool = False
    """One experiment by name or id; a `*` in it means itself."""

    def wants(self, name: str, experiment_id: str) -> str | None:
        """The pattern that asks for this experiment, or None. An empty selection asks for everything."""
        if not self.experiments:
            return ""
        for pattern in self.experiments:
            if pattern in (name, experiment_id):
                return pattern
            if not self.exact and "*" in pattern and fnmatchcase(name, _star_only(pattern)):
                return pattern
        return None


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How objects are written to a server."""

    source_tags: bool = False
    experiment_name: str | None = None
    """The name that the one experiment of the source gets."""


@dataclass(frozen=True, slots=True)
class Options:
    """Everything about one command that is not an end of it."""

    command: str
    limits: Limits = Limits()
    selection: Selection = Selection()
    imports: ImportOptions = ImportOptions()
    accept_loss: frozenset[str] = frozenset()
    report: Path | None = None
    state: Path | None = None
    bare_nan: bool = False


def _star_only(pattern: str) -> str:
    """Escape what fnmatch would treat as special besides `*`."""
    return re.sub(r"([\[?])", r"[\1]", pattern)


def split_uri(uri: str) -> tuple[str, str, str]:
    """The URI without credentials, the user name and the password in it (empty where there are none)."""
    parts = urlsplit(uri.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(
            f"'{redacted(uri)}' is not the address of a server: it has to begin with http:// or https://, "
            "or to name a local store: sqlite:///mlflow.db, a folder of runs, postgresql://…"
        )
    host = parts.netloc.rpartition("@")[2]
    bare = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
    return bare, unquote(parts.username or ""), unquote(parts.password or "")


def redacted(uri: str) -> str:
    """A URI that may be shown: everything before `@` of its host and its query are gone."""
    try:
        parts = urlsplit(uri.strip())
    except ValueError:
        return "(unreadable address)"
    if not parts.netloc and (parts.scheme in ("", "file", "sqlite") or not parts.query):
        return uri.strip()
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def same_server(one: str, other: str) -> bool:
    """True where two addresses name the same server: scheme, host, port and path prefix."""
    return _origin(one) == _origin(other)


def _origin(uri: str) -> tuple[str, str, int, str]:
    if not uri.startswith(("http://", "https://")):
        return uri, "", 0, ""
    parts = urlsplit(split_uri(uri)[0])
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path


@dataclass(frozen=True, slots=True)
class Given:
    """What the command line says of one server."""

    uri: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_bundle: Path | None = None
    artifacts_destination: str | None = None
    upgrade_schema: bool = False


def server_options(given: Given, environ: Mapping[str, str], end: str = "") -> ServerOptions:
    """Merge command line and environment into one server's options.

    `end` is "" for a command with one server, "source" or "target" for an end of a copy, whose own variables are
    `AMIGRATE_SOURCE_*` and `AMIGRATE_TARGET_*`. Empty variables are unset ones.

    Raises `UsageError` where no address is given or it is none.
    """
    tracking = environ.get("MLFLOW_TRACKING_URI", "").strip()
    prefix = f"AMIGRATE_{end.upper()}_" if end else "AMIGRATE_"
    own = {name: environ.get(prefix + name, "") for name in ("URI", "USERNAME", "PASSWORD", "TOKEN", "CA_BUNDLE")}
    address = given.uri or own["URI"] or ("" if end else tracking)
    if not address:
        option = f"--{end} or AMIGRATE_{end.upper()}_URI" if end else "--tracking-uri or MLFLOW_TRACKING_URI"
        raise UsageError(f"no server given: set {option} to the address of a tracking server")
    store = local_store(address.strip(), given.artifacts_destination, upgrade=given.upgrade_schema)
    if store is not None:
        return ServerOptions(store.shown, store=store)
    if given.artifacts_destination:
        raise UsageError("--artifacts-destination is for local stores: a server knows where its artifacts are")
    uri, user, password = split_uri(address)
    shared = _shared_credentials(environ, uri, tracking, end)
    options = ServerOptions(
        uri=uri,
        username=given.username or user or own["USERNAME"] or "",
        password=given.password or password or own["PASSWORD"] or "",
        token=given.token or own["TOKEN"] or "",
        ca_bundle=given.ca_bundle or _path(own["CA_BUNDLE"]) or _path(shared.get("CA", "")),
    )
    if options.username or options.password or options.token:
        return options
    return ServerOptions(
        uri=uri,
        username=shared.get("USERNAME", ""),
        password=shared.get("PASSWORD", ""),
        token=shared.get("TOKEN", ""),
        ca_bundle=options.ca_bundle,
    )


def _shared_credentials(environ: Mapping[str, str], uri: str, tracking: str, end: str) -> dict[str, str]:
    """The `MLFLOW_TRACKING_*` settings, where they are meant for this server."""
    named = same_server(tracking, uri) if tracking.startswith(("http://", "https://")) else False
    if not named and (tracking or end):
        return {}
    return {
        "USERNAME": environ.get("MLFLOW_TRACKING_USERNAME", ""),
        "PASSWORD": environ.get("MLFLOW_TRACKING_PASSWORD", ""),
        "TOKEN": environ.get("MLFLOW_TRACKING_TOKEN", ""),
        "CA": environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH", ""),
    }


def _path(text: str) -> Path | None:
    return Path(text) if text else None

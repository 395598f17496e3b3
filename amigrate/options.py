"""What the user asked for, as frozen values, and where it comes from in the environment.

Credentials follow one rule: `MLFLOW_TRACKING_*` credentials and those of `~/.mlflow/credentials` go only to the server
that `MLFLOW_TRACKING_URI` names. A command with one server and no `MLFLOW_TRACKING_URI` in the environment takes them
for that server.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from amigrate.core import codec
from amigrate.core.choice import Choice
from amigrate.core.errors import UsageError
from amigrate.core.model import OnConflict
from amigrate.core.patterns import Patterns, RenameMap, all_to
from amigrate.core.ports import AS_USUAL, Retries
from amigrate.core.secrets import Secrets
from amigrate.stores import Store, local_store

T = TypeVar("T")
NO_LINES: tuple[str, ...] = ()
NO_SECRETS = Secrets()

DEFAULT_WORKSPACE = "default"
"""The workspace of who names none."""
MEBIBYTE = 1024 * 1024
DATABRICKS = (".databricks.com", ".azuredatabricks.net")


@dataclass(frozen=True, slots=True)
class Basic:
    """Basic authentication."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token that stays the same."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TokenCommand:
    """A command whose output is a token; run again where the token is refused."""

    command: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class OAuth:
    """OAuth 2 client credentials."""

    token_url: str
    client_id: str
    client_secret: str = field(repr=False)
    scope: str = ""


@dataclass(frozen=True, slots=True)
class SigV4:
    """AWS signatures; key and region come from the usual AWS settings."""


Login = Basic | Bearer | TokenCommand | OAuth | SigV4


@dataclass(frozen=True, slots=True)
class Tls:
    """Whom to trust, and how to be recognised."""

    ca_bundle: Path | None = None
    client_cert: Path | None = None
    """PEM file with certificate and key."""
    insecure: bool = False


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """One tracking server and how to talk to it. `uri` never holds credentials."""

    uri: str
    login: Login | None = None
    tls: Tls = Tls()
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    workspace: str = ""
    registry_uri: str = ""
    redirects: bool = True
    """Whether redirects within the server's own origin are followed; others never are."""
    connect_timeout: float = 15.0
    timeout: float = 300.0
    """Seconds without a byte before an answer is given up. An overloaded server takes 30 s to say so."""
    retries: Retries = AS_USUAL
    store: Store | None = None
    """The local store that this is, where it is none of a server: a private one is started for it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Ceilings. What is really used below them is found while running."""

    concurrency: int = 32
    requests_per_second: float | None = None
    memory: int = 128 * MEBIBYTE
    """Bytes of rows and file chunks in flight, both ends together."""


ALL = Patterns()
ANY = Choice()
NO_RENAMES = RenameMap()


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of the source are asked for."""

    only: str = ""
    """`experiments`: these and what is in them; `models`: registered models and what they need; else everything."""
    experiments: Patterns = ALL
    skip_experiments: Patterns = ALL
    """Those that are left out all the same; empty means none."""
    models: Patterns = ALL
    """Registered models."""
    choice: Choice = ANY
    """Of runs, versions, files."""
    deleted: bool = False
    objects: tuple[str, ...] = ("all",)
    """Names of kinds to move; `all` means every kind that is safe to write."""
    skip_objects: tuple[str, ...] = ()

    @property
    def narrow(self) -> bool:
        """True where some objects are chosen, so that others which come from them may have to stay."""
        models = self.models if self.only != "models" else ALL  # They bring what they need.
        return bool(self.experiments or self.skip_experiments or models or self.choice.runs or self.choice.versions)


@dataclass(frozen=True, slots=True)
class Workspaces:
    """Which workspaces of the source are asked for."""

    everything: bool = False
    names: Mapping[str, str] = field(default_factory=dict)
    """Those that were named, and what they are called at the target."""


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How objects are written to a server."""

    source_tags: bool = False
    provenance: bool = True
    """Whether runs, logged models and evaluation datasets get a tag that says where they were first made."""
    on_conflict: OnConflict = OnConflict.SKIP
    renames: RenameMap = NO_RENAMES
    experiment_name: str | None = None
    """The name that the one experiment of the source gets."""
    model_name: str | None = None
    """The name that the one registered model of the source gets."""
    passwords: Secrets = NO_SECRETS
    """Those that new users get."""
    webhook_secrets: Secrets = NO_SECRETS

    def rename_map(self) -> RenameMap:
        """All that is to be called otherwise at the target."""
        single = {"experiment": self.experiment_name, "registered_model": self.model_name}
        return RenameMap({**self.renames.kinds, **{kind: all_to(name) for kind, name in single.items() if name}})

    @property
    def settles_names(self) -> bool:
        """True where names have to be settled before anything is written."""
        return bool(self.rename_map()) or self.on_conflict in (OnConflict.RENAME, OnConflict.FAIL)


@dataclass(frozen=True, slots=True)
class Verification:
    """How two sides are compared."""

    quick: bool = False
    """Whether the size of a file says enough."""
    verbose: bool = False
    """Whether what is equal is told too."""
    renames: RenameMap = NO_RENAMES
    """What B calls the objects of A."""


@dataclass(frozen=True, slots=True)
class Again:
    """What is done about objects that an earlier session of the same command has carried."""

    recheck: bool = False
    """Read also those again that had come to their end."""
    propagate_deletes: bool = False
    """Delete what has been deleted at the source since."""
    only_failed: bool = False
    """Take up only what failed, or was begun and is not whole."""


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
    workspaces: Workspaces | None = None
    """Where workspaces move, each with everything in it; None for one server, or one workspace of it."""
    dry_run: bool = False
    """Whether only what the command would do is asked for."""
    again: Again = Again()


def secrets_in(path: Path | None, option: str) -> Secrets:
    """What a file of secrets holds: a line `name: secret` for each, or one JSON object for names with a colon.

    Empty lines and those that begin with `#` count for nothing. Raises `UsageError`, which shows nothing of it.
    """
    if path is None:
        return NO_SECRETS
    try:
        written = path.read_text("utf-8")
        exposed = bool(path.stat().st_mode & 0o077)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path} cannot be read: {getattr(error, 'strerror', 'it is no UTF-8')}") from None
    found = _object(written, f"{option} {path}") if written.lstrip().startswith("{") else _lines(written, option, path)
    return Secrets(f"{option} {path}", found, exposed=exposed)


def _object(written: str, what: str) -> dict[str, str]:
    try:
        found = codec.loads(written)
    except codec.JSONDecodeError:
        raise UsageError(f"{what} begins like JSON, but is none") from None
    if not all(isinstance(value, str) and value for value in found.values()):
        raise UsageError(f'{what} has to hold texts only, as in {{"name": "secret"}}')
    return dict(found)


def _lines(written: str, option: str, path: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for number, line in enumerate(written.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, secret = (part.strip() for part in line.partition(":"))
        if not name or not secret or name in found:
            wrong = "names one a second time" if secret and name else "has to be 'name: secret'"
            raise UsageError(f"{option} {path}: line {number} {wrong}")
        found[name] = secret
    return found


def split_uri(uri: str) -> tuple[str, str, str]:
    """The URI without credentials, the user name and the password in it (empty where there are none)."""
    try:
        parts = urlsplit(uri.strip())
        known = parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise UsageError(f"'{redacted(uri)}' is not the address of a server: {error}") from None
    if not known or not parts.hostname:
        raise UsageError(
            f"'{redacted(uri)}' is not the address of a server: it has to begin with http:// or https://, "
            "or to name a local store: sqlite:///mlflow.db, a folder of runs, postgresql://…"
        )
    if parts.hostname.endswith(DATABRICKS):
        raise UsageError(f"{redacted(uri)} is a Databricks workspace, which amigrate cannot reach yet")
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


def same_workspace(one: ServerOptions, other: ServerOptions) -> bool:
    """True where two ends at one server mean the same of its workspaces."""
    return (one.workspace or DEFAULT_WORKSPACE) == (other.workspace or DEFAULT_WORKSPACE)


def _origin(uri: str) -> tuple[str, str, int, str]:
    if not uri.startswith(("http://", "https://")):
        return uri, "", 0, ""
    parts = urlsplit(split_uri(uri)[0])
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return parts.scheme, parts.hostname or "", port, parts.path


# ---- from the command line and the environment ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Given:
    """What one place says of one server: the command line, some variables, a file. Empty is not given.

    A field is named like its option; what `repr` leaves out is secret.
    """

    uri: str = ""
    username: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    token_command: str = field(default="", repr=False)
    oauth_token_url: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = field(default="", repr=False)
    oauth_scope: str = ""
    aws_sigv4: bool = False
    header: tuple[str, ...] = field(default=(), repr=False)
    client_cert: Path | None = None
    ca_bundle: Path | None = None
    insecure_tls: bool = False
    workspace: str = ""
    registry_uri: str = ""
    artifacts_destination: str = ""
    upgrade_schema: bool = False


SECRET = frozenset(one.name for one in fields(Given) if not one.repr)
ADDRESSES = frozenset({"uri", "oauth_token_url", "registry_uri"})
"""Fields that may hold credentials as part of an address."""

SHARED = {
    "username": "MLFLOW_TRACKING_USERNAME",
    "password": "MLFLOW_TRACKING_PASSWORD",
    "token": "MLFLOW_TRACKING_TOKEN",
    "aws_sigv4": "MLFLOW_TRACKING_AWS_SIGV4",
    "client_cert": "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "ca_bundle": "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "insecure_tls": "MLFLOW_TRACKING_INSECURE_TLS",
    "workspace": "MLFLOW_WORKSPACE",
    "registry_uri": "MLFLOW_REGISTRY_URI",
}
"""Variables of MLflow's own client, for the server that `MLFLOW_TRACKING_URI` names."""


def variable(name: str, end: str = "") -> str:
    """The variable of ours for a field of `Given`, such as `AMIGRATE_SOURCE_TOKEN`."""
    words = "HEADERS" if name == "header" else name.upper()
    return f"AMIGRATE_{end.upper()}_{words}" if end else f"AMIGRATE_{words}"


def server_options(given: Given, environ: Mapping[str, str], end: str = "") -> ServerOptions:
    """Merge command line, address, environment and MLflow's credentials file into one server's options.

    `end` is "" for a command with one server, "source" or "target" for an end of a copy, whose own variables are
    `AMIGRATE_SOURCE_*` and `AMIGRATE_TARGET_*`. Empty variables are unset ones.

    Raises `UsageError` where no address is given or it is none, and where settings contradict each other.
    """
    tracking = environ.get("MLFLOW_TRACKING_URI", "").strip()
    own = _from_variables(environ, {one.name: variable(one.name, end) for one in fields(Given)})
    address = given.uri or own.uri or ("" if end else tracking)
    if not address:
        option = (
            f"--{end}, or set AMIGRATE_{end.upper()}_URI"
            if end
            else "its address (--tracking-uri), or set MLFLOW_TRACKING_URI"
        )
        raise UsageError(f"no server given: give {option}")
    destination = _first([given, own], "artifacts_destination", "")
    store = local_store(address.strip(), destination or None, upgrade=_first([given, own], "upgrade_schema", False))
    if store is not None:
        return _of_store(store, [given, own], environ if address == tracking or not (tracking or end) else {})
    if destination:
        raise UsageError("--artifacts-destination is for local stores: a server knows where its artifacts are")
    uri, user, password = split_uri(address)
    places = [given, Given(username=user, password=password), own]
    if _is_shared(uri, tracking, end):
        places.append(_from_variables(environ, SHARED))
        places.append(_from_file(Path(environ.get("HOME") or Path.home()) / ".mlflow" / "credentials"))
    login = _login(places)
    if login is None and environ.get("MLFLOW_TRACKING_AUTH") and _is_shared(uri, tracking, end):
        raise UsageError(
            "MLFLOW_TRACKING_AUTH names a plugin of MLflow's client, which amigrate cannot use: unset it and log in "
            "with --token-command or --header"
        )
    options = ServerOptions(
        uri=uri,
        login=login,
        tls=_tls(places, environ),
        headers=tuple(map(_header, _first(places, "header", NO_LINES))),
        workspace=_first(places, "workspace", ""),
        registry_uri=_first(places, "registry_uri", ""),
        redirects=_flag(environ, "MLFLOW_ALLOW_HTTP_REDIRECTS", True),
        retries=_retries(environ),
    )
    timeout = _number(environ, "MLFLOW_HTTP_REQUEST_TIMEOUT")
    return options if timeout is None else replace(options, timeout=timeout, connect_timeout=timeout)


def _of_store(store: Store, places: list[Given], shared: Mapping[str, str]) -> ServerOptions:
    """A private server needs no login; which workspace is meant has to be said there too."""
    if _first(places, "registry_uri", ""):
        raise UsageError(
            f"{store.shown} is a local store with registered models of its own: no --registry-uri goes with it"
        )
    workspace = _first([*places, _from_variables(shared, SHARED)], "workspace", "")
    return ServerOptions(store.shown, store=store, workspace=workspace)


def _is_shared(uri: str, tracking: str, end: str) -> bool:
    """True where MLflow's own settings are meant for this server."""
    if tracking.startswith(("http://", "https://")):
        return same_server(tracking, uri)
    return not tracking and not end


def _login(places: Sequence[Given]) -> Login | None:
    """The first place that names a way decides on it; its parts may come from any place.

    So a user name of the command line goes together with a password of a variable.
    """
    way = next((way for way in map(_way, places) if way), None)
    if way is Basic:
        return Basic(_first(places, "username", ""), _first(places, "password", ""))
    if way is Bearer:
        return Bearer(_of_one_line(_first(places, "token", ""), "the token"))
    if way is TokenCommand:
        return TokenCommand(_first(places, "token_command", ""))
    if way is OAuth:
        return _oauth(places)
    return SigV4() if way is SigV4 else None


def _of_one_line(text: str, what: str) -> str:
    """What goes into a header. A file that it was read from often ends in a line break."""
    text = text.strip()
    if not text.isprintable():
        raise UsageError(f"{what} holds a line break or another control character: give it as one line")
    return text


def _way(place: Given) -> type[Login] | None:
    """Like MLflow's client: signatures replace every header, a user name with a password wins over a token."""
    if place.aws_sigv4:
        return SigV4
    if place.oauth_token_url or place.oauth_client_id or place.oauth_client_secret:
        return OAuth
    if place.token_command:
        return TokenCommand
    if place.username and place.password:
        return Basic
    if place.token:
        return Bearer
    return Basic if place.username or place.password else None


def _oauth(places: Sequence[Given]) -> OAuth:
    scope = _first(places, "oauth_scope", "")
    parts = {name: _first(places, name, "") for name in ("oauth_token_url", "oauth_client_id", "oauth_client_secret")}
    missing = [_flag_of(name) for name, value in parts.items() if not value]
    if missing:
        raise UsageError(f"OAuth 2 needs {', '.join(missing)} too")
    return OAuth(**{name.removeprefix("oauth_"): value for name, value in parts.items()}, scope=scope)


def _tls(places: Sequence[Given], environ: Mapping[str, str]) -> Tls:
    """What `requests` understands, MLflow's users have: REQUESTS_CA_BUNDLE counts where nothing else is said."""
    named, insecure = _first(places, "ca_bundle", None), _first(places, "insecure_tls", False)
    if named and insecure:
        raise UsageError("--insecure-tls and --ca-bundle contradict each other: leave one of them out")
    general = _path(environ.get("REQUESTS_CA_BUNDLE", "")) or _path(environ.get("CURL_CA_BUNDLE", ""))
    return Tls(named or (None if insecure else general), _first(places, "client_cert", None), insecure)


def _first(places: Sequence[Given], name: str, default: T) -> T:
    """What the first place says that says anything."""
    return next((value for value in (getattr(place, name) for place in places) if value), default)


def _header(line: str) -> tuple[str, str]:
    """`Name: value`; an error shows neither, because the value may be secret."""
    name, colon, value = line.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) or not value.strip().isprintable():
        raise UsageError("a header has to be given as 'Name: value'")
    return name.strip(), value.strip()


def _from_variables(environ: Mapping[str, str], names: Mapping[str, str]) -> Given:
    found: dict[str, Any] = {}
    for one in fields(Given):
        name = names.get(one.name, "")
        text = environ.get(name, "").strip()
        if not text:
            continue
        if one.name in ("aws_sigv4", "insecure_tls"):
            found[one.name] = _flag(environ, name, False)
        elif one.name in ("client_cert", "ca_bundle"):
            found[one.name] = _path(text)
        elif one.name == "header":
            found[one.name] = tuple(line for line in text.splitlines() if line.strip())
        else:
            found[one.name] = environ[name] if one.name in SECRET else text
    return Given(**found)


def _from_file(path: Path) -> Given:
    """User name and password of MLflow's credentials file, read as MLflow's client reads it."""
    parser = ConfigParser()
    try:
        parser.read(path)
        username, password = (
            parser.get("mlflow", name, fallback="") for name in ("mlflow_tracking_username", "mlflow_tracking_password")
        )
        return Given(username=username, password=password)
    except (ConfigError, OSError, UnicodeDecodeError):
        # The parser's own message quotes lines of the file.
        raise UsageError(f"{path} cannot be read: it has to be an INI file with a section [mlflow]") from None


def _retries(environ: Mapping[str, str]) -> Retries:
    times = _number(environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES")
    return Retries(
        None if times is None else int(times),
        _number(environ, "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR"),
        _number(environ, "MLFLOW_HTTP_REQUEST_BACKOFF_JITTER"),
        _flag(environ, "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", True),
    )


def _number(environ: Mapping[str, str], name: str) -> float | None:
    text = environ.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"\d+(\.\d+)?", text):
        raise UsageError(f"{name} has to be a number, not {text!r}")
    return float(text)


def _flag(environ: Mapping[str, str], name: str, default: bool) -> bool:
    text = environ.get(name, "").strip().lower()
    if text not in ("", "true", "1", "false", "0"):
        raise UsageError(f"{name} has to be true or false, not {text!r}")
    return text in ("true", "1") if text else default


def _flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


def _path(text: str) -> Path | None:
    return Path(text) if text else None

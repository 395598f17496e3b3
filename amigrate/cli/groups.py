"""Groups of options that several commands share, and how a command takes them.

A command is a function of groups; `command` spreads the groups' fields out into the options that Typer sees. So each
option is named once, and its field, its flag and its help stay together. A group may hold groups: the ends of a copy
hold a `Login` each, whose options then begin with the end's name.
"""

from __future__ import annotations

import copy
import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from amigrate.cli import parameters as p
from amigrate.cli.run import Work, run
from amigrate.options import (
    SHARED,
    Given,
    ImportOptions,
    Limits,
    Options,
    Selection,
    ServerOptions,
    server_options,
    variable,
)


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach one server or local store; named like the fields of `options.Given`."""

    username: p.Username = None
    password: p.Password = None
    token: p.Token = None
    token_command: p.TokenCommand = None
    oauth_token_url: p.OAuthTokenUrl = None
    oauth_client_id: p.OAuthClientId = None
    oauth_client_secret: p.OAuthClientSecret = None
    oauth_scope: p.OAuthScope = None
    aws_sigv4: p.AwsSigV4 = False
    header: p.Header = None
    client_cert: p.ClientCert = None
    ca_bundle: p.CaBundle = None
    insecure_tls: p.InsecureTls = False
    workspace: p.Workspace = None
    registry_uri: p.RegistryUri = None
    artifacts_destination: p.ArtifactsDestination = None
    upgrade_schema: p.UpgradeSchema = False

    def options(self, uri: str | None, end: str = "") -> ServerOptions:
        """The options of the server at `uri`, or wherever the environment says."""
        given = {one.name: getattr(self, one.name) for one in fields(self)} | {"header": tuple(self.header or ())}
        said = {name: value for name, value in given.items() if value}
        return server_options(Given(uri or "", **said), os.environ, end)


NOBODY = Login()


@dataclass(frozen=True, slots=True)
class Server:
    """The one server of an export or import."""

    tracking_uri: p.TrackingUri = None
    login: Login = NOBODY

    def options(self) -> ServerOptions:
        return self.login.options(self.tracking_uri)


@dataclass(frozen=True, slots=True)
class Ends:
    """The two servers of a copy, each with its own credentials."""

    source: p.Source = None
    target: p.Target = None
    source_login: Annotated[Login, "source"] = NOBODY
    target_login: Annotated[Login, "target"] = NOBODY

    def options(self) -> tuple[ServerOptions, ServerOptions]:
        return self.source_login.options(self.source, "source"), self.target_login.options(self.target, "target")


@dataclass(frozen=True, slots=True)
class Output:
    """Where an export goes."""

    output_dir: p.OutputDir
    bare_nan: p.BareNan = False


@dataclass(frozen=True, slots=True)
class Input:
    """Where an import comes from."""

    input_dir: p.InputDir


@dataclass(frozen=True, slots=True)
class Writing:
    """How objects are written to a server."""

    import_source_tags: p.SourceTags = False
    state: p.State = None


@dataclass(frozen=True, slots=True)
class Common:
    """What every move takes."""

    deleted: p.Deleted = False
    objects: p.Objects = "all"
    skip_objects: p.SkipObjects = ""
    accept_loss: p.AcceptLoss = ""
    concurrency: p.Concurrency = 32
    max_requests_per_second: p.RequestsPerSecond = None
    memory: p.Memory = p.DEFAULT_MEMORY
    report: p.Report = None
    as_json: p.Json = False
    debug: p.Debug = False

    def run(
        self,
        name: str,
        work: Callable[[], Work],
        *,
        experiments: str = "all",
        models: str | None = None,
        exact: bool = False,
        writing: Writing | None = None,
        bare_nan: bool = False,
        rename: str | None = None,
        rename_model: str | None = None,
    ) -> None:
        """Run a command of this name. `work` is asked for inside: what it refuses is explained like the rest."""

        def build() -> tuple[Options, Work]:
            wanted = p.patterns(experiments, "--experiments", exact=exact)
            options = Options(
                name,
                Limits(self.concurrency, self.max_requests_per_second, p.size_in_bytes(self.memory)),
                Selection(
                    wanted,
                    self.deleted,
                    exact,
                    None if models is None else p.patterns(models, "--models", exact=exact),
                    p.objects(self.objects),
                    p.kinds(self.skip_objects, "--skip-objects"),
                ),
                ImportOptions(writing is not None and writing.import_source_tags, rename, rename_model),
                p.kinds_to_lose(self.accept_loss),
                self.report,
                writing.state if writing else None,
                bare_nan,
            )
            return options, work()

        run(build, as_json=self.as_json, debug=self.debug)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Spread the groups among a function's parameters out into their fields, for Typer."""
    hints = get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    spread = [
        parameter
        for one in signature.parameters.values()
        for parameter in _spread(one.name, hints[one.name], one.default)
    ]
    ordered = sorted(spread, key=lambda one: one.default is not inspect.Parameter.empty)

    @functools.wraps(function)
    def wrapper(**given: Any) -> None:
        function(**{name: _made(name, hints[name], given) for name in signature.parameters})

    wrapper.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in ordered} | {"return": None}
    return wrapper


def _spread(name: str, hint: Any, default: Any) -> list[inspect.Parameter]:
    """A plain parameter as it is, a group as its fields."""
    group, end = _group(hint)
    if group is None:
        return [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)]
    hints = get_type_hints(group, include_extras=True)
    if group is Login:
        hints = {one: _named(one, hint, end) for one, hint in hints.items()}
    return [
        parameter for one in fields(group) for parameter in _spread(_at(end, one.name), hints[one.name], _default(one))
    ]


def _made(name: str, hint: Any, given: dict[str, Any]) -> Any:
    """The other way round: from what Typer parsed to the group."""
    group, end = _group(hint)
    if group is None:
        return given[name]
    hints = get_type_hints(group, include_extras=True)
    return group(**{one.name: _made(_at(end, one.name), hints[one.name], given) for one in fields(group)})


def _group(hint: Any) -> tuple[Any, str]:
    """The group that a hint names, and the end of a copy whose options it gives, if any."""
    kind, end = get_args(hint) if get_origin(hint) is Annotated and is_dataclass(get_args(hint)[0]) else (hint, "")
    return (kind, end) if is_dataclass(kind) else (None, "")


def _at(end: str, name: str) -> str:
    return f"{end}_{name}" if end else name


def _default(one: Field[Any]) -> Any:
    return inspect.Parameter.empty if one.default is MISSING else one.default


def _named(name: str, hint: Any, end: str) -> Any:
    """An option of `Login` under its own name, which says where else its value can come from."""
    kind, option = get_args(hint)
    option = copy.copy(option)
    option.param_decls = ("--" + _at(end, name).replace("_", "-"),)
    option.help += f" Or {variable(name, end) if end else SHARED.get(name, variable(name))}."
    option.rich_help_panel = f"{end.title()} server" if end else option.rich_help_panel
    return Annotated[kind, option]

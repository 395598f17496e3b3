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
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from amigrate.cli import parameters as p
from amigrate.cli.lists import names, patterns, renames
from amigrate.cli.lists import workspaces as spaces
from amigrate.cli.run import Work, run
from amigrate.core.choice import Choice, FileChoice, RunChoice
from amigrate.core.errors import UsageError
from amigrate.core.model import OnConflict
from amigrate.core.patterns import Patterns, RenameMap
from amigrate.options import (
    SHARED,
    Again,
    Given,
    ImportOptions,
    Limits,
    Options,
    Selection,
    ServerOptions,
    secrets_in,
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

    def options(self, uri: str | None, end: str = "", workspaces: str = "") -> ServerOptions:
        """The options of the server at `uri`, or wherever the environment says.

        Where `workspaces` are asked for, no variable says which one is meant.
        """
        if workspaces and self.workspace:
            raise UsageError("--workspaces and --workspace: give one of them")
        given = {one.name: getattr(self, one.name) for one in fields(self)} | {"header": tuple(self.header or ())}
        said = {name: value for name, value in given.items() if value}
        server = server_options(Given(uri or "", **said), os.environ, end)
        return replace(server, workspace="") if workspaces else server


NOBODY = Login()
PLAN = "plan"
"""The command that only says what another one would do."""


@dataclass(frozen=True, slots=True)
class Server:
    """The one server of an export or import."""

    tracking_uri: p.TrackingUri = None
    login: Login = NOBODY

    def options(self, workspaces: str = "") -> ServerOptions:
        return self.login.options(self.tracking_uri, workspaces=workspaces)


@dataclass(frozen=True, slots=True)
class Ends:
    """The two servers of a copy, each with its own credentials."""

    source: p.Source = None
    target: p.Target = None
    source_login: Annotated[Login, "source"] = NOBODY
    target_login: Annotated[Login, "target"] = NOBODY

    def options(self, workspaces: str = "") -> tuple[ServerOptions, ServerOptions]:
        source = self.source_login.options(self.source, "source", workspaces)
        return source, self.target_login.options(self.target, "target", workspaces)


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
class Renaming:
    """What is called otherwise at the target."""

    rename_experiments: p.RenameExperiments = None
    rename_models: p.RenameModels = None
    rename_prompts: p.RenamePrompts = None

    def rules(self) -> RenameMap:
        return RenameMap(
            {
                "experiment": renames(self.rename_experiments, "--rename-experiments"),
                "registered_model": renames(self.rename_models, "--rename-models"),
                "prompt": renames(self.rename_prompts, "--rename-prompts"),
            }
        )


AS_THEY_ARE = Renaming()


@dataclass(frozen=True, slots=True)
class Writing:
    """How objects are written to a server."""

    import_source_tags: p.SourceTags = False
    no_provenance: p.NoProvenance = False
    on_conflict: p.OnConflict = OnConflict.SKIP
    renaming: Renaming = AS_THEY_ARE
    passwords: p.Passwords = None
    webhook_secrets: p.WebhookSecrets = None
    state: p.State = None

    def options(self, experiment_name: str | None, model_name: str | None) -> ImportOptions:
        return ImportOptions(
            source_tags=self.import_source_tags,
            provenance=not self.no_provenance,
            on_conflict=self.on_conflict,
            renames=self.renaming.rules(),
            experiment_name=experiment_name,
            model_name=model_name,
            passwords=secrets_in(self.passwords, "--passwords"),
            webhook_secrets=secrets_in(self.webhook_secrets, "--webhook-secrets"),
        )


@dataclass(frozen=True, slots=True)
class Everything:
    """What of a whole server."""

    experiments: p.AnyExperiments = None
    skip_experiments: p.SkipExperiments = None
    models: p.AnyModels = None
    stages: p.Stages = None
    versions: p.Versions = None

    def selection(self) -> Selection:
        return Selection(
            experiments=patterns(self.experiments, "--experiments"),
            skip_experiments=patterns(self.skip_experiments, "--skip-experiments"),
            models=patterns(self.models, "--models"),
            choice=Choice(versions=p.version_choice(self.stages, self.versions)),
        )


@dataclass(frozen=True, slots=True)
class Experiments:
    """Which experiments."""

    experiments: p.Experiments
    skip_experiments: p.SkipExperiments = None

    def selection(self) -> Selection:
        return Selection(
            only="experiments",
            experiments=patterns(self.experiments, "--experiments"),
            skip_experiments=patterns(self.skip_experiments, "--skip-experiments"),
        )


@dataclass(frozen=True, slots=True)
class AnyExperiments:
    """Which experiments of those that there are."""

    experiments: p.AnyExperiments = None
    skip_experiments: p.SkipExperiments = None

    def selection(self) -> Selection:
        return Experiments(self.experiments or ["all"], self.skip_experiments).selection()


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions of registered models."""

    stages: p.Stages = None
    versions: p.Versions = None

    def selection(self, models: Patterns) -> Selection:
        return Selection(
            only="models", models=models, choice=Choice(versions=p.version_choice(self.stages, self.versions))
        )


@dataclass(frozen=True, slots=True)
class Parts:
    """Which runs, and which of their files."""

    run_ids: p.RunIds = None
    filter: p.Filter = ""
    since: p.Since = None
    until: p.Until = None
    no_artifacts: p.NoArtifacts = False
    max_artifact_size: p.MaxArtifactSize = None
    artifact_paths: p.ArtifactPaths = None
    skip_artifact_paths: p.SkipArtifactPaths = None

    def runs(self) -> RunChoice:
        ids = names(self.run_ids, "--run-ids") if self.run_ids else ()
        since, until = p.moment(self.since, "--since"), p.moment(self.until, "--until")
        if since is not None and until is not None and since >= until:
            raise UsageError(f"--since {self.since} is not before --until {self.until}: nothing lies between")
        return RunChoice(p.run_ids(ids), self.filter.strip(), since, until)

    def files(self) -> FileChoice:
        return FileChoice(
            None if self.max_artifact_size is None else p.bytes_in(self.max_artifact_size, "--max-artifact-size"),
            patterns(self.artifact_paths, "--artifact-paths"),
            patterns(self.skip_artifact_paths, "--skip-artifact-paths"),
        )


ALL_PARTS = Parts()


@dataclass(frozen=True, slots=True)
class Common:
    """What every move takes."""

    parts: Parts = ALL_PARTS
    deleted: p.Deleted = False
    objects: p.Objects = "all"
    skip_objects: p.SkipObjects = ""
    accept_loss: p.AcceptLoss = ""
    recheck: p.Recheck = False
    propagate_deletes: p.PropagateDeletes = False
    only_failed: p.OnlyFailed = False
    concurrency: p.Concurrency = 32
    max_requests_per_second: p.RequestsPerSecond = None
    memory: p.Memory = p.DEFAULT_MEMORY
    report: p.Report = None
    dry_run: p.DryRun = False
    as_json: p.Json = False
    debug: p.Debug = False

    def run(
        self,
        name: str,
        work: Callable[[], Work],
        selection: Callable[[], Selection] = Selection,
        *,
        writing: Writing | None = None,
        bare_nan: bool = False,
        rename: str | None = None,
        rename_model: str | None = None,
        workspaces: str = "",
    ) -> None:
        """Run a command of this name. `work` and `selection` are asked for inside: what they refuse is explained."""

        def build() -> tuple[Options, Work]:
            options = Options(
                name,
                Limits(self.concurrency, self.max_requests_per_second, p.size_in_bytes(self.memory)),
                self._completed(selection()),
                writing.options(rename, rename_model) if writing else ImportOptions(),
                p.kinds_to_lose(self.accept_loss),
                self.report,
                writing.state if writing else None,
                bare_nan,
                spaces(workspaces),
                self.dry_run or name == PLAN,
                Again(self.recheck, self.propagate_deletes, self.only_failed),
            )
            return options, work()

        run(build, as_json=self.as_json, debug=self.debug)

    def _completed(self, selection: Selection) -> Selection:
        skipped = p.kinds(self.skip_objects, "--skip-objects")
        return replace(
            selection,
            choice=replace(selection.choice, runs=self.parts.runs(), files=self.parts.files()),
            deleted=self.deleted,
            objects=p.objects(self.objects),
            skip_objects=(*skipped, "artifacts") if self.parts.no_artifacts else skipped,
        )


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


@functools.cache
def _hints(group: type) -> dict[str, Any]:
    """The types of a group's fields, which every command that takes it asks for."""
    return get_type_hints(group, include_extras=True)


def _spread(name: str, hint: Any, default: Any) -> list[inspect.Parameter]:
    """A plain parameter as it is, a group as its fields."""
    group, end = _group(hint)
    if group is None:
        return [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)]
    hints = _hints(group)
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
    hints = _hints(group)
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

"""Groups of options that several commands share, and how a command takes them.

A command is a function of groups; `command` spreads the groups' fields out into the options that Typer sees. So each
option is named once, and its field, its flag and its help stay together.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, get_type_hints

from amigrate.cli import parameters as p
from amigrate.cli.run import Work, run
from amigrate.options import Given, ImportOptions, Limits, Options, Selection, ServerOptions, server_options


@dataclass(frozen=True, slots=True)
class Server:
    """The one server of an export or import."""

    tracking_uri: p.TrackingUri = None
    username: p.Username = None
    password: p.Password = None
    token: p.Token = None
    ca_bundle: p.CaBundle = None
    artifacts_destination: p.ArtifactsDestination = None
    upgrade_schema: p.UpgradeSchema = False

    def options(self) -> ServerOptions:
        given = Given(self.tracking_uri, self.username, self.password, self.token, self.ca_bundle)
        local = replace(given, artifacts_destination=self.artifacts_destination, upgrade_schema=self.upgrade_schema)
        return server_options(local, os.environ)


@dataclass(frozen=True, slots=True)
class Ends:
    """The two servers of a copy, each with its own credentials."""

    source: p.Source = None
    target: p.Target = None
    source_username: p.SourceUsername = None
    source_password: p.SourcePassword = None
    source_token: p.SourceToken = None
    source_ca_bundle: p.SourceCaBundle = None
    target_username: p.TargetUsername = None
    target_password: p.TargetPassword = None
    target_token: p.TargetToken = None
    target_ca_bundle: p.TargetCaBundle = None
    source_artifacts: p.SourceArtifacts = None
    target_artifacts: p.TargetArtifacts = None
    upgrade_schema: p.UpgradeSchema = False

    def options(self) -> tuple[ServerOptions, ServerOptions]:
        source = Given(
            self.source, self.source_username, self.source_password, self.source_token, self.source_ca_bundle
        )
        target = Given(
            self.target, self.target_username, self.target_password, self.target_token, self.target_ca_bundle
        )
        source = replace(source, artifacts_destination=self.source_artifacts, upgrade_schema=self.upgrade_schema)
        target = replace(target, artifacts_destination=self.target_artifacts, upgrade_schema=self.upgrade_schema)
        return server_options(source, os.environ, "source"), server_options(target, os.environ, "target")


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
        exact: bool = False,
        writing: Writing | None = None,
        bare_nan: bool = False,
        rename: str | None = None,
    ) -> None:
        """Run a command of this name. `work` is asked for inside: what it refuses is explained like the rest."""

        def build() -> tuple[Options, Work]:
            wanted = () if experiments == "all" else (experiments,) if exact else p.names(experiments, "--experiments")
            options = Options(
                name,
                Limits(self.concurrency, self.max_requests_per_second, p.size_in_bytes(self.memory)),
                Selection(wanted, self.deleted, exact),
                ImportOptions(writing is not None and writing.import_source_tags, rename),
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
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    signature = inspect.signature(function)
    plain = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in signature.parameters.values()
        if one.name not in groups
    ]
    spread = [one for group in groups.values() for one in _parameters(group)]
    ordered = sorted([*plain, *spread], key=lambda one: one.default is not inspect.Parameter.empty)

    @functools.wraps(function)
    def wrapper(**given: Any) -> None:
        made = {
            name: group(**{one.name: given.pop(one.name) for one in fields(group)}) for name, group in groups.items()
        }
        function(**made, **given)

    wrapper.__signature__ = signature.replace(parameters=ordered)  # type: ignore[attr-defined]
    wrapper.__annotations__ = {one.name: one.annotation for one in ordered} | {"return": None}
    return wrapper


def _parameters(group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in inspect.signature(group).parameters.values()
    ]

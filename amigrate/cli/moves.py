"""export-*, import-* and copy-all."""

from __future__ import annotations

import os
from pathlib import Path

from amigrate import commands
from amigrate.archive.layout import EXPERIMENTS
from amigrate.cli import parameters as p
from amigrate.cli.run import Work, run
from amigrate.commands import Session
from amigrate.options import (
    Given,
    ImportOptions,
    Limits,
    Options,
    Selection,
    ServerOptions,
    server_options,
)
from amigrate.report.summary import Summary


def export_all(
    output_dir: p.OutputDir,
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    bare_nan: p.BareNan = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Export a whole tracking server into a folder.

    Run it again to continue an interrupted export, or to add what is new.

    Example: amigrate export-all --tracking-uri http://mlflow:5000 --output-dir backup --deleted
    """

    def build() -> tuple[Options, Work]:
        limits = Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory))
        losses = p.kinds_to_lose(accept_loss)
        options = Options(
            "export-all", limits, Selection(deleted=deleted), accept_loss=losses, report=report, bare_nan=bare_nan
        )
        server = _server(Given(tracking_uri, username, password, token, ca_bundle))
        return options, _export(server, output_dir, EXPERIMENTS, False)

    run(build, as_json=as_json, debug=debug)


def export_experiments(
    experiments: p.Experiments,
    output_dir: p.OutputDir,
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    bare_nan: p.BareNan = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Export some experiments into a folder.

    Example: amigrate export-experiments --experiments 'team-a*,churn,17' --output-dir some
    """

    def build() -> tuple[Options, Work]:
        limits = Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory))
        selection = Selection(() if experiments == "all" else p.names(experiments, "--experiments"), deleted)
        losses = p.kinds_to_lose(accept_loss)
        options = Options("export-experiments", limits, selection, accept_loss=losses, report=report, bare_nan=bare_nan)
        server = _server(Given(tracking_uri, username, password, token, ca_bundle))
        return options, _export(server, output_dir, "", False)

    run(build, as_json=as_json, debug=debug)


def export_experiment(
    experiment: p.Experiment,
    output_dir: p.OutputDir,
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    bare_nan: p.BareNan = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Export one experiment into a folder of its own.

    Example: amigrate export-experiment --experiment churn --output-dir churn
    """

    def build() -> tuple[Options, Work]:
        limits = Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory))
        losses = p.kinds_to_lose(accept_loss)
        selection = Selection((experiment,), deleted, exact=True)
        options = Options("export-experiment", limits, selection, accept_loss=losses, report=report, bare_nan=bare_nan)
        server = _server(Given(tracking_uri, username, password, token, ca_bundle))
        return options, _export(server, output_dir, "", True)

    run(build, as_json=as_json, debug=debug)


def import_all(
    input_dir: p.InputDir,
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    import_source_tags: p.SourceTags = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    state: p.State = None,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Import an archive into a tracking server: one of ours or of mlflow-export-import, with or without a manifest.

    Run it again to continue an interrupted import; nothing arrives twice.

    Example: amigrate import-all --tracking-uri http://new:5000 --input-dir backup --deleted
    """

    def build() -> tuple[Options, Work]:
        options = Options(
            "import-all",
            Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory)),
            Selection(deleted=deleted),
            ImportOptions(import_source_tags),
            p.kinds_to_lose(accept_loss),
            report,
            state,
        )
        return options, _import(_server(Given(tracking_uri, username, password, token, ca_bundle)), input_dir)

    run(build, as_json=as_json, debug=debug)


def import_experiments(
    input_dir: p.InputDir,
    experiments: p.Experiments = "all",
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    import_source_tags: p.SourceTags = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    state: p.State = None,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Import the experiments of an archive, or some of them, into a tracking server.

    Example: amigrate import-experiments --input-dir some --experiments 'team-a*'
    """

    def build() -> tuple[Options, Work]:
        options = Options(
            "import-experiments",
            Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory)),
            Selection(() if experiments == "all" else p.names(experiments, "--experiments"), deleted),
            ImportOptions(import_source_tags),
            p.kinds_to_lose(accept_loss),
            report,
            state,
        )
        return options, _import(_server(Given(tracking_uri, username, password, token, ca_bundle)), input_dir)

    run(build, as_json=as_json, debug=debug)


def import_experiment(
    experiment_name: p.ExperimentName,
    input_dir: p.InputDir,
    tracking_uri: p.TrackingUri = None,
    username: p.Username = None,
    password: p.Password = None,
    token: p.Token = None,
    ca_bundle: p.CaBundle = None,
    deleted: p.Deleted = False,
    import_source_tags: p.SourceTags = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    state: p.State = None,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Import the one experiment of an archive under a name of your choice.

    Example: amigrate import-experiment --experiment-name churn-2024 --input-dir churn
    """

    def build() -> tuple[Options, Work]:
        options = Options(
            "import-experiment",
            Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory)),
            Selection(deleted=deleted),
            ImportOptions(import_source_tags, experiment_name),
            p.kinds_to_lose(accept_loss),
            report,
            state,
        )
        return options, _import(_server(Given(tracking_uri, username, password, token, ca_bundle)), input_dir)

    run(build, as_json=as_json, debug=debug)


def copy_all(
    source: p.Source = None,
    target: p.Target = None,
    source_username: p.SourceUsername = None,
    source_password: p.SourcePassword = None,
    source_token: p.SourceToken = None,
    source_ca_bundle: p.SourceCaBundle = None,
    target_username: p.TargetUsername = None,
    target_password: p.TargetPassword = None,
    target_token: p.TargetToken = None,
    target_ca_bundle: p.TargetCaBundle = None,
    deleted: p.Deleted = False,
    import_source_tags: p.SourceTags = False,
    accept_loss: p.AcceptLoss = "",
    concurrency: p.Concurrency = 32,
    max_requests_per_second: p.RequestsPerSecond = None,
    memory: p.Memory = p.DEFAULT_MEMORY,
    state: p.State = None,
    report: p.Report = None,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Copy a whole tracking server into another one, without a folder in between.

    Run it again to continue, or to bring what is new; nothing arrives twice.

    Example: amigrate copy-all --source http://old:5000 --target http://new:5000 --deleted
    """

    def build() -> tuple[Options, Work]:
        options = Options(
            "copy-all",
            Limits(concurrency, max_requests_per_second, p.size_in_bytes(memory)),
            Selection(deleted=deleted),
            ImportOptions(import_source_tags),
            p.kinds_to_lose(accept_loss),
            report,
            state,
        )
        given_source = Given(source, source_username, source_password, source_token, source_ca_bundle)
        given_target = Given(target, target_username, target_password, target_token, target_ca_bundle)
        old = server_options(given_source, os.environ, "source")
        new = server_options(given_target, os.environ, "target")
        return options, lambda session: commands.copy(session, old, new)

    run(build, as_json=as_json, debug=debug)


def _server(given: Given) -> ServerOptions:
    return server_options(given, os.environ)


def _export(server: ServerOptions, output: Path, base: str, single: bool) -> Work:
    async def work(session: Session) -> Summary:
        return await commands.export(session, server, output, base, single)

    return work


def _import(server: ServerOptions, folder: Path) -> Work:
    async def work(session: Session) -> Summary:
        return await commands.import_archive(session, server, folder)

    return work

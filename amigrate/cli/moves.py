"""export-*, import-* and copy-all."""

from __future__ import annotations

from pathlib import Path

from amigrate import commands
from amigrate.archive.layout import EXPERIMENTS
from amigrate.cli import parameters as p
from amigrate.cli.groups import (
    AnyExperiments,
    Common,
    Ends,
    Everything,
    Experiments,
    Input,
    Output,
    Server,
    Versions,
    Writing,
    command,
)
from amigrate.cli.lists import patterns
from amigrate.cli.run import Work
from amigrate.core.patterns import Patterns, exactly
from amigrate.options import Selection, ServerOptions


@command
def export_all(
    server: Server, output: Output, which: Everything, common: Common, workspaces: p.Workspaces = ""
) -> None:
    """Export a whole tracking server into a folder.

    Run it again to continue an interrupted export, or to add what is new.

    Example: amigrate export-all --tracking-uri http://mlflow:5000 --output-dir backup --deleted
    """
    work = lambda: _export(server, output, EXPERIMENTS, workspaces=workspaces)  # noqa: E731
    common.run("export-all", work, which.selection, bare_nan=output.bare_nan, workspaces=workspaces)


@command
def export_experiments(which: Experiments, server: Server, output: Output, common: Common) -> None:
    """Export some experiments into a folder.

    Example: amigrate export-experiments --experiments 'team-a*,churn,17' --output-dir some
    """
    work = lambda: _export(server, output, "")  # noqa: E731
    common.run("export-experiments", work, which.selection, bare_nan=output.bare_nan)


@command
def export_experiment(experiment: p.Experiment, server: Server, output: Output, common: Common) -> None:
    """Export one experiment into a folder of its own.

    Example: amigrate export-experiment --experiment churn --output-dir churn
    """
    which = lambda: Selection(only="experiments", experiments=exactly(experiment))  # noqa: E731
    work = lambda: _export(server, output, "", single=True)  # noqa: E731
    common.run("export-experiment", work, which, bare_nan=output.bare_nan)


@command
def import_all(
    server: Server, archive: Input, which: Everything, writing: Writing, common: Common, workspaces: p.Workspaces = ""
) -> None:
    """Import an archive into a tracking server: one of ours or of mlflow-export-import, with or without a manifest.

    Run it again to continue an interrupted import; nothing arrives twice.

    Example: amigrate import-all --tracking-uri http://new:5000 --input-dir backup --deleted
    """
    work = lambda: _import(server.options(workspaces), archive.input_dir)  # noqa: E731
    common.run("import-all", work, which.selection, writing=writing, workspaces=workspaces)


@command
def import_experiments(server: Server, archive: Input, which: AnyExperiments, writing: Writing, common: Common) -> None:
    """Import the experiments of an archive, or some of them, into a tracking server.

    Example: amigrate import-experiments --input-dir some --experiments 'team-a*'
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    common.run("import-experiments", work, which.selection, writing=writing)


@command
def import_experiment(
    experiment_name: p.ExperimentName, server: Server, archive: Input, writing: Writing, common: Common
) -> None:
    """Import the one experiment of an archive under a name of your choice.

    Example: amigrate import-experiment --experiment-name churn-2024 --input-dir churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    which = lambda: Selection(only="experiments")  # noqa: E731
    common.run("import-experiment", work, which, writing=writing, rename=experiment_name)


@command
def export_models(models: p.Models, server: Server, output: Output, which: Versions, common: Common) -> None:
    """Export registered models, with the runs, logged models and experiments that their versions need.

    Example: amigrate export-models --models 'churn,team-a*' --output-dir models
    """
    work = lambda: _export(server, output, EXPERIMENTS)  # noqa: E731
    asked = lambda: which.selection(patterns(models, "--models"))  # noqa: E731
    common.run("export-models", work, asked, bare_nan=output.bare_nan)


@command
def export_model(model: p.Model, server: Server, output: Output, which: Versions, common: Common) -> None:
    """Export one registered model, with what its versions need.

    Example: amigrate export-model --model churn --output-dir churn
    """
    work = lambda: _export(server, output, EXPERIMENTS)  # noqa: E731
    asked = lambda: which.selection(exactly(model))  # noqa: E731
    common.run("export-model", work, asked, bare_nan=output.bare_nan)


@command
def import_models(
    server: Server, archive: Input, which: Versions, writing: Writing, common: Common, models: p.AnyModels = None
) -> None:
    """Import the registered models of an archive, or some of them, with what their versions need.

    Example: amigrate import-models --input-dir backup --models churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    asked = lambda: which.selection(patterns(models, "--models"))  # noqa: E731
    common.run("import-models", work, asked, writing=writing)


@command
def import_model(
    model_name: p.ModelName, server: Server, archive: Input, which: Versions, writing: Writing, common: Common
) -> None:
    """Import the one registered model of an archive under a name of your choice.

    Example: amigrate import-model --model-name churn-2024 --input-dir churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    asked = lambda: which.selection(Patterns())  # noqa: E731
    common.run("import-model", work, asked, writing=writing, rename_model=model_name)


@command
def copy_all(ends: Ends, which: Everything, writing: Writing, common: Common, workspaces: p.Workspaces = "") -> None:
    """Copy a whole tracking server into another one, without a folder in between.

    Run it again to continue, or to bring what is new; nothing arrives twice.

    Example: amigrate copy-all --source http://old:5000 --target http://new:5000 --deleted
    """

    def work() -> Work:
        source, target = ends.options(workspaces)
        return lambda session: commands.copy(session, source, target)

    common.run("copy-all", work, which.selection, writing=writing, workspaces=workspaces)


def _export(server: Server, output: Output, base: str, single: bool = False, workspaces: str = "") -> Work:
    options = server.options(workspaces)
    return lambda session: commands.export(session, options, output.output_dir, base, single)


def _import(server: ServerOptions, folder: Path) -> Work:
    return lambda session: commands.import_archive(session, server, folder)

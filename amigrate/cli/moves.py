"""export-*, import-* and copy-all."""

from __future__ import annotations

from pathlib import Path

from amigrate import commands
from amigrate.archive.layout import EXPERIMENTS
from amigrate.cli import parameters as p
from amigrate.cli.groups import Common, Ends, Input, Output, Server, Writing, command
from amigrate.cli.run import Work
from amigrate.options import ServerOptions


@command
def export_all(server: Server, output: Output, common: Common) -> None:
    """Export a whole tracking server into a folder.

    Run it again to continue an interrupted export, or to add what is new.

    Example: amigrate export-all --tracking-uri http://mlflow:5000 --output-dir backup --deleted
    """
    common.run("export-all", lambda: _export(server, output, EXPERIMENTS), bare_nan=output.bare_nan)


@command
def export_experiments(experiments: p.Experiments, server: Server, output: Output, common: Common) -> None:
    """Export some experiments into a folder.

    Example: amigrate export-experiments --experiments 'team-a*,churn,17' --output-dir some
    """
    common.run(
        "export-experiments", lambda: _export(server, output, ""), experiments=experiments, bare_nan=output.bare_nan
    )


@command
def export_experiment(experiment: p.Experiment, server: Server, output: Output, common: Common) -> None:
    """Export one experiment into a folder of its own.

    Example: amigrate export-experiment --experiment churn --output-dir churn
    """
    common.run(
        "export-experiment",
        lambda: _export(server, output, "", single=True),
        experiments=experiment,
        exact=True,
        bare_nan=output.bare_nan,
    )


@command
def import_all(server: Server, archive: Input, writing: Writing, common: Common) -> None:
    """Import an archive into a tracking server: one of ours or of mlflow-export-import, with or without a manifest.

    Run it again to continue an interrupted import; nothing arrives twice.

    Example: amigrate import-all --tracking-uri http://new:5000 --input-dir backup --deleted
    """
    common.run("import-all", lambda: _import(server.options(), archive.input_dir), writing=writing)


@command
def import_experiments(
    server: Server, archive: Input, writing: Writing, common: Common, experiments: p.Experiments = "all"
) -> None:
    """Import the experiments of an archive, or some of them, into a tracking server.

    Example: amigrate import-experiments --input-dir some --experiments 'team-a*'
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    common.run("import-experiments", work, experiments=experiments, writing=writing)


@command
def import_experiment(
    experiment_name: p.ExperimentName, server: Server, archive: Input, writing: Writing, common: Common
) -> None:
    """Import the one experiment of an archive under a name of your choice.

    Example: amigrate import-experiment --experiment-name churn-2024 --input-dir churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    common.run("import-experiment", work, writing=writing, rename=experiment_name)


@command
def export_models(models: p.Models, server: Server, output: Output, common: Common) -> None:
    """Export registered models, with the runs, logged models and experiments that their versions need.

    Example: amigrate export-models --models 'churn,team-a*' --output-dir models
    """
    work = lambda: _export(server, output, EXPERIMENTS)  # noqa: E731
    common.run("export-models", work, models=models, bare_nan=output.bare_nan)


@command
def export_model(model: p.Model, server: Server, output: Output, common: Common) -> None:
    """Export one registered model, with what its versions need.

    Example: amigrate export-model --model churn --output-dir churn
    """
    work = lambda: _export(server, output, EXPERIMENTS)  # noqa: E731
    common.run("export-model", work, models=model, exact=True, bare_nan=output.bare_nan)


@command
def import_models(server: Server, archive: Input, writing: Writing, common: Common, models: p.Models = "all") -> None:
    """Import the registered models of an archive, or some of them, with what their versions need.

    Example: amigrate import-models --input-dir backup --models churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    common.run("import-models", work, models=models, writing=writing)


@command
def import_model(model_name: p.ModelName, server: Server, archive: Input, writing: Writing, common: Common) -> None:
    """Import the one registered model of an archive under a name of your choice.

    Example: amigrate import-model --model-name churn-2024 --input-dir churn
    """
    work = lambda: _import(server.options(), archive.input_dir)  # noqa: E731
    common.run("import-model", work, models="all", writing=writing, rename_model=model_name)


@command
def copy_all(ends: Ends, writing: Writing, common: Common) -> None:
    """Copy a whole tracking server into another one, without a folder in between.

    Run it again to continue, or to bring what is new; nothing arrives twice.

    Example: amigrate copy-all --source http://old:5000 --target http://new:5000 --deleted
    """

    def work() -> Work:
        source, target = ends.options()
        return lambda session: commands.copy(session, source, target)

    common.run("copy-all", work, writing=writing)


def _export(server: Server, output: Output, base: str, single: bool = False) -> Work:
    options = server.options()
    return lambda session: commands.export(session, options, output.output_dir, base, single)


def _import(server: ServerOptions, folder: Path) -> Work:
    return lambda session: commands.import_archive(session, server, folder)

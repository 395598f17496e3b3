"""The Typer application: which commands there are."""

from __future__ import annotations

import typer

from amigrate import __version__
from amigrate.cli import moves
from amigrate.cli.demo import demo
from amigrate.cli.journals import ANY_OPTION, retry, status
from amigrate.cli.ping import ping
from amigrate.cli.plan import plan
from amigrate.cli.verify import verify

app = typer.Typer(
    name="amigrate",
    help="Move whole MLflow workspaces: export, import, copy. Nothing lost, nothing twice.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("export-all")(moves.export_all)
app.command("import-all")(moves.import_all)
app.command("copy-all")(moves.copy_all)
app.command("export-experiments")(moves.export_experiments)
app.command("export-models")(moves.export_models)
app.command("export-model")(moves.export_model)
app.command("import-experiments")(moves.import_experiments)
app.command("export-experiment")(moves.export_experiment)
app.command("import-experiment")(moves.import_experiment)
app.command("import-models")(moves.import_models)
app.command("import-model")(moves.import_model)
app.command("plan")(plan)
app.command("verify")(verify)
app.command("status")(status)
app.command("retry", context_settings=ANY_OPTION)(retry)
app.command("ping")(ping)
app.command("demo")(demo)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"amigrate {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """See `app`."""


def main() -> None:
    """The console script."""
    app()

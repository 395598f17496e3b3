"""`python -m benchmarks concurrency`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import concurrency as concurrency_benchmark

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Measure amigrate on real MLflow servers on loopback."""


@app.command()
def concurrency(
    quick: Annotated[bool, typer.Option("--quick", help="Tiny: shows that it runs, measures nothing.")] = False,
    write: Annotated[
        Path | None, typer.Option(help="Where the table goes; README.md beside this for a full run.")
    ] = None,
) -> None:
    """The concurrency that is found while running, against the best fixed one."""
    table = concurrency_benchmark.measure(quick)
    typer.echo(table)
    if write is not None:
        write.write_text(table, "utf-8")


if __name__ == "__main__":
    app()

"""`python -m benchmarks --help` lists what can be measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import concurrency as concurrency_benchmark
from benchmarks import counting as counting_benchmark
from benchmarks import journal as journal_benchmark
from benchmarks import own as own_benchmark
from benchmarks import suite as suite_benchmark
from benchmarks.arena import ARENAS
from benchmarks.workloads import ALL, TINY

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Measure amigrate on real MLflow servers on loopback."""


Quick = Annotated[bool, typer.Option("--quick", help="Tiny: shows that it runs, measures nothing.")]


@app.command()
def suite(
    workload: Annotated[str, typer.Option(help=", ".join(ALL))] = "typical",
    server: Annotated[str, typer.Option(help=", ".join(ARENAS))] = "sqlite-1",
    repeat: Annotated[int, typer.Option(help="Runs of each command; the median counts.")] = 3,
    share: Annotated[float, typer.Option(help="The part of the workload that the peer gets, from 0 to 1.")] = 0.0,
    part: Annotated[float, typer.Option(help="The part of the workload that is measured at all.")] = 1.0,
    quick: Quick = False,
) -> None:
    """One workload on one kind of server: amigrate against the limit and the peer."""
    work = TINY if quick else ALL[workload]
    work = work if part == 1 else work.part(part)
    plan = suite_benchmark.Plan(work, ARENAS[server], 1 if quick else repeat, share)
    typer.echo(suite_benchmark.table(suite_benchmark.measure(plan)))


@app.command()
def counting(quick: Quick = False) -> None:
    """The requests that each command sends, by what they are for."""
    typer.echo(counting_benchmark.measure(quick))


@app.command()
def journal(quick: Quick = False) -> None:
    """The share of a command's time that its journal takes."""
    typer.echo(journal_benchmark.measure(quick))


@app.command()
def own(quick: Quick = False) -> None:
    """The processor time that amigrate itself takes."""
    typer.echo(own_benchmark.measure(quick))


@app.command()
def concurrency(
    quick: Quick = False,
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

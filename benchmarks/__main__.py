"""`python -m benchmarks --help` lists what can be measured."""

from __future__ import annotations

from typing import Annotated

import typer

from benchmarks import concurrency as concurrency_benchmark
from benchmarks import counting as counting_benchmark
from benchmarks import journal as journal_benchmark
from benchmarks import own as own_benchmark
from benchmarks import profile as profile_benchmark
from benchmarks import results
from benchmarks import suite as suite_benchmark
from benchmarks.arena import ARENAS
from benchmarks.workloads import ALL, TINY

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


@app.callback()
def _root() -> None:
    """Measure amigrate on real MLflow servers on loopback."""


Quick = Annotated[bool, typer.Option("--quick", help="Tiny: shows that it runs, measures nothing.")]
Write = Annotated[bool, typer.Option("--write", help="Also into README.md beside this.")]

SUITE = (
    "--workload typical --server sqlite-1 --share 0.2",
    "--workload typical --server sqlite-1-far --share 0.2",
    "--workload typical --server postgres-4 --share 0.2",
    "--workload typical --server sqlite-1 --part 0.1",
    "--workload wide --server sqlite-1 --share 0.02",
    "--workload wide --server sqlite-1-far --share 0.01",
    "--workload wide --server postgres-4",
    "--workload wide --server sqlite-1 --part 0.1",
    "--workload deep --server sqlite-1",
    "--workload deep --server postgres-4",
    "--workload deep --server sqlite-1 --part 0.1",
    "--workload files --server sqlite-1",
    "--workload files --server postgres-4",
    "--workload genai --server sqlite-1",
    "--workload genai --server postgres-4",
    "--workload registry --server sqlite-1",
    "--workload registry --server postgres-4",
)
"""The rows of the page. The peer gets what it can move in ten minutes, and at least 200 runs."""


@app.command()
def suite(
    workload: Annotated[str, typer.Option(help=", ".join(ALL))] = "typical",
    server: Annotated[str, typer.Option(help=", ".join(ARENAS))] = "sqlite-1",
    repeat: Annotated[int, typer.Option(help="Runs of each command; the median counts.")] = 3,
    share: Annotated[float, typer.Option(help="The part of the workload that the peer gets, from 0 to 1.")] = 0.0,
    part: Annotated[float, typer.Option(help="The part of the workload that is measured at all.")] = 1.0,
    exports_only: Annotated[bool, typer.Option("--exports-only", help="Neither imports, copies nor the peer.")] = False,
    quick: Quick = False,
    write: Write = False,
) -> None:
    """One workload on one kind of server: amigrate against the limit and the peer."""
    work = TINY if quick else ALL[workload]
    work = work if part == 1 else work.part(part)
    tried = suite_benchmark.CONCURRENCY[:1] if quick else suite_benchmark.CONCURRENCY
    plan = suite_benchmark.Plan(work, ARENAS[server], 1 if quick else repeat, share, tried, exports_only)
    asked = f"--workload {workload} --server {server}"
    asked += (f" --share {share}" if share else "") + (f" --part {part}" if part != 1 else "")
    asked += " --exports-only" if exports_only else ""
    _show("suite", f"suite {asked}", suite_benchmark.table(suite_benchmark.measure(plan)), quick, write)


@app.command()
def counting(quick: Quick = False, write: Write = False) -> None:
    """The requests that each command sends, by what they are for."""
    _show("counting", "counting", counting_benchmark.measure(quick), quick, write)


@app.command()
def journal(quick: Quick = False, write: Write = False) -> None:
    """The share of a command's time that its journal takes."""
    _show("journal", "journal", journal_benchmark.measure(quick), quick, write)


@app.command()
def own(quick: Quick = False, write: Write = False) -> None:
    """The processor time that amigrate itself takes."""
    _show("own", "own", own_benchmark.measure(quick), quick, write)


@app.command()
def profile(quick: Quick = False, write: Write = False) -> None:
    """Where the processor time of amigrate goes."""
    _show("profile", "profile", profile_benchmark.measure(quick), quick, write)


@app.command()
def concurrency(quick: Quick = False, write: Write = False) -> None:
    """The concurrency that is found while running, against the best fixed one."""
    _show("concurrency", "concurrency", concurrency_benchmark.measure(quick), quick, write)


@app.command("all")
def everything() -> None:
    """All of README.md beside this, from new runs: takes hours on a machine that does nothing else."""
    for command in ("concurrency", "counting", "journal", "own", "profile", *(f"suite {options}" for options in SUITE)):
        typer.echo(command)
        app([*command.split(), "--write"], standalone_mode=False)


def _show(section: str, command: str, table: str, quick: bool, write: bool) -> None:
    if quick and write:
        raise typer.BadParameter("--quick measures nothing; leave it out to write README.md")
    typer.echo(table)
    if write:
        results.keep(section, command, table)


if __name__ == "__main__":
    app()

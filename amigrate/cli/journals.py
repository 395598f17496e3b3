"""status and retry: what a command has done, from another terminal; and once more what failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from amigrate import jobs
from amigrate.cli import parameters as p
from amigrate.cli.run import ended, leave
from amigrate.options import Options
from amigrate.report.status import Statuses, show
from amigrate.session import Session

Place = Annotated[
    Path | None,
    typer.Argument(
        metavar="[DIR|STATE]",
        help="An archive, or the folder of a journal. Default: every journal in the state folder.",
        show_default=False,
    ),
]
Job = Annotated[Path, typer.Argument(metavar="DIR|STATE", help="An archive, or the folder of a journal.")]
ANY_OPTION = {"allow_extra_args": True, "ignore_unknown_options": True}


def status(place: Place = None, as_json: p.Json = False, debug: p.Debug = False) -> None:
    """Say how far a command has come: done, left, failed with the reasons, and how fast it goes.

    Also while it runs, from another terminal: nothing waits for this, and nothing is written.

    Example: amigrate status backup
    """

    async def look(_: Session) -> Statuses:
        return Statuses(jobs.jobs(place))

    leave(ended(_build("status", look), as_json=as_json, debug=debug), show, as_json=as_json)


@dataclass(frozen=True, slots=True)
class Found:
    """What retry has to run."""

    line: jobs.CommandLine
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        return {"command": [*self.line.words]}


def retry(context: typer.Context, place: Job) -> None:
    """Run the command of a journal again, for what failed or is unfinished.

    Any option of that command may follow, such as how to log in: passwords, tokens and headers are in no journal, so
    they come from the environment or from here. A command that did not come to its end is continued.

    Example: amigrate retry backup --concurrency 4
    """

    async def look(_: Session) -> Found:
        return Found(jobs.command_line(place, context.args))

    more = context.args
    found = ended(_build("retry", look), as_json="--json" in more, debug="--debug" in more)
    os.chdir(found.line.folder)
    sys.argv[1:] = found.line.words
    context.find_root().command.main(sys.argv[1:], prog_name="amigrate")


def _build(
    name: str, work: Callable[[Session], Coroutine[Any, Any, Any]]
) -> Callable[[], tuple[Options, Callable[[Session], Coroutine[Any, Any, Any]]]]:
    return lambda: (Options(name), work)

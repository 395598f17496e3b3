"""verify: whether two ends hold the same, or an archive what it says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console

from amigrate import commands
from amigrate.cli import parameters as p
from amigrate.cli.groups import NOBODY, Login, Renaming, command
from amigrate.cli.lists import patterns
from amigrate.cli.run import ended
from amigrate.options import Limits, Options, Selection, Verification
from amigrate.report.comparison import Comparison, show
from amigrate.session import Session

SHOWN = 50
"""Findings that standard error shows where standard output has them all as JSON."""


@dataclass(frozen=True, slots=True)
class Logins:
    """How to log in at both sides."""

    a_login: Annotated[Login, "source"] = NOBODY
    b_login: Annotated[Login, "target"] = NOBODY


@dataclass(frozen=True, slots=True)
class Compared:
    """What is compared, and how fast."""

    deleted: p.Deleted = False
    objects: p.Objects = "all"
    skip_objects: p.SkipObjects = ""
    experiments: p.AnyExperiments = None
    quick: p.Quick = False
    concurrency: p.Concurrency = 32
    max_requests_per_second: p.RequestsPerSecond = None
    memory: p.Memory = p.DEFAULT_MEMORY

    def options(self) -> Options:
        return Options(
            "verify",
            Limits(self.concurrency, self.max_requests_per_second, p.size_in_bytes(self.memory)),
            Selection(
                experiments=patterns(self.experiments, "--experiments"),
                deleted=self.deleted,
                objects=p.objects(self.objects),
                skip_objects=p.kinds(self.skip_objects, "--skip-objects"),
            ),
        )


@command
def verify(
    logins: Logins,
    compared: Compared,
    renaming: Renaming,
    a: p.SideA = None,
    b: p.SideB = None,
    verbose: p.Verbose = False,
    as_json: p.Json = False,
    debug: p.Debug = False,
) -> None:
    """Compare two servers, local stores or archives, object by object; or an archive with what it says of itself.

    Prints a line for each object that differs: * in both and different, - only in A, + only in B, ! one key claimed by
    two. Nothing is written. The exit code is 0 where everything is equal, else 3. The options of A begin with
    --source-, those of B with --target-, as in a copy.

    Example: amigrate verify http://old:5000 http://new:5000 --deleted
    """

    def build() -> tuple[Options, Callable[[Session], Coroutine[Any, Any, Comparison]]]:
        how = Verification(compared.quick, verbose, renaming.rules())
        one = logins.a_login.options(a, "source")
        if a and not b:
            return compared.options(), lambda session: commands.verify_archive(session, one, how)
        other = logins.b_login.options(b, "target")
        return compared.options(), lambda session: commands.verify(session, one, other, how)

    result = ended(build, as_json=as_json, debug=debug, interrupted="interrupted: nothing is known yet")
    if as_json:
        result.dump(sys.stdout)
    show(result, Console(stderr=as_json), most=SHOWN if as_json else None)
    raise typer.Exit(result.exit_code)

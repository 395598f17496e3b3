"""plan: what a move would come to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from amigrate import commands
from amigrate.cli import parameters as p
from amigrate.cli.groups import NOBODY, PLAN, Common, Everything, Login, Writing, command
from amigrate.cli.run import Work


@dataclass(frozen=True, slots=True)
class Logins:
    """How to log in at both ends."""

    source_login: Annotated[Login, "source"] = NOBODY
    target_login: Annotated[Login, "target"] = NOBODY


@command
def plan(
    logins: Logins,
    which: Everything,
    writing: Writing,
    common: Common,
    source: p.PlanSource = None,
    target: p.PlanTarget = None,
) -> None:
    """Say what a move from SOURCE to TARGET would come to. Nothing is written anywhere.

    Counts what would be made and what is there already, names what cannot be carried and why, and tells about how many
    points, bytes, requests and minutes it takes. The exit code is 1 where something would be lost. Every move takes
    --dry-run to the same effect.

    Example: amigrate plan http://old:5000 http://new:5000 --deleted
    """

    def work() -> Work:
        one = logins.source_login.options(source, "source")
        other = logins.target_login.options(target, "target") if target else None
        return lambda session: commands.plan(session, one, other)

    common.run(PLAN, work, which.selection, writing=writing)

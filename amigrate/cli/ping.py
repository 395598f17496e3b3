"""ping: what answers at an address, and what it can do."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from amigrate import commands
from amigrate.cli import parameters as p
from amigrate.cli.groups import Login, command
from amigrate.cli.run import ended, leave
from amigrate.options import Options
from amigrate.report.ping import Ping, show
from amigrate.session import Session


@command
def ping(login: Login, uri: p.Uri = None, as_json: p.Json = False, debug: p.Debug = False) -> None:
    """Say what answers at an address, what it can do, and how fast it is. Nothing is written.

    Example: amigrate ping http://mlflow:5000
    """

    def build() -> tuple[Options, Callable[[Session], Coroutine[Any, Any, Ping]]]:
        server = login.options(uri)
        return Options("ping"), lambda session: commands.ping(session, server)

    result = ended(build, as_json=as_json, debug=debug, interrupted="interrupted")
    leave(result, show, as_json=as_json)

"""demo: the whole way there and back between two private servers, for people who want to see it work."""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

import typer

from amigrate import commands
from amigrate.cli import parameters as p
from amigrate.cli.run import ended, leave
from amigrate.options import Options, Selection
from amigrate.report.demo import Demo, show
from amigrate.session import Session

LOOPBACK = "127.0.0.1"

Archive = Annotated[
    Path | None,
    typer.Option(
        "--output-dir", help="An empty or new folder for the archive. Default: a new temporary one.", show_default=False
    ),
]


def demo(output_dir: Archive = None, as_json: p.Json = False, debug: p.Debug = False) -> None:
    """Move a sample workspace between two private servers and compare them.

    Starts two MLflow servers on this machine, fills one, exports it into an archive, imports that into the other, and
    compares both object by object. The servers go away at the end, the archive stays. Needs: pip install
    'amigrate[local]'. The exit code is 0 where everything is equal.

    Example: amigrate demo
    """
    _spare_proxies()

    def build() -> tuple[Options, Callable[[Session], Coroutine[Any, Any, Demo]]]:
        options = Options("demo", selection=Selection(deleted=True))
        return options, lambda session: commands.demo(session, output_dir)

    result = ended(build, as_json=as_json, debug=debug, interrupted="interrupted: the private servers are gone")
    leave(result, show, as_json=as_json)


def _spare_proxies() -> None:
    """No proxy reaches our own loopback, whatever the environment says of other addresses."""
    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
    os.environ["no_proxy"] = f"{spared},{LOOPBACK}" if spared else LOOPBACK

"""Running one command from the terminal: logging, signals, the summary, the exit code."""

from __future__ import annotations

import asyncio
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine
from typing import Any

import typer
from rich.console import Console

from amigrate.commands import Session
from amigrate.core.errors import AmigrateError, leaf
from amigrate.options import Options, redacted
from amigrate.report.summary import EXIT_INTERRUPTED, EXIT_LOSS, Summary, dump, show

SECRETS = ("--password", "--token", "--source-password", "--source-token", "--target-password", "--target-token")
ADDRESSES = ("--tracking-uri", "--source", "--target")

Work = Callable[[Session], Coroutine[Any, Any, Summary]]


def run(build: Callable[[], tuple[Options, Work]], *, as_json: bool, debug: bool) -> None:
    """Build the options, do the work, show the summary, leave with its exit code."""
    errors = Console(stderr=True)
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    try:
        options, work = build()
        session = Session(options, errors, again(sys.argv))
        summary = asyncio.run(_interruptible(work(session)))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except asyncio.CancelledError:
        errors.print("interrupted before anything was moved", highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as raised:
        _explain(raised, errors, debug)
        cause = leaf(raised)
        raise typer.Exit(cause.exit_code if isinstance(cause, AmigrateError) else EXIT_LOSS) from None
    if as_json:
        sys.stdout.write(dump(summary.as_json()) + "\n")
        show(summary, errors)
    else:
        show(summary, Console())
    raise typer.Exit(summary.exit_code)


async def _interruptible(work: Coroutine[Any, Any, Summary]) -> Summary:
    """Ctrl-C and SIGTERM cancel the work once; it then sums up what was done."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def _explain(raised: Exception, console: Console, debug: bool) -> None:
    cause = leaf(raised)
    if debug:
        console.print("".join(traceback.format_exception(raised)), markup=False, highlight=False)
    if isinstance(cause, AmigrateError):
        text = f"error: {cause}"
    else:
        text = f"internal error: {type(cause).__name__}: {cause} (run again with --debug and report this)"
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def again(argv: list[str]) -> str:
    """The command that continues, without secrets: those are taken from the environment then."""
    shown, hide = ["amigrate"], ""
    for word in argv[1:]:
        name, equals, value = word.partition("=")
        if hide in SECRETS:
            word = "…"
        elif hide in ADDRESSES:
            word = redacted(word)
        elif equals and name in SECRETS:
            word = f"{name}=…"
        elif equals and name in ADDRESSES:
            word = f"{name}={redacted(value)}"
        hide = "" if hide else word
        shown.append(word)
    return shlex.join(shown)

"""Running one command from the terminal: logging, signals, the summary, the exit code."""

from __future__ import annotations

import asyncio
import gc
import logging
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console

from amigrate.core.errors import AmigrateError, leaf
from amigrate.options import ADDRESSES, SECRET, Options, redacted
from amigrate.report.summary import EXIT_INTERRUPTED, EXIT_LOSS, Summary, dump, plain, show
from amigrate.session import Session

ENDS = ("", "source-", "target-")
HIDDEN = frozenset(f"--{end}{name.replace('_', '-')}" for end in ENDS for name in SECRET)
"""Options whose values are never shown."""
SHORTENED = frozenset(f"--{end}{name.replace('_', '-')}" for end in ENDS for name in ADDRESSES) | {
    "--tracking-uri",
    "--source",
    "--target",
}
"""Options whose values are shown without the credentials that they may hold."""

Work = Callable[[Session], Coroutine[Any, Any, Summary]]


class Result(Protocol):
    """What a command ends with."""

    @property
    def exit_code(self) -> int: ...

    def as_json(self) -> dict[str, Any]: ...


R = TypeVar("R", bound=Result)


def run(build: Callable[[], tuple[Options, Work]], *, as_json: bool, debug: bool) -> None:
    """Build the options, do the work, show the summary, leave with its exit code."""
    leave(ended(build, as_json=as_json, debug=debug), show, as_json=as_json)


def ended(
    build: Callable[[], tuple[Options, Callable[[Session], Coroutine[Any, Any, R]]]],
    *,
    as_json: bool,
    debug: bool,
    interrupted: str = "interrupted before anything was moved",
) -> R:
    """Build the options and do the work; what fails is explained here, and leaves with the exit code it stands for."""
    errors = Console(stderr=True)
    # Only our own logger: the details of others (botocore's, httpcore's) hold signatures, tokens and cookies.
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("amigrate").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        options, work = build()
        session = Session(options, errors, again(sys.argv), without_secrets(sys.argv[1:]))
        _collect_seldom()
        return asyncio.run(_interruptible(work(session)))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except asyncio.CancelledError:
        errors.print(interrupted, highlight=False)
        _told(as_json, EXIT_INTERRUPTED, interrupted)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as raised:
        _explain(raised, errors, debug)
        cause = leaf(raised)
        code = cause.exit_code if isinstance(cause, AmigrateError) else EXIT_LOSS
        _told(as_json, code, str(cause))
        raise typer.Exit(code) from None


def _collect_seldom() -> None:
    """Points and answers come and go by the million, and none of them refers to itself: looking for such garbage after
    every 700 new objects took a seventh of the processor time (uvloop, measured beside it, saved nothing)."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


def _told(as_json: bool, code: int, error: str) -> None:
    """A script that asked for JSON gets JSON, also where nothing could be done."""
    if as_json:
        sys.stdout.write(dump({"exit_code": code, "error": error}) + "\n")


def leave(result: R, show: Callable[[R, Console], None], *, as_json: bool) -> NoReturn:
    """Show what a command ended with, and leave with its exit code."""
    if as_json:
        sys.stdout.write(dump(result.as_json()) + "\n")
        show(result, Console(stderr=True))
    else:
        show(result, Console())
    raise typer.Exit(result.exit_code)


async def _interruptible(work: Coroutine[Any, Any, R]) -> R:
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
    console.print("\n".join(map(plain, text.splitlines())), markup=False, highlight=False, soft_wrap=True)


def again(argv: list[str]) -> str:
    """The command that continues, without secrets: those are taken from the environment then."""
    return shlex.join(["amigrate", *(_discreet(before, word) for before, word in pairwise(argv))])


def without_secrets(words: Sequence[str]) -> list[str]:
    """A command line that can be kept: options whose values are secret are left out."""
    kept: list[str] = []
    for before, word in pairwise(["", *words]):
        name, equals, _ = word.partition("=")
        if word not in HIDDEN and before not in HIDDEN and not (equals and name in HIDDEN):
            kept.append(_discreet(before, word))
    return kept


def _discreet(before: str, word: str) -> str:
    """A word of a command line as it may be shown; the word before it may be the option whose value it is."""
    if before in HIDDEN:
        return "…"
    if before in SHORTENED:
        return redacted(word)
    name, equals, value = word.partition("=")
    if equals and name in HIDDEN:
        return f"{name}=…"
    return f"{name}={redacted(value)}" if equals and name in SHORTENED else word

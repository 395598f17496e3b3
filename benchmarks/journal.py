"""What the journal costs: its share of the time of an export, an import and a copy."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from types import FunctionType
from typing import Any

from rich.console import Console

from amigrate import commands
from amigrate.archive.layout import EXPERIMENTS
from amigrate.engine.journal import Journal
from amigrate.options import Options, ServerOptions
from amigrate.report.summary import Summary
from amigrate.session import Session
from benchmarks.workspace import QUICK, Size, fill
from tests.rest import Rest
from tests.servers import MlflowServer


@dataclass(frozen=True, slots=True)
class Share:
    """One command: its time, and the part of it that was spent in the journal."""

    command: str
    seconds: float
    journal: float

    def cells(self) -> list[str]:
        return [
            self.command,
            f"{self.seconds:.1f}",
            f"{self.journal:.2f}",
            f"{100 * self.journal / self.seconds:.1f} %",
        ]


class Stopwatch:
    """Adds up the time between the beginning and the end of the outermost call."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, timed."""

        @functools.wraps(method)
        def timed(*args: Any, **named: Any) -> Any:
            self._depth += 1
            start = time.perf_counter()
            try:
                return method(*args, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.perf_counter() - start

        return timed


@contextmanager
def watched() -> Iterator[Stopwatch]:
    """Time all that any journal does meanwhile. None of its methods waits for anything but the disk."""
    watch = Stopwatch()
    methods = {name: one for name, one in vars(Journal).items() if isinstance(one, FunctionType) and name[:2] != "__"}
    for name, method in methods.items():
        setattr(Journal, name, watch.around(method))
    try:
        yield watch
    finally:
        for name, method in methods.items():
            setattr(Journal, name, method)


def measure(quick: bool) -> str:
    """Seed a server, run every command once, render the table."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amigrate-benchmark-")))
        source, first, second = (
            stack.enter_context(MlflowServer(home / name)) for name in ("source", "imported", "copied")
        )
        with Rest(source.uri) as rest:
            fill(rest, QUICK if quick else Size())
        ends, archive = [ServerOptions(one.uri) for one in (source, first, second)], home / "archive"
        exported = _timed("export-all", home, lambda one: commands.export(one, ends[0], archive, EXPERIMENTS, False))
        imported = _timed("import-all", home, lambda one: commands.import_archive(one, ends[1], archive))
        copied = _timed("copy-all", home, lambda one: commands.copy(one, ends[0], ends[2]))
    return _rendered([exported, imported, copied])


def _timed(command: str, home: Path, work: Callable[[Session], Awaitable[Summary]]) -> Share:
    options = Options(command, state=None if command == "export-all" else home / f"journal of {command}")
    session = Session(options, Console(file=StringIO()), "")

    async def run() -> Summary:
        return await work(session)

    start = time.perf_counter()
    with watched() as watch:
        summary = asyncio.run(run())
    if summary.exit_code:
        raise RuntimeError(f"{command} ended with {summary.exit_code}: {summary.error or summary.losses}")
    return Share(command, time.perf_counter() - start, watch.seconds)


def _rendered(shares: Sequence[Share]) -> str:
    heads = ["command", "seconds", "of these in the journal", "share"]
    rows = [heads, ["---"] * len(heads), *(share.cells() for share in shares)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows) + "\n"

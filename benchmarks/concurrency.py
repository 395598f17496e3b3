"""Adaptive against fixed concurrency, on a small and on a larger server, in one run.

Each load runs for a few seconds at each fixed concurrency and with the defaults, in turn and more than once, so that
drift of the machine hits all of them alike. The adaptive guard starts cold each time, as it does in a migration.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from amigrate.client.api import Api
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.options import Limits
from benchmarks import load
from tests.servers import MlflowServer, PostgresServer

SECONDS = 15.0
ROUNDS = 2
QUICK_SECONDS = 0.5
LOADS: dict[str, Callable[[Api, str], load.Job]] = {
    "runs written": load.write_runs,
    "10 kB files uploaded": load.upload_files,
    "10 kB files downloaded": load.download_files,
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run a load: at a fixed concurrency, or adaptive below a ceiling."""

    title: str
    ceiling: int
    fixed: bool = False

    def guard(self) -> AdaptiveGuard:
        """A guard that starts cold, as it does in a migration."""
        return AdaptiveGuard(Requests(), ceiling=self.ceiling, pinned=self.ceiling if self.fixed else None)


def _fixed(*limits: int) -> tuple[Setting, ...]:
    return tuple(Setting(str(limit), limit, fixed=True) for limit in limits)


ADAPTIVE = (Setting("defaults", Limits().concurrency), Setting("`--concurrency 64`", 64))
FULL = (*_fixed(1, 2, 4, 8, 12), *ADAPTIVE)
QUICK = (*_fixed(1, 4), *ADAPTIVE)


@dataclass(frozen=True, slots=True)
class Row:
    """One load on one server: what each setting achieved."""

    server: str
    title: str
    tallies: dict[Setting, load.Tally]

    def cells(self) -> list[str]:
        """The row of the table."""
        rates = [f"{tally.rate:.1f}" for tally in self.tallies.values()]
        best = max(tally.rate for setting, tally in self.tallies.items() if setting.fixed)
        adaptive = [tally for setting, tally in self.tallies.items() if not setting.fixed]
        ratios = [f"{tally.rate / best:.2f}" for tally in adaptive]
        return [self.server, self.title, *rates, *ratios, str(sum(tally.failed for tally in adaptive))]


def measure(quick: bool) -> str:
    """Run everything and render the table as Markdown."""
    seconds = QUICK_SECONDS if quick else SECONDS
    settings = QUICK if quick else FULL
    rows = []
    for name, server in _servers(quick):
        with server() as uri:
            rows += [asyncio.run(_row(name, title, uri, settings, seconds)) for title in LOADS]
    return _rendered(rows, settings)


def _servers(quick: bool) -> Iterator[tuple[str, Callable[[], AbstractContextManager[str]]]]:
    yield "SQLite, 1 worker", lambda: _server(1, postgres=False)
    if not quick:
        yield "PostgreSQL, 4 workers", lambda: _server(4, postgres=True)


@contextmanager
def _server(workers: int, *, postgres: bool) -> Iterator[str]:
    """A private MLflow server, stopped afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amigrate-benchmark-")))
        backend = stack.enter_context(PostgresServer()).create_database() if postgres else None
        yield stack.enter_context(MlflowServer(folder, backend=backend, workers=workers)).uri


async def _row(server: str, title: str, uri: str, settings: Sequence[Setting], seconds: float) -> Row:
    async with load.connected(uri, settings[0].guard()) as api:
        warm = LOADS[title.replace("down", "up")](api, await load.new_experiment(api, f"{title}, to warm up"))
        await load.run(warm, seconds / 4)
    tallies = dict.fromkeys(settings, load.Tally(0, 0, 0.0))
    for number, setting in product(range(ROUNDS), settings):
        async with load.connected(uri, setting.guard()) as api:
            experiment = await load.new_experiment(api, f"{title} at {setting.title}, round {number}")
        if title.endswith("downloaded"):
            async with load.connected(uri, ADAPTIVE[0].guard()) as api:
                await load.put_samples(api, experiment)
        async with load.connected(uri, setting.guard()) as api:
            tallies[setting] += await load.run(LOADS[title](api, experiment), seconds)
    return Row(server, title, tallies)


def _rendered(rows: Sequence[Row], settings: Sequence[Setting]) -> str:
    heads = ["server", "load, per second", *(setting.title for setting in settings)]
    heads += [f"{setting.title} / best fixed" for setting in settings if not setting.fixed] + ["failed"]
    lines = [heads, ["---"] * len(heads), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"

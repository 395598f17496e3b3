"""Adaptive against fixed concurrency, on a small and on a larger server, in one run.

Each load runs for a few seconds at each fixed concurrency and with the defaults, in turn, so that drift of the machine
hits all of them alike. The adaptive guard starts cold each time, as it does in a migration.
"""

from __future__ import annotations

import asyncio
import os
import platform
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from amigrate.client.api import Api
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.options import Limits
from benchmarks import load
from tests.servers import MlflowServer, PostgresServer

FIXED = (1, 2, 4, 8, 12)
SECONDS = 8.0
QUICK_SECONDS = 0.5
ADAPTIVE = 0
"""Stands for the defaults among the settings."""
LOADS: dict[str, Callable[[Api, str], load.Job]] = {
    "runs written": load.write_runs,
    "10 kB files uploaded": load.upload_files,
    "10 kB files downloaded": load.download_files,
}


@dataclass(frozen=True, slots=True)
class Row:
    """One load on one server: what each setting achieved."""

    server: str
    title: str
    tallies: dict[int, load.Tally]
    limits: dict[str, int]

    def cells(self) -> list[str]:
        """The row of the table."""
        fixed = {setting: tally.rate for setting, tally in self.tallies.items() if setting != ADAPTIVE}
        best = max(fixed, key=lambda setting: fixed[setting])
        found = self.tallies[ADAPTIVE]
        return [
            self.server,
            self.title,
            *(f"{rate:.1f}" for rate in fixed.values()),
            f"{found.rate:.1f}",
            f"{found.rate / fixed[best]:.2f}",
            str(found.failed),
        ]


def measure(quick: bool) -> str:
    """Run everything and render the table as Markdown."""
    seconds = QUICK_SECONDS if quick else SECONDS
    settings = (1, 4, ADAPTIVE) if quick else (*FIXED, ADAPTIVE)
    rows = []
    for name, server in _servers(quick):
        with server() as uri:
            rows += [asyncio.run(_row(name, title, uri, settings, seconds)) for title in LOADS]
    return _rendered(rows, settings, seconds)


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


async def _row(server: str, title: str, uri: str, settings: Sequence[int], seconds: float) -> Row:
    tallies: dict[int, load.Tally] = {}
    limits: dict[str, int] = {}
    for setting in settings:
        guard = AdaptiveGuard(Requests(), ceiling=Limits().concurrency, pinned=setting or None)
        async with load.connected(uri, guard) as api:
            experiment = await load.new_experiment(api, f"{title} at {setting or 'defaults'}")
            if title.endswith("downloaded"):
                await load.put_samples(api, experiment)
            tallies[setting] = await load.run(LOADS[title](api, experiment), seconds)
        if setting == ADAPTIVE:
            limits = guard.concurrency()
    return Row(server, title, tallies, limits)


def _rendered(rows: Sequence[Row], settings: Sequence[int], seconds: float) -> str:
    heads = ["server", "load, per second", *(str(setting) for setting in settings if setting != ADAPTIVE)]
    heads += ["adaptive", "adaptive / best fixed", "failed"]
    lines = [heads, ["---"] * len(heads), *(row.cells() for row in rows)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"""# Benchmarks

Adaptive concurrency against fixed ones: each cell is one load for {seconds:g} s, all in one run. `failed` counts what
the adaptive setting gave up; its ceiling is the default of `--concurrency`.

{table}

Machine: {os.cpu_count()} cores, {_memory()} GiB, Python {platform.python_version()}, MLflow {version("mlflow")}; the
servers run on the same machine. Reproduce with `python -m benchmarks concurrency --write benchmarks/README.md`.
"""


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3)

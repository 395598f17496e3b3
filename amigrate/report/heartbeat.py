"""What `amigrate status` learns of a command while it runs: its counters, written into the journal every few seconds.

The objects themselves are in the journal anyway; what it does not hold is how many there will be, and how fast it goes.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from amigrate.core.errors import JournalError
from amigrate.core.model import Doc
from amigrate.engine.journal import PULSE, Journal
from amigrate.engine.stats import Stats
from amigrate.report.progress import time_left

INTERVAL = 2.0


@asynccontextmanager
async def beating(journal: Journal, stats: Stats) -> AsyncIterator[None]:
    """Write the counters while the body runs."""
    journal.note(PULSE, pulse(journal, stats, {}))
    task = asyncio.create_task(_beat(journal, stats))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _beat(journal: Journal, stats: Stats) -> None:
    before: Doc = {}
    with suppress(JournalError):  # The next write of the work itself says what is wrong.
        while True:
            await asyncio.sleep(INTERVAL)
            before = pulse(journal, stats, before)
            journal.note(PULSE, before)


def ended(journal: Journal, stats: Stats, code: int, error: str) -> None:
    """The last counters, and how the command ended."""
    end = {"ended": time.time(), "exit_code": code, "error": error}
    with suppress(JournalError):  # A full disk has been told of already.
        journal.note(PULSE, pulse(journal, stats, {}) | end)


def pulse(journal: Journal, stats: Stats, before: Doc) -> Doc:
    """The counters now; `recent` is what has come since the ones `before`."""
    now: Doc = {
        "session": journal.session,
        "pid": os.getpid(),
        "started": time.time() - stats.seconds,
        "now": time.time(),
        "seconds": stats.seconds,
        "listed": dict(stats.listed),
        "expected_runs": stats.expected_runs,
        "runs": stats.finished("run"),
        "points": stats.points,
        "bytes": stats.bytes,
        "requests": {"source": sum(stats.source.sent.values()), "target": sum(stats.sink.sent.values())},
        "seconds_left": time_left(stats),
    }
    if before:
        now["recent"] = {what: now[what] - before[what] for what in ("seconds", "runs", "points", "bytes")}
    return now

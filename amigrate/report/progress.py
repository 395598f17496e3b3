"""What is seen while a command runs: a live display on a terminal, plain log lines everywhere else.

The engine counts; this samples. Everything goes to standard error.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from amigrate.core.model import Status
from amigrate.engine.stats import Stats

LIVE_INTERVAL = 0.25
LINE_INTERVAL = 10.0

log = logging.getLogger("amigrate")


@asynccontextmanager
async def shown(stats: Stats, console: Console) -> AsyncIterator[None]:
    """Show progress while the body runs."""
    task = asyncio.create_task(_live(stats, console) if console.is_terminal else _lines(stats))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _live(stats: Stats, console: Console) -> None:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while True:
            live.update(picture(stats))
            await asyncio.sleep(LIVE_INTERVAL)


async def _lines(stats: Stats) -> None:
    while True:
        await asyncio.sleep(LINE_INTERVAL)
        log.info("%s", line(stats))


def line(stats: Stats) -> str:
    """Progress as one line of text."""
    runs, failed = stats.finished("run"), stats.done["run", Status.FAILED]
    parts = [
        f"experiments {stats.ended_experiments}/{stats.total_experiments}",
        f"runs {runs:,} of {stats.listed['run']:,} listed",
        f"points {stats.points:,}",
        f"files {_mebibytes(stats.bytes)}",
        f"{runs / max(stats.seconds, 0.001):.1f} runs/s",
    ]
    left = time_left(stats)
    if left is not None:
        parts.append(f"about {duration(left)} left")
    if failed:
        parts.append(f"{failed} failed")
    return ", ".join(parts)


def picture(stats: Stats) -> Group:
    """Progress as a bar and a line."""
    return Group(ProgressBar(total=1.0, completed=stats.share(), width=40), Text(line(stats)))


def time_left(stats: Stats) -> float | None:
    """Seconds left, by the share of runs that are done; None while that says nothing yet."""
    share = stats.share()
    return stats.seconds * (1 - share) / share if 0.01 <= share < 1 else None


def duration(seconds: float) -> str:
    """`1 h 02 min`, `3 min`, `12 s`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return time.strftime("%H h %M min", time.gmtime(seconds)).lstrip("0")


def _mebibytes(size: int) -> str:
    return f"{size / (1024 * 1024):,.1f} MiB"

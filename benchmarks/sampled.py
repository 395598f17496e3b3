"""amigrate with its processor time looked at: `python -m benchmarks.sampled FILE WORD...` writes to FILE where it went.

Every so often of its processor time, the nearest function of amigrate that is being worked for is noted by its module;
libraries count to who called them, and what only the event loop called, such as the arrival of bytes, to the libraries.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL = 0.002
"""Seconds of processor time between two looks."""
IMPORTING = "importlib._bootstrap"
LIBRARIES = "asyncio and aiohttp alone"
START = "start: importing modules"


def module_of(frame: FrameType | None) -> str:
    """The module of amigrate that a moment belongs to."""
    nearest = ""
    while frame is not None:
        name = str(frame.f_globals.get("__name__", ""))
        if name == IMPORTING:
            return START
        if name.startswith("amigrate.") and not nearest:
            nearest = name
        frame = frame.f_back
    return nearest or LIBRARIES


def main(result: str, *words: str) -> None:
    seen: Counter[str] = Counter()
    signal.signal(signal.SIGPROF, lambda _, frame: seen.update([module_of(frame)]))
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    sys.argv = ["amigrate", *words]
    try:
        from amigrate.cli.app import main as amigrate  # What importing takes is to be seen too.

        amigrate()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        Path(result).write_text(json.dumps({name: count * INTERVAL for name, count in seen.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""What one command takes, measured from outside: `python -m benchmarks.process FILE WORD...` writes it to FILE.

A process in between, because Linux counts the memory of whoever starts a program as that program's own: this one has
next to none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Usage(NamedTuple):
    """What a command took."""

    seconds: float
    cpu: float
    """Seconds of processor time."""
    memory: int
    """Bytes at the most."""


def measured(words: Sequence[str], env: Mapping[str, str]) -> Usage:
    """Run a command to its end. Raises `RuntimeError` with what it said where that was not a good one.

    Python keeps what it compiles, as pip does for what it installs, also where the environment says otherwise.
    """
    kept = {name: value for name, value in env.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.NamedTemporaryFile("r") as result, tempfile.TemporaryFile() as said:
        between = [sys.executable, "-S", "-m", __name__, result.name, *words]
        ended = subprocess.run(between, env=kept, stdout=said, stderr=subprocess.STDOUT, cwd=ROOT, check=False)
        if ended.returncode:
            said.seek(0)
            raise RuntimeError(f"{' '.join(words)}: {ended.returncode}\n{said.read()[-2000:].decode()}")
        return Usage(*json.load(result))


def main(result: str, *words: str) -> int:
    start = time.perf_counter()
    process = os.posix_spawn(words[0], words, os.environ)
    _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - start
    Path(result).write_text(json.dumps([seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

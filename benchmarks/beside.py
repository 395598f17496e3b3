"""Servers of our own in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.servers import LOOPBACK


@contextmanager
def beside(module: str, *words: object) -> Iterator[str]:
    """The address of a module's server, which prints its port when it is ready; gone afterwards."""
    command = [sys.executable, "-m", module, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://{LOOPBACK}:{process.stdout.readline().strip()}"
        finally:
            process.kill()

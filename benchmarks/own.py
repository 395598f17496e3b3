"""What amigrate itself costs: its processor time against servers that cost next to nothing.

Beside it, what the requests alone cost, sent by a bare loop that looks at no answer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks.beside import beside
from benchmarks.fake import METRICS, POINTS
from benchmarks.process import Usage, measured
from tests.servers import clean_environment

EXPERIMENTS, RUNS = 100, 40
QUICK = 3, 5
MEBIBYTE = 1024 * 1024
HEADS = ("command", "runs", "CPU s", "runs per CPU s", "MiB")


def measure(quick: bool) -> str:
    """Export from one fake, import into another one, copy from the first into a third."""
    with fake_source(quick) as (home, source, experiments, runs):
        archive = home / "archive"
        start = _run(home, "ping", source)
        rows = [_row("export", _run(home, "export-all", "--tracking-uri", source, "--output-dir", archive), start)]
        rows.append(("its requests alone", *_bare("export", source, experiments, runs)))
        for name, words in (
            ("import", ("import-all", "--input-dir", archive, "--tracking-uri")),
            ("copy", ("copy-all", "--source", source, "--target")),
        ):
            with beside("benchmarks.fake", 0, 1) as target:
                used = _run(home, *words, target)
                _check(target, experiments * runs)
            rows.append(_row(name, used, start))
            if name == "import":
                with beside("benchmarks.fake", 0, 1) as target:
                    rows.append(("its requests alone", *_bare("import", target, experiments, runs)))
        counted = [
            [name, str(experiments * runs), *_cells(cpu, memory, experiments * runs)] for name, cpu, memory in rows
        ]
    lines = [HEADS, ["---"] * len(HEADS), *counted]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


@contextmanager
def fake_source(quick: bool) -> Iterator[tuple[Path, str, int, int]]:
    """A folder to work in, and the address of a fake with so many experiments of so many runs each."""
    experiments, runs = QUICK if quick else (EXPERIMENTS, RUNS)
    with (
        tempfile.TemporaryDirectory(prefix="amigrate-benchmark-") as folder,
        beside("benchmarks.fake", experiments, runs) as source,
    ):
        yield Path(folder), source, experiments, runs


def _bare(what: str, uri: str, experiments: int, runs: int) -> tuple[float, int]:
    """Processor seconds of the same requests without amigrate; its memory is of no interest."""
    command = [sys.executable, "-m", "benchmarks.bare", what, uri, str(experiments), str(runs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout), 0


def _row(name: str, used: Usage, start: Usage) -> tuple[str, float, int]:
    """Without what it takes to start and to say goodbye."""
    return name, used.cpu - start.cpu, used.memory


def _cells(cpu: float, memory: int, runs: int) -> Sequence[str]:
    return f"{cpu:.2f}", f"{runs / cpu:,.0f}", f"{memory / MEBIBYTE:.0f}" if memory else ""


def _run(home: Path, *words: str | Path) -> Usage:
    """What one command takes."""
    env = clean_environment() | {"XDG_STATE_HOME": str(home / "state"), "HOME": str(home)}
    return measured([sys.executable, "-m", "amigrate", *map(str, words)], env)


def _check(target: str, runs: int) -> None:
    """A move that moves nothing would be very fast."""
    with requests.Session() as session:
        session.trust_env = False
        counts = json.loads(session.get(f"{target}/counts", timeout=10).content)
    if (counts["runs"], counts["points"]) != (runs, runs * METRICS * POINTS):
        raise RuntimeError(f"{counts} arrived instead of {runs} runs of {METRICS} times {POINTS} points")

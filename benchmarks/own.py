"""What amigrate itself costs: its processor time against servers that cost next to nothing.

Beside it, what the requests alone cost, sent by a bare loop that looks at no answer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import requests

from benchmarks.beside import beside
from benchmarks.fake import METRICS, POINTS
from tests.servers import clean_environment

EXPERIMENTS, RUNS = 100, 40
QUICK = 3, 5
HEADS = ("command", "runs", "CPU s", "runs per CPU s", "MiB")


def measure(quick: bool) -> str:
    """Export from one fake, import into another one, copy from the first into a third."""
    experiments, runs = QUICK if quick else (EXPERIMENTS, RUNS)
    with (
        tempfile.TemporaryDirectory(prefix="amigrate-benchmark-") as folder,
        beside("benchmarks.fake", experiments, runs) as source,
    ):
        home, archive = Path(folder), Path(folder) / "archive"
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


def _bare(what: str, uri: str, experiments: int, runs: int) -> tuple[float, int]:
    """Processor seconds and kilobytes of the same requests without amigrate."""
    command = [sys.executable, "-m", "benchmarks.bare", what, uri, str(experiments), str(runs)]
    cpu, memory = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(cpu), int(memory)


def _row(name: str, used: tuple[float, int], start: tuple[float, int]) -> tuple[str, float, int]:
    """Without what it takes to start and to say goodbye."""
    return name, used[0] - start[0], used[1]


def _cells(cpu: float, memory: int, runs: int) -> Sequence[str]:
    return f"{cpu:.2f}", f"{runs / cpu:,.0f}", f"{memory / 1024:.0f}"


def _run(home: Path, *words: str | Path) -> tuple[float, int]:
    """Processor seconds and kilobytes of one command."""
    env = clean_environment() | {"XDG_STATE_HOME": str(home / "state"), "HOME": str(home)}
    process = subprocess.Popen(
        [sys.executable, "-m", "amigrate", *map(str, words)],
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{words[0]} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def _check(target: str, runs: int) -> None:
    """A move that moves nothing would be very fast."""
    with requests.Session() as session:
        session.trust_env = False
        counts = json.loads(session.get(f"{target}/counts", timeout=10).content)
    if (counts["runs"], counts["points"]) != (runs, runs * METRICS * POINTS):
        raise RuntimeError(f"{counts} arrived instead of {runs} runs of {METRICS} times {POINTS} points")

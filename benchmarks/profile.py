"""Where the processor time of amigrate goes: microseconds for each run, by the part of amigrate that takes them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from benchmarks.beside import beside
from benchmarks.own import fake_source
from benchmarks.process import ROOT
from tests.servers import clean_environment

COMMANDS = ("export", "import", "copy")
APART = ("amigrate.engine.journal", "amigrate.client.http")
"""Modules that are shown alone, not with their room."""


def measure(quick: bool) -> str:
    """The same moves as `own`, each looked at while it runs."""
    with fake_source(quick) as (home, source, experiments, runs):
        archive = home / "archive"
        found = [_looked_at(home, "export-all", "--tracking-uri", source, "--output-dir", archive)]
        for words in (
            ("import-all", "--input-dir", archive, "--tracking-uri"),
            ("copy-all", "--source", source, "--target"),
        ):
            with beside("benchmarks.fake", 0, 1) as target:
                found.append(_looked_at(home, *words, target))
    return _table(found, experiments * runs)


def _looked_at(home: Path, *words: str | Path) -> Counter[str]:
    """Seconds by room."""
    result = home / "seen.json"
    env = clean_environment() | {"XDG_STATE_HOME": str(home / "state"), "HOME": str(home)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "benchmarks.sampled", str(result), *map(str, words)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-2000:]}")
    rooms: Counter[str] = Counter()
    for module, seconds in json.loads(result.read_text()).items():
        rooms[_room(module)] += seconds
    return rooms


def _room(module: str) -> str:
    """The package of a module of amigrate; some modules stand for themselves."""
    if not module.startswith("amigrate."):
        return module
    return module if module in APART else ".".join(module.split(".")[:2])


def _table(found: list[Counter[str]], runs: int) -> str:
    """Microseconds for each run, the dearest room first."""
    total = sum(found, Counter())
    lines = [("microseconds for each run", *COMMANDS), ("---",) * (1 + len(COMMANDS))]
    lines += [(room, *(_micros(one, room, runs) for one in found)) for room, _ in total.most_common()]
    lines.append(("**all**", *(f"{1e6 * sum(one.values()) / runs:,.0f}" for one in found)))
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _micros(one: Mapping[str, float], room: str, runs: int) -> str:
    return f"{1e6 * one.get(room, 0) / runs:,.0f}"

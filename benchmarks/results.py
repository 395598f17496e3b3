"""`benchmarks/README.md`: the tables of the last full runs, each with the command that makes it again.

A run of one row takes minutes, all of them take hours, so each is kept when it ends: `results.json` holds what the
page is made of.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

RESULTS = Path(__file__).with_name("results.json")
PAGE = Path(__file__).with_name("README.md")

SECTIONS: Mapping[str, tuple[str, str]] = {
    "suite": (
        "amigrate, the limit and the peer",
        "Each row is the median of three runs. *The limit* is the fewest requests that can carry the work, sent by a\n"
        "bare loop at the best of some fixed concurrencies; for a copy, the slower of its two sides. The start of a\n"
        "command, most of a second, counts as its time; the limit's loop has started already. *The peer* is\n"
        "mlflow-export-import 1.2.1, with its threads or without, whichever is faster; where it got a part of the\n"
        "work, the row says which, and amigrate is compared on the same part. Requests are\n"
        "counted by the server's log.",
    ),
    "concurrency": (
        "The concurrency that is found while running",
        "Adaptive concurrency against fixed ones, in one run, each adaptive guard started cold. `defaults` is\n"
        "amigrate as it comes; `failed` counts what the adaptive settings gave up.",
    ),
    "counting": ("Requests by purpose", "What each command sends to either end, by what it is for."),
    "journal": ("What the journal costs", "The share of each command's time that is spent in its journal."),
    "own": (
        "What amigrate itself costs",
        "Its processor time against servers that cost next to nothing: runs of 10 metrics of 10 points.",
    ),
    "profile": (
        "Where that goes",
        "The same moves, looked at every two milliseconds of their processor time; looking takes some too.\n"
        "Libraries count to the part of amigrate that called them. What the requests alone cost a bare loop, shown\n"
        "above, lies in `amigrate.client.http` and in what only the event loop called.",
    ),
}
"""The title of each, and what its table says."""


def keep(section: str, command: str, table: str) -> None:
    """Remember what a command printed, in the place of what it printed before, and write the page again."""
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    results.setdefault(section, {})[command] = {"table": table.strip(), "machine": _machine()}
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    PAGE.write_text(page(results), "utf-8")


def page(results: Mapping[str, Mapping[str, Mapping[str, str]]]) -> str:
    """The whole page, as Markdown."""
    parts = ["# Benchmarks", "Measured on real MLflow servers on loopback, which run on the same machine as amigrate."]
    for section, (title, says) in SECTIONS.items():
        if found := results.get(section):
            commands = "\n".join(f"python -m benchmarks {command} --write" for command in found)
            machines = "; ".join(sorted({one["machine"] for one in found.values()}))
            tables = _joined([one["table"] for one in found.values()])
            parts += [f"## {title}", says, *tables, f"Machine: {machines}. Again with", f"```\n{commands}\n```"]
    return "\n\n".join(parts) + "\n"


def _joined(tables: Sequence[str]) -> list[str]:
    """Tables with the same head become one."""
    split = [table.split("\n") for table in tables]
    return [
        "\n".join([*head, *(line for lines in same for line in lines[2:])])
        for head, same in groupby(sorted(split, key=lambda lines: lines[:2]), key=lambda lines: lines[:2])
    ]


def _machine() -> str:
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3)
    return f"{os.cpu_count()} cores, {memory} GiB, Python {platform.python_version()}, MLflow {version('mlflow')}"

"""What the demonstration did: two moves, a comparison, and an archive to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from amigrate.report import comparison, summary
from amigrate.report.comparison import Comparison
from amigrate.report.summary import EXIT_DONE, EXIT_LOSS, Summary

SHOWN = 50
"""Differences that the terminal shows."""


@dataclass(slots=True)
class Demo:
    """The end of a demonstration; without a comparison where a move did not come to its end."""

    archive: Path
    moves: Sequence[Summary]
    comparison: Comparison | None = None

    @property
    def exit_code(self) -> int:
        """That of the first move that went wrong; else that of the comparison."""
        wrong = next((move.exit_code for move in self.moves if move.exit_code), EXIT_DONE)
        return wrong or (self.comparison.exit_code if self.comparison else EXIT_LOSS)

    def as_json(self) -> dict[str, Any]:
        """For machines; stable names."""
        return {
            "command": "demo",
            "exit_code": self.exit_code,
            "archive": str(self.archive),
            "moves": [move.as_json() for move in self.moves],
            "comparison": self.comparison.as_json() if self.comparison else None,
        }


def step(console: Console, text: str) -> None:
    """Say what is done now."""
    console.print(f"[dim]{text} …[/dim]", highlight=False, soft_wrap=True)


def show(demo: Demo, console: Console) -> None:
    """The demonstration for people."""
    for move in demo.moves:
        summary.show(move, console)
        console.print()
    if demo.comparison is not None:
        comparison.show(demo.comparison, console, most=SHOWN)
        console.print()
    console.print(f"the archive is yours to look at: {demo.archive}", highlight=False, markup=False, soft_wrap=True)

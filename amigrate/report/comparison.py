"""What a comparison found: totals by kind, and every object that is not the same on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from amigrate.core.model import Finding
from amigrate.report.summary import label

MEANINGS = {"=": "equal", "*": "different", "-": "only in A", "+": "only in B", "!": "ambiguous"}
KEPT = 1000
"""Differences that are kept; the rest is counted."""
SHOWN = 50
"""Differences that the terminal shows."""


@dataclass(slots=True)
class Comparison:
    """A against B."""

    a: str
    b: str
    totals: dict[str, Counter[str]] = field(default_factory=dict)
    """By kind, how many objects got which sigil."""
    differences: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it where it is a difference."""
        self.totals.setdefault(finding.ref.kind, Counter())[finding.sigil] += 1
        if finding.sigil != "=" and len(self.differences) < KEPT:
            self.differences.append(finding)

    @property
    def different(self) -> int:
        """Objects that are not the same on both sides."""
        return sum(counts.total() - counts["="] for counts in self.totals.values())

    def as_json(self) -> dict[str, Any]:
        """For machines; stable names."""
        return {
            "a": self.a,
            "b": self.b,
            "equal": not self.different,
            "objects": {
                label(kind): {sigil: counts[sigil] for sigil in MEANINGS} for kind, counts in self.totals.items()
            },
            "differences": [
                {"sigil": one.sigil, "kind": one.ref.kind, "id": one.ref.id, "key": one.ref.key}
                | {"name": one.name, "detail": one.detail}
                for one in self.differences
            ],
        }


def show(comparison: Comparison, console: Console) -> None:
    """The comparison for people."""
    console.print(f"[bold]comparison[/bold]  A {comparison.a}   B {comparison.b}", highlight=False)
    console.print(_table(comparison))
    for line in _lines(comparison):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for sigil, meaning in MEANINGS.items():
        table.add_column(f"{sigil} {meaning}", justify="right")
    for kind, counts in comparison.totals.items():
        table.add_row(label(kind), *(f"{counts[sigil]:,}" for sigil in MEANINGS))
    return table


def _lines(comparison: Comparison) -> Iterator[str]:
    for finding in comparison.differences[:SHOWN]:
        yield describe(finding)
    if comparison.different > SHOWN:
        yield f"… and {comparison.different - SHOWN:,} more"
    total = sum(counts.total() for counts in comparison.totals.values())
    if comparison.different:
        yield f"{comparison.different:,} of {total:,} objects are not the same on both sides"
    else:
        yield f"all {total:,} objects are the same on both sides"


def describe(finding: Finding) -> str:
    """One finding as one line."""
    name = f" '{finding.name}'" if finding.name and finding.name != finding.ref.id else ""
    detail = f": {finding.detail}" if finding.detail else ""
    parent = f" of {finding.ref.parent}" if finding.ref.parent else ""
    return f"{finding.sigil} {finding.ref.kind} {finding.ref.id}{name}{parent}{detail}"

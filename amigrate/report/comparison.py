"""What a comparison found: totals by kind, and every object that is not the same on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any, TextIO

from rich.console import Console
from rich.table import Table

from amigrate.core import codec
from amigrate.core.model import Doc, Finding
from amigrate.engine.stats import Stats
from amigrate.report.summary import EXIT_DONE, label, plain
from amigrate.report.units import size

MEANINGS = {"=": "equal", "*": "different", "-": "only in A", "+": "only in B", "!": "ambiguous"}
ALONE = {"=": "whole", "*": "damaged", "-": "missing", "+": "not listed", "!": "ambiguous"}
"""The same for an archive that is compared with what it says of itself."""
KEPT = 1000
"""Differences that are held in memory; the others are counted."""
EXIT_DIFFERENT = 3


class Lines:
    """Findings on their way to the output, on disk: there may be millions."""

    def __init__(self) -> None:
        self._file: IO[bytes] = TemporaryFile()  # noqa: SIM115 - it goes with whoever holds it
        self.number = 0

    def add(self, finding: Finding) -> None:
        self._file.write(codec.dumps([as_json(finding), describe(finding)]) + b"\n")
        self.number += 1

    def __iter__(self) -> Iterator[tuple[Doc, str]]:
        """Each as a JSON object and as a line for people."""
        self._file.seek(0)
        for line in self._file:
            told, text = codec.loads(line)
            yield told, text


@dataclass(slots=True)
class Comparison:
    """A against B, or where there is no B, an archive against what it says of itself."""

    a: str
    b: str = ""
    stats: Stats = field(default_factory=Stats)
    quick: bool = False
    verbose: bool = False
    """Whether what is equal is told too."""
    not_compared: Sequence[str] = ()
    """Kinds that nobody looked at."""
    totals: dict[str, Counter[str]] = field(default_factory=dict)
    """By kind, how many objects got which sigil."""
    lines: Lines = field(default_factory=Lines)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it where it is to be told."""
        self.totals.setdefault(finding.ref.kind, Counter())[finding.sigil] += 1
        if finding.sigil != "=" or self.verbose:
            self.lines.add(finding)

    @property
    def different(self) -> int:
        """Objects that are not the same on both sides."""
        return self.objects - sum(counts["="] for counts in self.totals.values())

    @property
    def objects(self) -> int:
        return sum(counts.total() for counts in self.totals.values())

    @property
    def exit_code(self) -> int:
        return EXIT_DIFFERENT if self.different else EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        """For machines; stable names. Of more than `KEPT` findings the first ones: `dump` has all of them."""
        told = [one for one, _ in self.lines][:KEPT] if self.lines.number else []
        return self._head() | {"differences": told}

    def dump(self, out: TextIO) -> None:
        """The same with every finding, one on a line."""
        out.write(codec.pretty(self._head()).decode().removesuffix("\n}") + ',\n  "differences": [')
        for number, (told, _) in enumerate(self.lines):
            out.write(("," if number else "") + "\n    " + codec.dumps(told).decode())
        out.write("\n  ]\n}\n" if self.lines.number else "]\n}\n")

    def _head(self) -> dict[str, Any]:
        return {
            "command": "verify",
            "exit_code": self.exit_code,
            "a": self.a,
            "b": self.b or None,
            "equal": not self.different,
            "different": self.different,
            "objects": {
                label(kind): {sigil: counts[sigil] for sigil in MEANINGS} for kind, counts in self.totals.items()
            },
            "quick": self.quick,
            "not_compared": list(self.not_compared),
            "metric_points": self.stats.points,
            "bytes": self.stats.bytes,
            "requests": {"a": self.stats.source.sent.total(), "b": self.stats.sink.sent.total()},
            "seconds": round(self.stats.seconds, 3),
            "warnings": list(self.stats.notes.warnings),
        }


def as_json(finding: Finding) -> Doc:
    """One finding for machines."""
    ref = finding.ref
    told = {"sigil": finding.sigil, "kind": ref.kind, "id": ref.id, "key": ref.key}
    return told | {"name": finding.name, "detail": finding.detail}


def show(comparison: Comparison, console: Console, most: int | None = None) -> None:
    """The comparison for people: every finding on a line, or `most` of them."""
    _say(console, f"comparison  A {comparison.a}   B {comparison.b}" if comparison.b else f"archive  {comparison.a}")
    for number, (_, line) in enumerate(comparison.lines):
        if number == most:
            _say(console, f"… and {comparison.lines.number - number:,} more")
            break
        _say(console, line)
    console.print(_table(comparison))
    for line in _end(comparison):
        _say(console, line)


def _say(console: Console, text: str) -> None:
    console.print(plain(text), highlight=False, markup=False, soft_wrap=True)


def _table(comparison: Comparison) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    meanings = MEANINGS if comparison.b else ALONE
    for sigil, meaning in meanings.items():
        table.add_column(f"{sigil} {meaning}", justify="right")
    for kind, counts in comparison.totals.items():
        table.add_row(label(kind), *(f"{counts[sigil]:,}" for sigil in meanings))
    return table


def _end(comparison: Comparison) -> Iterator[str]:
    stats = comparison.stats
    sent = stats.source.sent.total() + stats.sink.sent.total()
    content = "sizes of files only" if comparison.quick else f"{size(stats.bytes)} of files"
    yield f"{stats.points:,} metric points, {content}, {sent:,} requests, {stats.seconds:.1f} s"
    for warning in stats.notes.warnings:
        yield f"warning: {warning}"
    if comparison.not_compared:
        yield f"not compared: {', '.join(comparison.not_compared)}"
    total, different = comparison.objects, comparison.different
    if comparison.b:
        yield (
            f"{different:,} of {total:,} objects are not the same on both sides"
            if different
            else f"all {total:,} objects are the same on both sides"
        )
    else:
        yield (
            f"{different:,} of {total:,} objects are not as the archive says"
            if different
            else f"all {total:,} objects are as the archive says"
        )


def describe(finding: Finding) -> str:
    """One finding as one line."""
    name = f" '{finding.name}'" if finding.name and finding.name != finding.ref.id else ""
    detail = f": {finding.detail}" if finding.detail else ""
    parent = f" of {finding.ref.parent}" if finding.ref.parent else ""
    return f"{finding.sigil} {finding.ref.kind} {finding.ref.id}{name}{parent}{detail}"

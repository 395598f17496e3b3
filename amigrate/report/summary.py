"""The end of a command: totals, losses, paths, and the exit code that follows from them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from amigrate.core import codec
from amigrate.core.model import Status
from amigrate.engine.rehearsal import Expected
from amigrate.engine.stats import Requests, Stats
from amigrate.report.plan import planned, told
from amigrate.report.units import size

PARTS = {
    "param": "params",
    "tag": "tags",
    "metric": "metrics",
    "dataset-input": "dataset-inputs",
    "source": "sources",
    "assessment": "assessments",
    "icons": "icons",
    "linked-trace": "linked-traces",
    "question": "questions",
    "review": "reviews",
    "reviewer": "reviewers",
    "grant": "grants",
    "scorer_version": "scorer-versions",
    "online_config": "online-configs",
    "output": "outputs",
}
"""Parts of objects that may be lost alone, and what `--accept-loss` calls them."""
SHOWN = 20
"""Losses that the terminal shows; the report has them all."""

WOULD = {Status.CREATED: "create", Status.UPDATED: "complete"}
"""What the columns mean where nothing has moved."""

EXIT_DONE = 0
EXIT_LOSS = 1
EXIT_INTERRUPTED = 130


@dataclass(slots=True)
class Summary:
    """What one command did."""

    command: str
    source: str
    target: str
    stats: Stats
    totals: dict[str, dict[Status, int]]
    losses: Sequence[dict[str, object]]
    """The first losses that are not accepted."""
    lost: int = 0
    """Objects failed or left behind that were not accepted as a loss."""
    accepted: int = 0
    report: Path | None = None
    id_map: Path | None = None
    exit_code: int = EXIT_DONE
    error: str = ""
    resume: str = ""
    """The command that continues."""
    caveats: Sequence[str] = field(default_factory=tuple)
    """What this kind of move never carries: the fidelity table in short."""
    parts: Mapping[str, Summary] = field(default_factory=dict)
    """Where workspaces were moved: what became of each."""
    plan: Expected | None = None
    """What the move would come to, where nothing has moved."""

    def as_json(self) -> dict[str, Any]:
        """The summary for machines; stable names."""
        return {
            "command": self.command,
            "source": self.source,
            "target": self.target,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "resume": self.resume or None,
            "seconds": round(self.stats.seconds, 3),
            "objects": _objects(self.totals),
            "not_read_again": {label(kind): count for kind, count in sorted(self.stats.unread.items())},
            "deleted_at_source": {label(kind): count for kind, count in sorted(self.stats.vanished.items())},
            "metric_points": self.plan.rows if self.plan else self.stats.points,
            "bytes": self.plan.bytes if self.plan else self.stats.bytes,
            "plan": planned(self.plan) if self.plan else None,
            "lost": self.lost,
            "accepted_losses": self.accepted,
            "losses": list(self.losses),
            "warnings": list(self.stats.notes.warnings),
            "not_looked_for": list(self.stats.notes.unseen),
            "never_carried": list(self.caveats),
            "requests": {"source": _requests(self.stats.source), "target": _requests(self.stats.sink)},
            "report": str(self.report) if self.report else None,
            "id_map": str(self.id_map) if self.id_map else None,
            **({"workspaces": {name: _part(part) for name, part in self.parts.items()}} if self.parts else {}),
        }


def _objects(totals: Mapping[str, Mapping[Status, int]]) -> dict[str, dict[str, int]]:
    return {
        label(kind): {str(status): count for status, count in counts.items()} for kind, counts in sorted(totals.items())
    }


def _part(part: Summary) -> dict[str, Any]:
    """What the whole says of one workspace; its own report has the rest."""
    return {
        "source": part.source,
        "target": part.target,
        "exit_code": part.exit_code,
        "error": part.error or None,
        "objects": _objects(part.totals),
        "lost": part.lost,
        "report": str(part.report) if part.report else None,
        "id_map": str(part.id_map) if part.id_map else None,
    }


def label(kind: str) -> str:
    """The plural of a kind as people read it and `--accept-loss` takes it; what is counted whole has it already."""
    return kind if kind.endswith("s") or kind == "gateway" else f"{kind.replace('_', '-')}s"


def _requests(requests: Requests) -> dict[str, Any]:
    return {
        "sent": sum(requests.sent.values()),
        "by_class": {str(work): count for work, count in requests.sent.items()},
        "retried": requests.retried,
        "overloads": requests.overloads,
        "concurrency": requests.concurrency,
    }


def show(summary: Summary, console: Console) -> None:
    """The summary for people."""
    console.print(f"[bold]{summary.command}[/bold]  {summary.source} → {summary.target}", highlight=False)
    console.print(_table(summary))
    for line in (*(told(summary.plan) if summary.plan else _moved(summary.stats)), *_lines(summary)):
        console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def _moved(stats: Stats) -> Iterator[str]:
    sent = sum(stats.source.sent.values()) + sum(stats.sink.sent.values())
    yield (
        f"{stats.points:,} metric points, {size(stats.bytes)} of files, {sent:,} requests"
        f" ({stats.source.retried + stats.sink.retried} repeated), {stats.seconds:.1f} s"
    )


def warn(console: Console, text: str) -> None:
    """Say something at once that cannot wait for the summary."""
    console.print(f"warning: {text}", style="bold red", highlight=False, markup=False, soft_wrap=True)


def _lines(summary: Summary) -> Iterator[str]:
    for warning in summary.stats.notes.warnings[:SHOWN]:
        yield f"warning: {warning}"
    for unseen in summary.stats.notes.unseen:
        yield f"not looked for: {unseen}"
    for loss in summary.losses[:SHOWN]:
        yield f"{loss['status']}: {describe(loss)}: {loss.get('reason', '')}"
    if len(summary.losses) > SHOWN:
        yield "… and more: the report has all of them"
    if runs := summary.stats.unread["run"]:
        yield f"{runs:,} ended runs were not read again: --recheck looks for points and files added to them since"
    if vanished := {kind: count for kind, count in summary.stats.vanished.items() if count}:
        told = ", ".join(f"{count:,} {label(kind)}" for kind, count in vanished.items())
        yield f"deleted at the source since they were carried: {told}; --propagate-deletes deletes them here too"
    for name, part in summary.parts.items():
        yield f"workspace {name}: {_in_short(part)}"
    if summary.caveats:
        yield "never carried: " + "; ".join(summary.caveats) + " (see the fidelity table in the README)"
    if summary.report:
        yield f"report: {summary.report}"
    if summary.id_map:
        yield f"id map: {summary.id_map}"
    if summary.error:
        yield summary.error
    if summary.resume:
        yield f"continue with: {summary.resume}"


def _in_short(part: Summary) -> str:
    """One workspace in a line."""
    counts: Counter[Status] = Counter()
    for one in part.totals.values():
        counts.update(one)
    told = ", ".join(f"{counts[status]:,} {status}" for status in Status if counts[status]) or "nothing in it"
    return f"{told}{f'; {part.error}' if part.error else ''} (report: {part.report})"


def plain(text: str) -> str:
    """A line that a terminal takes for nothing but text: names may hold control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda match: f"\\x{ord(match[0]):02x}", text)


def describe(loss: dict[str, object]) -> str:
    """One object in words."""
    place = f"workspace {loss['workspace']}: " if loss.get("workspace") else ""
    count = loss.get("count")
    if isinstance(count, int) and loss.get("id") == "*" and "/" not in str(loss.get("key", "")):
        return f"{place}{count} {label(str(loss['kind']))}"
    name = f" '{loss['name']}'" if loss.get("name") and loss.get("name") != loss.get("id") else ""
    return f"{place}{loss['kind']} {loss.get('key') or loss['id']}{name}"


def _table(summary: Summary) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for status in Status:
        table.add_column(WOULD.get(status, str(status)) if summary.plan else str(status), justify="right")
    for kind, counts in summary.totals.items():
        table.add_row(label(kind), *(f"{counts.get(status, 0):,}" for status in Status))
    return table


def dump(value: object) -> str:
    """JSON for standard output."""
    return codec.pretty(value).decode()

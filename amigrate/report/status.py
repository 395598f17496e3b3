"""What a journal says, for people and for machines: done, left, failed with the reasons, how fast it goes."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from amigrate.core.model import Doc, Status
from amigrate.engine.ledger import Ledger
from amigrate.report.progress import duration
from amigrate.report.summary import EXIT_DONE, EXIT_INTERRUPTED, EXIT_LOSS, label, plain

DONE = (Status.CREATED, Status.UPDATED, Status.PRESENT)
ENDS = {EXIT_DONE: "done", EXIT_LOSS: "done, with losses", EXIT_INTERRUPTED: "interrupted"}
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Statuses:
    """The journals that were asked for."""

    ledgers: Sequence[Ledger]
    exit_code: int = EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        return {"journals": [_as_json(one) for one in self.ledgers]}


def _as_json(ledger: Ledger) -> Doc:
    pulse = ledger.pulse
    return {
        "journal": str(ledger.folder),
        "job": ledger.ends,
        "command": (ledger.command.get("argv") or [None])[0],
        "state": state(ledger),
        "session": ledger.session,
        "pid": pulse.get("pid") if ledger.running else None,
        "started": pulse.get("started"),
        "ended": pulse.get("ended"),
        "exit_code": None if ledger.running else pulse.get("exit_code"),
        "error": pulse.get("error") or None,
        "seconds": pulse.get("seconds"),
        "seconds_left": pulse.get("seconds_left") if ledger.running else None,
        "objects": {
            label(kind): {
                **{str(status): count for status, count in counts.items()},
                "done": done(ledger, kind),
                "left": left(ledger, kind),
            }
            for kind, counts in sorted(ledger.totals.items())
        },
        "unfinished": {label(kind): count for kind, count in sorted(ledger.open.items())},
        "reasons": [
            {
                "kind": one.kind,
                "status": str(one.status),
                "reason": one.reason,
                "count": one.count,
                "such_as": one.example,
            }
            for one in ledger.reasons
        ],
        "metric_points": pulse.get("points"),
        "bytes": pulse.get("bytes"),
        "requests": pulse.get("requests"),
        "rates": _rates(pulse),
        "recent_rates": _rates(pulse.get("recent") or {}) if ledger.running else None,
    }


def state(ledger: Ledger) -> str:
    """What has become of the last session."""
    if ledger.running:
        return "running"
    if "ended" not in ledger.pulse:
        return "killed"
    return ENDS.get(int(ledger.pulse.get("exit_code") or 0), "could not continue")


def done(ledger: Ledger, kind: str) -> int:
    return sum(ledger.totals.get(kind, {}).get(status, 0) for status in DONE)


def left(ledger: Ledger, kind: str) -> int:
    """Objects that are known of and have no outcome; of runs, those too that were only counted."""
    known = int((ledger.pulse.get("listed") or {}).get(kind, 0))
    if kind == "run" and ledger.running:
        known = max(known, int(ledger.pulse.get("expected_runs") or 0))
    return max(0, known - sum(ledger.totals.get(kind, {}).values()))


def _rates(counted: Doc) -> Doc | None:
    """Per second."""
    seconds = counted.get("seconds")
    if not seconds:
        return None
    return {what: round(counted[what] / seconds, 2) for what in ("runs", "points", "bytes")}


def show(statuses: Statuses, console: Console) -> None:
    """The same for people."""
    for number, ledger in enumerate(statuses.ledgers):
        if number:
            console.print()
        console.print(plain(f"{ledger.ends}: {_told(ledger)}"), highlight=False, markup=False, soft_wrap=True)
        console.print(_table(ledger))
        for line in _lines(ledger):
            console.print(plain(line), highlight=False, markup=False, soft_wrap=True)


def _told(ledger: Ledger) -> str:
    pulse = ledger.pulse
    if ledger.running:
        rest = pulse.get("seconds_left")
        remains = f", about {duration(rest)} left" if rest else ""
        return f"running for {duration(float(pulse.get('seconds') or 0))} (process {pulse.get('pid')}){remains}"
    when = f" {_ago(pulse['ended'])}" if "ended" in pulse else ""
    return f"{state(ledger)}{when}{': ' + pulse['error'] if pulse.get('error') else ''}"


def _ago(moment: float) -> str:
    return f"{duration(max(0.0, time.time() - moment))} ago"


def _table(ledger: Ledger) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    columns = ("done", "left", "failed", "left behind", "excluded", "unfinished")
    for column in columns:
        table.add_column(column, justify="right")
    for kind in dict.fromkeys([*ledger.totals, *ledger.open]):
        counts = ledger.totals.get(kind, {})
        numbers = (
            done(ledger, kind),
            left(ledger, kind),
            counts.get(Status.FAILED, 0),
            counts.get(Status.LEFT_BEHIND, 0),
            counts.get(Status.EXCLUDED, 0),
            ledger.open.get(kind, 0),
        )
        table.add_row(label(kind), *(f"{number:,}" for number in numbers))
    return table


def _lines(ledger: Ledger) -> Iterator[str]:
    pulse = ledger.pulse
    if pulse:
        requests = sum((pulse.get("requests") or {}).values())
        moved = f"{pulse.get('points', 0):,} metric points, {pulse.get('bytes', 0) / MEBIBYTE:,.1f} MiB of files"
        yield f"{moved}, {requests:,} requests"
    for name, counted in (("on average", pulse), ("now", pulse.get("recent") or {} if ledger.running else {})):
        if rates := _rates(counted):
            told = (
                f"{rates['runs']:,} runs, {rates['points']:,} points, {rates['bytes'] / MEBIBYTE:,.2f} MiB per second"
            )
            yield f"{name}: {told}"
    for one in ledger.reasons:
        what = f"{one.count} {label(one.kind)}, such as" if one.count > 1 else one.kind.replace("_", " ")
        yield f"{one.status}: {what} {one.example}: {one.reason}"
    yield f"journal: {ledger.folder}"
    if not ledger.running and ledger.command and any(one.status is Status.FAILED for one in ledger.reasons):
        yield f"take up what failed with: amigrate retry {shlex.quote(str(ledger.folder))}"

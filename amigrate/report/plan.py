"""What a move would come to: numbers that are known, and numbers that are guessed, with what they are guessed from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from amigrate.engine.rehearsal import Expected
from amigrate.report.progress import duration
from amigrate.report.units import size

SHOWN = 8
"""Objects that are at the target already and are told by name."""


def planned(expected: Expected) -> dict[str, Any]:
    """For machines; stable names."""
    return {
        "metric_points": {"number": expected.rows, "exact": expected.rows_exact, "runs_read": expected.rows_sampled},
        "files": {
            "number": expected.files,
            "bytes": expected.bytes,
            "exact": expected.owners == expected.owners_listed,
            "owners": expected.owners,
            "owners_listed": expected.owners_listed,
        },
        "requests": {"source": expected.reads, "target": expected.writes},
        "seconds": round(expected.seconds, 1),
        "already_there": [{"kind": kind, "name": name} for kind, name in expected.there],
        "doubts": dict(expected.doubts),
    }


def told(expected: Expected) -> Iterator[str]:
    """For people."""
    yield "planned only: nothing was written"
    yield f"{_about(expected.rows_exact)}{expected.rows:,} metric points{_points_from(expected)}"
    listed = expected.owners == expected.owners_listed
    yield f"{_about(listed)}{expected.files:,} files with {size(expected.bytes)}{_files_from(expected)}"
    yield f"about {expected.reads:,} requests to the source and {expected.writes:,} to the target"
    yield f"about {duration(expected.seconds)}, as the servers answer now; a move finds its own pace"
    if expected.there:
        names = [f"{kind.replace('_', ' ')} '{name}'" for kind, name in expected.there[:SHOWN]]
        more = f" and {len(expected.there) - SHOWN} more" if len(expected.there) > SHOWN else ""
        yield f"at the target already: {', '.join(names)}{more} (see --on-conflict)"
    for doubt, number in sorted(expected.doubts.items()):
        yield f"{number:,} × {doubt}"


def _about(exact: bool) -> str:
    return "" if exact else "about "


def _points_from(expected: Expected) -> str:
    if expected.rows_exact:
        return ""
    read = f", corrected by those of {expected.rows_sampled} runs" if expected.rows_sampled else ""
    return f" (by the latest step of each metric{read})"


def _files_from(expected: Expected) -> str:
    if not expected.owners:
        return ""
    some = "all" if expected.owners == expected.owners_listed else f"{expected.owners_listed} of"
    return f" (the folders of {some} {expected.owners:,} runs, models and traces were listed)"

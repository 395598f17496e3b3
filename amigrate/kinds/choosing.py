"""What a user's choice leaves out, and why. What a server can search for is never listed: see `searches`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from amigrate.core.choice import Choice, FileChoice, RunChoice, VersionChoice
from amigrate.core.model import Record
from amigrate.core.patterns import Patterns
from amigrate.kinds.base import NO_STAGE
from amigrate.kinds.run_document import info_of
from amigrate.kinds.run_filter import RunFilter, parse
from amigrate.kinds.trace_document import request_time

LeavesOut = Callable[[Record], str]
"""Why an object is left out; empty where it is not."""


class Chosen:
    """Judges records. Of a server's runs and traces only those that are asked for are ever listed."""

    def __init__(self, choice: Choice, *, listed_all: bool) -> None:
        """`listed_all`: the source lists what is not asked for too. Raises `UsageError` for a filter that is none."""
        self._judges: dict[str, LeavesOut] = {}
        if choice.versions:
            self._judges["model_version"] = lambda record: _version(record, choice.versions)
        if choice.files:
            self._judges["artifact"] = lambda file: _file(file, choice.files)
        if choice.runs and listed_all:
            wanted = parse(choice.runs.filter)
            self._judges["run"] = lambda record: _run(record, choice.runs, wanted)
            self._judges["trace"] = lambda record: _trace(record, choice.runs)

    def __call__(self, record: Record) -> str:
        judge = self._judges.get(record.ref.kind)
        return judge(record) if judge else ""


def _run(record: Record, runs: RunChoice, wanted: RunFilter) -> str:
    if runs.ids and record.ref.id not in runs.ids:
        return "not one of --run-ids"
    if record.error:
        return ""
    if not wanted.matches(record.doc):
        return "does not match --filter"
    return _outside(int(info_of(record).get("start_time") or 0), runs, "started")


def _trace(record: Record, runs: RunChoice) -> str:
    return "" if record.error else _outside(request_time(record), runs, "was requested")


def _outside(time: int, runs: RunChoice, what: str) -> str:
    if runs.since is not None and time < runs.since:
        return f"{what} before {_said(runs.since)}"
    return f"{what} at {_said(runs.until)} or later" if runs.until is not None and time >= runs.until else ""


def _said(time: int) -> str:
    return datetime.fromtimestamp(time / 1000, UTC).isoformat(timespec="seconds")


def _file(file: Record, files: FileChoice) -> str:
    """Files of traces are what traces are made of: they are no matter of choice."""
    if file.ref.parent is not None and file.ref.parent.kind == "trace":
        return ""
    if files.paths and not _is_in(file.ref.id, files.paths):
        return "not one of --artifact-paths"
    if files.skipped and _is_in(file.ref.id, files.skipped):
        return "one of --skip-artifact-paths"
    size = int(file.doc.get("size") or 0)
    is_large = files.largest is not None and size > files.largest
    return f"it has {size} bytes, more than --max-artifact-size" if is_large else ""


def _is_in(path: str, patterns: Patterns) -> bool:
    """True for a file that is asked for, by its own path or by a folder's."""
    parts = path.split("/")
    return any(patterns.which("/".join(parts[:end])) is not None for end in range(1, len(parts) + 1))


def _version(record: Record, versions: VersionChoice) -> str:
    if record.error:
        return ""
    stage = str(record.doc.get("current_stage") or NO_STAGE)
    if versions.stages and stage.lower() not in versions.stages:
        return f"its stage is {stage}, which is not one of --stages"
    number = int(record.ref.id.rpartition("/")[2])
    asked = any(first <= number and (last is None or number <= last) for first, last in versions.numbers)
    return "" if asked or not versions.numbers else "its number is not one of --versions"

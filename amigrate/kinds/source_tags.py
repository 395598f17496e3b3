"""`mlflow_exim.*` tags: where an object came from, in the words of mlflow-export-import.

Written on request only (`--import-source-tags`). Experiments get `mlflow_exim.mlflow_tag.<rest>` for every `mlflow.*`
tag and `mlflow_exim.field.<field>`; runs get the same for tags and `mlflow_exim.run_info.<field>`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from amigrate.core.model import Doc, Notes, Record

PREFIX = "mlflow_exim"
KEY_LIMIT = 250
EXPERIMENT_VALUE_LIMIT = 5000
RUN_VALUE_LIMIT = 8000
CUT = " … [cut by amigrate]"


def experiment_source_tags(record: Record, notes: Notes) -> dict[str, str]:
    """The source tags of an experiment."""
    fields = {key: value for key, value in record.doc.items() if key != "tags"}
    fields |= _readable(fields, ("creation_time", "last_update_time"))
    return _fit(record, _named(record.doc.get("tags") or [], "field", fields), EXPERIMENT_VALUE_LIMIT, notes)


def run_source_tags(record: Record, notes: Notes) -> dict[str, str]:
    """The source tags of a run."""
    info: Doc = dict(record.doc["info"])
    info |= _readable(info, ("start_time", "end_time"))
    return _fit(record, _named(record.doc["data"].get("tags") or [], "run_info", info), RUN_VALUE_LIMIT, notes)


def logged_model_source_tags(record: Record, notes: Notes) -> dict[str, str]:
    """The source tags of a logged model."""
    info = {key: value for key, value in record.doc["info"].items() if key != "tags"}
    info |= _readable(info, ("creation_timestamp_ms", "last_updated_timestamp_ms"))
    return _fit(record, _named(record.doc["info"].get("tags") or [], "field", info), RUN_VALUE_LIMIT, notes)


def version_source_tags(record: Record, notes: Notes) -> dict[str, str]:
    """The source tags of a version of a registered model or prompt."""
    fields = {key: value for key, value in record.doc.items() if key not in ("tags", "archive")}
    fields |= _readable(fields, ("creation_timestamp", "last_updated_timestamp"))
    return _fit(record, _named([], "field", fields), RUN_VALUE_LIMIT, notes)


def _named(tags: list[Doc], group: str, fields: Doc) -> dict[str, str]:
    named = {
        f"{PREFIX}.mlflow_tag.{tag['key'].removeprefix('mlflow.')}": str(tag.get("value", ""))
        for tag in tags
        if tag["key"].startswith("mlflow.")
    }
    return named | {f"{PREFIX}.{group}.{key}": str(value) for key, value in fields.items() if value is not None}


def _readable(fields: Doc, names: tuple[str, ...]) -> dict[str, str | None]:
    """Times in UTC beside their milliseconds, as `_<name>`."""
    return {f"_{name}": _utc(fields[name]) for name in names if fields.get(name) is not None}


def _utc(milliseconds: Any) -> str | None:
    """None for a number that lies in no year of the calendar."""
    try:
        return datetime.fromtimestamp(int(milliseconds) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return None


def _fit(record: Record, tags: dict[str, str], limit: int, notes: Notes) -> dict[str, str]:
    fitting = {}
    for key, value in tags.items():
        if len(key) > KEY_LIMIT:
            notes.warn(f"{record.ref}: source tag '{key[:80]}…' left out, its key has more than {KEY_LIMIT} characters")
            continue
        if len(value) > limit:
            notes.warn(f"{record.ref}: source tag '{key}' cut from {len(value)} to {limit} characters")
            value = value[: limit - len(CUT)] + CUT
        fitting[key] = value
    return fitting

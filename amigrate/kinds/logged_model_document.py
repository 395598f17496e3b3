"""What a logged model's document says: its shape on disk and over REST, what makes two models the same. Pure.

The record's `doc` is a model as `logged-models/search` gives it: `info` (with `tags`), `data` (`params`, and `metrics`
with every point that was measured of it). Where it is deleted, `lifecycle_stage` says so: no answer of a server does.
"""

from __future__ import annotations

import sys
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc, Record, Ref
from amigrate.core.ports import Names
from amigrate.core.typed import identity, items, mapping, real, text, texts, whole, word
from amigrate.kinds import name_lists
from amigrate.kinds.base import PROVENANCE, STAGES, content_tags, pairs, tag_list

SOURCE_MODEL = f"{PROVENANCE}source_model_id"
VERSIONS_TAG = "mlflow.modelVersions"
STATUSES = {
    "PENDING": "LOGGED_MODEL_PENDING",
    "READY": "LOGGED_MODEL_READY",
    "FAILED": "LOGGED_MODEL_UPLOAD_FAILED",
    "UNSPECIFIED": "LOGGED_MODEL_STATUS_UNSPECIFIED",
}
"""The words of MLflow's Python, which archives use, and those of its REST API."""
WORDS = {rest: said for said, rest in STATUSES.items()}
PENDING = STATUSES["PENDING"]
FINAL = (STATUSES["READY"], STATUSES["FAILED"])
COMPARED = ("name", "model_type", "status")
FIELDS = (*COMPARED, "status_message", "experiment_id", "model_id", "source_run_id")
"""Texts that archive and server call by the same names."""
TIMES = {"creation_timestamp_ms": "creation_time", "last_updated_timestamp_ms": "last_updated_timestamp"}
"""Times of the server, and what archives call them."""
LARGEST = sys.float_info.max
METRIC = ("key", "value", "timestamp", "step", "run_id", "dataset_name", "dataset_digest")


def info_of(record: Record) -> Doc:
    info: Doc = record.doc["info"]
    return info


def tags_of(record: Record) -> dict[str, str]:
    return pairs(info_of(record).get("tags"))


def params_of(record: Record) -> dict[str, str]:
    return pairs(record.doc.get("data", {}).get("params"))


def metrics_of(record: Record) -> list[Doc]:
    """Every point of every metric that was measured of the model: see `METRIC`."""
    given = record.doc.get("data", {}).get("metrics") or []
    return [{name: one.get(name) for name in METRIC if one.get(name) not in (None, "")} for one in given]


def is_deleted(record: Record) -> bool:
    return record.doc.get("lifecycle_stage") == "deleted"


def origin(record: Record) -> str:
    """The id where the model was first made: what its provenance tag says, or its own."""
    return tags_of(record).get(SOURCE_MODEL) or record.ref.id


def digest(record: Record) -> str:
    """A fingerprint that changes whenever the source's listing shows a change."""
    points = sorted(_point(one) for one in metrics_of(record))
    return codec.digest([_fields(record), is_deleted(record), params_of(record), tags_of(record), points])


def likeness(record: Record) -> str:
    """A fingerprint of what two models of the same origin may differ in, as both listings show it."""
    return codec.digest([_fields(record), params_of(record), content_tags(tags_of(record))])


def comparable(record: Record, names: Names) -> Doc:
    """Everything that two models must have in common, but for their files."""
    measured = [[names("run", str(one.get("run_id") or "")), *_point(_as_kept(one))[1:]] for one in metrics_of(record)]
    return {
        **_fields(record),
        "lifecycle_stage": "deleted" if is_deleted(record) else "active",
        "source_run": names("run", str(info_of(record).get("source_run_id") or "")),
        "params": params_of(record),
        "tags": name_lists.comparable(content_tags(tags_of(record)), names),
        "metrics": sorted(one for one in measured if one[0]),
    }


def _as_kept(one: Doc) -> Doc:
    """A point as a SQL store gives it of a model: NaN as 0, the infinities as the largest numbers."""
    value = real(one.get("value") or 0.0, "the value of a metric")
    return {**one, "value": 0.0 if value != value else max(-LARGEST, min(LARGEST, value)) + 0.0}


def _fields(record: Record) -> Doc:
    return {name: info_of(record).get(name) or None for name in COMPARED}


def _point(one: Doc) -> list[Any]:
    words = [str(one.get(name) or "") for name in ("run_id", "key", "dataset_name", "dataset_digest")]
    value = float(real(one.get("value") or 0.0, "the value of a metric"))
    return [*words, int(one.get("timestamp") or 0), int(one.get("step") or 0), str(value)]


# ---- on disk ----------------------------------------------------------------------------------------------------


def encode(record: Record) -> Doc:
    """The `mlflow` part of `logged_model.json`, in the words of mlflow-export-import."""
    info = info_of(record)
    return {
        **{name: info.get(name) for name in FIELDS},
        "status": WORDS.get(info.get("status", ""), info.get("status")),
        "lifecycle_stage": "deleted" if is_deleted(record) else "active",
        "artifact_location": info.get("artifact_uri"),
        **{old: info.get(name) for name, old in TIMES.items()},
        "tags": dict(sorted(tags_of(record).items())),
        "params": params_of(record),
        "metrics": [{"model_id": record.ref.id, **one} for one in metrics_of(record)],
    }


def decode(document: Doc, ref_id: str, parent: Ref | None) -> Record:
    """The record of a `logged_model.json`. Raises `ValueError`."""
    given = mapping(document.get("mlflow"), "mlflow")
    info: Doc = {name: text(given[name], name) for name in FIELDS if given.get(name) is not None}
    status = info.get("status", "READY")
    info["status"] = STATUSES[word(WORDS.get(status, status), "status", STATUSES)]
    info |= {name: whole(given[old], old) for name, old in TIMES.items() if given.get(old) is not None}
    info["tags"] = tag_list(texts(given.get("tags"), "tags"))
    data = {
        "params": tag_list(texts(given.get("params"), "params")),
        "metrics": [_metric(mapping(one, "a metric")) for one in items(given.get("metrics"), "metrics")],
    }
    stage = word(given.get("lifecycle_stage") or "active", "lifecycle_stage", STAGES)
    own = identity(given.get("model_id"), "model_id") or ref_id
    return Record(
        Ref("logged_model", own, parent), {"info": info, "data": data, "lifecycle_stage": stage}, info.get("name", "")
    )


def _metric(given: Doc) -> Doc:
    told: Doc = {
        "key": text(given.get("key"), "the key of a metric"),
        "value": real(given.get("value"), "the value of a metric"),
        "timestamp": whole(given.get("timestamp"), "the timestamp of a metric"),
        "step": whole(given.get("step") or 0, "the step of a metric"),
    }
    said = {name: given[name] for name in ("run_id", "dataset_name", "dataset_digest") if given.get(name)}
    return told | {name: text(value, f"{name} of a metric") for name, value in said.items()}

"""What a trace's document says: its shape on disk and over REST, the ids in it, what makes two traces the same. Pure.

The record's `doc` holds `info`, a trace info as `traces/search` gives it (V3), and, where the spans lie in the tracking
store, `spans` as `traces/batchGet` gives them: OTLP in snake case, ids in base64, times in nanoseconds.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, items, mapping, text
from amigrate.kinds import name_lists
from amigrate.kinds.name_lists import LINKED_PROMPTS, Rename, listed_in, with_names

LOCATION = "mlflow.artifactLocation"
SPANS_LOCATION = "mlflow.trace.spansLocation"
LOCATION_TAGS = (LOCATION, SPANS_LOCATION, "mlflow.trace.archiveLocation", "mlflow.trace.archivalFailure")
"""Tags that say where a server keeps a trace: the target has its own."""
IN_STORE = ("TRACKING_STORE", "ARCHIVE_REPO")
EXPERIMENT_ATTRIBUTE = "mlflow.experimentId"
ID_KEYS = {
    "mlflow.sourceRun": "run",
    "mlflow.assessment.sourceRunId": "run",
    "mlflow.modelId": "logged_model",
    "mlflow.gateway.endpointId": "gateway_endpoint",
}
"""Metadata that hold the id of an object, and its kind."""
SERVER_KEYS = ("mlflow.trace.infoFinalized", "mlflow.trace.sizeBytes", "mlflow.trace.sizeStats")
"""Metadata that a server writes by itself from the spans that it has."""
ATTACHMENT = "mlflow-attachment://"


def info_of(record: Record) -> Doc:
    info: Doc = record.doc["info"]
    return info


def spans_of(record: Record) -> list[Doc]:
    """The spans of a trace whose spans lie in the tracking store."""
    spans: list[Doc] = record.doc.get("spans") or []
    return spans


def request_time(record: Record) -> int:
    """Milliseconds since the epoch."""
    return round(datetime.fromisoformat(str(info_of(record).get("request_time"))).timestamp() * 1000)


def tags_of(info: Doc) -> dict[str, str]:
    tags = info.get("tags") or {}
    return {str(key): str(value) for key, value in tags.items() if key not in LOCATION_TAGS}


def is_in_store(record: Record) -> bool:
    """True where `traces/batchGet` has the spans; else they lie among the trace's artifacts."""
    return (info_of(record).get("tags") or {}).get(SPANS_LOCATION) in IN_STORE


def has_files(record: Record) -> bool:
    """True where the spans lie in a file, or one of them refers to a file of the trace."""
    return not is_in_store(record) or any(ATTACHMENT in codec.dumps(span).decode() for span in spans_of(record))


def linked_prompts(record: Record) -> list[Doc]:
    """Name and version of the prompts that a trace is linked to, as its tag and its spans tell."""
    texts = [tags_of(info_of(record)).get(LINKED_PROMPTS, "")]
    for span in spans_of(record):
        texts += [
            str((one.get("value") or {}).get("string_value") or "")
            for one in span.get("attributes") or []
            if one.get("key") == LINKED_PROMPTS
        ]
    found = {(one["name"], str(one["version"])): None for text in texts for one in _prompts(text)}
    return [{"name": name, "version": version} for name, version in found]


def _prompts(text: str) -> Iterator[Doc]:
    """Those that a text lists; of one that the server cut, those that are whole."""
    whole = f"{text[: text.rfind('}') + 1]}]"
    for one in listed_in(text) or listed_in(whole):
        if isinstance(one, dict) and one.get("name") and one.get("version"):
            yield one


# ---- the same, at the target ------------------------------------------------------------------------------------


def mapped_info(record: Record, experiment: str, ids: Ids) -> Doc:
    """The info in the target's terms, without what the target says by itself."""
    info = {key: value for key, value in info_of(record).items() if key not in ("trace_location", "tags")}
    info["trace_location"] = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    info["tags"] = tags_of(info_of(record))
    info["trace_metadata"] = _mapped(info.get("trace_metadata") or {}, ids)
    info["assessments"] = [_mapped_assessment(one, ids) for one in info.get("assessments") or []]
    return info


def _mapped_assessment(one: Doc, ids: Ids) -> Doc:
    """One that says that a trace shows an issue has the issue's id as its name."""
    told = {**one, **({"metadata": _mapped(one["metadata"], ids)} if one.get("metadata") else {})}
    return told | {"assessment_name": _issue_at(told, ids)} if names_issue(told) else told


def names_issue(assessment: Doc) -> bool:
    return bool(assessment.get("issue"))


def _issue_at(assessment: Doc, ids: Ids) -> str:
    own = str(assessment["assessment_name"])
    return ids.new_id("issue", own) or own


def renamed(record: Record, rename: Rename | None) -> Record:
    """The trace with the prompts that it names as the other side calls them."""
    if rename is None or not linked_prompts(record):
        return record
    info = info_of(record)
    doc = {**record.doc, "info": {**info, "tags": with_names(info.get("tags") or {}, rename)}}
    if "spans" in doc:
        doc["spans"] = [
            {**span, "attributes": [_renamed(one, rename) for one in span.get("attributes") or []]}
            for span in spans_of(record)
        ]
    return replace(record, doc=doc)


def _renamed(one: Doc, rename: Rename) -> Doc:
    text = (one.get("value") or {}).get("string_value")
    if one.get("key") != LINKED_PROMPTS or not text:
        return one
    return {"key": LINKED_PROMPTS, "value": {"string_value": name_lists.renamed(LINKED_PROMPTS, str(text), rename)}}


def lacking_assessments(wanted: list[Doc], held: list[Doc]) -> list[Doc]:
    """Those that a server does not have as they are wanted.

    Whatever is written again becomes valid, so those that are there and overridden stay as they are.
    """
    there = {str(one["assessment_id"]): codec.digest(_assessment(one)) for one in held}
    return [
        one
        for one in wanted
        if one["assessment_id"] not in there
        or (one.get("valid") is not False and there[one["assessment_id"]] != codec.digest(_assessment(one)))
    ]


def overriding(chosen: list[Doc], assessments: list[Doc]) -> list[Doc]:
    """The chosen ones that override another one, each behind what it overrides: writing it marks that as overridden."""
    overrides = {str(one["assessment_id"]): str(one.get("overrides") or "") for one in assessments}

    def depth(own: str) -> int:
        seen = {own}
        while (own := overrides[own]) in overrides and own not in seen:
            seen.add(own)
        return len(seen)

    late = [one for one in chosen if one.get("overrides") in overrides]
    return sorted(late, key=lambda one: depth(str(one["assessment_id"])))


def references(told: Doc) -> str:
    """A fingerprint of what an info, in the target's terms, says of other objects."""
    return codec.digest([told["trace_metadata"], told["assessments"]])


def is_resolved(info: Doc, ids: Ids) -> bool:
    """Whether everything that a trace names by id is at the target."""
    all_metadata = [info.get("trace_metadata") or {}]
    all_metadata += [one.get("metadata") or {} for one in info.get("assessments") or []]
    named = [(kind, metadata[key]) for metadata in all_metadata for key, kind in ID_KEYS.items() if metadata.get(key)]
    named += [("issue", one["assessment_name"]) for one in info.get("assessments") or [] if names_issue(one)]
    return all(ids.new_id(kind, str(own)) is not None for kind, own in named)


def _mapped(metadata: Doc, ids: Ids) -> Doc:
    return {key: _known(key, value, ids.new_id) or value for key, value in metadata.items()}


def _known(key: str, value: Any, told: Callable[[str, str], str | None]) -> str | None:
    """What an id is called elsewhere; None for what is no id, and for one that is unknown there."""
    return told(ID_KEYS[key], str(value)) if key in ID_KEYS else None


def mapped_spans(record: Record, experiment: str) -> list[Doc]:
    """The spans with the target's experiment in them."""
    return [
        {**span, "attributes": [_attribute(one, experiment) for one in span.get("attributes") or []]}
        for span in spans_of(record)
    ]


def _attribute(one: Doc, experiment: str) -> Doc:
    if one.get("key") != EXPERIMENT_ATTRIBUTE:
        return one
    return {"key": EXPERIMENT_ATTRIBUTE, "value": {"string_value": experiment}}


def facts(info: Doc) -> str:
    """A fingerprint of what must be equal at source and target and what both listings show."""
    return codec.digest(_shown(info))


def _shown(info: Doc) -> Doc:
    metadata = info.get("trace_metadata") or {}
    return {
        "experiment": experiment_of(info),
        **{
            field: info.get(field) or ""
            for field in ("client_request_id", "request_preview", "response_preview", "state")
        },
        "request_time": info.get("request_time"),
        "execution_duration": info.get("execution_duration") or "0s",
        "tags": tags_of(info),
        "metadata": {key: value for key, value in metadata.items() if key not in SERVER_KEYS},
        "assessments": sorted(codec.digest(_assessment(one)) for one in info.get("assessments") or []),
    }


def _assessment(one: Doc) -> Doc:
    return {"valid": True, **{key: value for key, value in one.items() if value not in (None, "", {})}}


def experiment_of(info: Doc) -> str:
    """The id of the experiment that a trace belongs to."""
    return str(((info.get("trace_location") or {}).get("mlflow_experiment") or {}).get("experiment_id") or "")


def comparable(record: Record, names: Names) -> Doc:
    """Everything that must be equal on both sides."""
    told = _shown(info_of(record))
    told.pop("experiment")
    named = {key: _known(key, value, names) or value for key, value in told["metadata"].items()}
    assessments = {}
    for one in info_of(record).get("assessments") or []:
        metadata = {key: _known(key, value, names) or value for key, value in (one.get("metadata") or {}).items()}
        called = {"assessment_name": names("issue", str(one["assessment_name"]))} if names_issue(one) else {}
        assessments[one["assessment_id"]] = {**_assessment(one), **called, "metadata": metadata}
    spans = {}
    for span in spans_of(record):
        attributes = {one["key"]: one.get("value") for one in span.get("attributes") or []}
        if LINKED_PROMPTS in attributes:
            text = str((attributes[LINKED_PROMPTS] or {}).get("string_value") or "")
            attributes[LINKED_PROMPTS] = name_lists.comparable({LINKED_PROMPTS: text}, names)
        if EXPERIMENT_ATTRIBUTE in attributes:
            own = str((attributes[EXPERIMENT_ATTRIBUTE] or {}).get("string_value") or "")
            attributes[EXPERIMENT_ATTRIBUTE] = names("experiment", own)
        spans[str(span.get("span_id"))] = {**span, "attributes": attributes}
    tags = name_lists.comparable(told["tags"], names)
    return {**told, "tags": tags, "metadata": named, "assessments": assessments, "spans": spans}


# ---- spans in artifacts -----------------------------------------------------------------------------------------


def as_artifact(spans: list[Doc]) -> bytes:
    """Spans as a server keeps them in `traces.json`: attributes by key, each value as JSON."""
    kept = [
        {
            "trace_id": span.get("trace_id"),
            "span_id": span.get("span_id"),
            "parent_span_id": span.get("parent_span_id"),
            "name": span.get("name", ""),
            "start_time_unix_nano": span.get("start_time_unix_nano"),
            "end_time_unix_nano": span.get("end_time_unix_nano"),
            "events": [
                {**one, "attributes": _plain_all(one.get("attributes") or [])} for one in span.get("events") or []
            ],
            "status": {"code": "STATUS_CODE_UNSET", "message": "", **(span.get("status") or {})},
            "attributes": {
                key: codec.dumps(value).decode() for key, value in _plain_all(span.get("attributes") or []).items()
            },
            "links": span.get("links") or [],
        }
        for span in spans
    ]
    return codec.dumps({"spans": kept})


def _plain_all(attributes: list[Doc]) -> Doc:
    return {one["key"]: _plain(one.get("value") or {}) for one in attributes}


def _plain(value: Doc) -> Any:
    """An OTLP value as JSON has it."""
    for kind in ("string_value", "bool_value", "double_value"):
        if kind in value:
            return value[kind]
    if "int_value" in value:
        return int(value["int_value"])
    if "array_value" in value:
        return [_plain(one) for one in (value["array_value"] or {}).get("values") or []]
    if "kvlist_value" in value:
        return _plain_all((value["kvlist_value"] or {}).get("values") or [])
    return value.get("bytes_value")


def from_artifact(kept: list[Doc], trace_id: str) -> list[Doc]:
    """The other way round, for spans in the form that has been there since 3.0."""
    return [
        {
            "trace_id": span.get("trace_id") or b64encode(bytes.fromhex(trace_id.removeprefix("tr-"))).decode(),
            "span_id": span["span_id"],
            **({"parent_span_id": span["parent_span_id"]} if span.get("parent_span_id") else {}),
            "name": span.get("name", ""),
            "start_time_unix_nano": span.get("start_time_unix_nano"),
            "end_time_unix_nano": span.get("end_time_unix_nano"),
            "attributes": [
                {"key": key, "value": _otlp(_loaded(value))} for key, value in (span.get("attributes") or {}).items()
            ],
            **({"events": [_event(one) for one in span["events"]]} if span.get("events") else {}),
            "status": {key: value for key, value in (span.get("status") or {}).items() if value},
            **({"links": span["links"]} if span.get("links") else {}),
        }
        for span in kept
    ]


def _event(one: Doc) -> Doc:
    attributes = [{"key": key, "value": _otlp(value)} for key, value in (one.get("attributes") or {}).items()]
    return {**one, "attributes": attributes}


def _loaded(value: Any) -> Any:
    try:
        return codec.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _otlp(value: Any) -> Doc:
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"int_value": value}
    if isinstance(value, int | float):
        return {"double_value": float(value)}
    if isinstance(value, str):
        return {"string_value": value}
    if isinstance(value, list):
        return {"array_value": {"values": [_otlp(one) for one in value]}}
    if isinstance(value, dict):
        return {"kvlist_value": {"values": [{"key": str(key), "value": _otlp(one)} for key, one in value.items()]}}
    return {}


# ---- on disk ----------------------------------------------------------------------------------------------------


def encode(record: Record) -> Doc:
    """The `mlflow` part of `trace.json`."""
    return {"trace_info": info_of(record), **({"spans": spans_of(record)} if "spans" in record.doc else {})}


def decode(document: Doc, ref_id: str, parent: Ref | None) -> Record:
    """The record of a `trace.json`. Raises `ValueError`."""
    given = mapping(document.get("mlflow"), "mlflow")
    info = mapping(given.get("trace_info"), "trace_info")
    text(info.get("request_time"), "trace_info.request_time")
    own = identity(info.get("trace_id"), "trace_id") or ref_id
    for one in items(info.get("assessments"), "assessments"):
        identity(mapping(one, "an assessment").get("assessment_id"), "assessment_id")
        if names_issue(one):
            text(one.get("assessment_name"), "assessment_name")
    mapping(info.get("tags"), "tags")
    mapping(info.get("trace_metadata"), "trace_metadata")
    doc: Doc = {"info": info}
    if given.get("spans") is not None:
        doc["spans"] = [mapping(one, "a span") for one in items(given["spans"], "spans")]
    return Record(Ref("trace", own, parent), doc)

"""What a run's document says: its shape on disk and over REST, its ids, what makes two runs the same. Pure.

The record's `doc` is a run as `runs/search` gives it: `info`, `data` (`metrics` with the latest point of each key,
`params`, `tags`), `inputs`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, items, mapping, text, texts, whole, word
from amigrate.kinds import name_lists
from amigrate.kinds.base import PROVENANCE, SOURCE_TAGS, STAGES, content_tags, pairs, tag_list
from amigrate.kinds.model_links import inputs_of, outputs_of
from amigrate.kinds.references import LOGGED_MODEL, mapped, named

SOURCE_RUN = f"{PROVENANCE}source_run_id"
HISTORY_TAG = "mlflow.log-model.history"
ID_TAGS = ("mlflow.parentRunId", "mlflow.rootRunId", HISTORY_TAG)
"""Tags that name runs by id."""
EVALUATION_DATASET = "evaluation_dataset"
OF_EVALUATION = "mlflow_evaluation_dataset"
"""The type of a source that names an evaluation dataset."""
EVALUATION_ID = re.compile(r"\bd-[0-9a-f]{32}\b")
ENDED = ("FINISHED", "FAILED", "KILLED")
STATUSES = ("RUNNING", "SCHEDULED", *ENDED)
INFO: dict[str, Callable[[Any, str], Any]] = {
    **dict.fromkeys(("run_id", "run_uuid", "experiment_id"), identity),
    **dict.fromkeys(("user_id", "run_name"), text),
    **dict.fromkeys(("start_time", "end_time"), whole),
}
DATASET = ("name", "digest", "source_type", "source", "schema", "profile")
COMPARED = ("user_id", "status", "start_time", "end_time", "lifecycle_stage")
"""Fields of `info` that must be equal everywhere."""
NAME_TAG = "mlflow.runName"
"""Since 2.0 every run has a name and this tag with it; before, it had the tag alone, or neither."""


def info_of(record: Record) -> Doc:
    info: Doc = record.doc["info"]
    return info


def tags_of(doc: Doc) -> dict[str, str]:
    return pairs(doc["data"].get("tags"))


def is_deleted(record: Record) -> bool:
    return info_of(record).get("lifecycle_stage") == "deleted"


def origin(record: Record) -> str:
    """The id where the run was first made: what its provenance tag says, or its own."""
    return tags_of(record.doc).get(SOURCE_RUN) or record.ref.id


def copies(records: Sequence[Record]) -> set[str]:
    """The keys of those records whose original, as their tag names it, lies in the same experiment beside them."""
    beside = {(record.ref.parent, record.ref.id) for record in records}
    return {
        record.ref.key
        for record in records
        if origin(record) != record.ref.id and (record.ref.parent, origin(record)) in beside
    }


def from_rest(doc: Doc, parent: Ref) -> Record:
    """A run of a listing, without what would only take memory: of the latest metrics, the values."""
    metrics = doc.get("data", {}).get("metrics") or []
    for metric in metrics:
        metric.pop("value", None)
    info = doc["info"]
    doc.setdefault("data", {})
    return Record(Ref("run", str(info["run_id"]), parent), doc, str(info.get("run_name") or ""))


def facts(doc: Doc) -> str:
    """A fingerprint of what must be equal at source and target and what both listings show.

    Tags that name other runs are left out: their values differ by nature and are seen to in the second pass.
    """
    info, data = doc["info"], doc["data"]
    tags = {
        key: value
        for key, value in tags_of(doc).items()
        if not key.startswith((PROVENANCE, SOURCE_TAGS)) and key not in ID_TAGS
    }
    fields = ("run_name", "user_id", "status", "start_time", "end_time", "lifecycle_stage")
    return codec.digest(
        [
            [info.get(field) or None for field in fields],
            sorted(pairs(data.get("params")).items()),
            sorted(tags.items()),
            _latest_points(doc),
        ]
    )


def _latest_points(doc: Doc) -> list[list[Any]]:
    """Where the latest point of each metric lies: servers leave out a zero, archives that do not say have a None, which
    no server's is equal to."""
    metrics = doc["data"].get("metrics") or []
    return sorted([metric["key"], metric.get("timestamp", 0), metric.get("step", 0)] for metric in metrics)


def comparable(record: Record, names: Names) -> Doc:
    """Everything that two runs must have in common, but for their points and files."""
    info, data = info_of(record), record.doc["data"]
    tags = content_tags(tags_of(record.doc))
    # A run without a name gets its old id as one, wherever it is written.
    name = info.get("run_name") or tags.get(NAME_TAG) or origin(record)
    shown = name_lists.comparable(tags, names) | {key: named(tags[key], names) for key in ID_TAGS if key in tags}
    inputs = [names(LOGGED_MODEL, one) for one in inputs_of(record.doc)]
    outputs = [[names(LOGGED_MODEL, one), step] for one, step in outputs_of(record.doc)]
    return {
        "run_name": name,
        **{field: info.get(field) or None for field in COMPARED},
        "params": pairs(data.get("params")),
        "tags": {key: value for key, value in shown.items() if (key, value) != (NAME_TAG, name)},
        "inputs": dict(_comparable_input(item, names) for item in dataset_inputs(record.doc)),
        "model_inputs": sorted(one for one in inputs if one),
        "model_outputs": sorted(one for one in outputs if one[0]),
    }


def _comparable_input(item: Doc, names: Names) -> tuple[str, Doc]:
    """A dataset is known by its name and digest; the tags belong to its use in this run."""
    told, _ = _with_dataset(item, lambda own: names(EVALUATION_DATASET, own))
    dataset = told["dataset"]
    fields = {key: dataset.get(key) or None for key in ("source_type", "source", "schema", "profile")}
    return f"{dataset.get('name')} {dataset.get('digest')}", {**fields, "tags": pairs(item.get("tags"))}


def digest(record: Record) -> str:
    """A fingerprint that changes whenever the source's listing shows a change."""
    doc = record.doc
    models = [sorted(inputs_of(doc)), sorted(outputs_of(doc))]
    return codec.digest([facts(doc), sorted(tags_of(doc).items()), dataset_inputs(doc), models])


def dataset_inputs(doc: Doc) -> list[Doc]:
    inputs: list[Doc] = (doc.get("inputs") or {}).get("dataset_inputs") or []
    return inputs


# ---- ids in tags --------------------------------------------------------------------------------------


def mapped_tags(record: Record, ids: Ids) -> dict[str, str]:
    """All tags of a run, with the ids in them replaced as far as those are known."""
    tags, own = tags_of(record.doc), (record.ref.id, record.ref.id)
    return tags | {key: mapped(tags[key], own, ids)[0] for key in ID_TAGS if key in tags}


def mapped_input(item: Doc, ids: Ids) -> tuple[Doc, bool]:
    """A dataset input with the evaluation dataset that it names at the target, and whether that is there."""
    return _with_dataset(item, lambda own: ids.new_id(EVALUATION_DATASET, own))


def _with_dataset(item: Doc, called: Callable[[str], str | None]) -> tuple[Doc, bool]:
    """An input whose source names evaluation datasets as `called` does, and whether that knows every one."""
    dataset, unknown = item["dataset"], list[str]()

    def replace(match: re.Match[str]) -> str:
        name = called(match[0])
        if name is None:
            unknown.append(match[0])
        return name or match[0]

    if dataset.get("source_type") != OF_EVALUATION:
        return item, True
    source = EVALUATION_ID.sub(replace, str(dataset.get("source") or ""))
    return {**item, "dataset": {**dataset, "source": source}}, not unknown


# ---- on disk ----------------------------------------------------------------------------------------------------


def encode(record: Record) -> Doc:
    """The `mlflow` part of `run.json` but for `metrics`, which are written point by point.

    mlflow-export-import reads `tags` of every input, which the server leaves out where there are none, and a `step` of
    every model, which inputs do not have.
    """
    doc = record.doc
    return {
        "info": doc["info"],
        "params": pairs(doc["data"].get("params")),
        "tags": dict(sorted(tags_of(doc).items())),
        "inputs": {
            "dataset_inputs": [{**one, "tags": one.get("tags") or []} for one in dataset_inputs(doc)],
            "model_inputs": [{"model_id": one, "step": 0} for one in inputs_of(doc)],
        },
        "outputs": {"model_outputs": [{"model_id": one, "step": step} for one, step in outputs_of(doc)]},
    }


def decode(document: Doc, ref_id: str, parent: Ref | None) -> Record:
    """The record of a `run.json` of any generation; `metrics` maps each key to its latest point, where it is known.

    Before December 2022 there was no envelope; `inputs` was missing, a list, then a mapping. Raises `ValueError`.
    """
    run = mapping(document.get("mlflow", document), "mlflow")
    noted = mapping(mapping(document.get("info"), "info").get("series"), "info.series")
    info = _info(mapping(run.get("info"), "info"))
    inputs = run.get("inputs") or {}
    datasets = inputs if isinstance(inputs, list) else mapping(inputs, "inputs").get("dataset_inputs")
    models = None if isinstance(inputs, list) else inputs.get("model_inputs")
    outputs = mapping(run.get("outputs"), "outputs")
    doc = {
        "info": info,
        "data": {
            "params": tag_list(texts(run.get("params"), "params")),
            "tags": tag_list(texts(run.get("tags"), "tags")),
            "metrics": [{"key": key, **_latest(noted.get(key))} for key in mapping(run.get("metrics"), "metrics")],
        },
        "inputs": {
            "dataset_inputs": [_input(mapping(one, "an input")) for one in items(datasets, "inputs")],
            "model_inputs": [{"model_id": _model(one)["model_id"]} for one in items(models, "inputs")],
        },
        "outputs": {"model_outputs": [_model(one) for one in items(outputs.get("model_outputs"), "outputs")]},
    }
    own = info.get("run_id") or info.get("run_uuid") or ref_id
    return Record(Ref("run", own, parent), doc, info.get("run_name", ""))


def _info(given: Doc) -> Doc:
    """`info` with every field as the server takes it; what another writer added to it beside."""
    info = {key: value for key, value in given.items() if not key.startswith("_") and value is not None}
    for field, taken in INFO.items():
        if field in info:
            info[field] = taken(info[field], f"info.{field}")
    info["status"] = word(info.get("status"), "info.status", STATUSES)
    info["lifecycle_stage"] = word(info.get("lifecycle_stage", "active"), "info.lifecycle_stage", STAGES)
    return info


def _latest(noted: Any) -> Doc:
    """Where the latest point of a series lies; None where the document does not tell."""
    told = mapping(noted, "info.series")
    return {
        field: whole(told[field], f"info.series.{field}") if field in told else None for field in ("timestamp", "step")
    }


def _input(given: Doc) -> Doc:
    dataset = mapping(given.get("dataset"), "a dataset")
    told = {field: text(dataset[field], f"dataset.{field}") for field in DATASET if dataset.get(field) is not None}
    if not (told.get("name") and told.get("digest")):
        raise ValueError("a dataset has no name or no digest")
    return {"dataset": told, "tags": tag_list(texts(given.get("tags"), "tags of an input"))}


def _model(given: Any) -> Doc:
    link = mapping(given, "a model of a run")
    model_id = identity(link.get("model_id"), "the model_id of a model of a run")
    if not model_id:
        raise ValueError("a model of a run has no model_id")
    return {"model_id": model_id, "step": whole(link.get("step") or 0, "the step of a model of a run")}

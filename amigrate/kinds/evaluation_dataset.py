"""Evaluation datasets (3.4+): name, tags, the experiments they belong to. Their records are objects of their own.

Endpoints (`/api/3.0/mlflow/datasets/…`): POST search (all but their experiments; with basic authentication, who is no
administrator has to name experiments), GET `{id}/experiment-ids`, POST create (name, experiments, tags as JSON in a
text), POST `{id}/add-experiments`, PATCH `{id}/tags` (adds and replaces).
A name may come twice, so a dataset is found by its provenance tag. Who made it is what the tag `mlflow.user` says; id,
times, digest, schema and profile are the server's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from amigrate.client.api import Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import ApiError, AuthError, Unsupported
from amigrate.core.model import Deferred, Doc, Forecast, Found, Outcome, Record, Ref, Stage, Status
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text, whole
from amigrate.kinds.base import PROVENANCE, Kind, Target, content_tags
from amigrate.kinds.dataset_scan import DATASETS, dataset_pages
from amigrate.kinds.listing import WholeScan
from amigrate.kinds.traced import each

CREATE = Endpoint("POST", f"{DATASETS}/create", Work.WRITE, resend=False)
SOURCE_DATASET = f"{PROVENANCE}source_dataset_id"
HELD = "evaluation datasets"
"""Where the index keeps those of the target."""
TEXTS = ("schema", "profile", "digest", "created_by", "last_updated_by")
TIMES = ("created_time", "last_update_time")


@dataclass(slots=True)
class Open:
    """A dataset being written."""

    losses: list[Outcome] = field(default_factory=list)
    doubtful: bool = False
    """True where the create call had to be repeated: the first one may still take effect."""


class EvaluationDataset(Kind):
    """See the module."""

    name = "evaluation_dataset"
    label = "evaluation-datasets"
    needs = ("experiment",)
    folder = "evaluation_datasets"
    document = "evaluation_dataset.json"
    heavy = True
    keeps_edits = True
    by_origin = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(codec.exact_dumps([record.name, tags_of(record.doc)], ordered=True))

    def match(self, record: Record) -> str:
        return origin(record)

    def comparable(self, record: Record, names: Names) -> Doc:
        return {
            "name": record.name,
            "tags": content_tags(tags_of(record.doc)),
            "created_by": record.doc.get("created_by") or "",
            "experiments": sorted(names("experiment", one) for one in record.doc.get("experiment_ids") or []),
        }

    def encode(self, record: Record) -> Doc:
        """As mlflow-export-import has it, but for the records."""
        kept = {key: value for key, value in record.doc.items() if key != "archive"}
        return {"evaluation_dataset": {**kept, "tags": tags_of(record.doc)}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("evaluation_dataset"), "evaluation_dataset")
        name = text(given.get("name") or None, "name")
        tags = {
            key: None if value is None else text(value, f"tags.{key}")
            for key, value in mapping(given.get("tags"), "tags").items()
        }
        doc: Doc = {
            "dataset_id": identity(given.get("dataset_id"), "dataset_id") or ref_id,
            "name": name,
            "tags": codec.exact_dumps(tags),
            "experiment_ids": [identity(one, "an experiment id") for one in items(given.get("experiment_ids"), "ids")],
            "records": items(given.get("records"), "records"),
            **{key: given[key] for key in TEXTS if isinstance(given.get(key), str)},
            **{key: whole(given[key], key) for key in TIMES if given.get(key) is not None},
        }
        return Record(Ref(self.name, doc["dataset_id"]), doc, name)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return WholeScan(lambda: dataset_pages(api))

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        return Forecast(requests=len(batch))

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        yield [record async for record in each(partial(_with_experiments, api), batch)]

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By provenance tag or by id, from one listing. A dataset of the target answers for one of the source only."""
        await _load(target)
        found: dict[str, Found] = {}
        taken: set[str] = set()
        for record in records:
            held = _held(target, record, ids, taken)
            if held is None and not target.provenance and ids.was_intended(record.ref):
                made = [row for row in await _alike(target.api, record, ids) if row["dataset_id"] not in taken]
                held = Found(str(made[0]["dataset_id"]), False) if made else None
            if held is not None:
                taken.add(held.new_id)
                found[record.ref.key] = held
        return found

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        state = Open()
        experiments, state.losses = _experiments(record, ids)
        tags = _tags(record) | ({SOURCE_DATASET: origin(record)} if target.provenance else {})
        body = {"name": record.name, "experiment_ids": experiments, "tags": codec.exact_dumps(tags)}

        async def recover() -> Doc | None:
            state.doubtful = True
            made = await _made_already(target, record, ids)
            return {"dataset": made[0]} if made else None

        # What looks alike is made one after the other, so that none takes what another one has made.
        async with target.alone(f"{HELD} {record.name}"):
            answer = await target.api.call(CREATE, body, recover=recover)
        new_id = str(answer["dataset"]["dataset_id"])
        if not state.doubtful:
            target.fresh.add(new_id)
        _note_outputs(target, record, new_id)
        return new_id, state

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Tags and experiments that the target lacks are added; other tags replaced only where amigrate set them."""
        _note_outputs(target, record, new_id)
        losses = await _add_experiments(target.api, record, new_id, ids)
        index = target.index.get(HELD, new_id)
        old: Doc = codec.exact_loads(index[1]) if index else {}
        changed = {
            key: value for key, value in _tags(record).items() if old.get(key) != value and (made or key not in old)
        }
        if changed:
            patch = Endpoint("PATCH", f"{DATASETS}/{new_id}/tags", Work.WRITE)
            await target.api.call(patch, {"tags": codec.exact_dumps(changed)})
        return Open(losses)

    async def keep(self, target: Target, record: Record, new_id: str, ids: Ids) -> Any:
        """The experiments that it belongs to are in no listing: only a look at them tells of new ones."""
        _note_outputs(target, record, new_id)
        return Open(await _add_experiments(target.api, record, new_id, ids))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses if state else []
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        kept = {key: record.doc.get(key) for key in ("name", "tags")}
        return [Deferred(Stage.REFERENCES, kept)] if state and state.doubtful else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """A create call that was thought lost took effect after it was repeated: delete the empty dataset it made."""
        told = Record(record.ref, what.doc, str(what.doc["name"]))
        for row in await _made_already(target, told, ids):
            twin = str(row["dataset_id"])
            if twin not in (new_id, origin(told)) and ids.old_id(self.name, twin) is None and _is_empty(row):
                await target.api.call(Endpoint("DELETE", f"{DATASETS}/{twin}", Work.WRITE))
        return True


def tags_of(doc: Doc) -> Doc:
    """The tags of a dataset, which the server gives as JSON in a text."""
    return mapping(codec.exact_loads(doc.get("tags") or "{}"), "tags")


def origin(record: Record) -> str:
    """The id where the dataset was first made: what its provenance tag says, or its own."""
    return str(tags_of(record.doc).get(SOURCE_DATASET) or record.ref.id)


def _tags(record: Record) -> Doc:
    return {key: value for key, value in tags_of(record.doc).items() if key != SOURCE_DATASET}


def _is_empty(row: Doc) -> bool:
    return not mapping(codec.loads(row.get("profile") or "{}"), "profile").get("num_records")


async def _load(target: Target) -> None:
    if target.index.loaded(HELD):
        return
    try:
        async for page in dataset_pages(target.api):
            for record in page:
                tags = tags_of(record.doc)
                keys = [record.ref.id, *([str(tags[SOURCE_DATASET])] if tags.get(SOURCE_DATASET) else [])]
                found = Found(record.ref.id, False, ours=len(keys) > 1)
                target.index.add(HELD, keys, found, codec.exact_dumps(tags))
    except Unsupported as error:
        raise Unsupported(f"the target has no evaluation datasets (MLflow 3.4 has, on a SQL store): {error}") from error
    target.index.mark(HELD)


def _held(target: Target, record: Record, ids: Ids, taken: Collection[str]) -> Found | None:
    """The dataset of the target that stands for one of the source and for none of those that were found before."""
    known = ids.new_id("evaluation_dataset", record.ref.id)
    for key in (*([known] if known else []), record.ref.id, origin(record)):
        held = target.index.get(HELD, key)
        if held is None or held[0].new_id in taken:
            continue
        if ids.old_id("evaluation_dataset", held[0].new_id) in (None, record.ref.id):
            return held[0]
    return None


async def _made_already(target: Target, record: Record, ids: Ids) -> list[Doc]:
    """What an unanswered create call made after all: it carries the origin, or without that looks the same.

    Not by a filter: one with the tag's key in backticks, as all other searches have it, finds nothing (MLflow 3.17.2).
    """
    if not target.provenance:
        return await _alike(target.api, record, ids)
    wanted = origin(record)
    return [
        held.doc
        async for page in dataset_pages(target.api)
        for held in page
        if tags_of(held.doc).get(SOURCE_DATASET) == wanted
    ]


async def _alike(api: Api, record: Record, ids: Ids) -> list[Doc]:
    """Datasets without records that have the same name and tags, and stand for none of the source's."""
    return [
        held.doc
        async for page in dataset_pages(api)
        for held in page
        if held.name == record.name and _tags(held) == _tags(record) and _is_empty(held.doc)
        if ids.old_id("evaluation_dataset", held.ref.id) is None
    ]


async def _experiments_of(api: Api, dataset_id: str) -> list[str]:
    answer = await api.call(Endpoint("GET", f"{DATASETS}/{dataset_id}/experiment-ids"))
    return [str(one) for one in answer.get("experiment_ids") or []]


async def _with_experiments(api: Api, record: Record) -> Record:
    try:
        return replace(record, doc={**record.doc, "experiment_ids": await _experiments_of(api, record.ref.id)})
    except AuthError:
        raise
    except ApiError as error:
        return replace(record, error=error)


def _experiments(record: Record, ids: Ids) -> tuple[list[str], list[Outcome]]:
    """The experiments of a dataset at the target, and one outcome for each that is not there."""
    known = {one: ids.new_id("experiment", one) for one in record.doc.get("experiment_ids") or []}
    reason = "the experiment is not at the target: the dataset belongs to it as soon as a move brings it there"
    left = [
        Outcome(Ref("experiment_link", one, record.ref), Status.EXCLUDED, reason=reason)
        for one, new in known.items()
        if new is None
    ]
    return [*dict.fromkeys(new for new in known.values() if new is not None)], left


async def _add_experiments(api: Api, record: Record, new_id: str, ids: Ids) -> list[Outcome]:
    """Those that the target's dataset does not belong to yet; one outcome for each that is not at the target."""
    experiments, losses = _experiments(record, ids)
    held = await _experiments_of(api, new_id) if experiments else []
    if lacking := [one for one in experiments if one not in held]:
        add = Endpoint("POST", f"{DATASETS}/{new_id}/add-experiments", Work.WRITE)
        await api.call(add, {"experiment_ids": lacking})
    return losses


def _note_outputs(target: Target, record: Record, new_id: str) -> None:
    """What the source's schema says of outputs that are objects; see `dataset_record`."""
    schema = codec.exact_loads(record.doc.get("schema") or "{}")
    outputs = schema.get("outputs") if isinstance(schema, dict) else None
    if isinstance(outputs, dict) and outputs:
        target.output_fields[new_id] = {str(key): str(kind) for key, kind in outputs.items()}

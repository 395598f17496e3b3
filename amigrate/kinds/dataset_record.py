"""Records of evaluation datasets: inputs, outputs, expectations, tags, source.

GET `/api/3.0/mlflow/datasets/{id}/records` gives them in pages, POST takes many at once; both have them as JSON in a
text. The server knows a record by the sha256 of its inputs: one that is there already gets its outputs replaced, its
expectations and tags added to. Record ids and times are the server's. 3.4 keeps no outputs.

Outputs that are missing in an answer are null, and null has to be said: the server makes `{}` of what is missing in a
request. Once it has seen outputs that are no object, in a dataset where none were objects before, it fails on every
call that brings an object (MLflow 3.17.2). So a call that could be such a first one has one record twice, the first
time with outputs as the source's schema has them. And one call at a time writes to a dataset.

The values are kept as JSON texts: a record may hold numbers and characters that only Python's own JSON can.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from amigrate.client.api import Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import (
    AmigrateError,
    ApiError,
    AuthError,
    NotFound,
    Rejected,
    TooLarge,
    Transient,
    Unsupported,
)
from amigrate.core.model import Doc, Foreseen, Found, Outcome, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import mapping
from amigrate.kinds.base import Kind, Target, home_of
from amigrate.kinds.dataset_scan import DATASETS, dataset_pages
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages

DATASET = "evaluation_dataset"
FIRST_PAGE, LARGEST_PAGE = 200, 2000
CALL_BYTES = 4 * 1024 * 1024
"""Records of one writing call."""
VALUES = ("inputs", "outputs", "expectations", "tags", "source")
"""What a record consists of, each a JSON text in the record's `doc`; without outputs they are null."""
SAMPLES: Doc = {"boolean": False, "integer": 0, "float": 0.0, "string": "", "array": [], "object": {}}
"""Values of which the server infers these types."""


class DatasetRecord(Kind):
    """See the module. Its id is the sha256 of its inputs."""

    name = "dataset_record"
    group = "evaluation-datasets"
    label = "dataset-records"
    parent = DATASET
    needs = (DATASET,)
    batched = True
    inside = "records"
    lines = "records.jsonl"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest([record.doc.get(value) for value in VALUES])

    def comparable(self, record: Record, names: Names) -> Doc:
        return {value: _told(record, value) for value in VALUES}

    def encode(self, record: Record) -> Doc:
        return {
            key: codec.exact_loads(value) if key in VALUES else value for key, value in _content(record.doc).items()
        }

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = dict(document["mlflow"])
        if "expectations" not in given and "targets" in given:  # So it is in mlflow-export-import's samples.
            given["expectations"] = given.pop("targets")
        for value in ("inputs", "expectations", "tags", "source"):
            mapping(given.get(value), value)
        assert parent is not None, "a record belongs to a dataset"
        return _record(given, parent)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return RecordScan(api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By inputs, from one listing of those datasets that were there before us."""
        found = {}
        homes = {record.ref.key: home_of(record, ids, DATASET) for record in records}
        for home in sorted({*homes.values()} - target.fresh):
            async with target.alone(home):
                await _load(target, home)
        for record in records:
            held = target.index.get(_place(homes[record.ref.key]), record.ref.id)
            if held is not None:
                found[record.ref.key] = Found(record.ref.id, held[1] == _facts(record))
        return found

    async def begin_batch(
        self, target: Target, records: Sequence[Record], ids: Ids
    ) -> dict[str, tuple[str, Any] | AmigrateError]:
        by_home: dict[str, list[Record]] = {}
        for record in records:
            by_home.setdefault(home_of(record, ids, DATASET), []).append(record)
        refused: dict[str, AmigrateError] = {}
        for home, some in by_home.items():
            async with target.alone(home):
                for batch in _batches(sorted(some, key=_shape)):
                    refused |= await _sent(target, home, batch)
        return {record.ref.key: refused.get(record.ref.key) or (record.ref.id, None) for record in records}

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        return Foreseen(max(1 / LARGEST_PAGE, _weight(record) / CALL_BYTES), _outputs_lost(target, record))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        return _outputs_lost(target, record)


class RecordScan:
    """The records of some datasets. Where those of one cannot be read to their end, the others can."""

    def __init__(self, api: Api, datasets: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record for record in datasets}

    async def pages(self) -> AsyncIterator[list[Record]]:
        for parent in self._parents.values():
            async for page in self._of(parent.ref):
                yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        """Of the datasets that were written to since they were listed."""
        changed = []
        async for page in dataset_pages(self._api):
            for listed in page:
                known = self._parents.get(listed.ref.id)
                if known is not None and listed.doc.get("last_update_time") != known.doc.get("last_update_time"):
                    changed.append(known)
        for parent in changed:
            async for records in self._of(parent.ref):
                yield records

    async def _of(self, parent: Ref) -> AsyncIterator[list[Record]]:
        try:
            async for page in record_pages(self._api, parent.id):
                yield [_record(row, parent) for row in page]
        except (AuthError, Unsupported):
            raise
        except NotFound:  # Deleted since it was listed.
            return
        except (ApiError, ValueError) as error:
            reason = AmigrateError(f"its records could not be read to the end: {error}")
            yield [Record(Ref("dataset_record", "*", parent), {}, "all records", error=reason)]


async def record_pages(api: Api, dataset_id: str) -> AsyncIterator[list[Doc]]:
    """All records of a dataset, as the server gives them."""
    listing = Endpoint("GET", f"{DATASETS}/{dataset_id}/records")
    async for page in pages(api, listing, "records", {}, first=FIRST_PAGE, largest=LARGEST_PAGE):
        yield page


def _record(row: Doc, parent: Ref) -> Record:
    """A record with its values as texts."""
    doc = {key: value for key, value in row.items() if key not in VALUES}
    doc |= {value: codec.exact_dumps(row[value]) for value in VALUES if row.get(value) is not None}
    inputs = codec.exact_dumps(row.get("inputs") or {}, ordered=True)
    doc.setdefault("inputs", "{}")
    own = hashlib.sha256(inputs.encode()).hexdigest()
    return Record(Ref("dataset_record", own, parent), doc, str(row.get("dataset_record_id") or ""))


def _content(doc: Doc) -> Doc:
    return {key: value for key, value in doc.items() if key not in ("archive", "dataset_id")}


def _facts(record: Record) -> str:
    """A fingerprint of all that must be equal on another server."""
    return codec.digest([_told(record, value) for value in VALUES])


def _told(record: Record, value: str) -> str:
    """A value with its keys in order, which some databases keep as they like. The server makes `{}` of no tags."""
    nothing = "{}" if value == "tags" else "null"
    return codec.exact_dumps(codec.exact_loads(record.doc.get(value) or nothing), ordered=True)


def _place(dataset_id: str) -> str:
    return f"records of {dataset_id}"


async def _load(target: Target, home: str) -> None:
    """The records that a dataset of the target has."""
    if target.index.loaded(_place(home)):
        return
    async for page in record_pages(target.api, home):
        for row in page:
            record = _record(row, Ref(DATASET, home))
            target.index.add(_place(home), [record.ref.id], Found(record.ref.id, False), _facts(record))
    target.index.mark(_place(home))


# ---- how they are written ---------------------------------------------------------------------------------------


def _outputs_lost(target: Target, record: Record) -> list[Outcome]:
    if record.doc.get("outputs", "{}") == "{}" or not target.api.abilities.older_than(3, 5):
        return []
    return [lost("output", "outputs", record.ref, "the target is an MLflow that keeps no outputs (3.5 does)")]


def _weight(record: Record) -> int:
    return sum(len(record.doc.get(value, "")) for value in VALUES)


def _shape(record: Record) -> bool:
    """Orders those whose outputs are objects with fields before the others."""
    outputs = record.doc.get("outputs", "")
    return not (outputs.startswith("{") and outputs != "{}")


def _batches(records: Sequence[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    weight = 0
    for record in records:
        size = _weight(record)
        if batch and weight + size > CALL_BYTES:
            yield batch
            batch, weight = [], 0
        batch.append(record)
        weight += size
    if batch:
        yield batch


async def _sent(target: Target, home: str, batch: Sequence[Record]) -> dict[str, AmigrateError]:
    """One call; where it is refused, halves of it, until what is refused stands alone."""
    rows = [*_primer(target, home, batch), *map(_row, batch)]
    upsert = Endpoint("POST", f"{DATASETS}/{home}/records", Work.WRITE)
    try:
        await target.api.call(upsert, {"records": f"[{','.join(rows)}]"}, divisible=len(batch) > 1)
    except AuthError:
        raise
    except (Rejected, NotFound, TooLarge, Transient) as error:
        if isinstance(error, Transient) and error.status != 500:
            raise
        if len(batch) == 1:
            return {batch[0].ref.key: AmigrateError(f"the target refuses it: {error}")}
        half = len(batch) // 2
        return await _sent(target, home, batch[:half]) | await _sent(target, home, batch[half:])
    if not _shape(batch[0]) or len(rows) > len(batch):
        target.output_fields.pop(home, None)
    return {}


def _row(record: Record) -> str:
    """A record as the server takes it."""
    values = {value: record.doc.get(value, "null") for value in VALUES}
    return "{" + ",".join(f'"{value}":{told}' for value, told in values.items()) + "}"


def _primer(target: Target, home: str, batch: Sequence[Record]) -> list[str]:
    """A record with outputs that are an object, where the dataset has seen none, and will: see the module."""
    fields = target.output_fields.get(home)
    plain = next((one for one in batch if _shape(one) and one.doc.get("outputs") not in (None, "{}")), None)
    if not fields or plain is None or not _shape(batch[0]):
        return []
    outputs = codec.exact_dumps({field: SAMPLES.get(kind) for field, kind in fields.items()})
    return [_row(Record(plain.ref, {**plain.doc, "outputs": outputs}))]

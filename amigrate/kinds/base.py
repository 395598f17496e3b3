"""What every kind shares: defaults for all that is optional, and what a kind gets to write with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import AmigrateError
from amigrate.core.model import Body, Deferred, Doc, Found, Notes, Outcome, Record, Ref, Rows
from amigrate.core.ports import Ids, Names, RowCall, Scan
from amigrate.kinds.limits import Limits, is_plain, limits_of
from amigrate.kinds.store import is_sql

RESTORE_EXPERIMENT = Endpoint("POST", f"{V2}/experiments/restore", Work.WRITE)
PROVENANCE = "amigrate."
SOURCE_TAGS = "mlflow_exim."
STAGES = ("active", "deleted")


class Index(Protocol):
    """What the target was seen to hold when this session first looked."""

    def loaded(self, parent: str) -> bool: ...

    def add(self, parent: str, keys: Sequence[str], found: Found, facts: str) -> None: ...

    def get(self, parent: str, key: str) -> tuple[Found, str] | None: ...

    def mark(self, parent: str) -> None: ...


@dataclass(slots=True)
class Target:
    """A server being written to: what every write of a kind may use."""

    api: Api
    index: Index
    notes: Notes
    source_tags: bool = False
    rename: str | None = None
    """The name the single experiment of the source gets."""
    rename_model: str | None = None
    """The name the single registered model of the source gets."""
    fresh: set[str] = field(default_factory=set)
    """Experiments made in this session: nothing needs to be looked for in them."""
    retired: set[str] = field(default_factory=set)
    """Source experiments that are deleted there, by source id."""
    dormant: set[str] = field(default_factory=set)
    """Target experiments that are deleted now and have to be restored before anything is written to them."""
    _waking: asyncio.Lock = field(default_factory=asyncio.Lock)

    copies: set[str] = field(default_factory=set)
    """Keys of source runs whose original is in the source too: they go by their own id, not by their original's."""
    datasets: set[tuple[str, str, str]] = field(default_factory=set)
    """Experiment, name and digest of the datasets that are there for sure."""
    dataset_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    dataset_details: dict[tuple[str, str], str] = field(default_factory=dict)
    """By name and digest, a fingerprint of the dataset as it was first written to a server that keeps one for all."""
    keeps_inputs: bool = True
    """False once the server has turned out to lack dataset inputs."""
    refused_names: dict[tuple[str, str], str] = field(default_factory=dict)
    """Keys that the server does not take in any run, as (field of log-batch, key), with its reason."""
    held_traces: dict[str, Doc] = field(default_factory=dict)
    """Infos of traces that the target has, from the moment they were found until they are written."""
    fresh_names: set[str] = field(default_factory=set)
    """Registered models and prompts made in this session: they have no versions but ours."""
    last_version: dict[str, int] = field(default_factory=dict)
    """The highest number that each of them is known to have given."""
    artifact_roots: dict[str, str] = field(default_factory=dict)
    """Where the artifacts of runs and logged models lie, by the target's id."""
    _sql: bool | None = None

    @property
    def limits(self) -> Limits:
        """How much of a text the server takes."""
        return limits_of(self.api.abilities)

    def model_name(self, name: str) -> str:
        """What a registered model or prompt of the source is called at the target."""
        return self.rename_model or name

    async def is_sql(self) -> bool:
        """True where points may be sent again, because the store drops what it has; asked once, and only if needed."""
        if self._sql is None:
            self._sql = await is_sql(self.api)
        return self._sql

    async def tags_to_send_later(self, tags: dict[str, str]) -> dict[str, str]:
        """Tags that must not go with a create call: a file store checks their keys and leaves half an object behind."""
        odd = {key: value for key, value in tags.items() if not is_plain(key)}
        return odd if odd and not await self.is_sql() else {}

    async def wake(self, experiment_id: str) -> None:
        """Restore a deleted experiment before something is written to it; the second pass deletes it again."""
        async with self._waking:
            if experiment_id in self.dormant:
                await self.api.call(RESTORE_EXPERIMENT, {"experiment_id": experiment_id})
                self.dormant.discard(experiment_id)


class Kind:
    """Defaults. A kind overrides what it has."""

    name: str = ""
    label: str = ""
    """The plural that people read and `--accept-loss` takes."""
    group: str = ""
    """The name that `--objects` takes, where it stands for more than this kind."""
    parent: str | None = None
    needs: tuple[str, ...] = ()
    listed: bool = True
    sequential: bool = False
    heavy: bool = False
    batched: bool = False
    folder: str = ""
    """The folder of the archive that holds its objects, below the parent's own."""
    document: str = ""
    """The file that holds one object, in the object's own folder; empty where it has none."""
    points: bool = False
    inside: str = ""
    """For an object without a document: the list in its parent's `doc` that holds it."""

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        """A fingerprint of everything that must arrive and that the listing shows."""
        return codec.digest(record.doc)

    def series(self, record: Record) -> Sequence[str]:
        return ()

    def settled(self, record: Record) -> bool:
        return True

    def excluded(self, record: Record, deleted: bool) -> str:
        return ""

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        """See `core.ports.Kind`."""
        return ()

    def encode(self, record: Record) -> Doc:
        """The `mlflow` part of the document on disk."""
        return record.doc

    def info(self, record: Record) -> Doc:
        """The `info` part of the document on disk, without what the archive adds."""
        return {}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        """The record in a document (its `system`, `info`, `mlflow`), of any generation.

        Raises `ValueError` where the document is not as it should be: nothing of it may surprise anybody later.
        """
        return Record(Ref(self.name, ref_id, parent), document.get("mlflow") or {})

    def match(self, record: Record) -> str:
        """What is the same object on the other side of a comparison; its id, where the kind keeps ids."""
        return record.ref.id

    def comparable(self, record: Record, names: Names) -> Doc:
        """Everything that must be equal on both sides of a comparison."""
        return record.doc

    def names_others(self, file: Record) -> bool:
        """True for a file whose bytes hold ids of objects."""
        return False

    def split_names(self, data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        """The bytes of such a file without the ids, and the objects that they name."""
        return data, []

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        raise NotImplementedError(self.name)

    async def locate(self, api: Api, ids: Sequence[str]) -> list[Record]:
        """For a kind that others need: see `core.ports.Source.locate`."""
        raise NotImplementedError(self.name)

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        """For a heavy kind: see `core.ports.Source.load`."""
        yield [*batch]

    async def rows(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        nothing: tuple[RowCall, ...] = ()
        for call in nothing:
            yield call

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        return []

    async def files(self, api: Api, record: Record) -> AsyncIterator[list[Record]]:
        nothing: tuple[list[Record], ...] = ()
        for page in nothing:
            yield page

    def open(self, api: Api, record: Record, file: Record) -> Body:
        raise NotImplementedError(self.name)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        return {}

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        """Make the object; returns its new id and whatever the kind wants to be given back with its parts."""
        raise NotImplementedError(self.name)

    async def begin_batch(
        self, target: Target, records: Sequence[Record], ids: Ids
    ) -> dict[str, tuple[str, Any] | AmigrateError]:
        """For a batched kind: as `begin`, for many."""
        raise NotImplementedError(self.name)

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Go on with an object that exists (`made`: by an earlier session of ours); as `begin` without the id."""
        return None

    async def put_rows(self, target: Target, record: Record, rows: Sequence[Rows], ids: Ids, state: Any) -> None:
        return None

    async def held_files(self, target: Target, record: Record, state: Any) -> dict[str, int]:
        return {}

    async def put_file(self, target: Target, record: Record, file: Record, body: Body, ids: Ids, state: Any) -> int:
        raise NotImplementedError(self.name)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        return []

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        return []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return True


def tags_of(doc: Doc) -> dict[str, str]:
    """The tags of a document as a mapping; the server sends a list of {key, value}, archives a mapping."""
    return pairs(doc.get("tags"))


def pairs(value: Any) -> dict[str, str]:
    """A list of {key, value} or a mapping, as a mapping. An empty value is left out by the server."""
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    return {str(item["key"]): str(item.get("value", "")) for item in value or []}


def content_tags(tags: dict[str, str]) -> dict[str, str]:
    """Tags without those that only tell where an object came from."""
    return {key: value for key, value in tags.items() if not key.startswith((PROVENANCE, SOURCE_TAGS))}


def tag_list(tags: dict[str, str]) -> list[Doc]:
    """A mapping as the server takes it."""
    return [{"key": key, "value": value} for key, value in tags.items()]

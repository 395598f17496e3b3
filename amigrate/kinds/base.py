"""What every kind shares: defaults for all that is optional, and what a kind gets to write with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakValueDictionary

from amigrate.artifacts.proxy import proxy_path
from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, Uncarriable, Unresolved
from amigrate.core.model import (
    Body,
    Deferred,
    Doc,
    Forecast,
    Foreseen,
    Found,
    Notes,
    OnConflict,
    Outcome,
    Record,
    Ref,
    Rows,
)
from amigrate.core.ports import Ids, Names, RowCall, Scan
from amigrate.core.secrets import Secrets
from amigrate.kinds.claims import Claims
from amigrate.kinds.limits import Limits, is_plain, limits_of
from amigrate.kinds.naming import Naming
from amigrate.kinds.store import is_sql

RESTORE_EXPERIMENT = Endpoint("POST", f"{V2}/experiments/restore", Work.WRITE)
PROVENANCE = "amigrate."
SOURCE_TAGS = "mlflow_exim."
NO_STAGE = "None"
"""The stage of a version of a registered model that has none."""
ROOTS_HELD = 20_000
"""Of so many runs and logged models it is remembered where their artifacts lie."""
STAGES = ("active", "deleted")


class Index(Protocol):
    """What the target was seen to hold when this session first looked."""

    def loaded(self, parent: str) -> bool: ...

    def add(self, parent: str, keys: Sequence[str], found: Found, facts: str) -> None: ...

    def get(self, parent: str, key: str) -> tuple[Found, str] | None: ...

    def drop(self, parent: str, key: str) -> None: ...

    def mark(self, parent: str) -> None: ...


@dataclass(slots=True)
class Target:
    """A server being written to: what every write of a kind may use."""

    api: Api
    index: Index
    notes: Notes
    source_tags: bool = False
    provenance: bool = True
    """Whether what is made gets a tag that says where it was first made (`PROVENANCE`)."""
    narrowed: bool = False
    """True where the user chose among the source's objects: what is not there may have been left out."""
    naming: Naming = field(default_factory=Naming)
    """What is called how, and what happens where a name is taken."""
    fresh: set[str] = field(default_factory=set)
    """Experiments and evaluation datasets made in this session: nothing needs to be looked for in them."""
    retired: set[str] = field(default_factory=set)
    """Source experiments that are deleted there, by source id."""
    kept_alive: set[str] = field(default_factory=set)
    """Names of experiments that are not deleted at the source."""
    renaming: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Experiments that were renamed at the source: by the name that they still have here, id and new name."""
    left_names: set[str] = field(default_factory=set)
    """The names that those had, or have."""
    merged: dict[str, str] = field(default_factory=dict)
    """Experiments made in this session, by name."""
    dormant: set[str] = field(default_factory=set)
    """Target experiments that are deleted now and have to be restored before anything is written to them."""
    deleted_here: set[str] = field(default_factory=set)
    """Those that this session has deleted, and with them their runs."""
    _waking: asyncio.Lock = field(default_factory=asyncio.Lock)
    in_line: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)
    """Who makes one of several objects that cannot be told apart, or writes what only one may, holds the lock of that
    name."""

    copies: set[str] = field(default_factory=set)
    """Keys of source runs whose original is in the source too: they go by their own id, not by their original's."""
    datasets: set[tuple[str, str, str]] = field(default_factory=set)
    """Experiment, name and digest of the datasets that are there for sure."""
    dataset_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    dataset_details: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """By experiment (empty where the server keeps one for all), name and digest, a fingerprint of the first dataset."""
    keeps_inputs: bool = True
    """False once the server has turned out to lack dataset inputs."""
    refused_names: dict[tuple[str, str], str] = field(default_factory=dict)
    """Keys that the server does not take in any run, as (field of log-batch, key), with its reason."""
    held_traces: dict[str, Doc] = field(default_factory=dict)
    """Infos of traces that the target has, from the moment they were found until they are written."""
    fresh_names: set[str] = field(default_factory=set)
    """Registered models and prompts made in this session: they have no versions but ours."""
    last_version: dict[str, int] = field(default_factory=dict)
    """The highest number that each registered model or prompt is known to have given."""
    numbered: set[str] = field(default_factory=set)
    """Those of which the server itself has said so in this session: nothing that is deleted has a higher one."""
    artifact_roots: dict[str, str] = field(default_factory=dict)
    """Where the artifacts of runs and logged models lie, by the target's id."""
    claims: dict[str, Claims] = field(default_factory=dict)
    """By kind, which of the target's objects is which of the source's, where names do not tell."""
    fresh_servers: set[str] = field(default_factory=set)
    """MCP servers made in this session: they have no versions but ours."""
    scorers: dict[str, dict[str, str]] = field(default_factory=dict)
    """Names and ids of scorers, by experiment."""
    passwords: Secrets = field(default_factory=Secrets)
    """For users."""
    webhook_secrets: Secrets = field(default_factory=Secrets)
    output_fields: dict[str, dict[str, str]] = field(default_factory=dict)
    """By evaluation dataset, name and type of the fields that outputs of its records have, until it has seen some."""
    dry: bool = False
    """True where nothing may be written: not even what an earlier session left half done is completed."""
    _sql: bool | None = None

    def note_root(self, new_id: str, root: str) -> None:
        """Where a run or logged model keeps its artifacts: versions that come from it need not ask."""
        self.artifact_roots[new_id] = root
        if len(self.artifact_roots) > ROOTS_HELD:
            del self.artifact_roots[next(iter(self.artifact_roots))]

    def alone(self, name: str) -> asyncio.Lock:
        """Held by who must be the only one to do something."""
        return self.in_line.setdefault(name, asyncio.Lock())

    @property
    def limits(self) -> Limits:
        """How much of a text the server takes."""
        return limits_of(self.api.abilities)

    @property
    def updates(self) -> bool:
        """Whether what amigrate did not make gets the fields of the source's."""
        return self.naming.on_conflict is OnConflict.UPDATE

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
    named: bool = False
    merges: bool = False
    tells_parent: bool = False
    comes_with: str = ""
    opt_in: bool = False
    """True where it moves only when `--objects` names it."""
    keeps_edits: bool = False
    """True where what its owner changes at the target stays until it changes at the source too."""
    global_ids: bool = False
    by_origin: bool = False
    ids_vary: bool = False
    retried: bool = False
    folder: str = ""
    """The folder of the archive that holds its objects, below the parent's own."""
    document: str = ""
    """The file that holds one object, in the object's own folder; empty where it has none."""
    points: bool = False
    inside: str = ""
    """For an object without a document: the list in its parent's `doc` that holds it."""
    lines: str = ""
    """For many of these: the file beside their parent's document that has each on a line of its own."""
    about: tuple[str, ...] = ()
    """Kinds that it is of no use without: they come along with it, and where one of them is left out, so is it."""
    overlooks: str = ""
    """Which experiments it is not looked for in, and why, unless it is asked for by name; empty where it always is."""

    def _without(self, hook: str) -> TypeError:
        """For what is asked only of kinds that announce it, which all have it: see `tests/test_architecture.py`."""
        return TypeError(f"the kind '{self.name}' has no {hook}")

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        """A fingerprint of everything that must arrive and that the listing shows."""
        return codec.digest(record.doc)

    def series(self, record: Record) -> Sequence[str]:
        return ()

    def is_deleted(self, record: Record) -> bool:
        return False

    def is_all_listed(self, record: Record) -> bool:
        return True

    def settled(self, record: Record) -> bool:
        return True

    def excluded(self, record: Record, deleted: bool) -> str:
        return ""

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        """See `core.ports.Kind`."""
        return ()

    def comes_from(self, record: Record) -> Sequence[tuple[str, str]]:
        """See `core.ports.Kind`."""
        return ()

    def rank(self, record: Record) -> tuple[int, str]:
        """See `core.ports.Shape`."""
        return 0, ""

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

    def part(self, record: Record) -> int | None:
        """See `core.ports.Shape`."""
        return None

    def joined(self, parts: Sequence[Record]) -> Record:
        """See `core.ports.Shape`."""
        raise self._without("joined")

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

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        """See `core.ports.Source.forecast`."""
        return Forecast()

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        raise self._without("scan")

    async def locate(self, api: Api, ids: Sequence[str]) -> list[Record]:
        """For a kind that others need: see `core.ports.Source.locate`."""
        raise self._without("locate")

    async def count(self, api: Api, parents: Sequence[Record]) -> int | None:
        """See `core.ports.Source.count`."""
        return None

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        """For a heavy kind: see `core.ports.Source.load`."""
        yield [*batch]

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        """For a kind whose listings may hide an object: see `core.ports.Source.missed`."""
        return []

    async def rows(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        nothing: tuple[RowCall, ...] = ()
        for call in nothing:
            yield call

    def location(self, record: Record) -> str:
        """Where an object's files lie, as its server says it; empty where it has none."""
        return ""

    def is_proxied(self, api: Api, record: Record) -> bool:
        """Whether its files lie where only the server itself reaches them."""
        return proxy_path(self.location(record), api.uri) is not None

    async def with_files(self, api: Api, batch: Sequence[Record]) -> list[Record]:
        return []

    async def files(self, api: Api, record: Record) -> AsyncIterator[list[Record]]:
        nothing: tuple[list[Record], ...] = ()
        for page in nothing:
            yield page

    def open(self, api: Api, record: Record, file: Record) -> Body:
        raise self._without("open")

    # ---- write ------------------------------------------------------------------------------------------------

    def everybodys(self, held: Found) -> bool:
        """For a named kind: True for an object that every server has, whoever made it."""
        return False

    async def recognises(
        self, target: Target, record: Record, held: Found, children: Sequence[Record], ids: Ids, given: bool = False
    ) -> bool:
        """For a named kind: whether the target's object is the source's, made by an earlier amigrate, as what belongs
        to it tells. `given` says that amigrate gives such names."""
        return False

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        return {}

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        """See `core.ports.Sink.rehearse`. Only requests that read."""
        return Foreseen()

    def judged(self, target: Target, file: Record) -> Record:
        """For files: see `core.ports.Sink.judged`."""
        return file

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        """Make the object; returns its new id and whatever the kind wants to be given back with its parts."""
        raise self._without("begin")

    async def begin_batch(
        self, target: Target, records: Sequence[Record], ids: Ids
    ) -> dict[str, tuple[str, Any] | AmigrateError]:
        """For a batched kind: as `begin`, for many."""
        raise self._without("begin_batch")

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Go on with an object that exists (`made`: by an earlier session of ours); as `begin` without the id."""
        return None

    async def keep(self, target: Target, record: Record, new_id: str, ids: Ids) -> Any:
        """For a kind that keeps edits: see `core.ports.Sink.keep`; as `resume`."""
        return None

    async def put_rows(self, target: Target, record: Record, rows: Sequence[Rows], ids: Ids, state: Any) -> None:
        return None

    async def held_files(self, target: Target, record: Record, state: Any) -> dict[str, int]:
        return {}

    async def put_file(self, target: Target, record: Record, file: Record, body: Body, ids: Ids, state: Any) -> int:
        raise self._without("put_file")

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        return []

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        return []

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """See `core.ports.Sink.remove`."""
        raise Uncarriable("amigrate does not delete objects of this kind")

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return True


def home_of(record: Record, ids: Ids, kind: str = "experiment") -> str:
    """The target's id of what an object belongs to. Raises `Unresolved`."""
    parent = record.ref.parent
    new_id = ids.new_id(kind, parent.id) if parent else None
    if new_id is None:
        raise Unresolved(f"its {kind.replace('_', ' ')} {parent.id if parent else '?'} is not at the target")
    return new_id


def lacking(api: Api, *release: int) -> str:
    """Why a server cannot have a kind that this release brought and only databases keep; empty where it can."""
    if api.abilities.older_than(*release):
        return f"is MLflow {api.abilities.version or '2.0'}: {'.'.join(map(str, release))} has them"
    return "has a file store, which keeps none" if api.abilities.store == "FileStore" else ""


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

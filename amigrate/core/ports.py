"""The interfaces between the rooms. A server and an archive are each both a Source and a Sink."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from amigrate.core.errors import AmigrateError
from amigrate.core.model import (
    Body,
    Deferred,
    Doc,
    Entry,
    Forecast,
    Foreseen,
    Found,
    Outcome,
    Record,
    Ref,
    Rows,
    Status,
    Stream,
)

T = TypeVar("T")
Children = Callable[[Record], Awaitable[Sequence[Record]]]
"""Some of the objects that belong to a record, of those kinds that tell which record that is."""
Names = Callable[[str, str], str]
"""From the kind and the id of an object on one side to what it is called on both: its `Kind.match`.

Empty for one that is left out of the comparison.
"""


class Work(StrEnum):
    """Classes of requests. Each finds its own best concurrency, for each server."""

    READ = "read"
    WRITE = "write"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Retries:
    """How requests are repeated, as the user wants it; None leaves it to the guard."""

    times: int | None = None
    """Repetitions at most of what may be repeated at all."""
    backoff: float | None = None
    """Seconds: the first repetition comes at once, the next ones after 2, 4, 8, … times this."""
    jitter: float | None = None
    """Random seconds on top."""
    respect_retry_after: bool = True


AS_USUAL = Retries()


class Guard(Protocol):
    """Stands around every request of one server: concurrency, retry, rate."""

    async def call(
        self,
        work: Work,
        attempt: Callable[[], Awaitable[tuple[T, int]]],
        *,
        resend: bool = True,
        recover: Callable[[], Awaitable[T | None]] | None = None,
    ) -> T:
        """Run `attempt` (which returns its result and the bytes it moved) until it succeeds or is hopeless.

        Where `resend` is false, a request whose effect is unknown is not sent again unless `recover` has looked
        and found nothing; what `recover` finds is the result.
        """
        ...

    def stream(self, open: Callable[[], AbstractAsyncContextManager[Stream]]) -> AbstractAsyncContextManager[Stream]:
        """Open a stream, retrying until it is open, and hold a slot for files while it is read."""
        ...


class Ids(Protocol):
    """The id map, and what is known of an object's children."""

    def new_id(self, kind: str, old: str) -> str | None:
        """The id in the sink of the object with this id in the source, or None while it has none."""
        ...

    def old_id(self, kind: str, new: str) -> str | None:
        """The id in the source of the object that has this id in the sink, or None while none has."""
        ...

    def made(self, ref: Ref) -> bool:
        """True where the object in the sink was made by amigrate, as far as is remembered."""
        ...

    def called(self, ref: Ref) -> tuple[str, str] | None:
        """For an object whose own name was taken at the sink: that name, and the one it was given instead."""
        ...

    def was_intended(self, ref: Ref) -> bool:
        """True where an earlier session was about to make this object, and nobody knows whether it did."""
        ...

    def shared(self, kind: str, new: str) -> bool:
        """True where several objects of the source are this one in the sink."""
        ...

    def entry(self, kind: str, old: str) -> Entry | None:
        """What is remembered of the object with this id in the source."""
        ...

    def children(self, kind: str, parent: Ref) -> Iterator[tuple[str, Status, str]]:
        """Id, outcome and reason of every object of `kind` under `parent` that this session has met."""
        ...


class Scan(Protocol):
    """One listing of a kind under some parents."""

    def pages(self) -> AsyncIterator[list[Record]]:
        """Pages of records; a record may be shown more than once."""
        ...

    async def size(self) -> int | None:
        """About how many records there will be, to tell how much time is left; None where that cannot be had."""
        ...

    def again(self) -> AsyncIterator[list[Record]]:
        """What came, or went on, since `pages` ended. Pages as above; empty where nothing did."""
        ...


class RowCall(Protocol):
    """One request that will bring rows, not sent yet."""

    cost: int
    """Bytes the answer is expected to take in memory."""
    refs: list[Ref]
    """The records it brings rows of; where the call fails, they fail."""

    async def __call__(self) -> list[Rows]: ...


class Source(Protocol):
    """Where records come from. A source is never written to."""

    label: str
    """Address for people: no credentials in it."""
    local: bool
    """True where nothing that is read costs a request."""
    shows_all: bool
    """False where listings hide what this user may not read: what they do not show may be there all the same."""

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan: ...

    def load(self, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        """The same records with all that the listing left out, each once, as many at a time as fit into memory.

        One that cannot be read has its `error`.
        """
        ...

    async def count(self, kind: str, parents: Sequence[Record]) -> int | None:
        """How many objects of a kind there are below these parents, whether or not they are asked for.

        None where nobody can tell without reading them all.
        """
        ...

    async def locate(self, kind: str, ids: Sequence[str]) -> list[Record]:
        """The objects of these ids, each with its parent; those that are not there are left out."""
        ...

    async def missed(self, kind: str, records: Sequence[Record]) -> list[Record]:
        """Those of the records, known from earlier and in no listing now, that are there all the same, as they are."""
        ...

    def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        """The calls that together bring every row of the batch; may wait for one call before it knows the next."""
        ...

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        """What `load` and `rows` would come to for these records, all of one kind."""
        ...

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        """Those of the batch that may have files: what one cheap look can tell."""
        ...

    def files(self, record: Record) -> AsyncIterator[list[Record]]:
        """The files of a record, in pages; raises where they cannot be listed."""
        ...

    def open(self, record: Record, file: Record) -> Body: ...

    async def keeps_repeats(self) -> bool:
        """False where equal points of a series are kept once."""
        ...

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        """What this source holds of kinds that cannot be moved (yet), counted."""
        ...


class Sink(Protocol):
    """Where records go. Every write may be repeated with the same effect."""

    label: str
    local: bool
    """True where nothing that is written costs a request."""

    async def agree(self, records: Sequence[Record], children: Children, ids: Ids) -> dict[str, tuple[str, str]]:
        """Settle the names of all records of a named kind, before anything is written.

        Returns those that got another one than was wanted: that one and the new one, by `ref.key`. Raises `UsageError`
        where that cannot be.
        """
        ...

    async def find(self, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """What the sink already holds of these records (all of one kind), by `ref.key`."""
        ...

    async def begin(self, record: Record, ids: Ids) -> str:
        """Make the object, without its parts; returns its id in the sink."""
        ...

    async def rehearse(self, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        """What `begin`, or `resume` where `made` is no None, and `commit` would do, without writing anything.

        `new_id` is what the record goes by meanwhile. Raises what they would raise.
        """
        ...

    def judged(self, file: Record) -> Record:
        """The same file, with the reason why the sink would not take it, where there is one."""
        ...

    async def begin_batch(self, records: Sequence[Record], ids: Ids) -> dict[str, str | AmigrateError]:
        """Make, or write again, many objects of a batched kind: the id in the sink of each, or why there is none."""
        ...

    async def resume(self, record: Record, new_id: str, made: bool, ids: Ids) -> None:
        """Go on with an object that exists already: make it writable and bring its own fields up to date.

        `made` says that the journal knows it as made by amigrate.
        """
        ...

    async def keep(self, record: Record, new_id: str, ids: Ids) -> None:
        """Leave an object alone that amigrate has made, of a kind that keeps edits: the source has it as it was then.

        An archive writes it again all the same.
        """
        ...

    async def put_rows(self, record: Record, rows: Sequence[Rows], ids: Ids) -> None:
        """Add rows; may be called often for one record, never twice at once."""
        ...

    async def held_files(self, record: Record) -> dict[str, int]:
        """Path and size of the files that the sink already has of this record."""
        ...

    async def put_file(self, record: Record, file: Record, body: Body, ids: Ids) -> int:
        """Write one file; returns its size in bytes."""
        ...

    async def commit(self, record: Record, ids: Ids) -> list[Outcome]:
        """Everything has arrived: write what says so. Returns outcomes of parts that could not be kept whole.

        A parent is committed once more where children of it arrived after that.
        """
        ...

    def drop(self, record: Record) -> None:
        """The record has failed: forget what is held for it."""
        ...

    def deferred(self, record: Record) -> list[Deferred]:
        """What is left to do for a record that was committed, once everything else has arrived."""
        ...

    async def remove(self, ref: Ref, new_id: str, ids: Ids) -> None:
        """Take away an object that amigrate has made and whose original was deleted.

        Raises `Uncarriable` where it has to stay: because of what else would go with it, or for good.
        """
        ...

    async def link(self, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """Second pass over what `deferred` named; `record` has no doc then. True where it is settled for good.

        Else what was done of it may be taken out of `what.doc`, which is kept for the next session.
        """
        ...


class Shape(Protocol):
    """What an archive knows of one object kind: where its documents go and what is in them."""

    name: str
    parent: str | None
    folder: str
    document: str
    points: bool
    """True where its document ends with points, one on a line."""
    inside: str
    """Where it has no document of its own: the list in its parent's `doc` that holds its own."""
    lines: str
    """Where there may be very many of these: the file beside their parent's document that has one on each line."""
    sequential: bool

    def rank(self, record: Record) -> tuple[int, str]:
        """For a sequential kind with documents: the children of one parent are made in the order of these."""
        ...

    def encode(self, record: Record) -> Doc: ...

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record: ...

    def part(self, record: Record) -> int | None:
        """Where a document holds its object with one of many children only: the number of that; else None."""
        ...

    def joined(self, parts: Sequence[Record]) -> Record:
        """One object of all its parts, which come in the order of their numbers."""
        ...


class Kind(Protocol):
    """What the engine knows of one object kind: declared facts and pure functions."""

    name: str
    label: str
    """What people call its objects."""
    group: str
    """What people call it together with others; empty where it stands for itself."""
    parent: str | None
    needs: tuple[str, ...]
    opt_in: bool
    """True where it moves only when it is asked for by name."""
    keeps_edits: bool
    """True where what the owner of an object changes at the sink stays until it changes at the source too."""
    listed: bool
    """True where the source has a listing of the kind; files come with the object that owns them."""
    sequential: bool
    """True where the children of one parent are made one after the other, in the order of their listing."""
    heavy: bool
    """True where a listing does not hold all that a begin call needs, so that `Source.load` has to bring it."""
    batched: bool
    """True where one begin call serves many records, and repeating it does no harm."""
    named: bool
    """True where its name is who it is at the sink, and the sink has no other one of it."""
    merges: bool
    """For a named kind: True where several of the source may become one of the sink."""
    comes_with: str
    """The kind of those children without which it does not come, where the user leaves out all that it has."""
    tells_parent: bool
    """True where its objects tell which object of the source they belong to."""
    global_ids: bool
    """True where an id is taken on the whole sink, whatever its object belongs to."""
    by_origin: bool
    """True where `match` is an id: the one that the object had where it was first made."""
    overlooks: str
    """Not empty where listings leave some parents out: what they do not show may be there all the same."""
    ids_vary: bool
    """True where the ids in its files (`names_others`) may be longer on one side than on the other."""
    retried: bool
    """True where what the sink has refused of an object is offered again by the next command."""

    def everybodys(self, held: Found) -> bool:
        """For a named kind: True for an object that every sink has, whoever made it."""
        ...

    def digest(self, record: Record) -> str:
        """A fingerprint of all that must arrive and that the listing shows; changes when the object changes."""
        ...

    def series(self, record: Record) -> Sequence[str]:
        """The series whose rows belong to the record; empty for kinds without rows."""
        ...

    def is_deleted(self, record: Record) -> bool:
        """True for an object that its source shows as deleted."""
        ...

    def is_all_listed(self, record: Record) -> bool:
        """For a batched kind, of a record with all that `load` brings: whether a sink's listing shows all that matters.

        False where it also has files, or work that is deferred.
        """
        ...

    def settled(self, record: Record) -> bool:
        """False while the object may still grow at the source (a run that has not ended)."""
        ...

    def excluded(self, record: Record, deleted: bool) -> str:
        """Why the selection leaves this record out; empty where it does not."""
        ...

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        """Kind and id of the objects that are of no use without each other: a version needs its run."""
        ...

    def comes_from(self, record: Record) -> Sequence[tuple[str, str]]:
        """Kind and id of the objects that it comes from: where the user leaves one of them out, it stays too."""
        ...

    def match(self, record: Record) -> str:
        """What is the same object on the other side of a comparison, within the same parent."""
        ...

    def comparable(self, record: Record, names: Names) -> Doc:
        """Everything that must be equal on both sides, ids of other objects replaced by their names."""
        ...

    def names_others(self, file: Record) -> bool:
        """True for a file of an object of this kind whose bytes hold ids of objects."""
        ...

    def split_names(self, data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
        """The bytes of such a file without the ids, and kind and id of each object named, in their order."""
        ...

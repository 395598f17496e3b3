"""The words amigrate thinks in: identity, records, rows, bodies, outcomes.

Nothing here knows HTTP, disk or MLflow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any
from urllib.parse import quote

from amigrate.core.errors import AmigrateError

Doc = dict[str, Any]
"""One JSON object as the server gave it, unknown fields kept."""

Point = tuple[float, int, int]
"""One metric point: value, timestamp (milliseconds since the epoch), step."""

POINT_BYTES = 200
"""What one `Point` costs in memory while it waits: tuple, float, two ints and their list slot, rounded up."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Identity of one object. Equal ids under different parents are different objects."""

    kind: str
    id: str
    parent: Ref | None = None
    key: str = field(init=False, repr=False, compare=False, default="")
    """The whole path of ids, each escaped, so that no two objects of one kind share a key."""

    def __post_init__(self) -> None:
        own = self.id if self.id.isalnum() and self.id.isascii() else quote(self.id, safe="")
        # It is asked for many times for each object.
        object.__setattr__(self, "key", own if self.parent is None else f"{self.parent.key}/{own}")

    def __str__(self) -> str:
        return f"{self.kind} {self.id}" if self.parent is None else f"{self.kind} {self.id} of {self.parent}"


@dataclass(frozen=True, slots=True)
class Record:
    """An object to move: who it is and what its server (or archive) says of it."""

    ref: Ref
    doc: Doc
    name: str = ""
    """What a person calls it; empty where the id is all there is."""
    place: str = ""
    """Where an archive keeps it: a path below the archive's root. Empty for a server's records."""
    error: AmigrateError | None = None
    """Why it cannot be read (failed), or cannot be carried (`Uncarriable`)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A chunk of at most 25 000 rows of one series of one record.

    `total` is the number of rows that the whole series has, known to its last chunk at the latest: a series is
    complete when so many have arrived, in whatever order the chunks were taken in.
    """

    ref: Ref
    series: str
    points: list[Point]
    total: int | None = None
    error: str = ""
    """Why the series cannot be read; its record fails."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Bytes on their way: chunks, and how many bytes in all where the sender said so."""

    chunks: AsyncIterator[bytes]
    size: int | None


@dataclass(frozen=True, slots=True)
class Body:
    """Bytes that can be opened again from their beginning, so that a failed upload can be repeated."""

    open: Callable[[], AbstractAsyncContextManager[Stream]]
    size: int | None


class Status(StrEnum):
    """What became of one object. Every object listed at the source ends in exactly one of these."""

    CREATED = "created"
    UPDATED = "updated"
    PRESENT = "present"
    EXCLUDED = "excluded"
    LEFT_BEHIND = "left behind"
    FAILED = "failed"

    @property
    def is_loss(self) -> bool:
        """True where the object did not arrive although it was asked for."""
        return self in (Status.LEFT_BEHIND, Status.FAILED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one object's journey; `count` above one stands for a whole kind that could only be counted."""

    ref: Ref
    status: Status
    new_id: str | None = None
    reason: str = ""
    name: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a comparison of A with B.

    `sigil` is `=` equal, `*` in both and different, `-` only in A, `+` only in B, `!` one key claimed by two.
    """

    sigil: str
    ref: Ref
    """As A knows the object; as B does where A has none."""
    detail: str = ""
    name: str = ""
    """What a person calls it."""


class Progress(StrEnum):
    """How far an object has come, as the journal holds it."""

    INTENDED = "intended"
    BEGUN = "begun"
    FILLED = "filled"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Entry:
    """What the journal remembers of an object from this or an earlier session."""

    progress: Progress
    new_id: str | None
    digest: str
    made: bool
    """True where amigrate made the object, false where it was found."""
    content: str = ""
    """A fingerprint of what no listing shows: its points, paths and sizes of its files. Empty where nobody has read
    them all."""
    files: str = ""
    """A fingerprint of the bytes of its files; empty likewise."""
    deleted: bool = False
    """True where it was deleted at the source already when it was carried."""
    fresh: bool = False
    """True where the running session has made it."""
    name: str = ""
    """What it was called at the source."""
    stamp: str = ""
    """What tells it from another object of the same id on another server: see `Found`."""

    @property
    def arrived(self) -> bool:
        """True where all of it was at the sink, but perhaps for references."""
        return self.progress in (Progress.FILLED, Progress.WHOLE)


@dataclass(frozen=True, slots=True)
class Known:
    """An object that earlier sessions met, as the journal knows it."""

    ref: Ref
    name: str
    entry: Entry | None
    """None where it was only looked at and left out."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the sink already holds of a record."""

    new_id: str
    same: bool
    """True where everything the sink's listing shows equals the record."""
    deleted: bool = False
    ours: bool = False
    """True where amigrate made it, as its provenance tag says."""
    stamp: str = ""
    """For a kind whose ids are small numbers: something that never changes and hardly comes twice."""


class OnConflict(StrEnum):
    """What happens to an object that the sink has already and amigrate did not make."""

    SKIP = "skip"
    """It stays as it is, and gets what belongs to it and is lacking."""
    UPDATE = "update"
    """Its fields become the source's."""
    RENAME = "rename"
    """The source's object gets a name that is free."""
    FAIL = "fail"
    """Nothing is written at all."""


PLANNED = "planned "
"""What the id of an object begins with that is only planned."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What is still to be read of some records that were listed, files aside."""

    rows: int = 0
    """As far as the listing lets guess."""
    requests: float = 0.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What it would come to to write one record, files aside."""

    requests: float = 1.0
    losses: Sequence[Outcome] = ()
    """Parts that the sink would not take."""
    doubts: Sequence[str] = ()
    """What may be lost, depending on what the sink does not tell."""


class Stage(IntEnum):
    """Order of the second pass: what a later stage does would undo or forbid an earlier one."""

    REFERENCES = 0
    DELETIONS = 1
    REVIVALS = 2


@dataclass(frozen=True, slots=True)
class Deferred:
    """Work on one object that has to wait until everything else has arrived."""

    stage: Stage
    doc: Doc


@dataclass(slots=True)
class Notes:
    """Remarks of one session that belong to no single object: warnings and facts for the summary."""

    warnings: list[str] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """Where which kinds of the source were not looked for, and why."""

    def warn(self, text: str) -> None:
        """Keep a warning once, however often it is given."""
        if text not in self.warnings:
            self.warnings.append(text)

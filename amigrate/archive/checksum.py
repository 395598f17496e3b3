"""A document's checksum of itself, so that no byte of it changes unseen.

`info.sha256` comes first in `info`. It is the sha256 of the document's bytes with 64 zeros in its place: a document is
written with the zeros and given its checksum before it gets its final name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO

from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc

ZEROS = "0" * 64
LABEL = b'\n  "info": {\n    "sha256": "'
BLANK = LABEL + ZEROS.encode()
NO_PLACE = "a document without a place for its checksum"
FIELD = re.compile(re.escape(LABEL) + rb'([0-9a-f]{64})"')
READ = 1024 * 1024
WHOLE = 1024 * 1024
"""Documents up to this size are put together before they are written: one call of the system instead of five."""


def with_blank(info: Doc) -> Doc:
    """The `info` of a document that is about to be written, or written again."""
    return {"sha256": ZEROS, **info} | {"sha256": ZEROS}


def write(out: IO[bytes], parts: Iterable[bytes]) -> None:
    """Write a document and put its checksum into it."""
    rest, held, size = iter(parts), [], 0
    for data in rest:
        held.append(data)
        size += len(data)
        if size > WHOLE:
            _write_long(out, chain(held, rest))
            return
    document = b"".join(held)
    place = _place(document)
    assert place is not None, NO_PLACE
    digest = hashlib.sha256(document).hexdigest().encode()
    out.write(document[:place] + digest + document[place + len(digest) :])


def _write_long(out: IO[bytes], parts: Iterable[bytes]) -> None:
    digest, written, place = hashlib.sha256(), 0, None
    for data in parts:
        at = _place(data) if place is None else None
        place = place if at is None else written + at
        digest.update(data)
        written += out.write(data)
    assert place is not None, NO_PLACE
    out.seek(place)
    out.write(digest.hexdigest().encode())


def _place(data: bytes) -> int | None:
    """Where the checksum belongs."""
    at = data.find(BLANK)
    return at + len(LABEL) if at >= 0 else None


def check(path: Path) -> None:
    """Raises `ArchiveError` where a document is not the one that was written."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            head = file.read(READ)
            field = FIELD.search(head)
            if field is None:
                raise ArchiveError("it has no checksum")
            digest.update(head[: field.start(1)] + ZEROS.encode() + head[field.end(1) :])
            while data := file.read(READ):
                digest.update(data)
    except OSError as error:
        raise ArchiveError(f"it cannot be read: {error.strerror or error}") from error
    if digest.hexdigest() != field[1].decode():
        raise ArchiveError("it is damaged: its sha256 is not the one that was written")

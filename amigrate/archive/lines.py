"""Objects that lie in one file, one on a line: written as they come, read as a stream, whole or not at all.

Lines are JSON as Python's own module writes it, so that every value comes back as it was: NaN is bare there, because a
text "NaN" is something else.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from amigrate.archive.layout import PART
from amigrate.core import codec
from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc
from amigrate.core.typed import mapping, whole

HELD = 1024 * 1024
"""Bytes that wait for their file to be opened."""
LONGEST = 64 * 1024 * 1024
"""A line over this size is none of ours."""


class LineFile:
    """One such file on its way: beside its name until `close`, which may be called again where more came later."""

    def __init__(self, path: Path) -> None:
        """Nothing is written yet; what an earlier export left is replaced by `close`. May raise `OSError`."""
        self._path = path
        self._part = path.with_name(path.name + PART)
        self._part.unlink(missing_ok=True)
        self._held: list[bytes] = []
        self._waiting = 0
        self._closed = False
        self._digest = hashlib.sha256()
        self.lines = 0

    def add(self, doc: Doc) -> None:
        """Append an object."""
        line = codec.exact_dumps(doc).encode() + b"\n"
        self._held.append(line)
        self._waiting += len(line)
        self._digest.update(line)
        self.lines += 1
        if self._waiting > HELD:
            self._flush()

    def _flush(self) -> None:
        if self._closed:
            shutil.copyfile(self._path, self._part)
            self._closed = False
        with self._part.open("ab") as out:
            out.writelines(self._held)
        self._held, self._waiting = [], 0

    def keep_last(self, identity: Callable[[Doc], str]) -> None:
        """Of the lines that tell of the same object, keep the last one: it changed while it was exported."""
        self._flush()
        last = {identity(codec.exact_loads(line)): number for number, line in enumerate(_lines(self._part))}
        kept = {*last.values()}
        thinned = self._part.with_name(self._part.name + PART)
        self._digest = hashlib.sha256()
        with thinned.open("wb") as out:
            for number, line in enumerate(_lines(self._part)):
                if number in kept:
                    self._digest.update(line)
                    out.write(line)
        thinned.replace(self._part)
        self.lines = len(kept)

    def close(self) -> Doc:
        """Give the file its name; returns what its parent's document says of it."""
        if self._held or not self._closed:
            self._flush()
            self._part.replace(self._path)
            self._closed = True
        return {"lines": self.lines, "sha256": self._digest.hexdigest()}


def read_lines(path: Path, expected: object) -> Iterator[tuple[int, Doc | ArchiveError]]:
    """Number and object of each line, or what is wrong with it; number 0 where the file as a whole is not as expected.

    `expected` is what `LineFile.close` has returned, or None where nobody knows.
    """
    digest, number = hashlib.sha256(), 0
    try:
        wanted = mapping(expected, "the note of its lines")
        for number, line in enumerate(_lines(path), 1):
            digest.update(line)
            yield number, _parsed(path, number, line)
        if wanted and (number != whole(wanted.get("lines"), "lines") or digest.hexdigest() != wanted.get("sha256")):
            yield 0, ArchiveError(f"{path} is damaged: it is not as it was written ({number} lines)")
    except (OSError, ValueError) as error:
        yield 0, ArchiveError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")


def _parsed(path: Path, number: int, line: bytes) -> Doc | ArchiveError:
    try:
        return mapping(codec.exact_loads(line), "it")
    except (ValueError, RecursionError) as error:
        return ArchiveError(f"line {number} of {path} is not as it should be: {error}")


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while line := file.readline(LONGEST):
            if len(line) == LONGEST:
                raise ValueError("one of its lines is too long")
            yield line

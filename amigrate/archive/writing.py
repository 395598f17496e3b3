"""Writing to an archive: each document beside its name first, then renamed; a disk that refuses ends the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TypeVar

from amigrate.archive import checksum
from amigrate.archive.layout import PART
from amigrate.core.errors import DiskError

T = TypeVar("T")


def on_disk(action: Callable[[], T], path: Path) -> T:
    """Run something that writes; a disk that is full or read-only ends the session, not one record."""
    try:
        return action()
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}") from error


def write(path: Path, parts: Iterable[bytes]) -> None:
    """A document under its final name, whole or not at all."""
    on_disk(lambda: _renamed(path, parts), path)


def _renamed(path: Path, parts: Iterable[bytes]) -> None:
    part = path.with_name(path.name + PART)
    try:
        with _new(part) as out:
            checksum.write(out, parts)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _new(path: Path) -> IO[bytes]:
    """A new file; its folder is mostly there."""
    try:
        return path.open("wb")
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("wb")

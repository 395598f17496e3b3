"""Artifacts on the disk of this machine: for local stores only, never because a remote server names a path.

What leads out of a run's folder is refused: symbolic links are not followed, names with `..` are not written.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from amigrate.artifacts.folder import Entry
from amigrate.core.errors import AmigrateError, DiskError, Uncarriable
from amigrate.core.model import Body, Stream

CHUNK = 256 * 1024
RUN_LEVELS = 3
"""`<experiment>/<run>/artifacts`."""
DISK_IS_GONE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class Home(Protocol):
    """What is asked of a local store. See `stores.Store`."""

    @property
    def base(self) -> Path: ...

    @property
    def runs(self) -> Path: ...


def disk_folder(location: str, store: Home) -> DiskFolder | None:
    """The folder that `location`, the `artifact_uri` of a run, names; None where it is not on a disk.

    A store that was moved here from another machine still names the places where it was: there, the run's folder is
    looked for where it would be by default.
    """
    parts = urlsplit(location)
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        return None
    root = store.base / (unquote(parts.path) if parts.scheme else location)
    moved = store.runs.joinpath(*root.parts[-RUN_LEVELS:])
    if root.exists() or root.is_relative_to(store.base) or root.parents[RUN_LEVELS - 1].exists():
        return DiskFolder(root)
    return DiskFolder(moved if moved.exists() else root, elsewhere=not moved.exists())


class DiskFolder:
    """A folder on this machine. `elsewhere`: it was on another one, so that it is empty here means nothing."""

    def __init__(self, root: Path, *, elsewhere: bool = False) -> None:
        self._root = root
        self._elsewhere = elsewhere

    async def entries(self, path: str) -> list[Entry]:
        with _explained(path or str(self._root)):
            return await asyncio.to_thread(self._scanned, path)

    def _scanned(self, path: str) -> list[Entry]:
        try:
            with os.scandir(self._root / path) as found:
                return [_entry(path, item) for item in sorted(found, key=lambda item: item.name)]
        except FileNotFoundError:
            if self._elsewhere and not path:
                raise Uncarriable(f"{self._root} is not on this machine") from None
            return []

    def refusal(self, path: str) -> str:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in path:
            return "its name leads out of the run's folder"
        if not path.isprintable() and any(0xDC80 <= ord(letter) <= 0xDCFF for letter in path):
            return "its name is not UTF-8"
        steps = [self._root.joinpath(*parts[: number + 1]) for number in range(len(parts))]
        if any(step.is_symlink() for step in steps):
            return "a symbolic link: not followed"
        if steps[-1].exists() and not steps[-1].is_file():
            return "not a file"
        return ""

    def body(self, path: str, size: int | None) -> Body:
        return Body(lambda: self._opened(path), size)

    @asynccontextmanager
    async def _opened(self, path: str) -> AsyncIterator[Stream]:
        self._check(path)
        with _explained(path):
            file = await asyncio.to_thread((self._root / path).open, "rb")
        try:
            yield Stream(_chunks(file, path), os.fstat(file.fileno()).st_size)
        finally:
            file.close()

    async def put(self, path: str, body: Body) -> int:
        self._check(path)
        final = self._root / path
        part = final.parent / f".amigrate-{uuid4().hex}"
        with _explained(path):
            out = await asyncio.to_thread(_new_file, part)
        try:
            with out:
                size = await _written(body, out, path)
            with _explained(path):
                await asyncio.to_thread(part.replace, final)
            return size
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _check(self, path: str) -> None:
        if reason := self.refusal(path):
            raise Uncarriable(reason)


def _entry(parent: str, item: os.DirEntry[str]) -> Entry:
    path = f"{parent}/{item.name}" if parent else item.name
    is_folder = item.is_dir(follow_symlinks=False)
    return Entry(path, is_folder, 0 if is_folder else item.stat(follow_symlinks=False).st_size)


def _new_file(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


async def _chunks(file: BinaryIO, path: str) -> AsyncIterator[bytes]:
    while True:
        with _explained(path):
            data = await asyncio.to_thread(file.read, CHUNK)
        if not data:
            return
        yield data


async def _written(body: Body, out: BinaryIO, path: str) -> int:
    size = 0
    async with body.open() as stream:
        async for chunk in stream.chunks:
            with _explained(path):
                await asyncio.to_thread(out.write, chunk)
            size += len(chunk)
    return size


@contextmanager
def _explained(path: str) -> Iterator[None]:
    """What the operating system says, in one line; a full disk ends the session."""
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in DISK_IS_GONE else AmigrateError
        raise kind(f"{path}: {error.strerror or error}") from error

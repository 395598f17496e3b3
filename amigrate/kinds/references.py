"""Ids of runs and logged models inside texts and files: found, mapped to new ones, told by what both sides call them.

A run's id is 32 hexadecimal digits, a logged model's the same after `m-`. Trace ids (`tr-…`) look alike and stay.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from amigrate.core.model import Body, Stream
from amigrate.core.ports import Ids, Names

RUN, LOGGED_MODEL = "run", "logged_model"
ID = re.compile(r"(?<!tr-)\b(?:m-)?[0-9a-f]{32}\b")
ID_BYTES = re.compile(ID.pattern.encode())
SMALL_FILE = 16 * 1024 * 1024
"""An `MLmodel` over this size is none."""
Own = tuple[str, str]
"""The old and the new id of the object that a text belongs to."""


def kind_of(identity: str) -> str:
    """The kind of object that an id stands for."""
    return LOGGED_MODEL if identity.startswith("m-") else RUN


def mapped(text: str, own: Own, ids: Ids) -> tuple[str, bool]:
    """`text` with the ids in it replaced by the new ones, and whether every one of them had a new id."""
    complete = True

    def replace(match: re.Match[str]) -> str:
        nonlocal complete
        new = _new_id(match[0], own, ids)
        complete = complete and new is not None
        return new or match[0]

    return ID.sub(replace, text), complete


def mapped_bytes(data: bytes, own: Own, ids: Ids) -> bytes:
    """The same in a file; what has no new id stays as it is."""
    return ID_BYTES.sub(lambda match: (_new_id(match[0].decode(), own, ids) or match[0].decode()).encode(), data)


def _new_id(old: str, own: Own, ids: Ids) -> str | None:
    return own[1] if old == own[0] else ids.new_id(kind_of(old), old)


def named(text: str, names: Names) -> str:
    """`text` with the ids in it replaced by what both sides of a comparison call them."""
    return ID.sub(lambda match: names(kind_of(match[0]), match[0]), text)


def split_names(data: bytes) -> tuple[bytes, list[tuple[str, str]]]:
    """A file's bytes without the ids in them, and those ids with their kinds."""
    found = [match.decode() for match in ID_BYTES.findall(data)]
    return ID_BYTES.sub(b"<id>", data), [(kind_of(identity), identity) for identity in found]


def names_others(path: str, size: int) -> bool:
    """True for a file whose bytes hold ids: the description of a model."""
    return path.rpartition("/")[2] == "MLmodel" and size <= SMALL_FILE


async def with_new_ids(body: Body, own: Own, ids: Ids) -> Body:
    """A small text file with the ids in its bytes replaced."""
    async with body.open() as stream:
        data = b"".join([chunk async for chunk in stream.chunks])
    return body_of(mapped_bytes(data, own, ids))


def body_of(data: bytes) -> Body:
    """Bytes in memory as a body."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stream]:
        yield Stream(chunks(), len(data))

    return Body(opened, len(data))

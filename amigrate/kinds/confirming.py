"""Asking by id for what no listing has shown.

Pages by offset are no snapshot: when an object is deleted while they are read, all behind it move up, and the one that
would have begun the next page is in none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from amigrate.core.errors import NotFound
from amigrate.core.model import Record
from amigrate.kinds.traced import each


async def confirmed(ask: Callable[[Record], Awaitable[Record]], records: Sequence[Record]) -> list[Record]:
    """Those of the records that are there, as they are now. `ask` raises `NotFound` for one that is not."""

    async def asked(record: Record) -> Record | None:
        try:
            return await ask(record)
        except NotFound:
            return None

    return [found async for found in each(asked, records) if found is not None]

"""Tasks, so many of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Crowd:
    """Tasks, so many of them at once. Leaving it waits for all."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._group = asyncio.TaskGroup()

    async def __aenter__(self) -> Crowd:
        await self._group.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self._group.__aexit__(*raised)

    async def start(self, work: Callable[..., Coroutine[Any, Any, None]], *args: Any) -> None:
        """Begin one more task, as soon as there is room for it."""
        await self._free.acquire()
        self._group.create_task(work(*args)).add_done_callback(lambda _: self._free.release())

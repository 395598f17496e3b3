"""The memory budget: bytes in flight, first come first served."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress


class ByteBudget:
    """So many bytes may be in flight. One item larger than all of it is let through alone."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def short(self) -> bool:
        """True while somebody waits for bytes."""
        return bool(self._waiting)

    async def take(self, size: int) -> None:
        """Wait until `size` bytes are free and hold them."""
        if not self._waiting and self._fits(size):
            self.held += size
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, waiter))
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give(size)
            with suppress(ValueError):
                self._waiting.remove((size, waiter))
            raise

    def give(self, size: int) -> None:
        """Give bytes back. Who was cancelled while waiting and has not run since is still in the queue."""
        self.held -= size
        while self._waiting and (self._waiting[0][1].done() or self._fits(self._waiting[0][0])):
            size, waiter = self._waiting.popleft()
            if not waiter.done():
                self.held += size
                waiter.set_result(None)

    def _fits(self, size: int) -> bool:
        return self.held == 0 or self.held + size <= self.total

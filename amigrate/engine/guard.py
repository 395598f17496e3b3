"""What stands around every request: a slot, a pace, and another attempt where that is worth it.

One guard for each end of a move, even at the same URL: an upload holds a slot of the sink while its body waits for one
of the source, and one shared pool would lock up. A slot is given back while waiting to retry.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from copy import copy
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type
from tenacity.wait import wait_exponential, wait_random

from amigrate.core.errors import CannotContinue, NoServer, Transient
from amigrate.core.model import Stream
from amigrate.core.ports import AS_USUAL, Retries, Work
from amigrate.engine.limiter import Limiter
from amigrate.engine.stats import Requests

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

START = {Work.READ: 3, Work.WRITE: 2, Work.FILE: 2}
REQUEST_COST = {Work.READ: 8.0, Work.WRITE: 8.0, Work.FILE: 3.0}
"""Milliseconds of a server's time that a request takes whatever it moves; sets the scale for `BYTE_COST`."""
BYTE_COST = {Work.READ: 1 / 1000, Work.WRITE: 1 / 800, Work.FILE: 1 / 200_000}
"""Milliseconds for each byte moved: points are dear, files are cheap."""
LONGEST_WAIT = 30.0
LONGEST_BACKOFF = 120.0


class Slots:
    """The slots of one class of work, and who waits for them."""

    def __init__(self, limiter: Limiter) -> None:
        self.limiter = limiter
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def wanted(self) -> bool:
        return bool(self._waiting)

    async def take(self) -> None:
        """Wait for a slot."""
        if self.limiter.in_flight < self.limiter.limit and not self._waiting:
            self.limiter.in_flight += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.give()
            with suppress(ValueError):
                self._waiting.remove(waiter)
            raise

    def give(self) -> None:
        """Give a slot back; as many as the limit allows now go on.

        Who was cancelled while waiting and has not run since is still in the queue.
        """
        self.limiter.in_flight -= 1
        while self._waiting and self.limiter.in_flight < self.limiter.limit:
            waiter = self._waiting.popleft()
            if not waiter.done():
                self.limiter.in_flight += 1
                waiter.set_result(None)


class AdaptiveGuard:
    """See `core.ports.Guard`."""

    def __init__(
        self,
        requests: Requests,
        *,
        ceiling: int,
        per_second: float | None = None,
        sleep: Sleep = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        pinned: int | None = None,
        retries: Retries = AS_USUAL,
    ) -> None:
        """`ceiling` bounds every class of work; `pinned` fixes them all at one limit, for measurements."""
        self._requests = requests
        self._sleep = sleep
        self._clock = clock
        self._pace = 1 / per_second if per_second else 0.0
        self._next = 0.0
        self._retries = retries
        self._slots = {work: Slots(Limiter(pinned or ceiling, pinned or START[work], pinned or 1)) for work in Work}

    def counting(self, requests: Requests) -> AdaptiveGuard:
        """The same slots and limits, counted elsewhere: for a part of what a server is asked."""
        view = copy(self)
        view._requests = requests
        return view

    async def call(
        self,
        work: Work,
        attempt: Callable[[], Awaitable[tuple[T, int]]],
        *,
        resend: bool = True,
        recover: Callable[[], Awaitable[T | None]] | None = None,
    ) -> T:
        """See `core.ports.Guard`."""
        failed: Transient | None = None
        try:  # Most requests need no second attempt, nor what it takes to make one.
            return await self._once(work, attempt)
        except Transient as error:
            failed = error
        reached = False
        async for trial in self._trials():
            with trial:
                if reached and recover is not None:
                    found = await recover()
                    if found is not None:
                        return found
                try:
                    if failed is not None:
                        raise failed
                    return await self._once(work, attempt)
                except Transient as error:
                    failed = None
                    reached = reached or not error.unreachable
                    if reached and not resend and recover is None:
                        error.attempts = 1
                    raise
        raise AssertionError("a trial either returns or raises")

    @asynccontextmanager
    async def stream(self, open: Callable[[], AbstractAsyncContextManager[Stream]]) -> AsyncIterator[Stream]:
        """See `core.ports.Guard`. What fails while the stream is read is the reader's to repeat."""
        slots = self._slots[Work.FILE]
        async for trial in self._trials():
            with trial:
                await self._turn()
                await slots.take()
                try:
                    context = open()
                    stream = await context.__aenter__()
                except BaseException as error:
                    slots.give()
                    self._noted(Work.FILE, error)
                    raise
        moved = 0

        async def counted() -> AsyncIterator[bytes]:
            nonlocal moved
            async for chunk in stream.chunks:
                moved += len(chunk)
                yield chunk

        try:
            yield Stream(counted(), stream.size)
        except BaseException as error:
            await context.__aexit__(type(error), error, error.__traceback__)
            raise
        else:
            await context.__aexit__(None, None, None)
            self._ended(Work.FILE, moved)
        finally:
            slots.give()

    def concurrency(self) -> dict[str, int]:
        """The limits found, by class of work."""
        return {str(work): slots.limiter.limit for work, slots in self._slots.items()}

    async def _once(self, work: Work, attempt: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        slots = self._slots[work]
        await slots.take()
        try:
            await self._turn()
            self._requests.sent[work] += 1
            began = self._clock()
            result, size = await attempt()
            self._requests.seconds[work] += self._clock() - began
            self._ended(work, size)
            return result
        except Transient as error:
            self._noted(work, error)
            raise
        finally:
            slots.give()

    def _ended(self, work: Work, size: int) -> None:
        slots = self._slots[work]
        slots.limiter.done(self._clock(), REQUEST_COST[work] + size * BYTE_COST[work], slots.wanted)

    def _noted(self, work: Work, error: BaseException) -> None:
        if not isinstance(error, Transient):
            return
        limiter = self._slots[work].limiter
        if error.overload:
            self._requests.overloads += 1
            limiter.overload(self._clock())
        elif error.broken:
            limiter.broke(self._clock())

    async def _turn(self) -> None:
        """Keep the pace that the user set, if any."""
        if not self._pace:
            return
        now = self._clock()
        self._next = max(self._next, now) + self._pace
        if self._next - self._pace > now:
            await self._sleep(self._next - self._pace - now)

    def _trials(self) -> AsyncRetrying:
        return AsyncRetrying(
            retry=retry_if_exception_type(Transient),
            stop=self._enough,
            wait=self._wait,
            sleep=self._sleep,
            before_sleep=self._retrying,
            retry_error_callback=_gave_up,
        )

    def _retrying(self, _: RetryCallState) -> None:
        self._requests.retried += 1

    def _enough(self, state: RetryCallState) -> bool:
        """What must not be sent again never is; for all else the user's number counts, where there is one."""
        error = state.outcome.exception() if state.outcome else None
        attempts = getattr(error, "attempts", 1)
        if self._retries.times is not None and attempts > 1:
            attempts = self._retries.times + 1
        return bool(state.attempt_number >= attempts)

    def _wait(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        wished = getattr(error, "retry_after", None)
        if wished is not None and self._retries.respect_retry_after:
            return float(min(wished, 10 * LONGEST_WAIT))
        return _backoff(self._retries, state)


def _backoff(retries: Retries, state: RetryCallState) -> float:
    """Ours, or the one of MLflow's client (urllib3's): at once, then doubling up to two minutes."""
    jitter = wait_random(0, 0.5 if retries.jitter is None else retries.jitter)(state)
    if retries.backoff is None:
        return wait_exponential(multiplier=0.3, max=LONGEST_WAIT)(state) + jitter
    if state.attempt_number <= 1:
        return 0.0
    return min(retries.backoff * 2.0 ** (state.attempt_number - 1) + jitter, LONGEST_BACKOFF)


def _gave_up(state: RetryCallState) -> None:
    """The last error as it is; a server that cannot even be reached any more ends the session."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Transient) and error.unreachable:
        raise NoServer(f"{error}; nothing answered for {state.attempt_number} attempts") from error
    if error is not None:
        raise error
    raise CannotContinue("a request was given up without a reason")

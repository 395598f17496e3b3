"""A reverse proxy in front of a real server that loses, refuses, cuts and delays, by seed.

It runs in a thread with its own event loop, so that synchronous tests, asynchronous tests and subprocesses can use it.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Literal, Self

import aiohttp
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

Fault = Literal["lost_answers", "resets", "unavailable", "cut_bodies", "rate_limited"]
Only = Callable[[str, str], bool]
OnAnswer = Callable[[str, str], None]

HOP_BY_HOP = frozenset(
    name.lower()
    for name in (
        *("Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer"),
        *("Transfer-Encoding", "Upgrade", "Expect"),
    )
)
AFTER_FORWARDING: frozenset[Fault] = frozenset(("lost_answers", "cut_bodies"))
CHUNK = 1 << 16
LINE = 1 << 20
"""Bytes of a request line that are let through: a query may name a hundred runs."""


def template(path: str) -> str:
    """A path with its ids replaced, so that requests can be counted per endpoint."""
    path = re.sub(r"(/mlflow-artifacts/artifacts|/presigned|/mpu/[a-z]+)/.+", r"\1/*", path)
    return re.sub(r"/(m-|tr-|d-|iss-)?([0-9a-f]{32}|\d+)(?=/|$)", "/*", path)


class FaultProxy:
    """Forwards to `upstream` and injects faults, each with its own probability per request.

    - `lost_answers`: the upstream has done its work, the connection is closed without an answer
    - `resets`: the connection is closed before anything is forwarded
    - `unavailable`: 503 with MLflow's JSON, nothing is forwarded
    - `cut_bodies`: the true Content-Length, half of the bytes, then the connection is closed

    Which requests are hit depends on the seed and on how many requests of the same method and template came before,
    not on how different endpoints interleave. `only(method, path)` names the requests that may be hit at all. `latency`
    seconds are added to every request; more than `rate_limit` requests within a second are answered 429.

    `on_answer(method, path)` is called when the upstream has answered and the client has not got the answer yet.
    Nothing else passes meanwhile, so a test changes the upstream at a precise moment of what a client does.

    `requests` counts per (method, template), `busiest` has the most of these that were under way at once, `faults`
    counts per kind of fault that really happened.
    """

    def __init__(
        self,
        upstream: str,
        *,
        seed: int,
        lost_answers: float = 0.05,
        resets: float = 0.05,
        unavailable: float = 0.05,
        cut_bodies: float = 0.05,
        latency: float = 0.0,
        only: Only | None = None,
        rate_limit: float | None = None,
        on_answer: OnAnswer = lambda method, path: None,
    ) -> None:
        rates: dict[Fault, float] = {
            "lost_answers": lost_answers,
            "resets": resets,
            "unavailable": unavailable,
            "cut_bodies": cut_bodies,
        }
        self.uri = ""
        self.requests: Counter[tuple[str, str]] = Counter()
        self.faults: Counter[Fault] = Counter()
        self.busiest: Counter[tuple[str, str]] = Counter()
        self._under_way: Counter[tuple[str, str]] = Counter()
        self._fate = _Fate(seed, rates, only, rate_limit)
        self._upstream = upstream.rstrip("/")
        self._latency = latency
        self._on_answer = on_answer
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object] = lambda: None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start; `uri` is known when this returns."""
        started: Future[str] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="fault proxy", daemon=True)
        self._thread.start()
        self.uri = started.result(timeout=30)

    def stop(self) -> None:
        """Close every connection and end the thread."""
        thread, self._thread = self._thread, None
        if thread:
            self._stop()
            thread.join(timeout=30)

    def _run(self, started: Future[str]) -> None:
        try:
            asyncio.run(self._serve(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _serve(self, started: Future[str]) -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        self._stop = lambda: loop.call_soon_threadsafe(stopped.set)
        async with _upstream_session() as self._session:
            server = web.Server(
                self._handle, access_log=None, auto_decompress=False, max_line_size=LINE, max_field_size=LINE
            )
            runner = web.ServerRunner(server, shutdown_timeout=0)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            started.set_result(f"http://127.0.0.1:{runner.addresses[0][1]}")
            await stopped.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        key = (request.method, template(path))
        self.requests[key] += 1
        self._under_way[key] += 1
        self.busiest[key] = max(self.busiest[key], self._under_way[key])
        try:
            return await self._answered(request, key, path)
        finally:
            self._under_way[key] -= 1

    async def _answered(self, request: web.BaseRequest, key: tuple[str, str], path: str) -> web.StreamResponse:
        fault = self._fate.of(key, self.requests[key], path)
        await asyncio.sleep(self._latency)
        if fault is None or fault in AFTER_FORWARDING:
            return await self._forward(request, fault)
        self.faults[fault] += 1
        if fault == "unavailable":
            return _refusal(503, "TEMPORARILY_UNAVAILABLE", {})
        if fault == "rate_limited":
            return _refusal(429, "REQUEST_LIMIT_EXCEEDED", {"Retry-After": "1"})
        return _hang_up(request)

    async def _forward(self, request: web.BaseRequest, fault: Fault | None) -> web.StreamResponse:
        # The path goes on byte for byte as it came: an URL that is built anew decodes what was meant to stay encoded.
        sending = self._session.request(
            request.method,
            URL(self._upstream + request.raw_path, encoded=True),
            headers=end_to_end(request.headers),
            data=request.content.iter_chunked(CHUNK) if request.can_read_body else None,
            allow_redirects=False,
        )
        try:
            async with sending as answer:
                self._on_answer(request.method, request.raw_path.partition("?")[0])
                if fault == "lost_answers":
                    await _drain(answer)
                    self.faults[fault] += 1
                    return _hang_up(request)
                return await self._answer(request, answer, fault)
        except (aiohttp.ClientError, ConnectionError):
            # Whichever end is gone, the other one sees a closed connection.
            return _hang_up(request)

    async def _answer(
        self, request: web.BaseRequest, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers))
        await response.prepare(request)
        room = _half(answer) if fault == "cut_bodies" else None
        async for chunk in answer.content.iter_chunked(CHUNK):
            await response.write(chunk[:room])
            if room is not None:
                room -= len(chunk)
                if room <= 0:
                    self.faults["cut_bodies"] += 1
                    return _hang_up(request, flush=True)
        await response.write_eof()
        return response


class _Fate:
    """Decides, from the seed alone, what happens to the n-th request of an endpoint."""

    def __init__(self, seed: int, rates: dict[Fault, float], only: Only | None, rate_limit: float | None) -> None:
        if sum(rates.values()) > 1:
            raise ValueError("a request suffers one fault at most: the rates may not add up to more than 1")
        self._seed = seed
        self._rates = rates
        self._only = only
        self._recent = _LastSecond(rate_limit) if rate_limit else None

    def of(self, key: tuple[str, str], count: int, path: str) -> Fault | None:
        if self._recent and not self._recent.admits(time.monotonic()):
            return "rate_limited"
        if self._only and not self._only(key[0], path):
            return None
        number = random.Random(f"{self._seed} {key} {count}").random()
        for fault, rate in self._rates.items():
            number -= rate
            if number < 0:
                return fault
        return None


class _LastSecond:
    """Admits so many requests within any second; a refused one does not count."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._times: deque[float] = deque()

    def admits(self, now: float) -> bool:
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        if len(self._times) >= self._limit:
            return False
        self._times.append(now)
        return True


def _upstream_session() -> aiohttp.ClientSession:
    """One connection per request: the proxy must not add the faults of reused connections to the chosen ones."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        max_line_size=LINE,
        max_field_size=LINE,
    )


async def _drain(answer: aiohttp.ClientResponse) -> None:
    """Read to the end: an upstream whose answer nobody reads might stop in the middle of its work."""
    async for _ in answer.content.iter_chunked(CHUNK):
        continue


def _half(answer: aiohttp.ClientResponse) -> int | None:
    """Bytes that pass before the cut; one when the length is not known. A single byte cannot be cut."""
    length = answer.content_length
    return None if length == 1 else max(1, (length or 0) // 2)


def _hang_up(request: web.BaseRequest, *, flush: bool = False) -> web.StreamResponse:
    """Close the connection; with `flush`, after what has been written. The response returned goes nowhere."""
    if request.transport:
        if flush:
            request.transport.close()
        else:
            request.transport.abort()
    return web.Response()


def _refusal(status: int, code: str, headers: dict[str, str]) -> web.Response:
    message = {"error_code": code, "message": "refused by the fault proxy"}
    return web.json_response(message, status=status, headers=headers)


def end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in HOP_BY_HOP)

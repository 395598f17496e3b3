"""What stands in front of real servers: something that checks who comes, redirects, compresses, gives up, or proxies.

Runs in a thread like `FaultProxy`. Bodies pass through memory: for small workspaces only.
"""

from __future__ import annotations

import gzip
from collections.abc import Awaitable, Callable

from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from tests.fakes.fault_proxy import FaultProxy, end_to_end

Check = Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse | None]]
"""Answers a request itself, or lets it pass with None."""


async def everybody(request: web.BaseRequest, body: bytes) -> None:
    """Lets all pass."""


class Gateway(FaultProxy):
    """Forwards to `upstream` what `check` lets pass. With an empty `upstream` it is a forward proxy.

    `seen` holds every request's path and headers, `compress` gzips all answers, whatever the client accepts.
    """

    def __init__(self, upstream: str, check: Check = everybody, *, compress: bool = False) -> None:
        super().__init__(upstream, seed=0, lost_answers=0, resets=0, unavailable=0, cut_bodies=0)
        self.seen: list[tuple[str, CIMultiDict[str]]] = []
        self._check = check
        self._compress = compress

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.raw_path, CIMultiDict(request.headers)))
        body = await request.read()
        return await self._check(request, body) or await self.forward(request, body)

    async def forward(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        """The upstream's answer."""
        url = URL(self._upstream + request.raw_path, encoded=True)
        headers = end_to_end(request.headers)
        async with self._session.request(
            request.method, url, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content, told = await answer.read(), end_to_end(answer.headers)
            if self._compress:
                content, told["Content-Encoding"] = gzip.compress(content), "gzip"
            told.popall("Content-Length", None)
            return web.Response(status=answer.status, headers=told, body=content)


def refused(status: int = 401, text: str = "who are you") -> web.Response:
    """A plain refusal."""
    return web.Response(status=status, text=text)

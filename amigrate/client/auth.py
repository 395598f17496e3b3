"""Who we are to a server: headers for every request. Nothing in here is ever shown or logged.

`Fixed` headers stay the same. `Renewing` ones hold a token that is fetched again where it expires or is refused, once
for all requests that wait for it. Where tokens come from and which way is taken is in `login`, `oauth` and `sigv4`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from yarl import URL


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that is about to be sent."""

    method: str
    url: URL
    headers: Mapping[str, str]
    digest: Callable[[], Awaitable[str]]
    """The sha256 of its body, in hexadecimal digits."""


class Credentials(Protocol):
    """One way to log in to one server."""

    hint: str
    """What to do where the server does not accept them."""

    async def headers(self, request: Outgoing) -> dict[str, str]:
        """The headers that log this request in."""
        ...

    async def renewed(self, refused: Mapping[str, str]) -> bool:
        """True where there are other headers by now than those that were refused."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown, wherever it turns up."""
        ...


class Fixed:
    """See `Credentials`: the same headers for every request."""

    def __init__(self, headers: Mapping[str, str], hint: str, secrets: tuple[str, ...] = ()) -> None:
        self.hint = hint
        self._headers = dict(headers)
        self._secrets = secrets

    async def headers(self, request: Outgoing) -> dict[str, str]:
        return dict(self._headers)

    async def renewed(self, refused: Mapping[str, str]) -> bool:
        return False

    def secrets(self) -> tuple[str, ...]:
        return self._secrets


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token, and when it has to be replaced, on the monotonic clock."""

    value: str = field(repr=False)
    due: float = float("inf")


class Renewing:
    """See `Credentials`: a token that is fetched when it is due, and once more where it was refused."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[Token]],
        hint: str,
        secrets: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.hint = hint
        self._fetch = fetch
        self._secrets = secrets
        self._clock = clock
        self._lock = asyncio.Lock()
        self._token: Token | None = None

    async def headers(self, request: Outgoing) -> dict[str, str]:
        async with self._lock:
            if self._token is None or self._clock() >= self._token.due:
                self._token = await self._fetch()
            return _bearer(self._token)

    async def renewed(self, refused: Mapping[str, str]) -> bool:
        async with self._lock:
            if self._token is None or _bearer(self._token) == _only_authorization(refused):
                self._token = await self._fetch()
            return _bearer(self._token) != _only_authorization(refused)

    def secrets(self) -> tuple[str, ...]:
        return (*self._secrets, *([self._token.value] if self._token else []))


def _bearer(token: Token) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.value}"}


def _only_authorization(headers: Mapping[str, str]) -> dict[str, str]:
    return {"Authorization": headers.get("Authorization", "")}

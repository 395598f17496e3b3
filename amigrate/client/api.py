"""The verbs of the MLflow REST API, each inside the server's guard, and what a server says of itself.

Whether a request may be sent twice is declared where its endpoint is named (`Endpoint.resend`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from amigrate.client.http import Http, Params, encode_path
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, ApiError, NoServer, NotFound, Rejected, Transient, Unsupported
from amigrate.core.model import Body, Doc, Stream
from amigrate.core.ports import Guard, Work

V2 = "/api/2.0/mlflow"
V3 = "/api/3.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: method, path, class of work, and whether sending it twice does no harm."""

    method: str
    path: str
    work: Work = Work.READ
    resend: bool = True


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server is and can do, probed once."""

    version: str
    store: str = ""
    """`SqlStore` or `FileStore`, where the server says so (3.10+)."""

    def older_than(self, *release: int) -> bool:
        """True for a server before this release; one that cannot tell its version is a 1.x or 2.0."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) < release


VERSION = Endpoint("GET", "/version")
INFO = Endpoint("GET", f"{V3}/server-info")
SEARCH_EXPERIMENTS = Endpoint("POST", f"{V2}/experiments/search")


class Api:
    """One server: JSON verbs, file streams, abilities."""

    def __init__(self, http: Http, guard: Guard) -> None:
        self.http = http
        self.guard = guard
        self.uri = http.server.uri
        self.abilities = Abilities("")
        self.shown = self.uri
        """The address for people: of a local store its own, not that of the private server."""
        self.store = http.server.store
        """The local store behind a private server: its artifacts on plain paths are on this machine's disk."""

    async def call(
        self,
        endpoint: Endpoint,
        body: Doc | None = None,
        *,
        params: Params = (),
        recover: Callable[[], Awaitable[Doc | None]] | None = None,
    ) -> Doc:
        """One JSON request; returns the parsed answer (`{}` where it is empty).

        `recover` may change `body` before it is sent again. Raises `ApiError` as `client.http.error_of` judges, after
        the guard's retries.
        """

        async def attempt() -> tuple[Doc, int]:
            data = None if body is None else codec.dumps(body)
            raw = await self.http.send(endpoint.method, endpoint.path, params=params, body=data)
            return _parsed(raw, endpoint.path), len(raw) + len(data or b"")

        return await self.guard.call(endpoint.work, attempt, resend=endpoint.resend, recover=recover)

    async def weighed(
        self, endpoint: Endpoint, body: Doc | None = None, *, params: Params = (), at_most: int | None
    ) -> tuple[Doc, int]:
        """A JSON request whose answer is also weighed in bytes; `TooLarge` where it exceeds `at_most`."""
        data = None if body is None else codec.dumps(body)

        async def attempt() -> tuple[tuple[Doc, int], int]:
            raw = await self.http.send(endpoint.method, endpoint.path, params=params, body=data, at_most=at_most)
            return (_parsed(raw, endpoint.path), len(raw)), len(raw) + len(data or b"")

        return await self.guard.call(endpoint.work, attempt, resend=endpoint.resend)

    def file(self, path: str, params: Params = (), size: int | None = None) -> Body:
        """A file of the server as a body; `path` is encoded already."""
        return Body(lambda: self.guard.stream(lambda: self.http.download(path, params=params)), size)

    async def upload(self, endpoint: Endpoint, body: Body, params: Params = ()) -> int:
        """Send a body, opened anew for every attempt; returns the bytes sent."""

        async def attempt() -> tuple[int, int]:
            async with body.open() as stream:
                counted = _Counted(stream)
                counted_stream = Stream(counted.chunks(), stream.size)
                try:
                    await self.http.upload(endpoint.method, endpoint.path, counted_stream, params=params)
                except ApiError as error:
                    raise (counted.broke or error) from error
                return counted.size, counted.size

        return await self.guard.call(endpoint.work, attempt, resend=endpoint.resend)

    async def probe(self) -> Abilities:
        """Find out what answers at the address. Two requests.

        Raises `NoServer` where nothing there is an MLflow server, `AuthError` where it does not let us in.
        """
        try:
            self.abilities = await self._abilities()
        except Transient as error:
            raise NoServer(f"no MLflow server answers at {self.uri}: {error}") from error
        except ApiError as error:
            raise NoServer(
                f"what answers at {self.uri} is not an MLflow server ({error}): check host, port and path"
            ) from error
        return self.abilities

    async def _abilities(self) -> Abilities:
        version = await self._version()
        # The version endpoint may be open while the API is not, so the credentials are tried on the API itself.
        found = await self.call(SEARCH_EXPERIMENTS, {"max_results": 1})
        if not isinstance(found, dict):
            raise NoServer(f"what answers at {self.uri} is not an MLflow server: check host, port and path")
        try:
            info = await self.call(INFO)
        except (NotFound, Unsupported, Rejected):
            info = {}
        return Abilities(version, str(info.get("store_type") or ""))

    async def _version(self) -> str:
        """`GET /version`; empty on 1.x and 2.0, which lack it."""
        try:
            raw = await self.guard.call(Work.READ, self._version_once)
        except (NotFound, Unsupported):
            return ""
        text = raw.decode("utf-8", "replace").strip().strip('"')
        if not text[:1].isdigit() or len(text) > 40:
            raise NoServer(
                f"what answers at {self.uri} is not an MLflow server (it sent {text[:40]!r}): check host, port and path"
            )
        return text

    async def _version_once(self) -> tuple[bytes, int]:
        """The first contact: an address where nobody listens is wrong rather than busy."""
        try:
            raw = await self.http.send("GET", VERSION.path)
        except Transient as error:
            if error.unreachable:
                raise NoServer(f"no MLflow server answers at {self.uri}: {error}") from error
            raise
        return raw, len(raw)


class _Counted:
    """Counts the bytes of a stream as they pass."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.size = 0
        self.broke: AmigrateError | None = None
        """Why the stream itself failed: the real reason behind a broken upload."""

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream.chunks:
                self.size += len(chunk)
                yield chunk
        except AmigrateError as error:
            self.broke = error
            raise


def _parsed(raw: bytes, path: str) -> Any:
    if not raw:
        return {}
    try:
        return codec.loads(raw)
    except codec.JSONDecodeError as error:
        raise Transient(f"the answer is not JSON: {raw[:60]!r}", endpoint=path, attempts=3) from error


__all__ = ["AJAX", "V2", "V3", "Abilities", "Api", "Endpoint", "Work", "encode_path"]

"""The verbs of the MLflow REST API, each inside the server's guard.

Whether a request may be sent twice is declared where its endpoint is named (`Endpoint.resend`).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from amigrate.client.http import Http, Params, encode_path
from amigrate.core import codec
from amigrate.core.choice import Choice
from amigrate.core.errors import AmigrateError, ApiError, NoServer, TooLarge, TooSlow, Transient, Unsupported
from amigrate.core.model import Body, Doc, Stream
from amigrate.core.ports import Guard, Work

T = TypeVar("T")

V2 = "/api/2.0/mlflow"
V3 = "/api/3.0/mlflow"
AJAX = "/ajax-api/2.0/mlflow"
ASKED_AGAIN = 2
"""How often a server that answers is asked again for what it says it does not have: one of its replicas may."""
PATIENCE = 2
"""Attempts at an answer that comes too slowly, before less is asked for: gateways wait a minute each time."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a server is and can do, as `abilities.probe` found it; None is not known."""

    version: str = ""
    """As the server says it; empty on servers before 2.1, which do not say."""
    release: tuple[int, int] = (0, 0)
    """Major and minor; (1, 0) and (2, 0) where only the endpoints tell."""
    store: str = ""
    """`SqlStore` or `FileStore`, where the server says so (3.10+)."""
    workspaces: bool | None = None
    proxied: bool | None = None
    """Whether artifacts of new experiments go through the server."""
    administrator: bool | None = None
    """Under MLflow's own basic authentication: whether this user sees everything."""

    @property
    def said_version(self) -> str:
        """The version for people; of servers that do not say it, what their endpoints tell."""
        major, minor = self.release
        return self.version or f"{major}.{'x' if major == 1 else minor}, by its endpoints"

    def older_than(self, *release: int) -> bool:
        """True for a server before this release; one that cannot tell its version is a 1.x or 2.0."""
        return tuple(int(part) for part in re.findall(r"\d+", self.version)[:2]) < release


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: method, path, class of work, and whether sending it twice does no harm."""

    method: str
    path: str
    work: Work = Work.READ
    resend: bool = True


SEARCH_EXPERIMENTS = Endpoint("POST", f"{V2}/experiments/search")


class Api:
    """One server: JSON verbs and file streams."""

    def __init__(self, http: Http, guard: Guard) -> None:
        self.http = http
        self.guard = guard
        self.uri = http.server.uri
        self.abilities = Abilities()
        """What `abilities.probe` has found out."""
        self.shown = self.uri
        """The address for people: of a local store its own, not that of the private server."""
        self.store = http.server.store
        """The local store behind a private server: its artifacts on plain paths are on this machine's disk."""
        self.registry: Api = self
        """The server that keeps the registered models and prompts: mostly this one (`MLFLOW_REGISTRY_URI`)."""
        self.with_deleted = False
        """Whether what is deleted is asked for too, so that it has to be looked for where no listing shows it."""
        self.read_only = False
        """True where a request that writes would be a mistake of ours."""
        self.choice = Choice()
        """What of this server is asked for: what it can search for is never listed whole."""
        self.has_models: bool | None = None
        """Whether this server may have logged models, once somebody has asked."""
        self.named_users: list[str] = []
        """Users that an operator has named: servers without a list of them tell of these."""
        self.proven = False
        """True once this was seen to be an MLflow server, so that an answer of something else says nothing of it."""
        self.absent: set[str] = set()
        """Paths that this server was seen not to have."""
        self.ceilings: dict[str, int] = {}
        """By path, how many objects an answer may hold, since more took too long."""
        self.named_models: set[str] = set()
        """Logged models that runs name: those that are deleted appear in no listing."""
        self.asked: frozenset[str] = frozenset()
        """The kinds that were asked for by name, as `--objects` calls them: they are looked for everywhere."""
        self.has_traces: dict[str, bool] = {}
        """Whether there are traces in an experiment, for each that was looked into."""
        self.review_queues: dict[str, list[Doc]] = {}
        """Review queues by experiment, as they were listed for what they name; whoever moves them takes them out."""
        self.overlooked: dict[str, set[str]] = {}
        """For a kind that is not looked for everywhere, the experiments that were left out."""

    @property
    def place(self) -> str:
        """What summaries and journals call it: the address and, where one was asked for, the workspace."""
        workspace = self.http.server.workspace
        return f"{self.shown} (workspace {workspace})" if workspace else self.shown

    def ceiling(self, endpoint: Endpoint, most: int) -> int:
        """How many objects an answer may hold: at most so many, and fewer than once took too long."""
        return min(most, self.ceilings.get(endpoint.path, most))

    def note_slow(self, endpoint: Endpoint, error: TooLarge, less: int) -> None:
        """Where more than so many objects took too long, nobody waits for that again."""
        if isinstance(error, TooSlow):
            self.ceilings[endpoint.path] = self.ceiling(endpoint, less)

    def within(self, workspace: str, guard: Guard) -> Api:
        """This server, that was probed, in one of its workspaces."""
        view = Api(self.http.within(workspace), guard)
        view.abilities, view.shown, view.with_deleted = self.abilities, self.shown, self.with_deleted
        view.ceilings, view.asked = self.ceilings, self.asked
        view.proven, view.absent = self.proven, self.absent
        return view

    async def call(
        self,
        endpoint: Endpoint,
        body: Doc | None = None,
        *,
        params: Params = (),
        headers: Mapping[str, str] | None = None,
        recover: Callable[[], Awaitable[Doc | None]] | None = None,
        divisible: bool = False,
    ) -> Doc:
        """One JSON request; returns the parsed answer (`{}` where one that writes gets an empty one).

        `recover` may change `body` before it is sent again. Raises `ApiError` as `client.http.error_of` judges, after
        the guard's retries; `TooLarge` where the request is `divisible` and the server, or a gateway in front of it,
        was too slow for it as a whole.
        """

        self._check(endpoint)

        async def attempt() -> tuple[Doc, int]:
            data = None if body is None else codec.dumps(body)
            raw = await self.http.send(endpoint.method, endpoint.path, params=params, body=data, headers=headers)
            return _parsed(raw, endpoint), len(raw) + len(data or b"")

        if divisible:
            return await self._divisible(endpoint, attempt)
        return await self._sent(endpoint, attempt, recover)

    def _check(self, endpoint: Endpoint) -> None:
        assert endpoint.work is Work.READ or not self.read_only, f"{endpoint.method} {endpoint.path} would write"

    async def weighed(
        self, endpoint: Endpoint, body: Doc | None = None, *, params: Params = (), at_most: int | None
    ) -> tuple[Doc, int]:
        """A JSON request whose answer is also weighed in bytes.

        `TooLarge` where it exceeds `at_most`, and where the server, or a gateway in front of it, was too slow for it:
        who names a limit can ask for less.
        """
        data = None if body is None else codec.dumps(body)

        async def attempt() -> tuple[tuple[Doc, int], int]:
            raw = await self.http.send(endpoint.method, endpoint.path, params=params, body=data, at_most=at_most)
            return (_parsed(raw, endpoint), len(raw)), len(raw) + len(data or b"")

        if at_most is None:
            return await self._sent(endpoint, attempt)
        return await self._divisible(endpoint, attempt)

    async def _sent(
        self,
        endpoint: Endpoint,
        attempt: Callable[[], Awaitable[tuple[T, int]]],
        recover: Callable[[], Awaitable[T | None]] | None = None,
    ) -> T:
        """A request inside the guard. Raises `NoServer` where it is given up and the server answers nothing else."""

        async def certain() -> tuple[T, int]:
            return await self._certain(endpoint.path, attempt)

        try:
            return await self.guard.call(endpoint.work, certain, resend=endpoint.resend, recover=recover)
        except Transient as error:
            await self._check_pulse(error)
            raise

    async def _certain(self, path: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """An attempt whose 404 is the server's own: a gateway answers the same while there is no server behind it."""
        for _ in range(ASKED_AGAIN):
            try:
                return await attempt()
            except Unsupported as error:
                if error.code or error.status not in (404, 405) or not self.proven or path in self.absent:
                    raise
                await self._check_presence(error)
        try:
            return await attempt()
        except Unsupported:
            self.absent.add(path)
            raise

    async def _check_presence(self, error: Unsupported) -> None:
        """Raises `Transient` where what every MLflow server has is not there either."""
        endpoint = SEARCH_EXPERIMENTS
        try:
            await self.http.send(endpoint.method, endpoint.path, body=codec.dumps({"max_results": 1}))
        except Unsupported as other:
            reason = f"{self.place} is no MLflow server at the moment ({other})"
            raise Transient(reason, endpoint=error.endpoint, unreachable=True) from error

    async def _check_pulse(self, error: Transient) -> None:
        """A request was given up: is it only that one? A database that is gone would fail object after object."""
        body = codec.dumps({"max_results": 1})

        async def attempt() -> tuple[bytes, int]:
            raw = await self.http.send(SEARCH_EXPERIMENTS.method, SEARCH_EXPERIMENTS.path, body=body)
            return raw, len(raw)

        try:
            await self.guard.call(Work.READ, attempt)
        except Transient as other:
            raise NoServer(f"{self.place} answers nothing any more: {other}") from error
        except ApiError:
            return  # It answers.

    async def _divisible(self, endpoint: Endpoint, attempt: Callable[[], Awaitable[tuple[T, int]]]) -> T:
        """A request whose caller can ask for less: `TooLarge` says so, soon where an answer takes too long."""

        async def impatient() -> tuple[T, int]:
            try:
                return await self._certain(endpoint.path, attempt)
            except Transient as error:
                error.attempts = min(error.attempts, PATIENCE) if error.slow else error.attempts
                raise

        try:
            return await self.guard.call(endpoint.work, impatient, resend=endpoint.resend)
        except Transient as error:
            if not (error.slow or error.broken):
                await self._check_pulse(error)
                raise
            raise TooSlow(f"no whole answer came: {error}", endpoint=endpoint.path) from error

    def file(self, path: str, params: Params = (), size: int | None = None) -> Body:
        """A file of the server as a body; `path` is encoded already."""
        return Body(lambda: self.guard.stream(lambda: self._download(path, params, size)), size)

    @asynccontextmanager
    async def _download(self, path: str, params: Params, size: int | None) -> AsyncIterator[Stream]:
        """A file as it comes. One that comes without its length has the one that its listing told."""
        async with AsyncExitStack() as opened:

            async def attempt() -> Stream:
                return await opened.enter_async_context(self.http.download(path, params=params))

            stream = await self._certain(path, attempt)
            if stream.size is None and size:
                yield Stream(_not_less(stream.chunks, size, path), None)
            else:
                yield stream

    async def upload(self, endpoint: Endpoint, body: Body, params: Params = ()) -> int:
        """Send a body, opened anew for every attempt; returns the bytes sent."""
        self._check(endpoint)

        async def attempt() -> tuple[int, int]:
            counted = _Counted(body)
            try:
                await self.http.upload(endpoint.method, endpoint.path, Body(counted.open, body.size), params=params)
            except ApiError as error:
                raise (counted.broke or error) from error
            return counted.size, counted.size

        return await self._sent(endpoint, attempt)


class _Counted:
    """Counts the bytes of a body as they pass."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.size = 0
        """Of the last time that it was opened."""
        self.broke: AmigrateError | None = None
        """Why the body itself failed: the real reason behind a broken upload."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Stream]:
        async with self._body.open() as stream:
            yield Stream(self._chunks(stream.chunks), stream.size)

    async def _chunks(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        self.size, self.broke = 0, None
        try:
            async for chunk in chunks:
                self.size += len(chunk)
                yield chunk
        except AmigrateError as error:
            self.broke = error
            raise


async def _not_less(chunks: AsyncIterator[bytes], size: int, path: str) -> AsyncIterator[bytes]:
    """A file that nobody has said the length of when it began: whoever cuts it short looks as if it had ended."""
    came = 0
    async for chunk in chunks:
        came += len(chunk)
        yield chunk
    if came < size:
        raise Transient(f"the answer was cut short: {came} of {size} bytes came", endpoint=path)


def _parsed(raw: bytes, endpoint: Endpoint) -> Any:
    path = endpoint.path
    if not raw and endpoint.work is Work.READ:
        raise Transient("the answer is empty", endpoint=path, attempts=3)
    if not raw:
        return {}
    try:
        return codec.loads(raw)
    except codec.JSONDecodeError as error:
        raise Transient(f"the answer is not JSON: {raw[:60]!r}", endpoint=path, attempts=3) from error


__all__ = ["AJAX", "V2", "V3", "Abilities", "Api", "Endpoint", "Params", "Work", "encode_path"]

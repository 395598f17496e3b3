"""One attempt at one request, streamed both ways, and the one place that turns a status into an error.

Facts (MLflow 3.17.2 unless named): uvicorn closes idle connections after 5.0 s, so ours close after 4; a server out
of database connections answers 400 "QueuePool limit ... reached", which is overload; 503 with certain words means that
a feature is switched off for good, any other that somebody was busy; missing routes answer HTML.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import copy
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from amigrate.client import pages
from amigrate.client.auth import Outgoing
from amigrate.client.login import credentials
from amigrate.client.network import proxy_for, tls
from amigrate.core import codec
from amigrate.core.errors import (
    AmigrateError,
    ApiError,
    AuthError,
    CannotContinue,
    Conflict,
    Forbidden,
    NoServer,
    NotFound,
    Rejected,
    TooLarge,
    Transient,
    Unsupported,
)
from amigrate.core.model import Body, Stream
from amigrate.options import ServerOptions, redacted

KEEPALIVE = 4.0
CHUNK = 256 * 1024
ERROR_BYTES = 64 * 1024
"""Of an error's body; they tell enough."""
HOPS = 6
"""Requests that one request may become: redirects, and one renewal of the credentials."""
REDIRECTS = (301, 302, 307, 308)
"""Followed with method and body. 303 asks for a GET of something else: not MLflow."""
SLOW = (408, 504, 524)
"""Time-outs of gateways; 524 is Cloudflare's."""
WORKSPACE = "X-MLFLOW-WORKSPACE"
SWITCHED_OFF = re.compile(r"Endpoint: \S+ disabled |Artifact serving is (disabled|not configured)")
"""How MLflow says with a 503 that a feature is off for good (1.30 to 3.17.2). What others say with one will pass."""
SIGNED_QUERY = re.compile(r"(https?://[^\s?\"'<>]+\?)[^\s\"'<>]+")
"""The query of an address often signs it."""
_AWS_KEYS = re.compile(r"security token|request signature|signature expired|authentication token", re.IGNORECASE)
"""API Gateway answers 403 to keys that are unknown or have expired."""
_HASH = re.compile(r"\b(?:scrypt|pbkdf2|argon2\w*)[:$][^\s'\",)]+")
"""A password's hash, which MLflow tells with the name of a user that is there already."""
Params = Sequence[tuple[str, str]]


def encode_path(path: str) -> str:
    """Percent-encode a path segment by segment; `/` stays, everything else that is not plain is escaped."""
    return "/".join(quote(segment, safe="") for segment in path.split("/"))


class Http:
    """One aiohttp session to one server. Use as an async context manager."""

    def __init__(self, server: ServerOptions) -> None:
        self.server = server
        self._session: aiohttp.ClientSession | None = None
        self._proxy = None if server.store else proxy_for(server.uri)
        self._credentials = credentials(server)
        self._own = CIMultiDict(server.headers)
        self.software = ""
        """What the server says it is: the last `Server` header."""
        self.hidden: list[str] = []
        """Secrets that requests carry: they are taken out of what the server says."""
        self.gone: Callable[[], str] = lambda: ""
        """Says that and why a private server has ended; nothing while it runs, and of every other one."""
        if server.workspace:
            self._own[WORKSPACE] = server.workspace

    async def __aenter__(self) -> Http:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ssl=tls(self.server.tls))
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self.server.connect_timeout, sock_read=self.server.timeout
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2 * CHUNK,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @property
    def longest_query(self) -> int:
        """Bytes of a query that the server takes: gunicorn refuses request lines over 4094 bytes, uvicorn takes 64 KiB,
        and proxies, which mostly call themselves something else, at least 8 KiB."""
        return 7_500 if self.software == "uvicorn" else 3_900

    def within(self, workspace: str) -> Http:
        """The same server by the same session and login, in one of its workspaces."""
        view = copy(self)
        view.server = replace(self.server, workspace=workspace)
        view._own = self._own.copy()
        view._own[WORKSPACE] = workspace
        return view

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        at_most: int | None = None,
    ) -> bytes:
        """Send one request and return the whole answer; `path` is encoded already.

        Raises the error that the status stands for, `TooLarge` where the answer exceeds `at_most` bytes, `AuthError`
        where a login page comes instead.
        """
        async with self._request(method, path, params, _Bytes(body, headers)) as answer:
            raw = await _whole(answer, path, at_most)
        if raw.lstrip()[:1] == b"<" and pages.is_login(text := raw[:ERROR_BYTES].decode("utf-8", "replace")):
            raise self._login_page(pages.said(text))
        return raw

    @asynccontextmanager
    async def download(self, path: str, *, params: Params = ()) -> AsyncIterator[Stream]:
        """Open an answer as a stream; a body that ends early raises `Transient` while it is read."""
        async with self._request("GET", path, params, _Bytes(None, {"Accept-Encoding": "identity"})) as answer:
            if pages.replaces_file(answer.headers):
                text = await _text(answer)
                if pages.is_login(text):
                    raise self._login_page(pages.said(text))
                raise Transient(f"a web page came instead of the file: {pages.said(text)}", endpoint=path, attempts=3)
            # Whoever compresses on the way although we ask for none leaves the size of what travels.
            whole = None if answer.headers.get("Content-Encoding") else answer.content_length
            yield Stream(_chunks(answer, path), whole)

    async def upload(self, method: str, path: str, body: Body, *, params: Params = ()) -> bytes:
        """Send a body; it is opened again where the server sends us elsewhere or wants to know us better."""
        async with self._request(method, path, params, _Streamed(body)) as answer:
            return await _whole(answer, path, None)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, params: Params, content: _Content
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer of a request that went well, with redirects followed and expired credentials renewed."""
        url = URL(self.server.uri + path + _query(params), encoded=True)
        renewed = False
        for _ in range(HOPS):
            headers = self._own.copy()
            headers.update(content.headers)
            login = await self._credentials.headers(Outgoing(method, url, headers, content.digest))
            headers.update(login)
            async with content.open() as data, self._sent(method, url, data, headers, path) as answer:
                if 200 <= answer.status < 300:
                    self.software = answer.headers.get("Server", "")
                    yield answer
                    return
                if answer.status in REDIRECTS:
                    url = self._elsewhere(answer, url, path)
                    continue
                expired = answer.status == 401 and not renewed
                error = error_of(answer.status, answer.headers, self._shown(await _text(answer)), path, self._who())
            renewed = expired and await self._credentials.renewed(login)
            if not renewed:
                raise error
        raise NoServer(f"{self.server.uri} redirects in circles: check host, port and path")

    @asynccontextmanager
    async def _sent(
        self, method: str, url: URL, data: _Data, headers: CIMultiDict[str], path: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One answer, whatever its status; what happens on the wire becomes an error of ours."""
        assert self._session is not None, "Http is used before it is entered"
        headers.update(data.headers)
        try:
            async with self._session.request(
                method,
                url,
                data=data.content,
                headers=headers,
                proxy=self._proxy,
                allow_redirects=False,
            ) as answer:
                yield answer
        except aiohttp.ClientHttpProxyError as error:
            raise _proxy_error(error.status, self._proxy or "") from None
        except aiohttp.ClientSSLError as error:
            raise _tls_error(error, self.server.uri) from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if why := self.gone():
                raise NoServer(why) from error
            raise Transient(self._unconnected(error), endpoint=path, unreachable=True) from error
        except TimeoutError as error:
            raise Transient(
                f"no answer within {self.server.timeout:.0f} s; MLFLOW_HTTP_REQUEST_TIMEOUT sets how long to wait",
                endpoint=path,
                overload=True,
                slow=True,
                attempts=4,
            ) from error
        except aiohttp.InvalidURL as error:
            raise NoServer(f"{self.server.uri} is not an address that can be asked: check host and port") from error
        except aiohttp.ClientResponseError as error:
            reason = "what came is no HTTP: check host and port, and whether it wants https://"
            raise Transient(reason, endpoint=path, broken=True, attempts=3) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            if "CERTIFICATE_REQUIRED" in str(error):
                raise _tls_error(error, self.server.uri) from error
            raise Transient(f"the connection broke: {_reason(error)}", endpoint=path, broken=True) from error

    def _unconnected(self, error: Exception) -> str:
        """Why there is no connection, and where to look."""
        uri = self.server.uri
        if isinstance(error, aiohttp.ClientProxyConnectionError):
            where = redacted(self._proxy or "")
            return f"cannot connect to the proxy {where}: check HTTP_PROXY and HTTPS_PROXY, or add the host to NO_PROXY"
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return f"cannot connect to {uri}: there is no host of this name: check the address"
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            wait = self.server.connect_timeout
            return f"cannot connect to {uri} within {wait:.0f} s: check host and port, firewalls, and HTTPS_PROXY"
        number = error.errno if isinstance(error, OSError) else None
        why = os.strerror(number) if number else _reason(error)
        return f"cannot connect to {uri}: {why}: check host and port, and that the server runs"

    def _elsewhere(self, answer: aiohttp.ClientResponse, url: URL, path: str) -> URL:
        """Where a redirect leads, if we may follow: within the origin. What we know of ourselves goes nowhere else."""
        target = url.join(URL(answer.headers.get("Location", ""), encoded=True))
        if pages.leads_to_login(str(target), path):
            raise self._login_page(redacted(str(target)))
        if target.origin() == url.origin() and self.server.redirects and target != url:
            return target
        address = redacted(str(target)).removesuffix(path)
        why = "" if self.server.redirects else ", and MLFLOW_ALLOW_HTTP_REDIRECTS is off"
        raise NoServer(f"{self.server.uri} redirects to another address{why}: use {address} if that is the server")

    def _login_page(self, what: str) -> AuthError:
        return AuthError(
            f"{self.server.uri}: this is a login page, not MLflow ({what}): log in as programs do there, such as with "
            "--token, --token-command or --header"
        )

    def _who(self) -> Server:
        return Server(self.server.uri, self._credentials.hint, self.server.workspace)

    def _shown(self, text: str) -> str:
        """What the server says, without what must not be shown: our secrets, and the queries of addresses."""
        for secret in (*self._credentials.secrets(), *(value for _, value in self.server.headers), *self.hidden):
            text = text.replace(secret, "…") if secret else text
        return SIGNED_QUERY.sub(r"\1…", _HASH.sub("…", text))


@dataclass(frozen=True, slots=True)
class Server:
    """What an error says of a server."""

    uri: str
    hint: str = "check user name and password, or token"
    workspace: str = ""


@dataclass(frozen=True, slots=True)
class _Data:
    """What is sent this time, and the headers that are only known now."""

    content: Any
    headers: dict[str, str] = field(default_factory=dict)


class _Content(Protocol):
    """What a request sends; opened anew each time it is sent."""

    headers: dict[str, str]

    def open(self) -> AbstractAsyncContextManager[_Data]: ...

    async def digest(self) -> str: ...


class _Bytes:
    """JSON, or nothing."""

    def __init__(self, data: bytes | None, headers: Mapping[str, str] | None = None) -> None:
        self._data = data
        self.headers = dict(headers or {}) | ({} if data is None else {"Content-Type": "application/json"})

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Data]:
        yield _Data(self._data)

    async def digest(self) -> str:
        return sha256(self._data or b"").hexdigest()


class _Streamed:
    """A body that passes through."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self.headers = {"Content-Type": "application/octet-stream"}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Data]:
        async with self._body.open() as stream:
            length = {} if stream.size is None else {"Content-Length": str(stream.size)}
            yield _Data(b"" if stream.size == 0 else stream.chunks, length)

    async def digest(self) -> str:
        held = sha256()
        async with self._body.open() as stream:
            async for chunk in stream.chunks:
                held.update(chunk)
        return held.hexdigest()


def _query(params: Params) -> str:
    if not params:
        return ""
    return "?" + "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in params)


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    return text or type(error).__name__


async def _whole(answer: aiohttp.ClientResponse, path: str, at_most: int | None) -> bytes:
    if at_most is None:
        return await answer.read()
    held = bytearray()
    async for chunk in answer.content.iter_any():
        held += chunk
        if len(held) > at_most:
            raise TooLarge(f"the answer exceeds {at_most} bytes", endpoint=path)
    return bytes(held)


async def _text(answer: aiohttp.ClientResponse) -> str:
    """The beginning of an error's body. A body that is cut short raises like any other."""
    held = bytearray()
    async for chunk in answer.content.iter_any():
        held += chunk
        if len(held) > ERROR_BYTES:
            break
    return held.decode("utf-8", "replace")


async def _chunks(answer: aiohttp.ClientResponse, path: str) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_chunked(CHUNK):
            yield chunk
    except TimeoutError as error:
        raise Transient("the answer stopped coming", endpoint=path, attempts=4) from error
    except (aiohttp.ClientError, ConnectionError, asyncio.IncompleteReadError) as error:
        raise Transient(f"the answer was cut short: {_reason(error)}", endpoint=path) from error


def _tls_error(error: Exception, uri: str) -> AmigrateError:
    """A connection that TLS does not let come about: mostly, more of the same does not help."""
    text = str(error)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        reason = getattr(error.certificate_error, "verify_message", "") or error.certificate_error
        if "ostname mismatch" in str(reason) or "IP address mismatch" in str(reason):
            return NoServer(f"{uri}: its TLS certificate is for another host ({reason}): use the name that it is for")
        return NoServer(
            f"{uri}: its TLS certificate is not trusted ({reason}); give the authority's certificate with --ca-bundle"
        )
    if "CERTIFICATE_REQUIRED" in text or "HANDSHAKE_FAILURE" in text:
        return AuthError(f"{uri} wants a client certificate that it knows: give it with --client-cert")
    if "WRONG_VERSION_NUMBER" in text or "RECORD_LAYER_FAILURE" in text:
        return NoServer(f"{uri} does not speak TLS: use http://, or check the port")
    return Transient(f"no TLS connection to {uri} comes about: {_reason(error)}", unreachable=True)


def _proxy_error(status: int, proxy: str) -> CannotContinue:
    """The proxy in between refuses; its address may hold a password."""
    where = redacted(proxy)
    if status == 407:
        return AuthError(
            f"the proxy {where} wants a login: put user name and password into its address in the variable"
        )
    return NoServer(f"the proxy {where} does not let us through ({status}): check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")


def error_of(status: int, headers: Mapping[str, str], text: str, path: str, server: Server) -> AmigrateError:
    """What an answer outside 2xx means. The only place where statuses are judged."""
    code, message = _said(text)
    message = message or f"no explanation from {path}"
    said = f"{status} {code}: {message}" if code else f"{status}: {message}"
    where: dict[str, Any] = {"status": status, "code": code, "endpoint": path}
    if status in (401, 403, 407):
        return _refused(status, said, where, server)
    if 300 <= status < 400:
        return NoServer(f"{server.uri} redirects ({status}) in a way that MLflow does not: check host, port and path")
    if status == 400 and "plain HTTP request" in message:
        return NoServer(f"{server.uri} speaks TLS ({said}): use https://")
    if status == 400 and "SSL certificate" in message:
        return AuthError(f"{server.uri} wants a client certificate that it knows ({said}): give it with --client-cert")
    if code == "FEATURE_DISABLED" and server.workspace and "orkspace" in message:
        return NoServer(f"{server.uri} has no workspaces ({said}): leave --workspace and MLFLOW_WORKSPACE out")
    if (
        code == "RESOURCE_DOES_NOT_EXIST"
        and server.workspace
        and message == f"Workspace '{server.workspace}' not found"
    ):
        return NoServer(f"{server.uri} has no workspace '{server.workspace}': check --workspace and MLFLOW_WORKSPACE")
    if status == 429:
        return Transient(said, retry_after=_retry_after(headers), overload=True, **where)
    if status == 503 and not code:
        return (
            Unsupported(f"switched off on the server ({said})", **where)
            if SWITCHED_OFF.match(message)
            else Transient(said, retry_after=_retry_after(headers), overload=True, **where)
        )
    if status in SLOW:
        return Transient(
            f"{said} (a gateway on the way gave up waiting for the server)", overload=True, slow=True, **where
        )
    if status in (502, 503):
        return Transient(said, retry_after=_retry_after(headers), overload=True, **where)
    if "QueuePool limit" in text or "database is locked" in text:
        return Transient(said, overload=True, **where)
    return _final(status, code, said, where)


def _refused(status: int, said: str, where: dict[str, Any], server: Server) -> AmigrateError:
    """401, 403, 407: whether all is refused, or one object."""
    if status == 407:
        return AuthError(f"a proxy on the way to {server.uri} wants a login ({said}): put it into HTTP_PROXY")
    if "Host header" in said:
        return AuthError(f"{server.uri} does not accept requests for this host name ({said}); see its --allowed-hosts")
    if status == 401 or (not where["code"] and _AWS_KEYS.search(said)):
        return AuthError(f"{server.uri} does not accept the credentials ({said}): {server.hint}")
    return Forbidden(f"not permitted ({said})", **where)


def _final(status: int, code: str, said: str, where: dict[str, Any]) -> ApiError:
    if code in ("RESOURCE_ALREADY_EXISTS", "ALREADY_EXISTS", "RESOURCE_CONFLICT"):
        return Conflict(said, **where)
    if status == 409:
        return Transient(said, attempts=2, **where)
    if code in ("FEATURE_DISABLED", "NOT_IMPLEMENTED", "INVALID_STATE", "ENDPOINT_NOT_FOUND"):
        return Unsupported(said, **where)
    if status in (404, 405):
        return NotFound(said, **where) if code else Unsupported(said, **where)
    if status == 501:
        return Unsupported(said, **where)
    if status >= 500:
        return Transient(said, attempts=3, **where)
    return Rejected(said, **where)


def _said(text: str) -> tuple[str, str]:
    """The server's error code and message; for HTML or plain text, the beginning of it."""
    try:
        parsed = codec.loads(text)
    except codec.JSONDecodeError:
        parsed = None
    if isinstance(parsed, dict):
        said = (parsed.get(name) for name in ("message", "detail", "error_description", "error"))
        message = next(filter(None, said), "")
        return str(parsed.get("error_code") or ""), " ".join(str(message).split())[:500]
    return "", pages.said(text)


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None

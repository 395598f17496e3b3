"""One attempt at one request, streamed both ways, and the one place that turns a status into an error.

Facts (MLflow 3.17.2 unless named): uvicorn closes idle connections after 5.0 s, so ours close after 4; a server out
of database connections answers 400 "QueuePool limit ... reached", which is overload; 503 in plain text means that a
feature is switched off for good, 503 in JSON that the database was busy; missing routes answer HTML.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from amigrate.client import auth
from amigrate.core import codec
from amigrate.core.errors import (
    ApiError,
    AuthError,
    Conflict,
    NoServer,
    NotFound,
    Rejected,
    TooLarge,
    Transient,
    Unsupported,
    UsageError,
)
from amigrate.core.model import Stream
from amigrate.options import ServerOptions

KEEPALIVE = 4.0
CHUNK = 256 * 1024
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

    async def __aenter__(self) -> Http:
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE, ssl=tls(self.server))
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers=auth.headers(self.server),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=self.server.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=2 * CHUNK,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self,
        method: str,
        path: str,
        *,
        params: Params = (),
        body: bytes | None = None,
        at_most: int | None = None,
    ) -> bytes:
        """Send one request and return the whole answer; `path` is encoded already.

        Raises the error that the status stands for, `TooLarge` where the answer exceeds `at_most` bytes.
        """
        headers = {"Content-Type": "application/json"} if body is not None else {}
        async with self._request(method, path, params, body, headers) as answer:
            return await _whole(answer, path, at_most)

    @asynccontextmanager
    async def download(self, path: str, *, params: Params = ()) -> AsyncIterator[Stream]:
        """Open an answer as a stream; a body that ends early raises `Transient` while it is read."""
        async with self._request("GET", path, params, None, {"Accept-Encoding": "identity"}) as answer:
            yield Stream(_chunks(answer, path), answer.content_length)

    async def upload(self, method: str, path: str, stream: Stream, *, params: Params = ()) -> bytes:
        """Send a stream as the body of one request."""
        headers = {"Content-Type": "application/octet-stream"}
        body: Any = stream.chunks
        if stream.size is not None:
            headers["Content-Length"] = str(stream.size)
            body = b"" if stream.size == 0 else stream.chunks
        async with self._request(method, path, params, body, headers) as answer:
            return await _whole(answer, path, None)

    @asynccontextmanager
    async def _request(
        self, method: str, path: str, params: Params, body: Any, headers: Mapping[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "Http is used before it is entered"
        url = URL(self.server.uri + path + _query(params), encoded=True)
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, proxy=self._proxy, allow_redirects=False
            ) as answer:
                if not 200 <= answer.status < 300:
                    raise error_of(answer.status, answer.headers, await _text(answer), path, self.server.uri)
                yield answer
        except aiohttp.ClientConnectorCertificateError as error:
            raise NoServer(
                f"{self.server.uri}: its TLS certificate is not trusted ({error.certificate_error}); "
                "give the authority's certificate with --ca-bundle"
            ) from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientProxyConnectionError) as error:
            raise Transient(
                f"cannot connect to {self.server.uri}: {_reason(error)}", endpoint=path, unreachable=True
            ) from error
        except TimeoutError as error:
            raise Transient(
                f"no answer within {self.server.timeout:.0f} s", endpoint=path, overload=True, attempts=4
            ) from error
        except aiohttp.ClientError as error:
            raise Transient(f"the connection broke: {_reason(error)}", endpoint=path, broken=True) from error
        except ConnectionError as error:
            raise Transient(f"the connection broke: {_reason(error)}", endpoint=path, broken=True) from error


def tls(server: ServerOptions) -> ssl.SSLContext | bool:
    """The TLS context: the system's authorities, or the user's bundle."""
    if server.ca_bundle is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(server.ca_bundle))
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the CA bundle {server.ca_bundle} cannot be read: {error}") from error


def proxy_for(uri: str) -> str | None:
    """The proxy that the environment names for this address (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`), or None."""
    parts = urlsplit(uri)
    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")


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
    """The beginning of an error's body; 64 KiB tell enough. A body that is cut short raises like any other."""
    held = bytearray()
    async for chunk in answer.content.iter_any():
        held += chunk
        if len(held) > 65536:
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


def error_of(status: int, headers: Mapping[str, str], text: str, path: str, uri: str) -> Exception:
    """What an answer outside 2xx means. The only place where statuses are judged."""
    code, message = _said(text)
    said = f"{status} {code}: {message}" if code else f"{status}: {message}"
    where: dict[str, Any] = {"status": status, "code": code, "endpoint": path}
    if status in (401, 403) and "Host header" in message:
        return AuthError(f"{uri} does not accept requests for this host name ({said}); see its --allowed-hosts")
    if status == 401:
        return AuthError(f"{uri} does not accept the credentials ({said}): check user name and password, or token")
    if status == 403:
        return Rejected(f"not permitted ({said})", **where)
    if 300 <= status < 400:
        target = urlsplit(headers.get("Location", ""))
        return NoServer(f"{uri} redirects to {target.scheme}://{target.netloc}{target.path}: use that address")
    if status == 429:
        return Transient(said, retry_after=_retry_after(headers), overload=True, **where)
    if status == 503 and not code:
        return (
            Unsupported(f"switched off on the server ({said})", **where)
            if _plain(headers)
            else Transient(said, retry_after=_retry_after(headers), overload=True, **where)
        )
    if status in (408, 502, 503, 504):
        return Transient(said, retry_after=_retry_after(headers), overload=True, **where)
    if "QueuePool limit" in text or "database is locked" in text:
        return Transient(said, overload=True, **where)
    return _final(status, code, said, where)


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
        message = parsed.get("message") or parsed.get("detail") or ""
        return str(parsed.get("error_code") or ""), " ".join(str(message).split())[:500]
    return "", " ".join(text.split())[:120]


def _plain(headers: Mapping[str, str]) -> bool:
    """MLflow says 'switched off' in plain text; proxies and gateways say 'busy' in HTML."""
    return headers.get("Retry-After") is None and "text/plain" in headers.get("Content-Type", "text/plain")


def _retry_after(headers: Mapping[str, str]) -> float | None:
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None

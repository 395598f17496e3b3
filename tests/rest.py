"""A small synchronous MLflow REST client: the tests' own eyes and hands, independent of amigrate."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import requests
from requests.adapters import HTTPAdapter

API = "/api/2.0/mlflow/"
PROXY = "/api/2.0/mlflow-artifacts/artifacts/"
PAGE = 1000

Params = Mapping[str, str | int]


class RestError(Exception):
    """An answer other than 2xx, with all that is needed to understand it."""

    def __init__(self, method: str, path: str, status: int, body: str) -> None:
        super().__init__(f"{method} {path} -> {status}: {body[:2000]}")
        self.method = method
        self.path = path
        self.status = status
        self.body = body


class Rest:
    """One server. A path without a leading slash is below `/api/2.0/mlflow/`. May be shared by a few threads."""

    def __init__(
        self, uri: str, *, timeout: float = 120.0, auth: tuple[str, str] | None = None, workspace: str = ""
    ) -> None:
        self.uri = uri.rstrip("/")
        self._timeout = timeout
        self._session = requests.Session()
        if workspace:
            self._session.headers["X-MLFLOW-WORKSPACE"] = workspace
        self._session.trust_env = False
        self._session.auth = auth
        self._session.mount("http://", HTTPAdapter(pool_maxsize=4))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def get(self, path: str, params: Params | None = None) -> dict[str, Any]:
        """GET a JSON object."""
        with self._send(requests.Request("GET", self._url(path), params=params)) as response:
            return _parse(response)

    def post(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """POST a JSON object. A bare NaN makes MLflow drop the rest of the call in silence, so it is an error here."""
        data = json.dumps(body, allow_nan=False).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        request = requests.Request("POST", self._url(path), data=data, headers=sent)
        with self._send(request) as response:
            return _parse(response)

    def patch(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PATCH a JSON object."""
        data = json.dumps(body, allow_nan=False).encode()
        request = requests.Request("PATCH", self._url(path), data=data, headers={"Content-Type": "application/json"})
        with self._send(request) as response:
            return _parse(response)

    def delete(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """DELETE, with a JSON object where the endpoint takes one."""
        data = json.dumps(body, allow_nan=False).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with self._send(requests.Request("DELETE", self._url(path), data=data, headers=headers)) as response:
            return _parse(response)

    def put_json(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """PUT a JSON object."""
        data = json.dumps(body, allow_nan=False).encode()
        request = requests.Request("PUT", self._url(path), data=data, headers={"Content-Type": "application/json"})
        with self._send(request) as response:
            return _parse(response)

    def put(self, path: str, data: bytes | Iterator[bytes]) -> None:
        """PUT raw bytes, or a stream of them."""
        self._send(requests.Request("PUT", self._url(path), data=data)).close()

    def upload(self, artifact_uri: str, path: str, data: bytes | Iterator[bytes]) -> None:
        """Write one artifact below an `mlflow-artifacts:/...` location through the server's proxy."""
        root = artifact_uri.removeprefix("mlflow-artifacts:/").strip("/")
        self.put(PROXY + quote(f"{root}/{path}", safe="/"), data)

    def fetch(self, path: str, params: Params) -> bytes:
        """GET raw bytes, whole."""
        with self._send(requests.Request("GET", self._url(path), params=params)) as response:
            return response.content

    def artifact(self, path: str) -> bytes:
        """One artifact that the server's proxy serves, by its path below the proxy's root."""
        return self.fetch(PROXY + quote(path, safe="/"), {})

    def digest(self, path: str, params: Params) -> tuple[int, str]:
        """GET raw bytes and return their number and sha256, without holding them."""
        size, digest = 0, hashlib.sha256()
        with self._send(requests.Request("GET", self._url(path), params=params)) as response:
            for chunk in response.iter_content(1 << 16):
                size += len(chunk)
                digest.update(chunk)
        return size, digest.hexdigest()

    def pages(
        self, path: str, items: str, query: Mapping[str, Any], *, method: str = "POST"
    ) -> Iterator[dict[str, Any]]:
        """All `items` of a paged listing, with the tokens followed to the end."""
        send = self.post if method == "POST" else self.get
        page: dict[str, Any] = send(path, {"max_results": PAGE} | dict(query))
        yield from page.get(items, [])
        while token := page.get("next_page_token"):
            page = send(path, {"max_results": PAGE} | dict(query) | {"page_token": token})
            yield from page.get(items, [])

    def _url(self, path: str) -> str:
        return self.uri + (path if path.startswith("/") else API + path)

    def _send(self, request: requests.Request) -> requests.Response:
        prepared = self._session.prepare_request(request)
        if not request.params:
            # requests would decode and encode the path anew; what was given is already what has to be sent.
            prepared.url = str(request.url)
        response = self._session.send(prepared, stream=True, timeout=self._timeout)
        if not response.ok:
            with response:
                raise RestError(str(request.method), str(request.url), response.status_code, response.text)
        return response


def _parse(response: requests.Response) -> dict[str, Any]:
    """The standard library reads the bare NaN that `get-history-bulk` sends; an empty body is an empty object."""
    parsed: dict[str, Any] = json.loads(response.content or b"{}")
    return parsed

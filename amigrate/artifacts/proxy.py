"""Artifacts that the tracking server proxies (`mlflow-artifacts:`).

Endpoints: GET `/api/2.0/mlflow-artifacts/artifacts?path=` lists one level by base names, GET and PUT
`/api/2.0/mlflow-artifacts/artifacts/<path>` move one file; PUT overwrites, so it may be repeated. A missing folder
lists as empty, `file_size` is missing for empty files, `#` in a name is always refused (MLflow 3.17.2).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from amigrate.artifacts.folder import Entry
from amigrate.artifacts.names import refusal
from amigrate.client.api import AJAX, Api, Endpoint, Work, encode_path
from amigrate.core.model import Body

ROOT = "/api/2.0/mlflow-artifacts/artifacts"
LIST = Endpoint("GET", ROOT)
GET_ARTIFACT = "/get-artifact"
MODEL_FILE = f"{AJAX}/logged-models/{{}}/artifacts/files"


def proxy_path(location: str, server: str) -> str | None:
    """The path below the proxy's root that `location` names, or None where this server's proxy does not serve it."""
    parts = urlsplit(location)
    if parts.scheme == "mlflow-artifacts":
        if parts.netloc and parts.netloc != urlsplit(server).netloc:
            return None
        return location.split(":", 1)[1].removeprefix("//" + parts.netloc).strip("/")
    if parts.scheme in ("http", "https") and location.startswith(f"{server}{ROOT}/"):
        return location.removeprefix(f"{server}{ROOT}/").strip("/")
    return None


class ProxyFolder:
    """A folder below the proxy's root."""

    def __init__(self, api: Api, root: str, run_id: str = "", model_id: str = "") -> None:
        """Names who owns the folder, a run or a logged model: for the names that the proxy cannot send."""
        self._api = api
        self._root = root
        self._run_id = run_id
        self._model_id = model_id

    async def entries(self, path: str) -> list[Entry]:
        where = f"{self._root}/{path}" if path else self._root
        answer = await self._api.call(LIST, params=[("path", where)])
        return [_entry(path, item) for item in answer.get("files") or []]

    def refusal(self, path: str) -> str:
        return refusal(path)

    def body(self, path: str, size: int | None) -> Body:
        """Old servers drop the connection (1.x to 3.0) or answer 500 (3.4.0) on a name that is not ASCII: it went into
        a header as it is. 3.17.2 encodes it, and `get-artifact` does so everywhere."""
        if not path.isascii() and self._api.abilities.older_than(3, 17):
            if self._run_id:
                return self._api.file(GET_ARTIFACT, [("run_id", self._run_id), ("path", path)], size)
            if self._model_id:
                return self._api.file(MODEL_FILE.format(self._model_id), [("artifact_file_path", path)], size)
        return self._api.file(self._address(path), size=size)

    async def put(self, path: str, body: Body) -> int:
        return await self._api.upload(Endpoint("PUT", self._address(path), Work.FILE), body)

    def _address(self, path: str) -> str:
        return f"{ROOT}/{encode_path(f'{self._root}/{path}')}"


def _entry(parent: str, item: dict[str, Any]) -> Entry:
    name = str(item["path"]).rpartition("/")[2]
    path = f"{parent}/{name}" if parent else name
    return Entry(path, bool(item.get("is_dir")), int(item.get("file_size") or 0))

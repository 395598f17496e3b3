"""Artifacts in a store that only the tracking server reaches: its disk, a bucket.

Endpoints: GET `/api/2.0/mlflow/artifacts/list?run_id=&path=` (one level, paths relative to the run's root), GET
`/get-artifact?run_id=&path=`, POST `/ajax-api/2.0/mlflow/upload-artifact?run_uuid=&path=` (at most 10 MB, never empty).
They work where the server process has the store's client and credentials; else it answers with an error. Of a logged
model (3.0+) GET `/api/2.0/mlflow/logged-models/{id}/artifacts/directories?artifact_directory_path=` and GET
`/ajax-api/2.0/mlflow/logged-models/{id}/artifacts/files?artifact_file_path=`; nothing can be written this way.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from amigrate.artifacts.folder import Entry
from amigrate.artifacts.names import refusal
from amigrate.artifacts.proxy import GET_ARTIFACT, MODEL_FILE
from amigrate.client.api import AJAX, V2, Api, Endpoint, Work
from amigrate.core.errors import ApiError, AuthError, Rejected, Uncarriable, Unsupported
from amigrate.core.model import Body

LIST = Endpoint("GET", f"{V2}/artifacts/list")
UPLOAD = Endpoint("POST", f"{AJAX}/upload-artifact", Work.FILE)
TRACE_FILE = Endpoint("GET", f"{AJAX}/get-trace-artifact")
UPLOAD_LIMIT = 10 * 1024 * 1024


class RunFolder:
    """The artifacts of one run, by way of its server."""

    def __init__(self, api: Api, run_id: str, location: str) -> None:
        self._api = api
        self._run_id = run_id
        self._store = _store(location)

    async def entries(self, path: str) -> list[Entry]:
        return await _listed(
            self._api, LIST, [("run_id", self._run_id), *([("path", path)] if path else [])], self._store
        )

    def refusal(self, path: str) -> str:
        return refusal(path)

    def body(self, path: str, size: int | None) -> Body:
        return self._api.file(GET_ARTIFACT, [("run_id", self._run_id), ("path", path)], size)

    async def put(self, path: str, body: Body) -> int:
        if body.size is None or not 0 < body.size <= UPLOAD_LIMIT:
            raise Rejected(
                f"the target keeps this run's artifacts in a {self._store}, and through the server only files of "
                f"1 to {UPLOAD_LIMIT} bytes can be written there",
                endpoint=UPLOAD.path,
            )
        try:
            return await self._api.upload(UPLOAD, body, [("run_uuid", self._run_id), ("path", path)])
        except Unsupported as error:
            raise Uncarriable(
                f"the target keeps this run's artifacts in a {self._store} and takes no files for it: MLflow 2.9 does, "
                "or start it with --serve-artifacts and make the experiment anew"
            ) from error


class ModelFolder:
    """The artifacts of one logged model, by way of its server: to be read only."""

    def __init__(self, api: Api, model_id: str, location: str) -> None:
        self._api = api
        self._model_id = model_id
        self._store = _store(location)

    async def entries(self, path: str) -> list[Entry]:
        listing = Endpoint("GET", f"{V2}/logged-models/{self._model_id}/artifacts/directories")
        params = [("artifact_directory_path", path)] if path else []
        return await _listed(self._api, listing, params, self._store)

    def refusal(self, path: str) -> str:
        return refusal(path)

    def body(self, path: str, size: int | None) -> Body:
        return self._api.file(MODEL_FILE.format(self._model_id), [("artifact_file_path", path)], size)

    async def put(self, path: str, body: Body) -> int:
        raise Uncarriable(
            f"the target keeps this model's artifacts in a {self._store} and takes no files for it: start it with "
            "--serve-artifacts and make the experiment anew"
        )


class TraceFolder:
    """The spans of one trace, by way of its server: to be read only. Nothing lists its attachments."""

    def __init__(self, api: Api, trace_id: str, location: str) -> None:
        self._api = api
        self._trace_id = trace_id
        self._store = _store(location)

    async def entries(self, path: str) -> list[Entry]:
        answer = await self._api.call(TRACE_FILE, params=[("request_id", self._trace_id)])
        return [Entry("traces.json", False, 0)] if answer and not path else []

    def refusal(self, path: str) -> str:
        return refusal(path)

    def body(self, path: str, size: int | None) -> Body:
        return self._api.file(TRACE_FILE.path, [("request_id", self._trace_id)])

    async def put(self, path: str, body: Body) -> int:
        raise Uncarriable(f"the target keeps this trace's files in a {self._store} and takes none for it")


def _store(location: str) -> str:
    return f"{urlsplit(location).scheme or 'file'}: store"


async def _listed(api: Api, endpoint: Endpoint, params: list[tuple[str, str]], store: str) -> list[Entry]:
    try:
        answer = await api.call(endpoint, params=params)
    except AuthError:
        raise
    except ApiError as error:
        raise Unsupported(
            f"the artifacts lie in a {store} that the server cannot list for us ({error})",
            status=error.status,
            endpoint=error.endpoint,
        ) from error
    return [
        Entry(str(item["path"]), bool(item.get("is_dir")), int(item.get("file_size") or 0))
        for item in answer.get("files") or []
    ]

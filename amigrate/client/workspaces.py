"""Workspaces of a server: which there are, and making the ones that are missing.

GET `/api/3.0/mlflow/workspaces` (3.10+) lists all that the user may see, unpaged; where the server runs without
`--enable-workspaces` it answers 503 in plain text. POST makes one; `default` is always there and can only be changed
(PATCH `/{name}`). Each request belongs to the workspace that its header names, else to the default one.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from amigrate.client.api import V3, Api, Endpoint, Work, encode_path
from amigrate.core.errors import ApiError, Conflict, NotFound, Unsupported, UsageError
from amigrate.core.model import Doc, Status
from amigrate.options import DEFAULT_WORKSPACE, redacted

LIST = Endpoint("GET", f"{V3}/workspaces")
CREATE = Endpoint("POST", f"{V3}/workspaces", Work.WRITE, resend=False)
STOCK = "Default workspace for legacy resources"
"""What MLflow says of the default workspace itself."""
DESCRIPTION, ROOT, ARCHIVAL = "description", "default_artifact_root", "trace_archival_config"


async def listed(api: Api, instead: str = "leave --workspaces out") -> dict[str, Doc]:
    """The workspaces of a server by name. Raises `UsageError` where it has none, with what to do `instead`."""
    try:
        answer = await api.call(LIST)
    except (Unsupported, NotFound) as error:
        raise UsageError(
            f"{api.shown} runs without workspaces, so nothing was changed: {instead}, or start it with "
            "--enable-workspaces (MLflow 3.10)"
        ) from error
    return {str(doc["name"]): doc for doc in answer.get("workspaces") or []}


async def create(api: Api, name: str, doc: Doc) -> None:
    """Make a workspace with what it takes over of another one. An answer that was lost is looked up."""

    async def recover() -> Doc | None:
        return (await listed(api)).get(name)

    try:
        await api.call(CREATE, {"name": name, **taken_over(doc)}, recover=recover)
    except Conflict:
        return


async def complete(api: Api, held: Doc, doc: Doc) -> Status:
    """Give the default workspace, which nobody makes, what it lacks of another one; nothing is replaced."""
    lacking = {
        field: value
        for field, value in taken_over(doc).items()
        if not held.get(field) or (field == DESCRIPTION and held[field] == STOCK)
    }
    if not lacking:
        return Status.PRESENT
    await api.call(Endpoint("PATCH", f"{LIST.path}/{encode_path(DEFAULT_WORKSPACE)}", Work.WRITE), lacking)
    return Status.UPDATED


def taken_over(doc: Doc) -> Doc:
    """The settings of a workspace that mean the same on another server."""
    retention = (doc.get(ARCHIVAL) or {}).get("retention")
    description = doc.get(DESCRIPTION)
    return {
        **({DESCRIPTION: description} if description and description != STOCK else {}),
        **({ROOT: doc[ROOT]} if _is_relative(doc.get(ROOT)) else {}),
        **({ARCHIVAL: {"retention": retention}} if retention else {}),
    }


def left_out(doc: Doc) -> list[str]:
    """The settings that name a place of the source: new files of the target would land there."""
    root, location = doc.get(ROOT), (doc.get(ARCHIVAL) or {}).get("location")
    return [
        *([f"{ROOT} {redacted(root)}"] if root and not _is_relative(root) else []),
        *([f"{ARCHIVAL}.location {redacted(location)}"] if location else []),
    ]


def _is_relative(root: str | None) -> bool:
    """True for a root below whatever place a server keeps its artifacts in."""
    parts = urlsplit(root or "")
    return parts.scheme == "mlflow-artifacts" and not parts.netloc


async def others(api: Api) -> tuple[list[str], str]:
    """The workspaces that a session in one of them does not see; or none, and why they cannot be listed."""
    current = api.http.server.workspace or DEFAULT_WORKSPACE
    try:
        return [name for name in await listed(api) if name != current], ""
    except (ApiError, UsageError) as error:
        return [], str(error)

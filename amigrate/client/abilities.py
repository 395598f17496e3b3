"""What answers at an address, and what it can do: asked once, with a handful of requests that write nothing.

GET `/version` (2.1+) with credentials, because it may be open while the API is not; POST `experiments/search` tries
them on the API itself, and the location of what it finds says whether artifacts are proxied. GET `server-info` (3.10+)
says store and workspaces. Servers before 2.1 are told apart by `experiments/list`, which only 1.x has. Under MLflow's
basic authentication a user may read his own entry, which says whether he is an administrator; searches hide from all
others what they may not read.
"""

from __future__ import annotations

import re

from amigrate.client.api import SEARCH_EXPERIMENTS, V2, V3, Abilities, Api, Endpoint
from amigrate.core.errors import (
    ApiError,
    AuthError,
    Forbidden,
    NoServer,
    NotFound,
    Rejected,
    Transient,
    Unsupported,
)
from amigrate.core.model import Doc
from amigrate.core.ports import Work
from amigrate.options import Basic

VERSION = Endpoint("GET", "/version")
INFO = Endpoint("GET", f"{V3}/server-info")
LIST_EXPERIMENTS = Endpoint("GET", f"{V2}/experiments/list")
USER = Endpoint("GET", f"{V2}/users/get")
CHECK = "check host, port and path"


async def probe(api: Api) -> Abilities:
    """Find out what answers, and keep it in `api.abilities`. Three requests, one more for some servers.

    Raises `NoServer` where nothing there is an MLflow server, `AuthError` where it does not let us in.
    """
    try:
        api.abilities = await _abilities(api)
    except Transient as error:
        raise NoServer(f"no MLflow server answers at {api.uri}: {error}{_where(error)}") from error
    except Forbidden as error:
        if not error.code:  # MLflow's own refusal has one.
            raise AuthError(f"{api.uri} refuses, and not as MLflow does: {error}: {CHECK}, and the login") from error
        raise AuthError(f"{api.uri} lets this user search no experiments: {error}") from error
    except ApiError as error:
        raise NoServer(f"what answers at {api.uri} is not an MLflow server ({error}): {CHECK}") from error
    return api.abilities


def _where(error: Transient) -> str:
    """Where to look, unless the error says so itself."""
    if "check" in str(error) or error.slow:
        return ""
    return ": check host and port, whether it wants https://, and that the server behind it runs"


async def _abilities(api: Api) -> Abilities:
    version = await _version(api)
    found = await _experiments(api)
    info = await _info(api)
    return Abilities(
        version,
        await _release(api, version),
        str(info.get("store_type") or ""),
        bool(info["workspaces_enabled"]) if "workspaces_enabled" in info else None,
        _proxied(found),
        await _administrator(api),
    )


async def _experiments(api: Api) -> Doc:
    """Some experiments, as a proof that the API is there and lets us in."""
    try:
        found = await api.call(SEARCH_EXPERIMENTS, {"max_results": 5})
    except Unsupported as error:
        raise NoServer(
            f"what answers at {api.uri} is not an MLflow server with experiments ({error}): {CHECK}, and that it runs "
            "without --artifacts-only"
        ) from error
    if not isinstance(found, dict):
        raise NoServer(f"what answers at {api.uri} is not an MLflow server: {CHECK}")
    api.proven = True
    return found


async def _version(api: Api) -> str:
    try:
        raw = await api.guard.call(Work.READ, lambda: _first_contact(api))
    except (NotFound, Unsupported):
        return ""
    text = raw.decode("utf-8", "replace").strip().strip('"')
    if not re.match(r"\d+\.\d+", text) or len(text) > 40:
        raise NoServer(f"what answers at {api.uri} is not an MLflow server (it sent {text[:40]!r}): {CHECK}")
    return text


async def _first_contact(api: Api) -> tuple[bytes, int]:
    """An address where nobody listens is wrong rather than busy."""
    try:
        raw = await api.http.send(VERSION.method, VERSION.path)
    except Transient as error:
        if error.unreachable:
            raise NoServer(f"no MLflow server answers at {api.uri}: {error}") from error
        raise
    return raw, len(raw)


async def _release(api: Api, version: str) -> tuple[int, int]:
    said = re.match(r"(\d+)\.(\d+)", version)
    if said:
        return int(said[1]), int(said[2])
    return (1, 0) if await has(api, LIST_EXPERIMENTS, ("max_results", "1")) else (2, 0)


async def _info(api: Api) -> Doc:
    try:
        return await api.call(INFO)
    except (NotFound, Unsupported, Rejected):
        return {}


async def has(api: Api, endpoint: Endpoint, *params: tuple[str, str], body: Doc | None = None) -> bool:
    """Whether the endpoint is there: one that finds something wrong with an empty request is."""
    try:
        await api.call(endpoint, body, params=params)
    except Unsupported:
        return False
    except (Rejected, NotFound):
        return True
    return True


def _proxied(found: Doc) -> bool | None:
    """By the newest experiments; where there are none, nothing is known."""
    locations = [str(one.get("artifact_location") or "") for one in found.get("experiments") or []]
    return any(one.startswith("mlflow-artifacts:") for one in locations) if locations else None


async def _administrator(api: Api) -> bool | None:
    login = api.http.server.login
    if not isinstance(login, Basic) or not login.username:
        return None
    try:
        answer = await api.call(USER, params=[("username", login.username)])
    except (NotFound, Unsupported, Rejected):
        return None
    return bool((answer.get("user") or {}).get("is_admin"))


def insecure(api: Api) -> str:
    """What TLS without checks means; to be said before the first request is sent."""
    return f"{api.uri}: its TLS certificate is not checked (--insecure-tls): whoever is on the way can read everything"


def caveats(api: Api) -> list[str]:
    """What a user of this server should know before believing any number."""
    login = api.http.server.login
    found = [insecure(api)] if api.http.server.tls.insecure else []
    if api.abilities.administrator is False and isinstance(login, Basic):
        found.append(
            f"{api.uri}: {login.username} is no administrator: searches hide what this user may not read, so all "
            "counts are of what this user may see"
        )
    return found

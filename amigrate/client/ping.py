"""What a person wants to know of a server before moving anything: what it has, and how fast it answers.

A handful of requests that write nothing. MLflow 3.17.2 with basic authentication hashes the password for every request
but `/health`, so the difference between the two is what that costs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from amigrate.client.abilities import has
from amigrate.client.api import AJAX, SEARCH_EXPERIMENTS, V2, V3, Api, Endpoint
from amigrate.client.workspaces import listed
from amigrate.core.errors import ApiError, Transient, Unsupported
from amigrate.core.model import Doc
from amigrate.core.ports import Work
from amigrate.options import Basic

HEALTH = Endpoint("GET", "/health")
PROXY = Endpoint("GET", "/api/2.0/mlflow-artifacts/artifacts")
NOWHERE = (("path", "amigrate-ping"),)
"""A folder that is not there lists as empty, and costs no listing of a whole bucket."""
PAGE = 1000
TIMES = 5
DEAR = 0.1
"""Seconds per request from which on basic authentication is worth a word."""


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that only some servers have, and how to ask for it."""

    name: str
    endpoint: Endpoint
    params: tuple[tuple[str, str], ...] = ()
    body: Doc | None = None


FEATURES = (
    Feature("metric histories of many runs at once", Endpoint("GET", f"{AJAX}/metrics/get-history-bulk")),
    Feature(
        "logged models",
        Endpoint("POST", f"{V2}/logged-models/search"),
        body={"experiment_ids": ["0"], "max_results": 1},
    ),
    Feature("traces", Endpoint("POST", f"{V3}/traces/search"), body={"max_results": 1}),
    Feature("evaluation datasets", Endpoint("POST", f"{V3}/datasets/search"), body={"max_results": 1}),
)


MODELS = Feature("registered models", Endpoint("GET", f"{V2}/registered-models/search"), (("max_results", "1"),))
"""The one that a server of its own may have (`--registry-uri`)."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found."""

    experiments: int
    more: bool
    """There are more experiments than were counted."""
    proxied: bool | None
    features: dict[str, bool | None]
    """None where the server did not say."""
    workspaces: Sequence[str]
    """Names of those that this user may see."""
    seconds: float
    """The median round trip of a trivial request."""
    login_seconds: float | None
    """What of it basic authentication costs, where that is used."""


async def ask(api: Api) -> Answers:
    """Ask a server that was probed."""
    found = await api.call(SEARCH_EXPERIMENTS, {"max_results": PAGE, "view_type": "ALL"})
    features = {MODELS.name: await _feature(api.registry, MODELS)}
    features |= {feature.name: await _feature(api, feature) for feature in FEATURES}
    seconds = await _median(api, SEARCH_EXPERIMENTS, b'{"max_results": 1}')
    basic = isinstance(api.http.server.login, Basic)
    return Answers(
        len(found.get("experiments") or []),
        bool(found.get("next_page_token")),
        await _proxied(api),
        features,
        [*await listed(api)] if api.abilities.workspaces else [],
        seconds,
        max(0.0, seconds - await _median(api, HEALTH)) if basic else None,
    )


def advice(answers: Answers) -> Sequence[str]:
    """What would make moves from or to this server faster."""
    if answers.login_seconds is None or answers.login_seconds < DEAR:
        return ()
    return (
        f"basic authentication costs this server {answers.login_seconds:.2f} s per request: it hashes the password "
        "each time; auth_cache_ttl_seconds = 60 in its basic_auth.ini helps (MLflow 3.17), and so do more workers",
    )


async def _feature(api: Api, feature: Feature) -> bool | None:
    try:
        return await has(api, feature.endpoint, *feature.params, body=feature.body)
    except Transient:
        # A file store answers HTML 500 for much of what it lacks.
        return None


async def _proxied(api: Api) -> bool | None:
    """Whether the server passes artifacts through; where it will not say, what its experiments say."""
    try:
        await api.call(PROXY, params=NOWHERE)
    except Unsupported:
        return False
    except ApiError:
        return api.abilities.proxied
    return True


async def _median(api: Api, endpoint: Endpoint, body: bytes | None = None) -> float:
    return median([await api.guard.call(Work.READ, lambda: _round_trip(api, endpoint, body)) for _ in range(TIMES)])


async def _round_trip(api: Api, endpoint: Endpoint, body: bytes | None) -> tuple[float, int]:
    """Seconds of one request, also where a gateway has no `/health`."""
    start = time.perf_counter()
    try:
        await api.http.send(endpoint.method, endpoint.path, body=body)
    except Transient:
        raise
    except ApiError:
        pass
    return time.perf_counter() - start, 0

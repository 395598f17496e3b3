"""What a server holds of kinds that amigrate does not carry yet: counted, never silent.

Each is asked for with the cheapest listing there is; a server that lacks the endpoint has none of the kind. Label
schemas are looked at only where the default one exists already: listing them would create it (a write at the source).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from amigrate.client.api import V2, V3, Api, Endpoint
from amigrate.core.errors import ApiError, AuthError, NotFound, Unsupported
from amigrate.core.model import Doc, Outcome, Record, Ref, Status

REASON = "amigrate does not carry this kind yet"
EXPERIMENTS_PER_CALL = 50
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"

MODELS = Endpoint("GET", f"{V2}/registered-models/search")
VERSIONS = Endpoint("GET", f"{V2}/model-versions/search")
LOGGED_MODELS = Endpoint("POST", f"{V2}/logged-models/search")
TRACES = Endpoint("POST", f"{V3}/traces/search")
DATASETS = Endpoint("POST", f"{V3}/datasets/search")
SCORERS = Endpoint("GET", f"{V3}/scorers/list")
ISSUES = Endpoint("POST", f"{V3}/issues/search")

OPT_IN = ("workspaces", "webhooks", "gateway", "users", "mcp-servers")
"""Kinds that only move when they are asked for by name."""


@dataclass(frozen=True, slots=True)
class Census:
    """One kind to count: its name for people and `--accept-loss`, and how."""

    label: str
    count: Callable[[Api, Sequence[str]], Awaitable[int]]
    needs_whole: bool = False
    """True for kinds that belong to the workspace and not to an experiment."""


async def count_uncarried(api: Api, experiments: Sequence[Record], whole: bool) -> list[Outcome]:
    """One outcome for each kind of which the source holds anything, and one for each opt-in kind.

    `whole` is false where single experiments were asked for: then the workspace's own kinds are not part of the job.
    """
    ids = [record.ref.id for record in experiments]
    outcomes = []
    for census in CENSUS:
        if census.needs_whole and not whole:
            continue
        number = await _counted(census, api, ids)
        if number:
            outcomes.append(
                Outcome(Ref(census.label, "*"), Status.LEFT_BEHIND, reason=REASON, name=census.label, count=number)
            )
    if whole:
        reason = "moves only when asked for by name"
        outcomes.extend(Outcome(Ref(label, "*"), Status.EXCLUDED, reason=reason, name=label) for label in OPT_IN)
    return outcomes


async def _counted(census: Census, api: Api, ids: Sequence[str]) -> int:
    try:
        return await census.count(api, ids)
    except AuthError:
        raise
    except (Unsupported, NotFound):
        return 0
    except ApiError as error:
        if error.status >= 500:
            return 0  # A file store answers HTML 500 for what it does not have.
        raise


async def _get_pages(api: Api, endpoint: Endpoint, params: list[tuple[str, str]], field: str) -> int:
    total, token = 0, ""
    while True:
        answer = await api.call(endpoint, params=[*params, *([("page_token", token)] if token else [])])
        total += len(answer.get(field) or [])
        token = answer.get("next_page_token") or ""
        if not token:
            return total


async def _post_pages(api: Api, endpoint: Endpoint, body: Doc, field: str) -> int:
    total, token = 0, ""
    while True:
        answer = await api.call(endpoint, {**body, **({"page_token": token} if token else {})})
        total += len(answer.get(field) or [])
        token = answer.get("next_page_token") or ""
        if not token:
            return total


def _listed(endpoint: Endpoint, field: str, filter: str = "", page: int = 1000) -> Callable[..., Awaitable[int]]:
    async def count(api: Api, _: Sequence[str]) -> int:
        params = [("max_results", str(page)), *([("filter", filter)] if filter else [])]
        return await _get_pages(api, endpoint, params, field)

    return count


async def _logged_models(api: Api, ids: Sequence[str]) -> int:
    total = 0
    for start in range(0, len(ids), EXPERIMENTS_PER_CALL):
        body: Doc = {"experiment_ids": list(ids[start : start + EXPERIMENTS_PER_CALL]), "max_results": 1000}
        total += await _post_pages(api, LOGGED_MODELS, body, "models")
    return total


async def _traces(api: Api, ids: Sequence[str]) -> int:
    total = 0
    for start in range(0, len(ids), EXPERIMENTS_PER_CALL):
        locations = [
            {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}}
            for one in ids[start : start + EXPERIMENTS_PER_CALL]
        ]
        total += await _post_pages(api, TRACES, {"locations": locations, "max_results": 500}, "traces")
    return total


async def _datasets(api: Api, ids: Sequence[str]) -> int:
    return await _post_pages(api, DATASETS, {"experiment_ids": [], "max_results": 1000}, "datasets")


async def _scorers(api: Api, ids: Sequence[str]) -> int:
    answer = await api.call(SCORERS)
    return len(answer.get("scorers") or [])


async def _issues(api: Api, ids: Sequence[str]) -> int:
    return await _post_pages(api, ISSUES, {"max_results": 1000}, "issues")


CENSUS = (
    Census("logged-models", _logged_models),
    Census("registered-models", _listed(MODELS, "registered_models"), needs_whole=True),
    Census("model-versions", _listed(VERSIONS, "model_versions"), needs_whole=True),
    Census("prompts", _listed(MODELS, "registered_models", PROMPTS), needs_whole=True),
    Census("prompt-versions", _listed(VERSIONS, "model_versions", PROMPTS), needs_whole=True),
    Census("traces", _traces),
    Census("evaluation-datasets", _datasets, needs_whole=True),
    Census("scorers", _scorers, needs_whole=True),
    Census("issues", _issues, needs_whole=True),
)

"""What a server holds of kinds that amigrate does not carry yet: counted, never silent.

Each is asked for with the cheapest listing there is; a server that lacks the endpoint has none of the kind, and a file
store answers HTML 500 for what it does not have. Label schemas and review queues belong to an experiment and are listed
one experiment at a time, so only experiments with traces are looked at; label schemas are listed only where the default
one exists already, because listing them creates it (a write at the source). Where nothing was looked at, the summary
says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from amigrate.client.api import V3, Api, Endpoint
from amigrate.core.errors import ApiError, NotFound, Rejected, Transient, Unsupported
from amigrate.core.model import Doc, Outcome, Record, Ref, Status

REASON = "amigrate does not carry this kind yet"
NOT_LOOKED_AT = "not looked at where there are no traces, or where looking would write to the source"
OPT_IN_REASON = "moves only when asked for by name"
EXPERIMENTS_PER_CALL = 50

TRACES = Endpoint("POST", f"{V3}/traces/search")
DATASETS = Endpoint("POST", f"{V3}/datasets/search")
SCORERS = Endpoint("GET", f"{V3}/scorers/list")
ISSUES = Endpoint("POST", f"{V3}/issues/search")
DEFAULT_SCHEMA = Endpoint("GET", f"{V3}/label-schemas/get-by-name")
SCHEMAS = Endpoint("GET", f"{V3}/label-schemas/list")
QUEUES = Endpoint("GET", f"{V3}/review-queues/list")

OPT_IN = ("workspaces", "webhooks", "gateway", "users", "mcp-servers")
"""Kinds that only move when they are asked for by name."""

Counts = Counter[str]
"""How many objects, by the name that people and `--accept-loss` use."""


@dataclass(frozen=True, slots=True)
class Census:
    """Some kinds to count, and how. `whole` for what belongs to the workspace and not to an experiment."""

    labels: tuple[str, ...]
    count: Callable[[Api, Sequence[str]], Awaitable[Counts]]
    whole: bool = False


async def count_uncarried(api: Api, experiments: Sequence[Record], whole: bool) -> list[Outcome]:
    """One outcome for each kind of which the source holds anything, and one for each opt-in kind.

    `whole` is false where single experiments were asked for: then the workspace's own kinds are not part of the job.
    """
    ids = [record.ref.id for record in experiments]
    outcomes = []
    for census in CENSUS:
        if whole or not census.whole:
            outcomes.extend(await _counted(census, api, ids))
    outcomes += [_excluded(label, NOT_LOOKED_AT) for label in _REVIEW if whole]
    return outcomes + [_excluded(label, OPT_IN_REASON) for label in OPT_IN if whole]


async def _counted(census: Census, api: Api, ids: Sequence[str]) -> list[Outcome]:
    try:
        counts = await census.count(api, ids)
    except (Unsupported, NotFound):
        return []
    except Transient as error:
        if api.abilities.store == "FileStore":
            return []
        return [_left(label, 1, f"could not be counted: {error}") for label in census.labels]
    except ApiError as error:
        return [_left(label, 1, f"could not be counted: {error}") for label in census.labels]
    return [_left(label, number, REASON) for label, number in counts.items() if number]


def _left(label: str, number: int, reason: str) -> Outcome:
    return Outcome(Ref(label, "*"), Status.LEFT_BEHIND, reason=reason, name=label, count=number)


def _excluded(label: str, reason: str) -> Outcome:
    return Outcome(Ref(label, "(all)"), Status.EXCLUDED, reason=reason, name=label)


# ---- how each is counted ----------------------------------------------------------------------------------------


async def _got(api: Api, endpoint: Endpoint, field: str, *params: tuple[str, str]) -> AsyncIterator[Doc]:
    """The rows of a listing by GET, page after page."""
    token = ""
    while True:
        answer = await api.call(endpoint, params=[*params, *([("page_token", token)] if token else [])])
        for row in answer.get(field) or []:
            yield row
        token = answer.get("next_page_token") or ""
        if not token:
            return


async def _posted(api: Api, endpoint: Endpoint, field: str, body: Doc) -> AsyncIterator[Doc]:
    """The rows of a listing by POST, page after page."""
    token = ""
    while True:
        answer = await api.call(endpoint, {**body, **({"page_token": token} if token else {})})
        for row in answer.get(field) or []:
            yield row
        token = answer.get("next_page_token") or ""
        if not token:
            return


async def _number(rows: AsyncIterator[Doc]) -> int:
    return sum([1 async for _ in rows])


def _groups(ids: Sequence[str]) -> list[list[str]]:
    return [list(ids[start : start + EXPERIMENTS_PER_CALL]) for start in range(0, len(ids), EXPERIMENTS_PER_CALL)]


async def _reviewed(api: Api, ids: Sequence[str]) -> Counts:
    """What reviewers have made of traces: queues and label schemas of the experiments that have any."""
    counts: Counts = Counter()
    reviewed: set[str] = set()
    for group in _groups(ids):
        places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in group]
        async for trace in _posted(api, TRACES, "traces", {"locations": places, "max_results": 500}):
            place = trace.get("trace_location") or {}
            reviewed.add(str((place.get("mlflow_experiment") or {}).get("experiment_id") or ""))
    for experiment in sorted(reviewed - {""}):
        counts += await _reviews(api, experiment)
    return counts


async def _reviews(api: Api, experiment: str) -> Counts:
    place = ("experiment_id", experiment)
    counts: Counts = Counter()
    try:
        counts["review-queues"] = await _number(_got(api, QUEUES, "review_queues", place))
        await api.call(DEFAULT_SCHEMA, params=[place, ("name", "Feedback")])
        counts["label-schemas"] = await _number(_got(api, SCHEMAS, "label_schemas", place))
    except (NotFound, Unsupported):
        return counts
    return counts


async def _datasets(api: Api, _: Sequence[str]) -> Counts:
    body: Doc = {"experiment_ids": [], "max_results": 1000}
    return Counter({"evaluation-datasets": await _number(_posted(api, DATASETS, "datasets", body))})


async def _scorers(api: Api, ids: Sequence[str]) -> Counts:
    """Of all experiments at once; 3.4.0 only tells of one at a time."""
    try:
        answers = [await api.call(SCORERS)]
    except Rejected:
        answers = [await api.call(SCORERS, params=[("experiment_id", one)]) for one in ids]
    return Counter({"scorers": sum(len(answer.get("scorers") or []) for answer in answers)})


async def _issues(api: Api, _: Sequence[str]) -> Counts:
    return Counter({"issues": await _number(_posted(api, ISSUES, "issues", {"max_results": 1000}))})


_REVIEW = ("review-queues", "label-schemas")
CENSUS = (
    Census(_REVIEW, _reviewed),
    Census(("evaluation-datasets",), _datasets, whole=True),
    Census(("scorers",), _scorers, whole=True),
    Census(("issues",), _issues, whole=True),
)
LABELS = tuple(label for census in CENSUS for label in census.labels)
"""Every kind that may be left behind whole."""

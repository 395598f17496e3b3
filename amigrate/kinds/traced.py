"""Where some kinds are looked for: what reviewers and evaluations keep is about traces, and costs a request for each
experiment or run, so only experiments with traces are looked into. Which those are, the listing of traces has shown;
where there was none, POST `/api/3.0/mlflow/traces/search` for one trace tells, once more than there are such
experiments. What was left out is kept in `Api.overlooked`, for the summary.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from amigrate.client.api import V3, Api, Endpoint
from amigrate.core.errors import leaf
from amigrate.core.model import Doc, Record
from amigrate.kinds.base import Kind

T = TypeVar("T")
R = TypeVar("R")
SEARCH = Endpoint("POST", f"{V3}/traces/search")
AT_ONCE = 32


def places_of(experiments: Sequence[str]) -> list[Doc]:
    """Experiments as a search for traces takes them."""
    return [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in experiments]


async def searched(api: Api, kind: Kind, experiments: Sequence[Record]) -> list[Record]:
    """The experiments in which a kind is looked for, by what has to be asked one experiment at a time.

    A server answers for no experiment that is deleted.
    """
    active = [one for one in experiments if one.doc.get("lifecycle_stage") != "deleted"]
    chosen = active if kind.label in api.asked else await with_traces(api, active)
    everywhere = {one.ref.id for one in experiments}
    api.overlooked.setdefault(kind.name, set()).difference_update(everywhere)  # They may have got traces meanwhile.
    overlook(api, kind, everywhere - {one.ref.id for one in chosen})
    return chosen


def overlook(api: Api, kind: Kind, experiments: set[str]) -> None:
    """Note that a kind was not looked for in these."""
    api.overlooked.setdefault(kind.name, set()).update(experiments)


async def with_traces(api: Api, experiments: Sequence[Record]) -> list[Record]:
    """Those of the experiments that hold traces."""
    unknown = [one.ref.id for one in experiments if one.ref.id not in api.has_traces]
    while unknown:
        answer = await api.call(SEARCH, {"locations": places_of(unknown), "max_results": 1})
        homes = [str(one["trace_location"]["mlflow_experiment"]["experiment_id"]) for one in answer.get("traces") or []]
        for one in homes or unknown:
            api.has_traces[one] = bool(homes)
        unknown = [one for one in unknown if one not in api.has_traces]
    return [one for one in experiments if api.has_traces[one.ref.id]]


async def each(ask: Callable[[T], Awaitable[R]], things: Sequence[T]) -> AsyncIterator[R]:
    """What `ask` has to say of each thing, in their order, some of them asked at once."""
    for start in range(0, len(things), AT_ONCE):
        try:
            async with asyncio.TaskGroup() as group:
                asked = [group.create_task(_told(ask, one)) for one in things[start : start + AT_ONCE]]
        except BaseExceptionGroup as errors:
            raise leaf(errors) from errors
        for one in asked:
            yield one.result()


async def _told(ask: Callable[[T], Awaitable[R]], thing: T) -> R:
    return await ask(thing)

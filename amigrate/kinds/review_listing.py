"""Listing review queues and their items (MLflow 3.14).

GET `/api/3.0/mlflow/review-queues/list` takes one experiment, GET `…/items/list` one queue; both answer up to 50 000
at a time.
"""

from __future__ import annotations

from amigrate.client.api import V3, Api, Endpoint
from amigrate.core.model import Doc
from amigrate.kinds.listing import pages

QUEUES = Endpoint("GET", f"{V3}/review-queues/list")
ITEMS = Endpoint("GET", f"{V3}/review-queues/items/list")
FIRST_PAGE, LARGEST_PAGE = 1000, 10_000


async def queues_of(api: Api, experiment: str) -> list[Doc]:
    """The review queues of an experiment, without their items."""
    return await _all(api, QUEUES, "review_queues", ("experiment_id", experiment))


async def items_of(api: Api, queue: str) -> list[Doc]:
    """The items of a queue: which trace, its status, who completed it."""
    return await _all(api, ITEMS, "items", ("queue_id", queue))


async def _all(api: Api, endpoint: Endpoint, field: str, place: tuple[str, str]) -> list[Doc]:
    listing = pages(api, endpoint, field, {}, first=FIRST_PAGE, largest=LARGEST_PAGE, params=[place])
    return [doc async for page in listing for doc in page]

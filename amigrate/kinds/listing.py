"""Listings by page tokens, in pages that fit into memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigrate.client.api import Api, Endpoint, Params
from amigrate.core.errors import TooLarge
from amigrate.core.model import Doc

PAGE_BYTES = 3 * 1024 * 1024
"""What a page should weigh as JSON; parsed, it takes about eight times as much."""
ANSWER_LIMIT = 8 * PAGE_BYTES
GROWTH = 10
"""How many times larger than the last one a page may be asked for."""


def next_size(size: int, rows: int, weight: int, largest: int) -> int:
    """How many rows should weigh `PAGE_BYTES`, when so many `rows` weighed `weight` bytes."""
    return max(1, min(PAGE_BYTES * rows // max(weight, 1), size * GROWTH, largest))


async def pages(
    api: Api, endpoint: Endpoint, field: str, body: Doc, *, first: int, largest: int, params: Params = ()
) -> AsyncIterator[list[Doc]]:
    """The rows in `field` of every page. A single row is taken whatever it weighs.

    A GET endpoint takes what it is asked for as `params`, others as `body`.
    """
    size, token = first, ""
    while True:
        wanted: Doc = {**body, "max_results": size, **({"page_token": token} if token else {})}
        is_get = endpoint.method == "GET"
        try:
            answer, weight = await api.weighed(
                endpoint,
                None if is_get else wanted,
                params=[*params, *((name, str(value)) for name, value in wanted.items())] if is_get else (),
                at_most=ANSWER_LIMIT if size > 1 else None,
            )
        except TooLarge:
            largest = size = max(1, size // 4)
            continue
        rows: list[Doc] = answer.get(field) or []
        if rows:
            size = next_size(size, len(rows), weight, largest)
            yield rows
        token = answer.get("next_page_token") or ""
        if not token:
            return

"""Listings by page tokens, in pages that fit into memory."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable

from amigrate.client.api import Api, Endpoint, Params
from amigrate.core import codec
from amigrate.core.errors import TooLarge
from amigrate.core.model import Doc, Record

PAGE_BYTES = 3 * 1024 * 1024
"""What a page should weigh as JSON; parsed, it takes about eight times as much."""
ANSWER_LIMIT = 8 * PAGE_BYTES
GROWTH = 10
"""How many times larger than the last one a page may be asked for."""


def from_offset(offset: int) -> Doc:
    """What asks for the page that starts at an offset. A token for the very first one is refused."""
    return {"page_token": b64encode(codec.dumps({"offset": offset})).decode()} if offset > 0 else {}


def offset_of(token: str) -> int | None:
    """Where the page that a token asks for starts; None for any other token."""
    try:
        value = codec.loads(b64decode(token))
        return int(value["offset"])
    except (ValueError, KeyError, TypeError):
        return None


async def counted(has: Callable[[int], Awaitable[bool]]) -> int:
    """How many rows a listing by offsets has, from as many small requests as the number has digits in base two.

    `has` tells whether there is a row behind so many others.
    """
    least, most = 0, 1
    if not await has(0):
        return 0
    while await has(most):
        least, most = most, 4 * most
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (middle, most) if await has(middle) else (least, middle)
    return most


def next_size(size: int, rows: int, weight: int, largest: int) -> int:
    """How many rows should weigh `PAGE_BYTES`, when so many `rows` weighed `weight` bytes."""
    return max(1, min(PAGE_BYTES * rows // max(weight, 1), size * GROWTH, largest))


class WholeScan:
    """A listing that is read from its beginning each time; what came meanwhile is what was not in it before."""

    def __init__(self, listed: Callable[[], AsyncIterator[list[Record]]]) -> None:
        self._listed = listed
        self._seen: set[str] = set()

    async def pages(self) -> AsyncIterator[list[Record]]:
        async for page in self._listed():
            self._seen.update(record.ref.key for record in page)
            yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        before = set(self._seen)
        async for page in self.pages():
            new = [record for record in page if record.ref.key not in before]
            if new:
                yield new


async def pages(
    api: Api, endpoint: Endpoint, field: str, body: Doc, *, first: int, largest: int, params: Params = ()
) -> AsyncIterator[list[Doc]]:
    """The rows in `field` of every page. A single row is taken whatever it weighs.

    A GET endpoint takes what it is asked for as `params`, others as `body`. Some give the rows as JSON in a text.
    """
    largest = api.ceiling(endpoint, largest)
    size, token = min(first, largest), ""
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
        except TooLarge as error:
            largest = size = max(1, size // 4)
            api.note_slow(endpoint, error, size)
            continue
        told = answer.get(field) or []
        rows: list[Doc] = codec.exact_loads(told) if isinstance(told, str) else told
        if rows:
            size = next_size(size, len(rows), weight, largest)
            yield rows
        token = answer.get("next_page_token") or ""
        if not token:
            return

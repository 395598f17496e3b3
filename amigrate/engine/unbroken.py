"""What it means that a source lacks a kind: it says so at once, not in the middle of showing some."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigrate.core.errors import ApiError, Unsupported
from amigrate.core.model import Record

EVERYWHERE = ("experiment", "run")
"""Kinds that every MLflow server has."""


async def unbroken(kind: str, pages: AsyncIterator[list[Record]], shown: bool = False) -> AsyncIterator[list[Record]]:
    """The pages of a listing; `Unsupported` says that the source has none of the kind.

    Where it has `shown` some, or always has the kind, a server that answers so has broken off the listing: `ApiError`.
    """
    shown = shown or kind in EVERYWHERE
    try:
        async for page in pages:
            shown = shown or bool(page)
            yield page
    except Unsupported as error:
        if not shown or not error.status:  # A kind that knows of itself that there are no more has no status.
            raise
        raise ApiError(str(error), status=error.status, code=error.code, endpoint=error.endpoint) from error

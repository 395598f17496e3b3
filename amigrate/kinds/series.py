"""One series of one run, however long it is, in chunks.

GET `/api/2.0/mlflow/metrics/get-history`: SQL stores page it by `max_results` since 3.4; before, and at every file
store, one answer has the whole series (a million points weigh 112 MB). An answer that is too large to be parsed at once
goes to a temporary file and is parsed from there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from itertools import islice
from tempfile import TemporaryFile
from typing import IO, Any

import ijson

from amigrate.client.api import V2, Api, Endpoint
from amigrate.core.errors import TooLarge, Transient
from amigrate.core.model import Doc, Point

SINGLE = Endpoint("GET", f"{V2}/metrics/get-history")

CHUNK = 25_000
"""Points of a chunk at most, and of a page where the server pages."""
WHOLE = 12 * 1024 * 1024
"""Bytes of an answer that is parsed at once."""
ATTEMPTS = 5
"""How often an answer that breaks off is asked for."""


@dataclass(slots=True)
class Answer:
    """One answer: a page of a series, or all of it."""

    rows: Iterator[Doc]
    token: str
    """Asks for the next page; empty where there is none."""

    def chunk(self) -> list[Point]:
        """The next points; fewer than `CHUNK` at the end."""
        return [point_of(row) for row in islice(self.rows, CHUNK)]


async def ask(api: Api, run_id: str, key: str, token: str = "") -> Answer:
    """One page of one series. Always with `max_results`: without it 3.4 to 3.13 answer an empty list."""
    params = [("run_id", run_id), ("metric_key", key), ("max_results", str(CHUNK))]
    params += [("page_token", token)] if token else []
    try:
        answer, _ = await api.weighed(SINGLE, params=params, at_most=WHOLE)
    except TooLarge:
        return _from_file(await _on_disk(api, params))
    return Answer(iter(answer.get("metrics") or []), str(answer.get("next_page_token") or ""))


async def chunks(api: Api, run_id: str, key: str) -> AsyncIterator[list[Point]]:
    """Every point of one series in the store's order."""
    token = ""
    while True:
        answer = await ask(api, run_id, key, token)
        while points := answer.chunk():
            yield points
        token = answer.token
        if not token:
            return


async def _on_disk(api: Api, params: list[tuple[str, str]]) -> IO[bytes]:
    for attempt in range(ATTEMPTS):
        file = TemporaryFile()  # noqa: SIM115 - it goes when nobody reads it any more
        try:
            async with api.file(SINGLE.path, params).open() as stream:
                async for data in stream.chunks:
                    file.write(data)
            return file
        except Transient:
            file.close()
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _from_file(file: IO[bytes]) -> Answer:
    file.seek(0)
    token = next(ijson.items(file, "next_page_token"), "")
    file.seek(0)
    return Answer(ijson.items(file, "metrics.item", use_float=True), str(token))


def point_of(row: dict[str, Any]) -> Point:
    """A point in MLflow's JSON: NaN and infinities may be strings, zero fields may be missing."""
    return float(row.get("value", 0.0)), int(row.get("timestamp", 0)), int(row.get("step", 0))

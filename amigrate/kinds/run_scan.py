"""Listing runs of many experiments, in pages that fit into memory, without missing one.

POST `/api/2.0/mlflow/runs/search`, view ALL, oldest first. SQL stores page by offset (`base64({"offset": N})`), which
is no snapshot: new runs shift others towards the end and are met there, but a run that is removed for good while the
listing goes on would make the next page skip one. So each page starts one run early, and that run must be the one
that ended the page before; else the listing starts again (whoever takes the pages drops what it has seen).

What has to be asked for every experiment in a page, such as the listing of its folder, is asked for each page that the
experiment is in, and runs of many experiments are mixed by their start. So a few experiments are listed at a time, as
many as have a page of runs together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence

from amigrate.client.api import V2, Api, Endpoint
from amigrate.core.errors import Rejected, TooLarge, Transient, Unsupported, UsageError
from amigrate.core.model import Doc, Record, Ref
from amigrate.kinds import model_links, run_document
from amigrate.kinds.experiment_scan import experiment_ids
from amigrate.kinds.listing import counted, from_offset, offset_of
from amigrate.kinds.searches import searches_of, searches_of_ids

SEARCH = Endpoint("POST", f"{V2}/runs/search")

PAGE_BYTES = 3 * 1024 * 1024
"""What a page should weigh as JSON; parsed, it takes about eight times as much."""
ANSWER_LIMIT = 8 * PAGE_BYTES
FIRST_PAGE = 100
LARGEST_PAGE = 1000
EXPERIMENTS_PER_SEARCH = 1000
FIRST_PART = 5
"""Experiments that are listed together before it is known how many runs they have."""
GROWTH = 10
"""How many times more than those before may be listed together, and how many times more runs asked for."""
FILLED = 0.9
"""How much of a page should be filled: the next experiments may have more runs than those before."""
RESTARTS = 5


class RunScan:
    """All runs of some experiments, or those of them that the server is asked for (`Api.choice`)."""

    def __init__(self, api: Api, experiments: Sequence[Record], *, in_parts: bool = False) -> None:
        """`in_parts` for pages of which something is asked for each experiment."""
        self._api = api
        self._in_parts = in_parts and len(experiments) > FIRST_PART
        self._parents = {record.ref.id: record.ref for record in experiments}
        self._searches = searches_of(api.choice.runs, one_by_one=api.abilities.older_than(2, 1))
        self._unsettled: set[str] = set()
        self._count = 0
        """Runs that were listed."""
        self._ends: list[Doc] = []
        """The last run of each part of the listing."""
        self._offsets = False
        self._page_size = FIRST_PAGE
        """Runs to ask for next."""
        self._largest = api.ceiling(SEARCH, LARGEST_PAGE)
        """Runs of a page at most: below what the server, or a gateway in front of it, could not answer."""
        self._begun = asyncio.Event()
        """Set when it is known whether one page holds them all."""

    async def pages(self) -> AsyncIterator[list[Record]]:
        """Everything, some experiments at a time; runs that are asked for by id by several searches."""
        try:
            if self._by_id:
                async for page in self._by_filters(self._searches):
                    yield page
                return
            self._count, self._ends, self._page_size = 0, [], FIRST_PAGE
            if self._in_parts and (few := await self._few()) is not None:
                yield few
                return
            async for part in self._parts():
                async for page in self._steady({"experiment_ids": part}):
                    yield page
        finally:
            self._begun.set()

    async def _few(self) -> list[Record] | None:
        """All runs of all experiments, where they are so few that one page holds them."""
        size, answer, weight = await self._page({}, min(FIRST_PAGE, self._largest), 0)
        runs, token = answer.get("runs") or [], answer.get("next_page_token") or ""
        if token:
            self._page_size = _next_size(size, len(runs), weight)
            self._note_token(token, len(runs))
            return None
        self._count, self._ends = len(runs), [run["info"] for run in runs[-1:]]
        return self._records(runs)

    async def _by_filters(self, filters: Iterable[str]) -> AsyncIterator[list[Record]]:
        for one in filters:
            self._page_size = FIRST_PAGE
            async for page in self._steady({"filter": one}):
                yield page

    async def _parts(self) -> AsyncIterator[list[str]]:
        """The experiments, as many at a time as have a page of runs together, as far as those before tell."""
        ids = [*self._parents]
        if not self._in_parts:
            yield ids
            return
        start, size = 0, FIRST_PART
        while start < len(ids):
            yield ids[start : start + size]
            start += size
            fitting = int(FILLED * self._page_size * start / max(self._count, 1))
            size = max(1, min(fitting, GROWTH * size))

    def _note_token(self, token: str, offset: int) -> None:
        if token and not self._offsets:
            self._offsets = offset_of(token) == offset
            self._begun.set()

    @property
    def _by_id(self) -> bool:
        return bool(self._api.choice.runs.ids)

    async def _steady(self, extra: Doc) -> AsyncIterator[list[Record]]:
        """A listing that starts again where the pages moved under it."""
        for _ in range(RESTARTS):
            try:
                async for page in self._search(extra):
                    yield page
                return
            except _Shifted:
                continue
        raise Transient("runs keep disappearing from the source while they are listed; try again later")

    async def size(self) -> int | None:
        """To within an eighth, from a few tiny requests for the run at some place; waits for the first page.

        None where that holds them all, and where page tokens are no offsets.
        """
        await self._begun.wait()
        if not self._offsets:
            return None
        least, most = FIRST_PAGE, 4 * FIRST_PAGE
        try:
            while await self._anyfrom_offset(most):
                least, most = most, 4 * most
            while most - least > max(1, least // 8):
                middle = (least + most) // 2
                least, most = (middle, most) if await self._anyfrom_offset(middle) else (least, middle)
        except (Rejected, Unsupported):
            return None
        return (least + most) // 2

    async def again(self) -> AsyncIterator[list[Record]]:
        """Runs that had not ended are read again; where there are more runs than were listed, all are listed again."""
        unsettled = sorted(self._unsettled)
        self._unsettled = set()
        async for page in self.of(unsettled):
            yield page
        if not self._by_id and await self._more():
            async for page in self.pages():
                yield page

    async def of(self, run_ids: Sequence[str]) -> AsyncIterator[list[Record]]:
        """Those of the runs that are there, as they are now."""
        async for page in self._by_filters(searches_of_ids(run_ids, one_by_one=self._api.abilities.older_than(2, 1))):
            yield page

    async def _more(self) -> bool:
        """One small request: is the run that was listed last at another place now, or no longer the last one?"""
        if not self._offsets:
            return True
        answer = await self._api.call(SEARCH, self._body({"max_results": 2, **from_offset(self._count - 1)}))
        last = max(self._ends, key=_place, default={})
        return [run["info"]["run_id"] for run in answer.get("runs") or []] != [last.get("run_id")]

    async def _anyfrom_offset(self, offset: int) -> bool:
        """Whether there is a run at this place of the listing."""
        answer = await self._api.call(SEARCH, self._body({"max_results": 1, **from_offset(offset)}))
        return bool(answer.get("runs"))

    async def _search(self, extra: Doc) -> AsyncIterator[list[Record]]:
        offset, token = 0, ""
        last: Doc = {}
        while True:
            size, overlap = min(self._page_size, self._largest), 1 if self._offsets and offset else 0
            start = from_offset(offset - 1) if overlap else {"page_token": token} if token else {}
            wanted = {"max_results": size + overlap, **extra, **start}
            size, answer, weight = await self._page(wanted, size, overlap)
            runs = answer.get("runs") or []
            if overlap:
                if not runs or runs[0]["info"]["run_id"] != last["run_id"]:
                    raise _Shifted
                runs = runs[1:]
            if runs:
                offset, last = offset + len(runs), runs[-1]["info"]
                self._page_size = _next_size(size, len(runs), weight)
            token = (answer.get("next_page_token") or "") if runs else ""
            if "filter" not in extra:
                self._note_token(token, offset)
            if runs:
                yield self._records(runs)
            if not token:
                break
        if last and "filter" not in extra:
            self._count += offset
            self._ends.append(last)

    async def _page(self, wanted: Doc, size: int, overlap: int) -> tuple[int, Doc, int]:
        """One answer, asking for fewer runs where they are too heavy; a single run is taken whatever it weighs."""
        while True:
            wanted["max_results"] = size + overlap
            try:
                answer, weight = await self._api.weighed(
                    SEARCH, self._body(wanted), at_most=ANSWER_LIMIT if size > 1 else None
                )
                return size, answer, weight
            except TooLarge as error:
                self._largest = size = max(1, size // 4)
                self._api.note_slow(SEARCH, error, size)

    def _body(self, extra: Doc) -> Doc:
        wanted = {"filter": self._searches[0]} if self._searches[0] and not self._by_id else {}
        return {
            "experiment_ids": list(self._parents),
            "run_view_type": "ALL",
            **wanted,
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
            **extra,
        }

    def _records(self, runs: Sequence[Doc]) -> list[Record]:
        model_links.note(self._api, runs)
        return [self._record(doc) for doc in runs]

    def _record(self, doc: Doc) -> Record:
        record = run_document.from_rest(doc, self._parents[str(doc["info"]["experiment_id"])])
        if doc["info"].get("status") not in run_document.ENDED:
            self._unsettled.add(record.ref.id)
        return record


async def check_filter(api: Api, filters: str) -> None:
    """Raises `UsageError` where the server does not take it: better now than in the middle."""
    if filters:
        try:
            await api.call(SEARCH, {"experiment_ids": ["0"], "filter": filters, "max_results": 1})
        except Rejected as error:
            raise UsageError(f"{api.shown} does not take --filter: {error}") from error


async def located(api: Api, ids: Sequence[str]) -> list[Record]:
    """The runs of these ids, wherever they are, deleted ones too."""
    homes = await experiment_ids(api)
    found = []
    for start in range(0, len(homes), EXPERIMENTS_PER_SEARCH):
        for one in searches_of_ids(ids):
            body: Doc = {"experiment_ids": homes[start : start + EXPERIMENTS_PER_SEARCH], "filter": one}
            runs = (await api.call(SEARCH, {**body, "run_view_type": "ALL"})).get("runs") or []
            found += [run_document.from_rest(run, Ref("experiment", str(run["info"]["experiment_id"]))) for run in runs]
    return found


async def count(api: Api, experiments: Sequence[Record]) -> int | None:
    """How many runs some experiments have; None where page tokens are no offsets."""
    body: Doc = {"experiment_ids": [one.ref.id for one in experiments], "run_view_type": "ALL", "max_results": 1}

    async def has(offset: int) -> bool:
        return bool((await api.call(SEARCH, {**body, **from_offset(offset)})).get("runs"))

    answer = await api.call(SEARCH, body)
    token = answer.get("next_page_token") or ""
    if not token:
        return len(answer.get("runs") or [])
    return await counted(has) if offset_of(token) == 1 else None


class _Shifted(Exception):
    """The pages moved under the listing."""


def _next_size(size: int, runs: int, weight: int) -> int:
    """The page size that should weigh `PAGE_BYTES`, growing at most tenfold at a time."""
    fitting = PAGE_BYTES * runs // max(weight, 1)
    return max(1, min(fitting, size * GROWTH, LARGEST_PAGE))


def _place(info: Doc) -> tuple[int, str]:
    """Where a run stands in a listing."""
    return int(info.get("start_time") or 0), str(info["run_id"])

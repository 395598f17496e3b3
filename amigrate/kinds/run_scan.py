"""Listing runs of many experiments, in pages that fit into memory, without missing one.

POST `/api/2.0/mlflow/runs/search`, view ALL, oldest first. SQL stores page by offset (`base64({"offset": N})`), which
is no snapshot: new runs shift others towards the end and are met there, but a run that is removed for good while the
listing goes on would make the next page skip one. So each page starts one run early, and that run must be the one
that ended the page before; else the listing starts again (whoever takes the pages drops what it has seen).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Sequence

from amigrate.client.api import V2, Api, Endpoint
from amigrate.core import codec
from amigrate.core.errors import TooLarge, Transient
from amigrate.core.model import Doc, Record
from amigrate.kinds import run_document

SEARCH = Endpoint("POST", f"{V2}/runs/search")

PAGE_BYTES = 3 * 1024 * 1024
"""What a page should weigh as JSON; parsed, it takes about eight times as much."""
ANSWER_LIMIT = 8 * PAGE_BYTES
FIRST_PAGE = 100
LARGEST_PAGE = 1000
IDS_PER_SEARCH = 100
RESTARTS = 5


class RunScan:
    """All runs of some experiments."""

    def __init__(self, api: Api, experiments: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record.ref for record in experiments}
        self._unsettled: set[str] = set()
        self._count = 0
        self._offsets = False

    async def pages(self) -> AsyncIterator[list[Record]]:
        for _ in range(RESTARTS):
            try:
                async for page in self._listing():
                    yield page
                return
            except _Shifted:
                continue
        raise Transient("runs keep disappearing from the source while they are listed; try again later")

    async def again(self) -> AsyncIterator[list[Record]]:
        """Runs that had not ended are read again; where there are more runs than were listed, all are listed again."""
        unsettled = sorted(self._unsettled)
        self._unsettled = set()
        for start in range(0, len(unsettled), IDS_PER_SEARCH):
            async for page in self._read_again(unsettled[start : start + IDS_PER_SEARCH]):
                yield page
        if await self._more():
            async for page in self.pages():
                yield page

    async def _read_again(self, run_ids: Sequence[str]) -> AsyncIterator[list[Record]]:
        """These runs as they are now: in one search, where the server knows `IN` for ids (1.30.1 does not)."""
        chosen = ",".join(f"'{run_id}'" for run_id in run_ids)
        filters = [f"attributes.run_id IN ({chosen})"]
        if self._api.abilities.older_than(2, 1):
            filters = [f"attributes.run_id = '{run_id}'" for run_id in run_ids]
        for one in filters:
            async for page in self._search({"filter": one}):
                yield page

    async def _more(self) -> bool:
        """One small request: is there a run behind the last one that was listed?"""
        if not self._offsets:
            return True
        answer = await self._api.call(SEARCH, self._body({"max_results": 1, "page_token": _token(self._count)}))
        return bool(answer.get("runs"))

    async def _listing(self) -> AsyncIterator[list[Record]]:
        self._count = 0
        async for page in self._search({}):
            self._count += len(page)
            yield page

    async def _search(self, extra: Doc) -> AsyncIterator[list[Record]]:
        size, offset, token, last = FIRST_PAGE, 0, "", ""
        while True:
            overlap = 1 if self._offsets and offset else 0
            wanted = {"max_results": size + overlap, **extra}
            if token:
                wanted["page_token"] = _token(offset - 1) if overlap else token
            size, answer, weight = await self._page(wanted, size, overlap)
            runs = answer.get("runs") or []
            if overlap:
                if not runs or runs[0]["info"]["run_id"] != last:
                    raise _Shifted
                runs = runs[1:]
            if runs:
                offset, last = offset + len(runs), runs[-1]["info"]["run_id"]
                size = _next_size(size, len(runs), weight)
                yield [self._record(doc) for doc in runs]
            token = answer.get("next_page_token") or ""
            if not token or not runs:
                return
            if not self._offsets and not extra:
                self._offsets = _offset_of(token) == offset

    async def _page(self, wanted: Doc, size: int, overlap: int) -> tuple[int, Doc, int]:
        """One answer, asking for fewer runs where they are too heavy; a single run is taken whatever it weighs."""
        while True:
            wanted["max_results"] = size + overlap
            try:
                answer, weight = await self._api.weighed(
                    SEARCH, self._body(wanted), at_most=ANSWER_LIMIT if size > 1 else None
                )
                return size, answer, weight
            except TooLarge:
                size = max(1, size // 4)

    def _body(self, extra: Doc) -> Doc:
        return {
            "experiment_ids": list(self._parents),
            "run_view_type": "ALL",
            "order_by": ["attributes.start_time ASC", "attributes.run_id ASC"],
            **extra,
        }

    def _record(self, doc: Doc) -> Record:
        record = run_document.from_rest(doc, self._parents[str(doc["info"]["experiment_id"])])
        if doc["info"].get("status") not in run_document.ENDED:
            self._unsettled.add(record.ref.id)
        return record


class _Shifted(Exception):
    """The pages moved under the listing."""


def _next_size(size: int, runs: int, weight: int) -> int:
    """The page size that should weigh `PAGE_BYTES`, growing at most tenfold at a time."""
    fitting = PAGE_BYTES * runs // max(weight, 1)
    return max(1, min(fitting, size * 10, LARGEST_PAGE))


def _token(offset: int) -> str:
    return b64encode(codec.dumps({"offset": offset})).decode()


def _offset_of(token: str) -> int | None:
    try:
        value = codec.loads(b64decode(token))
        return int(value["offset"])
    except (ValueError, KeyError, TypeError):
        return None

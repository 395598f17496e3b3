"""Listing traces of many experiments.

POST `/api/3.0/mlflow/traces/search` (3.4+): at most 500 a page, assessments included; a token comes with every full
page, so the last one may be empty. Before, GET `/api/2.0/mlflow/traces` (2.14+) lists the same with other names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from amigrate.client.api import V2, V3, Api, Endpoint
from amigrate.core.model import Doc, Record, Ref
from amigrate.kinds.listing import counted, from_offset, offset_of, pages
from amigrate.kinds.searches import trace_search_of
from amigrate.kinds.traced import places_of

SEARCH = Endpoint("POST", f"{V3}/traces/search")
INFOS = Endpoint("POST", f"{V3}/traces/batchGetInfos")
OLD_LIST = Endpoint("GET", f"{V2}/traces")
FIRST_PAGE, LARGEST_PAGE = 100, 500
OLD_PAGE = 100
IDS_PER_CALL = 100
"""Of a look at traces by id."""
OLDEST_FIRST = "timestamp_ms ASC"
OLD_STATES = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


async def count(api: Api, experiments: Sequence[Record]) -> int | None:
    """How many traces some experiments have; None where page tokens are no offsets, or the server is too old."""
    if api.abilities.older_than(3, 4):
        return 0 if api.abilities.older_than(2, 14) else None
    body: Doc = {"locations": places_of([one.ref.id for one in experiments]), "max_results": 1}

    async def has(offset: int) -> bool:
        return bool((await api.call(SEARCH, {**body, **from_offset(offset)})).get("traces"))

    answer = await api.call(SEARCH, body)
    token = answer.get("next_page_token") or ""
    if not token:
        return len(answer.get("traces") or [])
    return await counted(has) if offset_of(token) == 1 else None


class TraceScan:
    """All traces of some experiments, oldest first."""

    def __init__(self, api: Api, experiments: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record.ref for record in experiments}
        self._search = trace_search_of(api.choice.runs)

    async def pages(self) -> AsyncIterator[list[Record]]:
        if self._api.abilities.older_than(2, 14):
            return
        async for page in self._old() if self._api.abilities.older_than(3, 4) else self._new():
            self._api.has_traces |= {record.ref.parent.id: True for record in page if record.ref.parent}
            yield page
        for experiment in self._parents if not self._search else ():
            self._api.has_traces.setdefault(experiment, False)

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    async def _new(self) -> AsyncIterator[list[Record]]:
        body: Doc = {"locations": places_of([*self._parents]), "order_by": [OLDEST_FIRST]}
        if self._search:
            body["filter"] = self._search
        async for page in pages(self._api, SEARCH, "traces", body, first=FIRST_PAGE, largest=LARGEST_PAGE):
            yield [self._record(info) for info in page]

    async def _old(self) -> AsyncIterator[list[Record]]:
        params = [*(("experiment_ids", one) for one in self._parents), ("order_by", OLDEST_FIRST)]
        params += [("filter", self._search)] if self._search else []
        async for page in pages(self._api, OLD_LIST, "traces", {}, first=OLD_PAGE, largest=OLD_PAGE, params=params):
            yield [self._record(info_of_old(one)) for one in page]

    def _record(self, info: Doc) -> Record:
        parent = self._parents[str(info["trace_location"]["mlflow_experiment"]["experiment_id"])]
        return record_of(info, Ref("trace", str(info["trace_id"]), parent))


def record_of(info: Doc, ref: Ref) -> Record:
    """A trace as a listing shows it."""
    return Record(ref, {"info": info}, (info.get("tags") or {}).get("mlflow.traceName", ""))


def info_of_old(old: Doc) -> Doc:
    """A trace info of before 3.4 in the words of today."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(old["experiment_id"])}}
    return {
        "trace_id": str(old["request_id"]),
        "trace_location": place,
        "request_time": _time(int(old.get("timestamp_ms") or 0)),
        "execution_duration": f"{int(old.get('execution_time_ms') or 0) / 1000:g}s",
        "state": OLD_STATES.get(old.get("status", ""), old.get("status", "STATE_UNSPECIFIED")),
        "trace_metadata": {one["key"]: one.get("value", "") for one in old.get("request_metadata") or []},
        "tags": {one["key"]: one.get("value", "") for one in old.get("tags") or []},
    }


def _time(milliseconds: int) -> str:
    """As JSON has a protobuf timestamp."""
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:03d}Z"

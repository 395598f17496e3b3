"""Listing traces of many experiments.

POST `/api/3.0/mlflow/traces/search` (3.4+): at most 500 a page, assessments included; a token comes with every full
page, so the last one may be empty. Before, GET `/api/2.0/mlflow/traces` (2.14+) lists the same with other names.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from amigrate.client.api import V2, V3, Api, Endpoint
from amigrate.core.model import Doc, Record, Ref
from amigrate.kinds.listing import pages

SEARCH = Endpoint("POST", f"{V3}/traces/search")
OLD_LIST = Endpoint("GET", f"{V2}/traces")
FIRST_PAGE, LARGEST_PAGE = 100, 500
OLD_PAGE = 100
OLDEST_FIRST = "timestamp_ms ASC"
OLD_STATES = {"TRACE_STATUS_UNSPECIFIED": "STATE_UNSPECIFIED"}


class TraceScan:
    """All traces of some experiments, oldest first."""

    def __init__(self, api: Api, experiments: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record.ref for record in experiments}

    async def pages(self) -> AsyncIterator[list[Record]]:
        if self._api.abilities.older_than(2, 14):
            return
        async for page in self._old() if self._api.abilities.older_than(3, 4) else self._new():
            yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    async def _new(self) -> AsyncIterator[list[Record]]:
        places = [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": one}} for one in self._parents]
        body = {"locations": places, "order_by": [OLDEST_FIRST]}
        async for page in pages(self._api, SEARCH, "traces", body, first=FIRST_PAGE, largest=LARGEST_PAGE):
            yield [self._record(info) for info in page]

    async def _old(self) -> AsyncIterator[list[Record]]:
        params = [*(("experiment_ids", one) for one in self._parents), ("order_by", OLDEST_FIRST)]
        async for page in pages(self._api, OLD_LIST, "traces", {}, first=OLD_PAGE, largest=OLD_PAGE, params=params):
            yield [self._record(info_of_old(one)) for one in page]

    def _record(self, info: Doc) -> Record:
        parent = self._parents[str(info["trace_location"]["mlflow_experiment"]["experiment_id"])]
        return Record(
            Ref("trace", str(info["trace_id"]), parent),
            {"info": info},
            (info.get("tags") or {}).get("mlflow.traceName", ""),
        )


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

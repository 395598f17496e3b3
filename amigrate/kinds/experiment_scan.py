"""The experiments of a server: POST `/api/2.0/mlflow/experiments/search` (1.30+)."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigrate.client.api import SEARCH_EXPERIMENTS, Api
from amigrate.core.model import Doc, Record, Ref

PAGE = 1000


class ExperimentScan:
    """Every experiment, oldest first, so that what is created meanwhile comes at the end."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._seen: set[str] = set()

    async def pages(self) -> AsyncIterator[list[Record]]:
        async for page in experiment_pages(self._api):
            self._seen.update(record.ref.id for record in page)
            yield page

    async def size(self) -> int | None:
        """Not worth a request: one page holds most servers."""
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in experiment_pages(self._api):
            new = [record for record in page if record.ref.id not in self._seen]
            self._seen.update(record.ref.id for record in new)
            if new:
                yield new


async def experiment_pages(api: Api) -> AsyncIterator[list[Record]]:
    """All experiments of a server, deleted ones included, in pages."""
    body: Doc = {"max_results": PAGE, "view_type": "ALL", "order_by": ["creation_time ASC", "experiment_id ASC"]}
    while True:
        answer = await api.call(SEARCH_EXPERIMENTS, body)
        yield [
            Record(Ref("experiment", str(doc["experiment_id"])), doc, str(doc.get("name", "")))
            for doc in answer.get("experiments") or []
        ]
        token = answer.get("next_page_token")
        if not token:
            return
        body["page_token"] = token


async def experiment_ids(api: Api) -> list[str]:
    """The ids of all experiments of a server that these credentials may see, deleted ones included."""
    return [record.ref.id async for page in experiment_pages(api) for record in page]

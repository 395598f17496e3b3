"""The evaluation datasets of a server: POST `/api/3.0/mlflow/datasets/search` (3.4+).

With basic authentication, who is no administrator has to name experiments.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from amigrate.client.api import V3, Api, Endpoint
from amigrate.core.errors import Forbidden
from amigrate.core.model import Doc, Record, Ref
from amigrate.kinds.experiment_scan import experiment_ids
from amigrate.kinds.listing import pages

DATASETS = f"{V3}/datasets"
SEARCH = Endpoint("POST", f"{DATASETS}/search")
PAGE = 1000
EXPERIMENTS_PER_SEARCH = 100


async def dataset_pages(api: Api) -> AsyncIterator[list[Record]]:
    """All datasets that these credentials may see, oldest first as far as one search shows them."""
    try:
        async for page in _of(api, []):
            yield page
        return
    except Forbidden:  # As the first answer, so nothing was listed yet.
        experiments = await experiment_ids(api)
    seen: set[str] = set()
    for start in range(0, len(experiments), EXPERIMENTS_PER_SEARCH):
        async for page in _of(api, experiments[start : start + EXPERIMENTS_PER_SEARCH]):
            yield [record for record in page if record.ref.id not in seen]
            seen.update(record.ref.id for record in page)


async def _of(api: Api, experiments: Sequence[str]) -> AsyncIterator[list[Record]]:
    """The datasets of some experiments; of none: all, also those that belong to no experiment."""
    body: Doc = {"experiment_ids": [*experiments], "order_by": ["created_time ASC"]}
    async for page in pages(api, SEARCH, "datasets", body, first=100, largest=PAGE):
        yield [Record(Ref("evaluation_dataset", str(row["dataset_id"])), row, str(row["name"])) for row in page]

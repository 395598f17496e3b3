"""What would go with an experiment that is deleted: runs, logged models and traces that amigrate did not make."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigrate.client.api import V2, Api, Endpoint
from amigrate.core.errors import Unsupported
from amigrate.core.model import Record, Ref
from amigrate.core.ports import Ids
from amigrate.kinds.base import PROVENANCE, pairs
from amigrate.kinds.listing import pages
from amigrate.kinds.run_scan import RunScan
from amigrate.kinds.trace_scan import TraceScan

SEARCH_MODELS = Endpoint("POST", f"{V2}/logged-models/search")


async def strangers(api: Api, experiment: str, ids: Ids) -> str:
    """The first object of a target experiment that amigrate did not make and that is not deleted; empty if none is."""
    async for kind, own, tags in _held(api, experiment):
        if ids.old_id(kind, own) is None and not any(key.startswith(PROVENANCE) for key in tags):
            return f"{kind.replace('_', ' ')} {own}"
    return ""


async def _held(api: Api, experiment: str) -> AsyncIterator[tuple[str, str, dict[str, str]]]:
    """Kind, id and tags of everything that an experiment holds."""
    parent = Record(Ref("experiment", experiment), {})
    async for page in RunScan(api, [parent]).pages():
        for run in page:
            if run.doc["info"].get("lifecycle_stage") != "deleted":
                yield "run", run.ref.id, pairs(run.doc["data"].get("tags"))
    try:
        body = {"experiment_ids": [experiment]}
        async for models in pages(api, SEARCH_MODELS, "models", body, first=100, largest=1000):
            for model in models:
                yield "logged_model", str(model["info"]["model_id"]), pairs(model["info"].get("tags"))
        async for traces in TraceScan(api, [parent]).pages():
            for trace in traces:
                yield "trace", trace.ref.id, {}
    except Unsupported:  # An older server has none of these.
        return

"""Whether an experiment, model or prompt at the target is the source's own one, made by an earlier amigrate.

Their names cannot tell where the target had others of the same name before. Without a journal, what belongs to them
does: a run that says which run of the source it was made of, a trace of the same id, a version that comes from such a
run, or has no run and the same text, description and tags. None is said where neither side has anything to tell by.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from amigrate.client.api import V2, Endpoint
from amigrate.core.errors import NotFound
from amigrate.core.model import Doc, Record
from amigrate.kinds import run_document as document
from amigrate.kinds import trace_document
from amigrate.kinds.base import Target, content_tags, pairs
from amigrate.kinds.deleted_runs import GET as GET_RUN
from amigrate.kinds.run_document import SOURCE_RUN
from amigrate.kinds.run_scan import SEARCH
from amigrate.kinds.trace_scan import INFOS

SOME = 100
"""Objects that are looked at: the oldest ones on both sides."""
FEW = 2
GET_NAME = Endpoint("GET", f"{V2}/registered-models/get")
GET_VERSION = Endpoint("GET", f"{V2}/model-versions/get")


async def of_experiment(target: Target, experiment: str, children: Sequence[Record]) -> bool | None:
    """Whether an experiment of the target holds any of these children of the source's."""
    runs = [one for one in children if one.ref.kind == "run" and not one.error][:SOME]
    traces = [one.ref.id for one in children if one.ref.kind == "trace" and not one.error][:SOME]
    if runs:
        return await _holds_run(target, experiment, runs)
    if traces:
        return await _holds_trace(target, experiment, traces)
    return None if not await _runs(target, experiment, "", 1) else False


async def _holds_run(target: Target, experiment: str, runs: Sequence[Record]) -> bool:
    origins = {document.origin(one) for one in runs}
    tagged = await _runs(target, experiment, f"tags.`{SOURCE_RUN}` LIKE '%'", SOME)
    if origins & {document.tags_of(one)[SOURCE_RUN] for one in tagged}:
        return True
    copied = sorted(origins - {one.ref.id for one in runs})  # What was first made at the target itself has no tag.
    if not copied or target.api.abilities.older_than(2, 1):
        return False
    chosen = ",".join(f"'{one}'" for one in copied)
    return bool(await _runs(target, experiment, f"attributes.run_id IN ({chosen})", 1))


async def _runs(target: Target, experiment: str, filters: str, most: int) -> list[Doc]:
    body = {
        "experiment_ids": [experiment],
        "filter": filters,
        "run_view_type": "ALL",
        "max_results": most,
        "order_by": ["attributes.start_time ASC"],
    }
    runs: list[Doc] = (await target.api.call(SEARCH, body)).get("runs") or []
    return runs


async def _holds_trace(target: Target, experiment: str, traces: Sequence[str]) -> bool:
    if target.api.abilities.older_than(3, 10):
        return False
    infos = (await target.api.call(INFOS, {"trace_ids": [*traces]})).get("trace_infos") or []
    return experiment in map(trace_document.experiment_of, infos)


async def of_versions(target: Target, name: str, children: Sequence[Record]) -> bool | None:
    """Whether a registered model or prompt of the target holds these versions of the source: the first of them tell."""
    for child in [one for one in children if not one.error][:FEW]:
        number = child.ref.id.rpartition("/")[2]
        with suppress(NotFound):
            params = [("name", name), ("version", number)]
            answer = await target.api.registry.call(GET_VERSION, params=params)
            return await _is_same(target, child.doc, answer["model_version"])
    model = (await target.api.registry.call(GET_NAME, params=[("name", name)]))["registered_model"]
    return None if not children and not model.get("latest_versions") else False


async def _is_same(target: Target, mine: Doc, theirs: Doc) -> bool:
    run, other = str(mine.get("run_id") or ""), str(theirs.get("run_id") or "")
    if run and other:
        return run == other or run == await _origin_of(target, other)
    return not run and not other and _told(mine) == _told(theirs)


def _told(version: Doc) -> Doc:
    """All that a version of no run says of itself; of a prompt, its text too."""
    fields = {name: version.get(name) or "" for name in ("source", "description")}
    return {**fields, "tags": content_tags(pairs(version.get("tags")))}


async def _origin_of(target: Target, run_id: str) -> str:
    """The run of the source that a run of the target was made of."""
    try:
        run = (await target.api.call(GET_RUN, params=[("run_id", run_id)]))["run"]
    except NotFound:
        return ""
    return document.tags_of({"data": {}, **run}).get(SOURCE_RUN, "")

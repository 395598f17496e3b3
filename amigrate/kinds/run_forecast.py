"""What it takes to read and to write runs, and what of a run a server would not take: guessed from its listing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

from amigrate.core.model import Doc, Forecast, Foreseen, Outcome, Record
from amigrate.kinds import run_document as document
from amigrate.kinds.base import Target, pairs
from amigrate.kinds.history import FILL, RUNS
from amigrate.kinds.limits import fitting, lost, refused_key
from amigrate.kinds.log_batch import ENTITIES, KINDS
from amigrate.kinds.model_links import inputs_of, outputs_of

LARGEST_STEP, LONG_SERIES = 100_000, 1_000
"""A step that hardly counts points, and how many there are then."""


def forecast(batch: Sequence[Record]) -> Forecast:
    """Points by the latest step of each series, and the requests that bring so many of so many runs."""
    keys: dict[str, list[int]] = defaultdict(list)
    for record in batch:
        for metric in metrics_of(record):
            keys[metric["key"]].append(points_of(metric))
    requests = sum(max(math.ceil(len(runs) / RUNS), math.ceil(sum(runs) / FILL)) for runs in keys.values())
    return Forecast(sum(map(sum, keys.values())), requests)


def metrics_of(record: Record) -> list[Doc]:
    metrics: list[Doc] = record.doc["data"].get("metrics") or []
    return metrics


def points_of(metric: Doc) -> int:
    """How many points a series has where its steps count from 0, as most do; large ones mostly count something else."""
    step = int(metric.get("step") or 0)
    return max(1, step + 1) if step < LARGEST_STEP else LONG_SERIES


async def foreseen(target: Target, record: Record, *, is_there: bool) -> Foreseen:
    """The requests that write a run, and the parts of it that the target would refuse or cut."""
    losses = [*await _refused(target, record), *_inputs_lost(target, record)]
    for param in record.doc["data"].get("params") or []:
        fitting("param", param, target.limits.param, record.ref, losses)
    long = [key for key, value in document.tags_of(record.doc).items() if len(value) > target.limits.tag]
    doubt = f"tags of runs over {target.limits.tag} characters: cut where the target checks them"
    if is_there:
        return Foreseen(2, losses, [doubt] * len(long))
    entities = sum(map(points_of, metrics_of(record))) + len(record.doc["data"].get("params") or [])
    parts = (document.dataset_inputs(record.doc), inputs_of(record.doc), outputs_of(record.doc))
    requests = 2 + math.ceil(entities / ENTITIES) + sum(1 for part in parts if part) + document.is_deleted(record)
    return Foreseen(requests, losses, [doubt] * len(long))


async def _refused(target: Target, record: Record) -> list[Outcome]:
    """Metrics, params and tags whose names the target does not take."""
    reason = f"an MLflow {target.api.abilities.version or 'before 2.1'} takes no such name"
    odd = [(what, key) for what, key in _keys(record) if refused_key(target.api.abilities, key)]
    checked = [(what, key) for what, key in odd if what != "tags"]
    # A SQL store checks no tag of a run that is made with it.
    if len(checked) < len(odd) and not await target.is_sql():
        checked = odd
    return [lost(KINDS[what], key, record.ref, reason) for what, key in checked]


def _keys(record: Record) -> Iterator[tuple[str, str]]:
    yield from (("metrics", str(metric["key"])) for metric in metrics_of(record))
    yield from (("params", key) for key in pairs(record.doc["data"].get("params")))
    yield from (("tags", key) for key in document.tags_of(record.doc))


def _inputs_lost(target: Target, record: Record) -> list[Outcome]:
    if not target.api.abilities.older_than(2, 4):
        return []
    reason = "the target is an MLflow without dataset inputs (2.4 has them)"
    used = [one["dataset"] for one in document.dataset_inputs(record.doc)]
    return [lost("dataset-input", f"{one['name']} {one['digest']}", record.ref, reason) for one in used]

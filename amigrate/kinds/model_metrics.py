"""The metrics of logged models: points of runs that name a model, and perhaps the dataset it was measured on.

POST `runs/log-batch` with `model_id` (and `dataset_name`, `dataset_digest`) gives the point to the model and to the
run; a run in a SQL store drops it where it has it already, a file store would keep it twice. A model's NaN reads as 0.0
(MLflow 3.17.2), so a 0.0 is looked up in the run: sending it where the run has NaN would add a point that nobody made.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from amigrate.core import codec
from amigrate.core.errors import Rejected
from amigrate.core.model import Doc, Outcome, Ref, Status
from amigrate.core.ports import Ids
from amigrate.kinds.base import Target
from amigrate.kinds.deleted_runs import even_if_deleted
from amigrate.kinds.limits import lost
from amigrate.kinds.log_batch import BATCH, ENTITIES, metrics_of
from amigrate.kinds.series import chunks

NAN = codec.number(math.nan)


async def write_metrics(
    target: Target, model: Ref, new_id: str, metrics: Sequence[Doc], ids: Ids
) -> tuple[list[Outcome], list[Doc]]:
    """Give a model its metrics. Returns what could not be given, and those points whose run is not at the target."""
    losses: list[Outcome] = []
    waiting: list[Doc] = []
    if metrics and not await target.is_sql():
        return lost_metrics(model, metrics), []
    for old, points in _by_run(metrics).items():
        run_id = ids.new_id("run", old)
        if run_id is None:
            reason = f"run {old}, which measured it, is not at the target"
            keys = sorted({one["key"] for one in points})
            losses += [Outcome(Ref("metric", f"{key} by {old}", model), Status.EXCLUDED, reason=reason) for key in keys]
            waiting += points
            continue
        sent = await _as_sent(target, run_id, new_id, points)
        for start in range(0, len(sent), ENTITIES):
            losses += await _send(target, model, run_id, sent[start : start + ENTITIES])
    return losses, waiting


async def _send(target: Target, model: Ref, run_id: str, points: Sequence[Doc]) -> list[Outcome]:
    """Points of one run. Returns what was refused: before 3.17 a NaN that the run has already, which every one is."""

    async def send(points: Sequence[Doc]) -> None:
        body = {"run_id": run_id, "metrics": points}
        await even_if_deleted(target, run_id, lambda: target.api.call(BATCH, body))

    try:
        await send(points)
        return []
    except Rejected as error:
        numbers = [one for one in points if one["value"] != NAN]
        if len(numbers) == len(points) or not target.api.abilities.older_than(3, 17):
            raise
        if numbers:
            await send(numbers)
        keys = sorted({one["key"] for one in points if one["value"] == NAN})
        return [
            lost("metric", key, model, f"the target takes no NaN that its run has already: {error}") for key in keys
        ]


def lost_metrics(model: Ref, metrics: Iterable[Doc]) -> list[Outcome]:
    """What becomes of a model's metrics at a file store."""
    reason = "a file store would keep the points of its runs twice"
    return [lost("metric", key, model, reason) for key in sorted({one["key"] for one in metrics})]


def _by_run(metrics: Iterable[Doc]) -> dict[str, list[Doc]]:
    runs: dict[str, list[Doc]] = {}
    for one in metrics:
        runs.setdefault(str(one.get("run_id") or ""), []).append(one)
    return runs


async def _as_sent(target: Target, run_id: str, model_id: str, points: Sequence[Doc]) -> list[Doc]:
    """Points as `log-batch` takes them."""
    zeros = sorted({one["key"] for one in points if not one.get("value")})
    nans = {key: await _nans(target, run_id, key) for key in zeros}
    sent = []
    for one in points:
        key, timestamp, step = str(one["key"]), int(one.get("timestamp") or 0), int(one.get("step") or 0)
        value = float(one.get("value") or 0.0)
        if not value and (timestamp, step) in nans[key]:
            value = math.nan
        dataset = {field: one[field] for field in ("dataset_name", "dataset_digest") if one.get(field)}
        sent += [{**one, "model_id": model_id, **dataset} for one in metrics_of(key, [(value, timestamp, step)])]
    return sent


async def _nans(target: Target, run_id: str, key: str) -> set[tuple[int, int]]:
    """Timestamp and step of the points of a run that are NaN and nothing else."""
    nans, zeros = set[tuple[int, int]](), set[tuple[int, int]]()
    async for points in chunks(target.api, run_id, key):
        for value, timestamp, step in points:
            if value != value:
                nans.add((timestamp, step))
            elif not value:
                zeros.add((timestamp, step))
    return nans - zeros

"""Writing points, params and tags of one run with `runs/log-batch`: what is refused, and what may be there already.

POST `/api/2.0/mlflow/runs/log-batch` takes 1000 metrics, 100 params, 100 tags, 1000 in all. One name or value that the
server does not take makes it refuse the whole call, so a refused call is halved until what it refuses stands alone:
that is left behind, everything else arrives. A file store answers 500 in the middle of a call where a key is a folder
of another one (`a` beside `a/b`).

SQL stores drop points that they have already, file stores keep them twice. Where the store is not known to be SQL,
points whose fate is unknown (a lost answer, a run of an earlier session) are read back and only the difference is sent.
A file store gives a history in the order in which it was written (1.30.1 to 3.17.2), so what a call has left behind is
what lies beyond the points that were there before it.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import isfinite
from typing import Any

from amigrate.client.api import V2, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, ApiError, Rejected, Transient
from amigrate.core.model import Doc, Outcome, Point, Ref, Rows
from amigrate.kinds.base import Target
from amigrate.kinds.deleted_runs import GET as GET_RUN
from amigrate.kinds.limits import is_plain, lost
from amigrate.kinds.series import chunks, point_of

BATCH = Endpoint("POST", f"{V2}/runs/log-batch", Work.WRITE)

ENTITIES = 1000
PARAMS = 100
TAGS = 100
KINDS = {"metrics": "metric", "params": "param", "tags": "tag"}
READINGS = 20
"""How often a history is read that does not stop growing, because a call that was given up is still at work."""

Batch = dict[str, list[Doc]]
"""`metrics`, `params`, `tags` as `log-batch` takes them."""


class Held:
    """The points that a run had of one series when this session opened it: each stands for one that comes again."""

    def __init__(self, hashes: Iterable[int]) -> None:
        self._hashes = array("q", sorted(hashes))
        self._met = bytearray(len(self._hashes))

    def __len__(self) -> int:
        return len(self._hashes)

    def meets(self, point: Point) -> bool:
        """True where the run has this point and no equal one before it has stood for it."""
        wanted = hash_of(point)
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if not self._met[at]:
                self._met[at] = 1
                return True
            at += 1
        return False


class RunWriter:
    """The points, params and tags of one run at the target. Its calls come one after the other."""

    def __init__(self, target: Target, run: Ref, new_id: str, *, resumed: bool) -> None:
        self._target = target
        self._run = run
        self._new_id = new_id
        self._resumed = resumed
        self._held: dict[str, Held] = {}
        self._written: Counter[str] = Counter()
        """Points that the run is known to have, by metric key."""
        self._refused: set[tuple[str, str]] = set()
        self.losses: list[Outcome] = []
        """What the target did not take."""

    async def lacking(self, rows: Rows) -> Sequence[Point]:
        """Those of the points that the run does not have yet, as far as that matters to the store."""
        if not self._resumed or await self._target.is_sql():
            return rows.points
        if rows.series not in self._held:
            self._held[rows.series] = held = Held(await self._history(rows.series))
            self._written[rows.series] = len(held)
        return [point for point in rows.points if not self._held[rows.series].meets(point)]

    async def send(self, batch: Batch) -> None:
        """Write a batch; what the target refuses of it is noted as a loss.

        Raises what the server said where the run itself cannot be written to.
        """
        taken = {what: self._taken(what, items) for what, items in batch.items()}
        if any(taken.values()):
            await self._send(taken, doubtful=False)

    def _taken(self, what: str, items: list[Doc]) -> list[Doc]:
        """Without what was refused before: in this run, or in any run where the name is the reason."""
        if not self._refused and not self._target.refused_names:
            return items
        taken = []
        for item in items:
            key, reason = item["key"], self._target.refused_names.get((what, item["key"]))
            if reason and (what, key) not in self._refused:
                self._lose(what, key, reason)
            if (what, key) not in self._refused:
                taken.append(item)
        return taken

    async def _send(self, batch: Batch, *, doubtful: bool) -> None:
        try:
            await self._call(batch, doubtful)
        except (Rejected, Transient) as error:
            if isinstance(error, Transient) and error.status != 500:
                raise
            if not doubtful:
                await self._check_writable(error)
            await self._apart(batch, error)

    async def _apart(self, batch: Batch, error: ApiError) -> None:
        """Find out what it is that the server refuses."""
        keys = list(dict.fromkeys((what, item["key"]) for what, items in batch.items() for item in items))
        if len(keys) > 1:
            first = set(keys[: len(keys) // 2])
            await self._send(_part(batch, first), doubtful=True)
            await self._send(_part(batch, set(keys) - first), doubtful=True)
            return
        for what, key in keys:
            if what == "params" and await self._has_params(batch["params"]):
                continue
            reason = f"the target refuses it: {error}"
            if not is_plain(key):
                self._target.refused_names[what, key] = reason
            self._lose(what, key, reason)

    async def _has_params(self, params: list[Doc]) -> bool:
        """True where a lost answer was the reason: a file store refuses a param that it has, if it holds a \\r."""
        answer = await self._target.api.call(GET_RUN, params=[("run_id", self._new_id)])
        held = {param["key"]: param.get("value") for param in answer["run"].get("data", {}).get("params", ())}
        return all(held.get(param["key"]) == param["value"] for param in params)

    async def _check_writable(self, error: ApiError) -> None:
        """Where not even an empty batch is taken, the run is the reason and not what is in the batch."""
        try:
            await self._target.api.call(BATCH, {"run_id": self._new_id})
        except (Rejected, Transient):
            raise error from None

    def _lose(self, what: str, key: str, reason: str) -> None:
        self._refused.add((what, key))
        self.losses.append(lost(KINDS[what], key, self._run, reason))

    async def _call(self, batch: Batch, doubtful: bool) -> None:
        """One call, repeated with what has not arrived where that makes a difference."""
        body: dict[str, Any] = {"run_id": self._new_id, **batch}
        metrics = batch.get("metrics") or []

        async def recover() -> None:
            if metrics and not await self._target.is_sql():
                body["metrics"] = await self._not_arrived(metrics)

        if doubtful:
            await recover()
        await self._target.api.call(BATCH, body, recover=recover)
        self._written.update(metric["key"] for metric in metrics)

    async def _not_arrived(self, metrics: list[Doc]) -> list[Doc]:
        """The points of a call that are not at the target. Read until nothing is added any more."""
        keys = {metric["key"] for metric in metrics}
        arrived: dict[str, Counter[int]] = {}
        for _ in range(READINGS):
            before = {key: sum(points.values()) for key, points in arrived.items()}
            arrived = {key: Counter(await self._beyond(key)) for key in keys}
            if before == {key: sum(points.values()) for key, points in arrived.items()}:
                break
        else:
            raise AmigrateError("points of an earlier request keep arriving: run the same command again later")
        return [metric for metric in metrics if not _took(arrived[metric["key"]], hash_of(point_of(metric)))]

    async def _beyond(self, key: str) -> array[int]:
        """What the run has of a series beyond what it is known to have."""
        return (await self._history(key))[self._written[key] :]

    async def _history(self, key: str) -> array[int]:
        """The points that the run has of a series, each as its hash: 8 bytes instead of 200."""
        hashes = array("q")
        try:
            async for points in chunks(self._target.api, self._new_id, key):
                hashes.extend(map(hash_of, points))
        except Rejected:
            if is_plain(key):
                raise  # Any other key may be one that the store does not take, and holds nothing of.
        return hashes


def batches(metrics: Sequence[Doc], params: list[Doc], tags: list[Doc]) -> Iterator[Batch]:
    """Everything in as few calls as the server's limits allow; `params` and `tags` are emptied on the way."""
    start = 0
    while start < len(metrics) or params or tags:
        batch = {"params": params[:PARAMS], "tags": tags[:TAGS]}
        del params[:PARAMS], tags[:TAGS]
        room = ENTITIES - sum(map(len, batch.values()))
        batch["metrics"] = list(metrics[start : start + room])
        start += room
        yield {what: items for what, items in batch.items() if items}


def metrics_of(series: str, points: Iterable[Point]) -> list[Doc]:
    """Points as `log-batch` takes them. Non-finite values must be texts: a bare NaN drops the rest of the body."""
    return [
        {"key": series, "value": value if isfinite(value) else codec.number(value), "timestamp": time, "step": step}
        for value, time, step in points
    ]


def _part(batch: Batch, keys: set[tuple[str, str]]) -> Batch:
    chosen = {what: [item for item in items if (what, item["key"]) in keys] for what, items in batch.items()}
    return {what: items for what, items in chosen.items() if items}


def hash_of(point: Point) -> int:
    """Equal points, equal numbers: every NaN is the same, and so are both zeros."""
    value, timestamp, step = point
    return hash((None if value != value else value + 0.0, timestamp, step))


def _took(counter: Counter[int], key: int) -> bool:
    if counter[key] <= 0:
        return False
    counter[key] -= 1
    return True

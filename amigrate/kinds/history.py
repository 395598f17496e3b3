"""Reading metric histories with as few requests as the server allows.

GET `/ajax-api/2.0/mlflow/metrics/get-history-bulk` (2.9+) brings one key of up to 100 runs of any experiments, at most
25 000 rows in all, ordered by run, timestamp, step, value. Fewer rows: complete. Exactly 25 000: every run sorting
before the last one is complete, that last one and all that sort after it are asked again. Where a series is longer
than one answer, or the bulk endpoint is missing, it is asked for alone (see `series`). The bulk endpoint writes NaN
bare.

Key after key for some runs, then for the next ones: so runs become whole one after the other, rather than all at the
end, and can be written while others are asked for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from amigrate.client.api import AJAX, Api, Endpoint
from amigrate.core.errors import NotFound, Rejected, TooLarge, Unsupported
from amigrate.core.model import POINT_BYTES, Point, Record, Ref, Rows
from amigrate.kinds.series import CHUNK, Answer, ask, point_of

BULK = Endpoint("GET", f"{AJAX}/metrics/get-history-bulk")

CAP = 25_000
"""Rows in one bulk answer at most."""
FILL = 20_000
"""Rows to aim at, so that a guess slightly too low does not hit the cap."""
RUNS = 100
"""Runs in one bulk call at most."""
FIELDS = itemgetter("run_id", "value", "timestamp", "step")
TYPICAL = 100
"""Points of a series, before anything was seen."""
SMALLEST_COST = 64 * 1024
ANSWER_FACTOR = 2
"""Parsed JSON and points live side by side for a moment."""


@dataclass(slots=True)
class Series:
    """One key of one run, and where to go on reading it."""

    ref: Ref
    key: str
    most: int
    """Its latest step plus one: mostly the upper bound of its length. A hint, no more."""
    least: int = 0
    """Points that a full answer showed of it."""
    paged: int = 0
    """Points that its own pages have brought."""
    token: str = ""
    answer: Answer | None = None
    """A page that has not been read to its end."""


@dataclass(slots=True)
class Waiting:
    """What is still to be asked, and what was learned about lengths on the way."""

    by_key: OrderedDict[str, deque[Series]]
    """The key whose turn it is comes first."""
    alone: deque[Series] = field(default_factory=deque)
    groups: deque[list[Series]] = field(default_factory=deque)
    """Parts of calls that were refused, or took too long, as a whole."""
    lengths: dict[str, int] = field(default_factory=dict)
    """The longest series met so far, by run: the metrics of a run mostly have the same length."""
    typical: float = TYPICAL
    bulk: bool = True
    in_flight: int = 0

    def __bool__(self) -> bool:
        return bool(self.alone or self.groups or self.by_key)

    def guess(self, series: Series) -> int:
        """How many points a series may have."""
        known = self.lengths.get(series.ref.id)
        likely = known if known is not None else min(series.most, int(self.typical) + 1)
        return min(max(likely, series.least, 1), CAP)

    def put_back(self, series: Sequence[Series]) -> None:
        """What an answer had no room for comes next."""
        key = series[0].key
        self.by_key.setdefault(key, deque()).extendleft(reversed(series))
        self.by_key.move_to_end(key, last=False)

    def learn(self, series: Series, length: int) -> None:
        self.lengths[series.ref.id] = max(self.lengths.get(series.ref.id, 0), length)
        self.typical += (length - self.typical) * 0.05


class HistoryCall:
    """One request for some series of one key. See `core.ports.RowCall`."""

    def __init__(self, reader: HistoryReader, series: list[Series], rows: int, alone: bool) -> None:
        self._reader = reader
        self._series = series
        self._alone = alone
        self.cost = max(rows * POINT_BYTES * ANSWER_FACTOR, SMALLEST_COST)
        self.refs = [one.ref for one in series]

    async def __call__(self) -> list[Rows]:
        return await self._reader.ask(self._series, self._alone)


class HistoryReader:
    """Every point of a batch of runs. `calls` gives the requests; they may be run in any order and at once."""

    def __init__(self, api: Api, batch: Sequence[Record]) -> None:
        self._api = api
        self._waiting = Waiting(_by_key(batch))
        self._changed = asyncio.Event()

    async def calls(self) -> AsyncIterator[HistoryCall]:
        """The next requests; waits where answers on their way may still ask for more."""
        while True:
            if self._waiting:
                self._waiting.in_flight += 1
                yield self._next()
                continue
            if not self._waiting.in_flight:
                return
            self._changed.clear()
            await self._changed.wait()

    def _next(self) -> HistoryCall:
        waiting = self._waiting
        if waiting.alone:
            return HistoryCall(self, [waiting.alone.popleft()], CAP, alone=True)
        if waiting.groups:
            group = waiting.groups.popleft()
            return HistoryCall(self, group, sum(map(waiting.guess, group)), alone=False)
        key, queue = waiting.by_key.popitem(last=False)
        chosen = self._choose(queue)
        if queue:
            waiting.by_key[key] = queue
        rows = sum(map(waiting.guess, chosen))
        alone = not waiting.bulk or (len(chosen) == 1 and rows >= CAP)
        return HistoryCall(self, chosen, min(rows, CAP), alone)

    def _choose(self, queue: deque[Series]) -> list[Series]:
        """As many runs of one key as should fit into one answer and one request line, as the server orders them."""
        most = self._api.ceiling(BULK, RUNS) if self._waiting.bulk else 1
        rows, line, longest = 0, 3 * len(queue[0].key.encode()) + 60, self._api.http.longest_query
        chosen: list[Series] = []
        while queue and len(chosen) < most:
            rows += self._waiting.guess(queue[0])
            line += len(queue[0].ref.id) + len("run_id=&")
            if chosen and (rows > FILL or line > longest):
                break
            chosen.append(queue.popleft())
        return sorted(chosen, key=lambda one: one.ref.id)

    async def ask(self, series: list[Series], alone: bool) -> list[Rows]:
        """Send one call; whatever it could not bring goes back to those waiting.

        Raises what the server said where a single series is refused.
        """
        try:
            return [await self._page(series[0])] if alone else await self._bulk(series)
        except Unsupported:
            if alone:
                raise
            self._waiting.bulk = False
            self._waiting.alone.extend(series)
            return []
        except (NotFound, Rejected, TooLarge) as error:
            if len(series) == 1:
                raise
            half = len(series) // 2
            if isinstance(error, TooLarge):
                self._api.note_slow(BULK, error, half)
            self._waiting.groups.extend((series[:half], series[half:]))
            return []
        finally:
            # No await from here to whoever takes the rows: the next page of a series must not overtake this one.
            self._waiting.in_flight -= 1
            self._changed.set()

    async def _bulk(self, series: list[Series]) -> list[Rows]:
        key = series[0].key
        params = [("run_id", one.ref.id) for one in series] + [("metric_key", key), ("max_results", str(CAP))]
        answer = await self._api.call(BULK, params=params, divisible=len(series) > 1)
        rows = answer.get("metrics") or []
        points = _by_run(rows)
        if len(rows) >= CAP:
            series = self._after_full_answer(series, str(rows[-1]["run_id"]), points)
        for one in series:
            self._waiting.learn(one, len(points[one.ref.id]))
        return [_whole(one, points[one.ref.id], len(points[one.ref.id])) for one in series]

    def _after_full_answer(self, series: list[Series], last: str, points: dict[str, list[Point]]) -> list[Series]:
        """Keep the runs that are complete, send the rest back: a run that fills an answer by itself goes alone."""
        whole = [one for one in series if one.ref.id < last]
        rest = [one for one in series if one.ref.id >= last]
        for one in rest:
            one.least = len(points.get(one.ref.id, ()))
        if rest and rest[0].least >= CAP:
            self._waiting.lengths[rest[0].ref.id] = CAP
            self._waiting.alone.append(rest.pop(0))
        if rest:
            self._waiting.put_back(rest)
        return whole

    async def _page(self, series: Series) -> Rows:
        """The next points of one series; where there are more, the series goes back."""
        answer = series.answer or await ask(self._api, series.ref.id, series.key, series.token)
        points = answer.chunk()
        series.paged += len(points)
        series.answer = answer if len(points) == CHUNK else None
        series.token = answer.token
        if series.answer or series.token:
            self._waiting.alone.append(series)
            return Rows(series.ref, series.key, points)
        self._waiting.learn(series, series.paged)
        return _whole(series, points, series.paged)


def _whole(series: Series, points: list[Point], total: int) -> Rows:
    """The end of a series. One that was listed has points, unless its run was removed meanwhile."""
    error = "" if total else f"metric '{series.key}' is listed, but its history is empty: is the run gone?"
    return Rows(series.ref, series.key, points, total, error)


def _by_key(batch: Sequence[Record]) -> OrderedDict[str, deque[Series]]:
    """The series of a batch by metric key."""
    keys: OrderedDict[str, deque[Series]] = OrderedDict()
    for record in batch:
        for metric in record.doc["data"].get("metrics") or []:
            most = max(1, int(metric.get("step") or 0) + 1)
            keys.setdefault(metric["key"], deque()).append(Series(record.ref, metric["key"], most))
    return keys


def _by_run(rows: Sequence[dict[str, Any]]) -> dict[str, list[Point]]:
    points: dict[str, list[Point]] = defaultdict(list)
    try:
        for run_id, value, timestamp, step in map(FIELDS, rows):
            points[run_id].append((float(value), int(timestamp), int(step)))
    except KeyError:  # Zero fields may be missing.
        points.clear()
        for row in rows:
            points[row["run_id"]].append(point_of(row))
    return points

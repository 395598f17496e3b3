"""The pure parts: names on disk, points on lines, joining of rows, the memory budget, the limiter, the guard."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from collections.abc import Awaitable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from amigrate.archive import document
from amigrate.archive.layout import escape, unescape
from amigrate.archive.spool import Spool
from amigrate.artifacts.names import refusal
from amigrate.core.errors import NoServer, Rejected, Transient
from amigrate.core.model import Record, Ref, Rows, Status
from amigrate.core.ports import Work
from amigrate.engine.budget import ByteBudget
from amigrate.engine.gather import Gather
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.limiter import Limiter
from amigrate.engine.stats import Requests, Stats
from amigrate.kinds import trace_document
from amigrate.kinds.trace_document import linked_prompts
from amigrate.report.progress import time_left

RUN = Record(Ref("run", "r", Ref("experiment", "1")), {})


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=400))
@example("")
@example("\x00")
@example("%+")
def test_every_name_has_one_path_that_stays_inside(name: str) -> None:
    path = escape(name)
    assert unescape(path) == name
    for segment in path.split("/"):
        assert segment not in ("", ".", "..")
        assert len(segment.encode()) <= 255
        assert not any(ord(character) < 32 for character in segment)


def test_ordinary_names_look_like_themselves() -> None:
    for name in ("model.pkl", "a b", "100%.txt", "übung 😀", "x+y&z;w"):
        assert escape(name) == name
    assert escape("a%20b") != escape("a b")


@pytest.mark.parametrize("path", ["a%20b", "x/%2e%2e/y", "q?", "q;", "#1", "a\nb", "../x"])
def test_names_that_a_server_would_take_for_others_are_refused(path: str) -> None:
    assert refusal(path)


@pytest.mark.parametrize("path", ["a b", "100%.txt", "q?x", "a;b/c", "..a", "übung 😀"])
def test_other_names_are_not(path: str) -> None:
    assert not refusal(path)


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("spill", [False, True])
def test_points_survive_the_spool_and_the_document(tmp_path: Path, bare: bool, spill: bool) -> None:
    """In order, whatever their value, when chunks of several series come mixed and partly lie on disk."""
    odd = [(0.1 + 0.2, 0, -5), (1e300, 1, 2**53 + 1), (-0.0, 2, 0), (math.inf, 3, 1), (-math.inf, 4, 1)]
    (tmp_path / "spool").write_bytes(b"what a killed export left")
    spool = Spool(tmp_path / "spool", bare)
    spool.add('a "quoted" key', odd[:2])
    spool.add("b", odd)
    if spill:
        spool.spill()
    spool.add('a "quoted" key', odd[2:])
    series = b'"a \\"quoted\\" key": {"points": 5}, "b": {"points": 5}'
    head = b'{\n  "system": {\n    "package": "amigrate",\n    "x": 1\n  },\n  "info": {"series": {' + series
    head += b'}},\n  "mlflow": {\n    "info": {},\n'
    path = tmp_path / "run.json"
    path.write_bytes(head + document.METRICS_LINE + b"".join(spool.lines()) + document.TAIL)
    assert list(document.read(path)["mlflow"]["metrics"]) == ['a "quoted" key', "b"]
    assert list(document.points(path)) == [('a "quoted" key', odd), ("b", odd)]


def test_a_series_is_complete_by_its_number_of_points_in_any_order() -> None:
    """The chunk that knows the total may be taken in first: nothing is complete before all points are there."""
    gather = Gather([(RUN, ["loss"])])
    gather.add(Rows(RUN.ref, "loss", [(1.0, 2, 2)], total=3))
    held = gather.get(RUN.ref.key)
    assert held is not None
    assert held.missing
    gather.add(Rows(RUN.ref, "loss", [(1.0, 0, 0), (1.0, 1, 1)]))
    assert not held.missing
    gather.drop(RUN.ref.key)
    assert not gather.add(Rows(RUN.ref, "loss", []))


def test_the_budget_lets_one_large_item_through_alone_and_forgets_who_was_cancelled() -> None:
    async def scenario() -> None:
        budget = ByteBudget(100)
        await budget.take(500)
        waiting = [asyncio.create_task(budget.take(60)) for _ in range(2)]
        await asyncio.sleep(0)
        assert budget.short
        waiting[0].cancel()
        budget.give(500)
        await waiting[1]
        assert budget.held == 60
        await asyncio.wait(waiting)
        assert not budget.short

    asyncio.run(scenario())


def settled(capacity: int, seconds: float = 60.0) -> int:
    """Where the limit ends on a simulated server that works on `capacity` requests at once, 10 ms each."""
    limiter, now = Limiter(ceiling=64), 0.0
    while now < seconds:
        now += 0.01 / min(limiter.limit, capacity)
        limiter.done(now, 10.0, demand=True)
    return limiter.limit


@pytest.mark.parametrize("capacity", [1, 4, 8])
def test_the_limit_settles_near_what_the_server_can_do(capacity: int) -> None:
    """Near enough to use it, and far from the 15 database connections at which a worker stands still."""
    assert capacity * 0.75 <= settled(capacity) <= capacity + 3


def test_a_larger_limit_is_not_blamed_for_what_else_slows_a_server_down() -> None:
    """Others begin to ask it for much while the first larger limit is being tried."""
    limiter, now = Limiter(ceiling=64), 0.0
    while now < 5.0:
        now += (0.01 if now < 0.5 else 0.05) / limiter.limit
        limiter.done(now, 10.0, demand=True)
    assert limiter.limit >= 8


def test_overload_halves_once_and_starvation_changes_nothing() -> None:
    limiter = Limiter(ceiling=64, limit=8)
    for _ in range(5):
        limiter.overload(1.0)
    assert limiter.limit == 4
    for step in range(1000):
        limiter.done(2.0 + step / 100, 10.0, demand=False)
    assert limiter.limit == 4


def test_connections_that_break_again_and_again_are_overload_and_single_ones_are_not() -> None:
    limiter, now = Limiter(ceiling=64, limit=8), 0.0
    for number in range(200):
        now += 0.001
        limiter.done(now, 10.0, demand=False)
        if number % 20 == 0:
            limiter.broke(now)
    assert limiter.limit == 8
    for _ in range(200):
        limiter.broke(now)
    assert limiter.limit == 4


def test_time_left_follows_the_runs_also_of_a_single_experiment() -> None:
    stats = Stats(started=time.monotonic() - 60, total_experiments=1, sized_experiments=1, expected_runs=400)
    assert time_left(stats) is None
    stats.done["run", Status.CREATED] = 100
    left = time_left(stats)
    assert left is not None
    assert 170 < left < 190
    stats.total_experiments = 2
    twice = time_left(stats)
    assert twice is not None
    assert 400 < twice < 440


class Clocked:
    """A guard whose waits take no time, and what it waited."""

    def __init__(self, per_second: float | None = None) -> None:
        self.waits: list[float] = []
        self.now = 0.0
        self.guard = AdaptiveGuard(
            Requests(), ceiling=8, per_second=per_second, sleep=self._sleep, clock=lambda: self.now
        )

    async def _sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def attempt(self, *ends: Exception | str) -> tuple[list[str], Awaitable[str]]:
        sent: list[str] = []

        async def once() -> tuple[str, int]:
            end = ends[len(sent)]
            sent.append("x")
            if isinstance(end, Exception):
                raise end
            return end, 1

        return sent, self.guard.call(Work.WRITE, once)


def test_the_guard_repeats_what_may_succeed_and_honours_the_servers_wish() -> None:
    clocked = Clocked()
    sent, call = clocked.attempt(Transient("busy", retry_after=7), Transient("cut"), "done")
    assert asyncio.run(_result(call)) == "done"
    assert len(sent) == 3
    assert clocked.waits[0] == 7


def test_the_guard_gives_up_in_the_right_way() -> None:
    sent, call = Clocked().attempt(Rejected("no"))
    with pytest.raises(Rejected):
        asyncio.run(_result(call))
    assert len(sent) == 1
    _, call = Clocked().attempt(*[Transient("refused", unreachable=True)] * 8)
    with pytest.raises(NoServer):
        asyncio.run(_result(call))


def test_a_create_is_looked_up_before_it_is_sent_again() -> None:
    """And it is sent once only where nobody can look."""
    guard, sent = Clocked().guard, []

    async def lost() -> tuple[str, int]:
        sent.append("x")
        raise Transient("answer lost")

    async def found() -> str | None:
        return "made already"

    assert asyncio.run(guard.call(Work.WRITE, lost, resend=False, recover=found)) == "made already"
    assert len(sent) == 1
    with pytest.raises(Transient):
        asyncio.run(Clocked().guard.call(Work.WRITE, lost, resend=False))
    assert len(sent) == 2


async def _result(call: Awaitable[str]) -> str:
    return await call


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("chunk", [1, 7, 65536])
def test_a_foreign_document_with_bare_nan_reads_alike_however_it_is_cut(
    indent: int | None, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bare words become strings; the same words inside strings stay what they are."""
    words = ["NaN", 'a " NaN', "-Infinity \\", 'x\\"Infinity', "é NaN", "\\"]
    numbers = [math.nan, math.inf, -math.inf, 1.5, -2e-30]
    text = json.dumps({"numbers": numbers, "words": words}, indent=indent, ensure_ascii=False)
    monkeypatch.setattr(document, "READ", chunk)
    quoted = document.Quoted(io.BytesIO(text.encode()))
    read = b"".join(iter(lambda: quoted.read(10), b""))
    assert json.loads(read) == {"numbers": ["NaN", "Infinity", "-Infinity", 1.5, -2e-30], "words": words}


def test_of_a_list_of_prompts_that_was_cut_the_whole_ones_count() -> None:
    listed = json.dumps([{"name": f"prompt {number}", "version": str(number)} for number in range(200)])
    record = Record(Ref("trace", "t"), {"info": {"tags": {"mlflow.linkedPrompts": listed[:4096]}}})
    found = linked_prompts(record)
    assert found[0] == {"name": "prompt 0", "version": "0"}
    assert 80 < len(found) < 200
    record.doc["info"]["tags"]["mlflow.linkedPrompts"] = "no list"
    assert linked_prompts(record) == []


def test_assessments_come_behind_what_they_override() -> None:
    """However the server lists them; also where an archive says that they override each other."""

    def one(own: str, other: str = "") -> dict[str, str]:
        return {"assessment_id": own, **({"overrides": other} if other else {})}

    chain = [one("c", "b"), one("d", "c"), one("a"), one("b", "a"), one("x", "gone")]
    assert [told["assessment_id"] for told in trace_document.overriding(chain, chain)] == ["b", "c", "d"]
    assert [told["assessment_id"] for told in trace_document.overriding([chain[1], chain[0]], chain)] == ["c", "d"]
    circle = [one("a", "b"), one("b", "a")]
    assert len(trace_document.overriding(circle, circle)) == 2

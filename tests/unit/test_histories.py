"""Which histories are asked for together, and in which order. Nothing is sent."""

from __future__ import annotations

import asyncio

from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.model import Record, Ref
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.kinds.history import HistoryCall, HistoryReader
from amigrate.options import ServerOptions

KEYS = ("loss", "accuracy", "rate")


def calls(software: str, runs: int) -> list[HistoryCall]:
    """All calls for so many runs of the same short series, from a server that says it is this."""

    async def collected() -> list[HistoryCall]:
        http = Http(ServerOptions("http://127.0.0.1:1"))
        http.software = software
        metrics = [{"key": key, "step": 0} for key in KEYS]
        records = [Record(Ref("run", f"{own:032x}"), {"data": {"metrics": metrics}}) for own in range(runs, 0, -1)]
        found: list[HistoryCall] = []
        async for call in HistoryReader(Api(http, AdaptiveGuard(Requests(), ceiling=4)), records).calls():
            found.append(call)
            if sum(len(one.refs) for one in found) == len(KEYS) * runs:
                return found
        raise AssertionError("there are fewer calls than series")

    return asyncio.run(collected())


def test_runs_become_whole_one_after_the_other() -> None:
    some = [[ref.id for ref in call.refs] for call in calls("uvicorn", 250)]
    assert [len(ids) for ids in some] == [100] * 6 + [50] * 3
    assert some[0] == some[1] == some[2] == sorted(some[0])
    assert some[3] == some[4] == some[5]
    assert not {*some[0]} & {*some[3]}


def test_a_server_of_short_lines_is_asked_for_fewer_at_once() -> None:
    """gunicorn takes request lines of 4094 bytes; who knows what hides behind another name."""
    for software in ("gunicorn", "nginx/1.22.1", ""):
        for call in calls(software, 250):
            query = "&".join(f"run_id={ref.id}" for ref in call.refs)
            assert len(query) + 120 < 4094

"""How runs are listed: what is asked of the server, seen without the rest of a move."""

from __future__ import annotations

import asyncio

from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.model import Record, Ref
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.kinds.run_scan import RunScan
from amigrate.options import ServerOptions
from tests.conftest import SourceServer


def test_the_number_of_runs_is_known_roughly_after_a_few_tiny_requests(source_server: SourceServer) -> None:
    async def sized() -> tuple[int | None, int]:
        requests = Requests()
        async with Http(ServerOptions(source_server.uri)) as http:
            ids = ["0", *source_server.seeded.experiment_ids.values()]
            everywhere = [Record(Ref("experiment", one), {}) for one in ids]
            scan = RunScan(Api(http, AdaptiveGuard(requests, ceiling=4)), everywhere)
            first = await anext(aiter(scan.pages()))
            assert len(first) < len(source_server.seeded.run_ids)
            size = await scan.size()
        return size, sum(requests.sent.values())

    size, sent = asyncio.run(sized())
    runs = len(source_server.seeded.run_ids)
    assert size is not None
    assert abs(size - runs) <= runs / 8
    assert sent <= 8

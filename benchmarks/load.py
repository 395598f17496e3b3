"""The work that is measured: what an import and an export ask of a server, through amigrate's own `Api` and guard.

A load runs for a set time: nothing new is begun after it, what is under way is waited for and counted. So a setting
that brings a server to a standstill costs half a minute and not an hour.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from amigrate.artifacts.proxy import ProxyFolder
from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.errors import AmigrateError
from amigrate.core.model import Body, Doc, Stream
from amigrate.engine.guard import AdaptiveGuard
from amigrate.kinds.experiment import CREATE as CREATE_EXPERIMENT
from amigrate.kinds.log_batch import BATCH
from amigrate.kinds.run import CREATE, UPDATE
from amigrate.options import ServerOptions

AT_ONCE = 64
"""Jobs that ask the guard for a slot at once: as many as amigrate's own walk has."""
FILE_SIZE = 10_000
KEYS = 10
LONGEST_RUN = 90
"""Points of each metric of a run at most: with the params they fit into one log-batch."""

Job = Callable[[int], Awaitable[None]]
"""One unit of work, by its number."""
Load = Callable[[Api, str], Job]
"""From a server and an experiment of its own to the job that is repeated."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of one load."""

    done: int
    failed: int
    seconds: float

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.done / self.seconds

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.done + other.done, self.failed + other.failed, self.seconds + other.seconds)


async def run(job: Job, seconds: float) -> Tally:
    """Repeat a job by `AT_ONCE` tasks until the time is over."""
    numbers = iter(range(1_000_000_000))
    start = time.monotonic()
    done = failed = 0

    async def worker() -> None:
        nonlocal done, failed
        while time.monotonic() - start < seconds:
            try:
                await job(next(numbers))
                done += 1
            except AmigrateError:
                failed += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    return Tally(done, failed, time.monotonic() - start)


@asynccontextmanager
async def connected(uri: str, guard: AdaptiveGuard) -> AsyncIterator[Api]:
    """An `Api` as a command builds it."""
    async with Http(ServerOptions(uri)) as http:
        yield Api(http, guard)


async def new_experiment(api: Api, name: str) -> str:
    answer = await api.call(CREATE_EXPERIMENT, {"name": name})
    return str(answer["experiment_id"])


# ---- runs ---------------------------------------------------------------------------------------------------------


def write_runs(api: Api, experiment: str) -> Job:
    """A run as an import writes it: create with its tags, one log-batch, update."""

    async def job(number: int) -> None:
        rng = random.Random(number)
        tags = [{"key": f"tag {i}", "value": "t" * rng.randrange(40)} for i in range(5)]
        body = {"experiment_id": experiment, "run_name": f"run {number}", "start_time": 1, "tags": tags}
        run_id = (await api.call(CREATE, body))["run"]["info"]["run_id"]
        await api.call(BATCH, {"run_id": run_id, "metrics": list(_points(rng)), "params": list(_params(rng))})
        await api.call(UPDATE, {"run_id": run_id, "status": "FINISHED", "end_time": 2})

    return job


def _points(rng: random.Random) -> Iterator[Doc]:
    """Most runs are short, a few are long: what weighs on a server differs from request to request."""
    length = min(LONGEST_RUN, int(rng.lognormvariate(2.0, 1.2)) + 1)
    for key in range(KEYS):
        for step in range(length):
            yield {"key": f"metric {key}", "value": rng.random(), "timestamp": 1_500_000_000_000 + step, "step": step}


def _params(rng: random.Random) -> Iterator[Doc]:
    for number in range(20):
        yield {"key": f"param {number}", "value": str(rng.random())}


# ---- files --------------------------------------------------------------------------------------------------------


def upload_files(api: Api, experiment: str) -> Job:
    folder = ProxyFolder(api, f"{experiment}/uploads")
    body = _body(random.Random(1).randbytes(FILE_SIZE))

    async def job(number: int) -> None:
        await folder.put(f"{number % 100}/{number}.bin", body)

    return job


def download_files(api: Api, experiment: str) -> Job:
    """Files that `put_samples` has left in this experiment's folder."""
    folder = ProxyFolder(api, f"{experiment}/samples")

    async def job(number: int) -> None:
        async with folder.body(f"{number % SAMPLES}.bin", FILE_SIZE).open() as stream:
            async for _ in stream.chunks:
                pass

    return job


SAMPLES = 200


async def put_samples(api: Api, experiment: str) -> None:
    """What `download_files` reads."""
    folder = ProxyFolder(api, f"{experiment}/samples")
    body = _body(random.Random(2).randbytes(FILE_SIZE))
    async with asyncio.TaskGroup() as group:
        for number in range(SAMPLES):
            group.create_task(folder.put(f"{number}.bin", body))


def _body(data: bytes) -> Body:
    @asynccontextmanager
    async def opened() -> AsyncIterator[Stream]:
        async def chunks() -> AsyncIterator[bytes]:
            yield data

        yield Stream(chunks(), len(data))

    return Body(opened, len(data))

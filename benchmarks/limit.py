"""The fewest requests that can carry a workload, sent as fast as a server takes them: nobody can be faster.

A bare aiohttp loop at a fixed concurrency. It knows what the server holds, so it asks for nothing else, reads every
answer to its end, and looks at none of them but for the ids that the next request needs.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from benchmarks.workloads import START, Workload, value
from benchmarks.workspace import trace_spans

V2 = "/api/2.0/mlflow"
V3 = "/api/3.0/mlflow"
BULK = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
PROXY = "/api/2.0/mlflow-artifacts/artifacts"
RUNS = 1000
"""Runs in a page."""
SERIES = 100
"""Runs in one bulk history; 25 000 points at most."""
BULK_POINTS = 25_000
BATCH = 1000
TRACES = 100
READ = 1 << 18
RUN_ID = re.compile(rb'"run_id": ?"([0-9a-f]{32})"')
PAGE_TOKEN = re.compile(rb'"next_page_token": ?"([^"]+)"')
EXPERIMENT_ID = re.compile(rb'"experiment_id": ?"(\d+)"')

Job = Callable[["Bare"], Awaitable[None]]
"""Some requests that follow one another."""


class Bare:
    """One server and the loop that asks it."""

    def __init__(self, session: aiohttp.ClientSession, uri: str) -> None:
        self._session = session
        self._uri = uri
        self.homes: dict[int, str] = {}
        """The ids of new experiments, by their number."""
        self.sources: dict[int, tuple[str, str]] = {}
        """The id and the artifact root of new runs, by their number among all."""

    async def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        """One request; the answer is read to its end."""
        sent = {"Content-Type": "application/json", **{name.replace("_", "-"): one for name, one in headers.items()}}
        async with self._session.request(
            method, URL(self._uri + path, encoded=True), data=body, headers=sent
        ) as answer:
            if answer.status != 200:
                raise RuntimeError(f"{method} {path}: {answer.status} {(await answer.text())[:200]}")
            return await answer.read()

    async def drain(self, path: str) -> None:
        """A file, chunk after chunk."""
        async with self._session.get(URL(self._uri + path, encoded=True)) as answer:
            assert answer.status == 200, path
            async for _ in answer.content.iter_chunked(READ):
                pass


def seconds(uri: str, waves: Sequence[Sequence[Job]], concurrency: int) -> float:
    """The time that all jobs take, wave after wave, so many at once."""
    return asyncio.run(_timed(uri, waves, concurrency))


async def _timed(uri: str, waves: Sequence[Sequence[Job]], concurrency: int) -> float:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        bare = Bare(session, uri)
        start = time.perf_counter()
        for wave in waves:
            jobs = iter(wave)

            async def worker(jobs: Iterator[Job] = jobs) -> None:
                for job in jobs:
                    await job(bare)

            async with asyncio.TaskGroup() as group:
                for _ in range(concurrency):
                    group.create_task(worker())
        return time.perf_counter() - start


# ---- reading --------------------------------------------------------------------------------------------------------


def export(work: Workload) -> list[list[Job]]:
    """All that has to be asked to know everything of a workload."""
    jobs = [*_run_pages(work), *_histories(work), *_downloads(work), *_trace_reads(work), *_registry_pages(work)]
    return [jobs]


def _call(method: str, path: str, body: object = None) -> Job:
    data = None if body is None else orjson.dumps(body)

    async def job(bare: Bare) -> None:
        await bare.send(method, path, data)

    return job


def _token(offset: int) -> str:
    return b64encode(orjson.dumps({"offset": offset})).decode()


def _run_pages(work: Workload) -> Iterator[Job]:
    yield _call("POST", f"{V2}/experiments/search", {"max_results": 50_000, "view_type": "ALL"})
    ids = [str(number) for number in range(1, work.experiments + 1)]
    body = {"experiment_ids": ids, "run_view_type": "ALL", "max_results": RUNS}
    for offset in range(0, work.all_runs, RUNS):
        yield _call("POST", f"{V2}/runs/search", {**body, "page_token": _token(offset)} if offset else body)


def _histories(work: Workload) -> Iterator[Job]:
    ids = [own for _, _, own in work.numbered()]
    together = max(1, min(SERIES, (BULK_POINTS - 1) // max(work.points, 1)))
    for key in range(work.metrics):
        for start in range(0, len(ids), together):
            query = [("run_id", own) for own in ids[start : start + together]]
            query += [("metric_key", f"metric {key}"), ("max_results", str(BULK_POINTS))]
            yield _call("GET", f"{BULK}?{urlencode(query)}")


def _downloads(work: Workload) -> Iterator[Job]:
    for experiment, _, own in work.numbered() if work.files else ():
        folder = f"{experiment}/{own}/artifacts"
        yield _call("GET", f"{PROXY}?path={quote(folder)}")
        for name, _ in work.file_names():
            yield _download(f"{PROXY}/{folder}/{quote(name)}")


def _download(path: str) -> Job:
    return lambda bare: bare.drain(path)


def _trace_reads(work: Workload) -> Iterator[Job]:
    for experiment in range(1, work.experiments + 1) if work.traces else ():
        place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": str(experiment)}}
        body = {"locations": [place], "max_results": 500}
        for offset in range(0, work.traces, 500):
            yield _call("POST", f"{V3}/traces/search", {**body, "page_token": _token(offset)} if offset else body)
        ids = [f"tr-{experiment:016x}{number:016x}" for number in range(work.traces)]
        for start in range(0, len(ids), TRACES):
            query = urlencode([("trace_ids", own) for own in ids[start : start + TRACES]])
            yield _call("GET", f"{V3}/traces/batchGet?{query}")


def _registry_pages(work: Workload) -> Iterator[Job]:
    if work.models:
        yield _paged(f"{V2}/registered-models/search?max_results=1000")
        yield _paged(f"{V2}/model-versions/search?max_results=1000")


def _paged(path: str) -> Job:
    """A listing whose tokens cannot be made up."""

    async def job(bare: Bare) -> None:
        token: re.Match[bytes] | None = None
        while True:
            more = f"&page_token={quote(token[1].decode())}" if token else ""
            token = PAGE_TOKEN.search(await bare.send("GET", path + more))
            if token is None:
                return

    return job


# ---- writing --------------------------------------------------------------------------------------------------------


def load(work: Workload) -> list[list[Job]]:
    """All that has to be sent to write a workload into an empty server."""
    experiments = [_experiment(number) for number in range(1, work.experiments + 1)]
    runs = [_run(work, number, *one[:2]) for number, one in enumerate(work.numbered())]
    return [experiments, [*runs, *_trace_writes(work)], [_model(work, number) for number in range(work.models)]]


def _experiment(number: int) -> Job:
    body = orjson.dumps({"name": f"team {number % 7}/experiment {number}"})

    async def job(bare: Bare) -> None:
        found = EXPERIMENT_ID.search(await bare.send("POST", f"{V2}/experiments/create", body))
        assert found is not None
        bare.homes[number] = found[1].decode()

    return job


def _run(work: Workload, number: int, experiment: int, run: int) -> Job:
    """Create with all tags, as many batches as its points need, its files, update."""
    batches = list(_batches(work, experiment, run))
    files = [(quote(name), (b"x" * size)) for name, size in work.file_names()] if work.all_bytes < 1 << 28 else None

    async def job(bare: Bare) -> None:
        home = bare.homes[experiment]
        tags = [{"key": f"tag {one}", "value": f"tag {one} of {run}"} for one in range(work.tags)]
        body = {"experiment_id": home, "run_name": f"run {run}", "user_id": "ada", "start_time": START, "tags": tags}
        found = RUN_ID.search(await bare.send("POST", f"{V2}/runs/create", orjson.dumps(body)))
        assert found is not None
        own = found[1]
        bare.sources[number] = own.decode(), f"mlflow-artifacts:/{home}/{own.decode()}/artifacts"
        for batch in batches:
            await bare.send("POST", f"{V2}/runs/log-batch", batch.replace(b"<run>", own))
        for name, data in files or ((quote(name), b"x" * size) for name, size in work.file_names()):
            await bare.send("PUT", f"{PROXY}/{home}/{own.decode()}/artifacts/{name}", data)
        ended = {"run_id": own.decode(), "status": "FINISHED", "end_time": START + 1}
        await bare.send("POST", f"{V2}/runs/update", orjson.dumps(ended))

    return job


def _batches(work: Workload, experiment: int, run: int) -> Iterator[bytes]:
    params = [{"key": f"param {one}", "value": f"param {one}"} for one in range(work.params)]
    points = [
        {"key": f"metric {key}", "value": value(experiment, run, key, step), "timestamp": START + step, "step": step}
        for key in range(work.metrics)
        for step in range(work.points)
    ]
    first = BATCH - len(params)
    yield orjson.dumps({"run_id": "<run>", "metrics": points[:first], "params": params})
    for start in range(first, len(points), BATCH):
        yield orjson.dumps({"run_id": "<run>", "metrics": points[start : start + BATCH]})


def _trace_writes(work: Workload) -> Iterator[Job]:
    """Spans of many in one request, then what else belongs to a trace, one by one."""
    for experiment in range(1, work.experiments + 1) if work.traces else ():
        for start in range(0, work.traces, TRACES):
            ids = [f"{experiment:016x}{one:016x}" for one in range(start, min(start + TRACES, work.traces))]
            yield _some_traces(work, experiment, ids)


def _some_traces(work: Workload, experiment: int, ids: Sequence[str]) -> Job:
    spans = [span for own in ids for span in trace_spans(own, work.spans)]
    data = orjson.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})

    async def job(bare: Bare) -> None:
        home = bare.homes[experiment]
        await bare.send("POST", "/v1/traces", data, x_mlflow_experiment_id=home)
        for own in ids:
            place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": home}}
            info = {"trace_id": f"tr-{own}", "trace_location": place, "request_time": "2023-11-14T22:13:20Z"}
            body = {"trace": {"trace_info": {**info, "execution_duration": "1s", "state": "OK"}}}
            await bare.send("POST", f"{V3}/traces", orjson.dumps(body))

    return job


def _model(work: Workload, number: int) -> Job:
    """The versions of a model come one after the other, each from the artifacts of a run."""
    name = f"model {number}"

    async def job(bare: Bare) -> None:
        body = orjson.dumps({"name": name, "description": "x"})
        await bare.send("POST", f"{V2}/registered-models/create", body)
        run_id, root = bare.sources[number % work.all_runs]
        for _ in range(work.versions):
            version = orjson.dumps({"name": name, "source": f"{root}/model", "run_id": run_id})
            await bare.send("POST", f"{V2}/model-versions/create", version)

    return job

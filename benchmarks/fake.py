"""A server that costs next to nothing, to see what amigrate costs. `python -m benchmarks.fake EXPERIMENTS RUNS`.

It answers in the form of MLflow 3.17 what an export, an import and a copy of runs ask: the listing and the histories of
so many runs, from bytes made beforehand, and ids for new ones. It keeps the number of runs and points it was sent, to
be asked for at `/counts`. Everything else there is none of.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import Callable
from urllib.parse import parse_qsl

import orjson

from benchmarks.workloads import START, run_id, value

METRICS, POINTS = 10, 10
LOOPBACK = "127.0.0.1"
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
OFFSET = re.compile(rb'"page_token": ?"(\d+)"')
SIZE = re.compile(rb'"max_results": ?(\d+)')


class Store:
    """What the fake holds and what it was sent."""

    def __init__(self, experiments: int, runs: int) -> None:
        self.homes = [str(number) for number in range(1, experiments + 1)]
        self.ids = [run_id(experiment, run) for experiment in range(1, experiments + 1) for run in range(runs)]
        self._infos = [_run(number // runs + 1, own) for number, own in enumerate(self.ids)]
        self._series = {own: b"".join(_point(own, step) + b"," for step in range(POINTS)) for own in self.ids}
        self._asked: dict[tuple[str, ...], list[bytes]] = {}
        self.sent: Counter[str] = Counter()

    def answer(self, target: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and JSON of one request."""
        path, _, query = target.partition(b"?")
        name = path.rpartition(b"/mlflow/")[2].decode() or path.decode()
        found = ROUTES.get(name)
        return (404, b"<html>") if found is None else (200, found(self, query, body))

    def experiments(self, query: bytes, body: bytes) -> bytes:
        place = {"lifecycle_stage": "active", "creation_time": START, "last_update_time": START}
        told = [
            {
                "experiment_id": one,
                "name": f"experiment {one}",
                "artifact_location": f"mlflow-artifacts:/{one}",
                **place,
            }
            for one in self.homes
        ]
        return orjson.dumps({"experiments": told})

    def runs(self, query: bytes, body: bytes) -> bytes:
        wanted, start = SIZE.search(body), OFFSET.search(body)
        first = int(start[1]) if start else 0
        asked = self._of(tuple(orjson.loads(body)["experiment_ids"]))
        some = asked[first : first + int(wanted[1] if wanted else b"1000")]
        end = first + len(some)
        token = b',"next_page_token":"%d"' % end if end < len(asked) else b""
        return b'{"runs":[' + b",".join(some) + b"]" + token + b"}"

    def _of(self, homes: tuple[str, ...]) -> list[bytes]:
        """The runs of these experiments."""
        if homes not in self._asked:
            each = len(self._infos) // max(len(self.homes), 1)
            starts = [(int(one) - 1) * each for one in homes]
            self._asked[homes] = [info for start in starts for info in self._infos[start : start + each]]
        return self._asked[homes]

    def history(self, query: bytes, body: bytes) -> bytes:
        asked = parse_qsl(query.decode())
        key = dict(asked).get("metric_key", "").encode()
        rows = b"".join(self._series[own] for name, own in asked if name == "run_id")
        return b'{"metrics":[' + rows.replace(b"<key>", key)[:-1] + b"]}"

    def made_experiment(self, query: bytes, body: bytes) -> bytes:
        self.sent["experiments"] += 1
        return b'{"experiment_id":"%d"}' % self.sent["experiments"]

    def made_run(self, query: bytes, body: bytes) -> bytes:
        self.sent["runs"] += 1
        home, own = orjson.loads(body)["experiment_id"], f"{self.sent['runs']:032x}"
        info = {"run_id": own, "experiment_id": home, "artifact_uri": f"mlflow-artifacts:/{home}/{own}/artifacts"}
        return orjson.dumps({"run": {"info": {**info, "lifecycle_stage": "active", "status": "RUNNING"}}})

    def batch(self, query: bytes, body: bytes) -> bytes:
        self.sent["points"] += body.count(b'"step"')
        return b"{}"

    def nothing(self, query: bytes, body: bytes) -> bytes:
        return b"{}"

    def version(self, query: bytes, body: bytes) -> bytes:
        return b"3.17.2"

    def info(self, query: bytes, body: bytes) -> bytes:
        return b'{"store_type":"SqlStore","workspaces_enabled":false}'

    def counts(self, query: bytes, body: bytes) -> bytes:
        return orjson.dumps(self.sent)


ROUTES: dict[str, Callable[[Store, bytes, bytes], bytes]] = {
    "/version": Store.version,
    "/counts": Store.counts,
    "server-info": Store.info,
    "experiments/search": Store.experiments,
    "runs/search": Store.runs,
    "metrics/get-history-bulk": Store.history,
    "experiments/create": Store.made_experiment,
    "runs/create": Store.made_run,
    "runs/log-batch": Store.batch,
    "runs/update": Store.nothing,
    "logged-models/search": Store.nothing,
    "registered-models/search": Store.nothing,
    "model-versions/search": Store.nothing,
    "traces/search": Store.nothing,
    "/api/2.0/mlflow-artifacts/artifacts": Store.nothing,
}


def _run(experiment: int, own: str) -> bytes:
    info = {
        "run_id": own,
        "run_uuid": own,
        "run_name": f"run {own[-4:]}",
        "experiment_id": str(experiment),
        "user_id": "ada",
        "status": "FINISHED",
        "start_time": START,
        "end_time": START + 1000,
        "lifecycle_stage": "active",
        "artifact_uri": f"mlflow-artifacts:/{experiment}/{own}/artifacts",
    }
    metrics = [
        {"key": f"metric {key}", "value": value(experiment, 0, key, POINTS - 1), "timestamp": START, "step": POINTS - 1}
        for key in range(METRICS)
    ]
    tags = [{"key": "mlflow.runName", "value": info["run_name"]}]
    return orjson.dumps({"info": info, "data": {"metrics": metrics, "tags": tags}, "inputs": {}})


def _point(own: str, step: int) -> bytes:
    point = {"key": "<key>", "value": value(1, 0, 0, step), "timestamp": START + step, "step": step, "run_id": own}
    return orjson.dumps(point)


class Connection(asyncio.Protocol):
    """Requests one after another, each with its body, on one connection."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._held += data
        while (end := self._held.find(b"\r\n\r\n")) >= 0:
            head = self._held[:end]
            found = LENGTH.search(head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._held) < whole:
                return
            body, self._held = self._held[end + 4 : whole], self._held[whole:]
            status, answer = self._store.answer(head.split(b" ", 2)[1], body)
            kind = b"text/html" if status == 404 else b"application/json"
            head = b"HTTP/1.1 %d x\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind, len(answer))
            self._transport.write(head + answer)


async def serve(store: Store) -> None:
    """Answer until the process is ended; prints the port."""
    server = await asyncio.get_running_loop().create_server(lambda: Connection(store), LOOPBACK, 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Store(*map(int, sys.argv[1:3]))))

"""The fault proxy is invisible when it does nothing, and each fault is what a client then sees."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from urllib3.exceptions import HTTPError as Urllib3Error

from tests.conftest import NewServer
from tests.fakes.fault_proxy import FaultProxy, template
from tests.rest import API, PROXY, Rest
from tests.servers import MlflowServer

QUIET: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
SEARCH = {"max_results": 10, "view_type": "ALL"}


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> MlflowServer:
    return new_module_server()


@pytest.fixture(scope="module")
def clear(server: MlflowServer) -> Iterator[FaultProxy]:
    with FaultProxy(server.uri, seed=1, **QUIET) as proxy:
        yield proxy


def always(server: MlflowServer, **faults: Any) -> FaultProxy:
    """A proxy that injects one fault into every request."""
    return FaultProxy(server.uri, seed=1, **(QUIET | faults))


def create_run(rest: Rest) -> tuple[str, str]:
    info = rest.post("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
    return info["run_id"], info["artifact_uri"]


@pytest.mark.parametrize(
    "path",
    [
        "plain.txt",
        "a b/c.txt",
        "100%",
        "plus+&;=?:.txt",
        "日本/é.txt",
        "\N{ROCKET}",
        "é" * 100,
        "it's (1) [x] {y} ~!*@$,",
    ],
)
def test_odd_paths_arrive_untouched(server: MlflowServer, clear: FaultProxy, path: str) -> None:
    with Rest(server.uri) as direct, Rest(clear.uri) as through:
        run_id, root = create_run(through)
        through.upload(root, path, path.encode())
        assert direct.fetch("/get-artifact", {"run_id": run_id, "path": path}) == path.encode()
        assert through.fetch("/get-artifact", {"run_id": run_id, "path": path}) == path.encode()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_bytes_pass_both_ways(server: MlflowServer, clear: FaultProxy, size: int) -> None:
    data = random.Random(size).randbytes(size)
    with Rest(server.uri) as direct, Rest(clear.uri) as through:
        _, root = create_run(direct)
        through.upload(root, "file", data)
        path = PROXY + root.removeprefix("mlflow-artifacts:/") + "/file"
        assert direct.fetch(path, {}) == data
        assert through.fetch(path, {}) == data


def test_a_body_of_unknown_length_passes(server: MlflowServer, clear: FaultProxy) -> None:
    with Rest(server.uri) as direct:
        _, root = create_run(direct)
        path = PROXY + root.removeprefix("mlflow-artifacts:/") + "/chunked"
        requests.put(clear.uri + path, data=iter([b"one ", b"two"]), timeout=30).raise_for_status()
        assert direct.fetch(path, {}) == b"one two"


def test_headers_status_and_ranges_are_the_servers_own(server: MlflowServer, clear: FaultProxy) -> None:
    with Rest(server.uri) as direct:
        _, root = create_run(direct)
        direct.upload(root, "digits", b"0123456789")
        path = PROXY + root.removeprefix("mlflow-artifacts:/") + "/digits"
    answers = [requests.get(uri + path, headers={"Range": "bytes=2-4"}, timeout=30) for uri in (server.uri, clear.uri)]
    assert [(answer.status_code, answer.content) for answer in answers] == [(206, b"234")] * 2
    own = [{k: v for k, v in answer.headers.items() if k not in ("date", "Date")} for answer in answers]
    assert own[0].items() <= {key.lower(): value for key, value in own[1].items()}.items()
    missing = [requests.get(uri + API + "runs/get?run_id=none", timeout=30) for uri in (server.uri, clear.uri)]
    assert missing[0].status_code == missing[1].status_code == 404
    assert missing[0].content == missing[1].content


def test_repeated_keys_of_a_long_query_pass(server: MlflowServer, clear: FaultProxy) -> None:
    with Rest(server.uri) as direct, Rest(clear.uri) as through:
        runs = [create_run(direct)[0] for _ in range(2)]
        for run_id in runs:
            point = {"key": "val loss/é-1", "value": "NaN", "timestamp": 1, "step": 2}
            direct.post("runs/log-batch", {"run_id": run_id, "metrics": [point]})
        query = "&".join(f"run_id={run_id}" for run_id in runs + ["0" * 120] * 80)
        path = f"/ajax-api/2.0/mlflow/metrics/get-history-bulk?{query}&metric_key=val%20loss/%C3%A9-1&max_results=25000"
        rows = through.get(path)["metrics"]
        assert {row["run_id"] for row in rows} == set(runs)
        assert repr(rows) == repr(direct.get(path)["metrics"])


def test_a_lost_answer_has_done_its_work(server: MlflowServer) -> None:
    with Rest(server.uri) as direct, always(server, lost_answers=1) as proxy, Rest(proxy.uri) as through:
        with pytest.raises(requests.ConnectionError):
            through.post("experiments/create", {"name": "lost answer"})
        assert proxy.faults == {"lost_answers": 1}
        assert direct.get("experiments/get-by-name", {"experiment_name": "lost answer"})["experiment"]


def test_a_reset_has_done_nothing(server: MlflowServer) -> None:
    with Rest(server.uri) as direct, always(server, resets=1) as proxy, Rest(proxy.uri) as through:
        with pytest.raises(requests.ConnectionError):
            through.post("experiments/create", {"name": "reset"})
        with pytest.raises(requests.ConnectionError):
            through.put(PROXY + "0/big", bytes(5_000_000))
        assert proxy.faults == {"resets": 2}
        names = {row["name"] for row in direct.pages("experiments/search", "experiments", SEARCH)}
        assert "reset" not in names


def test_unavailable_is_mlflows_own_answer(server: MlflowServer) -> None:
    with always(server, unavailable=1) as proxy:
        answer = requests.post(proxy.uri + API + "experiments/create", json={"name": "unavailable"}, timeout=30)
        assert answer.status_code == 503
        assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert proxy.faults == {"unavailable": 1}


def test_a_cut_body_promises_more_than_it_holds(server: MlflowServer) -> None:
    with Rest(server.uri) as direct, always(server, cut_bodies=1) as proxy:
        _, root = create_run(direct)
        direct.upload(root, "big", bytes(1_000_001))
        path = PROXY + root.removeprefix("mlflow-artifacts:/") + "/big"
        with requests.get(proxy.uri + path, stream=True, timeout=30) as answer:
            assert answer.headers["Content-Length"] == "1000001"
            assert len(answer.raw.read(500_000)) == 500_000
            with pytest.raises(Urllib3Error, match="IncompleteRead"):
                answer.raw.read()
        assert proxy.faults == {"cut_bodies": 1}


def test_an_empty_body_cannot_be_cut(server: MlflowServer) -> None:
    with Rest(server.uri) as direct, always(server, cut_bodies=1) as proxy, Rest(proxy.uri) as through:
        _, root = create_run(direct)
        through.upload(root, "file", b"whole")
        assert not proxy.faults


def test_only_the_chosen_requests_are_hit(server: MlflowServer) -> None:
    def only(method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/runs/create")

    with always(server, resets=1, only=only) as proxy, Rest(proxy.uri) as through:
        through.post("experiments/search", SEARCH)
        with pytest.raises(requests.ConnectionError):
            create_run(through)
        assert proxy.requests == {("POST", API + "experiments/search"): 1, ("POST", API + "runs/create"): 1}


def test_latency_is_added_once_and_not_in_turn(server: MlflowServer) -> None:
    with always(server, latency=0.5) as proxy, ThreadPoolExecutor(4) as pool:
        start = time.monotonic()
        answers = list(pool.map(lambda _: requests.get(proxy.uri + "/health", timeout=30), range(4)))
        assert all(answer.ok for answer in answers)
        assert 0.5 <= time.monotonic() - start < 1.9


def test_too_many_requests_are_told_to_wait(server: MlflowServer) -> None:
    with always(server, rate_limit=3) as proxy:
        answers = [requests.get(proxy.uri + "/health", timeout=30) for _ in range(5)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) == proxy.faults["rate_limited"] >= 1
        assert refused[0].headers["Retry-After"] == "1"


def test_the_same_seed_hits_the_same_requests(server: MlflowServer) -> None:
    def statuses(seed: int) -> list[int]:
        with FaultProxy(server.uri, seed=seed, **(QUIET | {"unavailable": 0.3})) as proxy:
            return [requests.get(proxy.uri + "/version", timeout=30).status_code for _ in range(30)]

    first = statuses(7)
    assert first == statuses(7) != statuses(8)
    assert 0 < first.count(503) < 30


def test_rates_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        FaultProxy("http://127.0.0.1:1", seed=1, resets=0.6, unavailable=0.6)


def test_a_dead_upstream_is_a_closed_connection() -> None:
    with FaultProxy("http://127.0.0.1:1", seed=1, **QUIET) as proxy, pytest.raises(requests.ConnectionError):
        requests.get(proxy.uri + "/health", timeout=30)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/api/2.0/mlflow/runs/search", "/api/2.0/mlflow/runs/search"),
        ("/api/2.0/mlflow-artifacts/artifacts/0/abc/artifacts/x.txt", "/api/2.0/mlflow-artifacts/artifacts/*"),
        (f"/api/2.0/mlflow/logged-models/m-{'a' * 32}/params", "/api/2.0/mlflow/logged-models/*/params"),
        (f"/api/3.0/mlflow/traces/tr-{'0' * 32}", "/api/3.0/mlflow/traces/*"),
    ],
)
def test_template(path: str, expected: str) -> None:
    assert template(path) == expected

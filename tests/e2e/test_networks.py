"""What lies between us and a server: prefixes, proxies, redirects, compression, gateways that give up, login pages."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections import Counter
from pathlib import Path
from time import monotonic

import pytest
from aiohttp import web

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.fakes.gateway import Gateway
from tests.rest import API, Rest
from tests.secrets import COOKIE, PASSWORD, PROXY, TOKEN
from tests.servers import MlflowServer, free_port

RUNS = 30
LOGIN = ("--token", TOKEN)


def fill(uri: str) -> None:
    """A few runs with metrics and a file each."""
    with Rest(uri) as rest:
        experiment = rest.post(f"{API}experiments/create", {"name": "alpha"})["experiment_id"]
        for number in range(RUNS):
            run = rest.post(f"{API}runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]
            points = [{"key": "loss", "value": number, "timestamp": 1, "step": step} for step in range(5)]
            rest.post(f"{API}runs/log-batch", {"run_id": run["run_id"], "metrics": points})
            rest.upload(run["artifact_uri"], "a/b c.json", b'{"number": %d}' % number * 50)
            rest.post(f"{API}runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> MlflowServer:
    """A real server with some runs."""
    server = new_module_server()
    fill(server.uri)
    return server


def test_a_static_prefix(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Into a server below a prefix and out again: API, bulk histories and artifacts all go there."""
    prefixed, third = new_server(prefix="/deep/er"), new_server()
    with Gateway(prefixed.uri.removesuffix("/deep/er")) as gateway:
        uri = f"{gateway.uri}/deep/er"
        for source, target in ((server.uri, uri), (f"{uri}/", third.uri)):
            done = discreet("copy-all", "--source", source, "--target", target, "--debug")
            assert done.returncode == 0, done.stderr
        assert all(path.startswith("/deep/er/") for path, _ in gateway.seen)
        assert any("/ajax-api/" in path for path, _ in gateway.seen)
        done = discreet("ping", gateway.uri)
        assert done.returncode == 4
        assert "check host, port and path" in done.stderr
    assert differences(snapshot(server.uri), snapshot(third.uri)) == []


def test_redirects_within_the_origin(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Every request is sent on once, with method and body; also streamed ones. Off where the user says so."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return web.Response(status=401)
        if "again" in request.raw_path:
            return None
        mark = "&again" if "?" in request.raw_path else "?again"
        return web.Response(status=307 if body else 302, headers={"Location": f"{request.raw_path}{mark}"})

    target = new_server()
    with Gateway(server.uri, check) as reading, Gateway(target.uri, check) as writing:
        args = ("copy-all", "--source", reading.uri, "--target", writing.uri, "--debug")
        done = discreet(*args, "--source-token", TOKEN, "--target-token", TOKEN)
        assert done.returncode == 0, done.stderr
        done = discreet("ping", reading.uri, *LOGIN, MLFLOW_ALLOW_HTTP_REDIRECTS="false")
        assert done.returncode == 4
        assert "MLFLOW_ALLOW_HTTP_REDIRECTS is off" in done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_redirects_to_another_origin_get_no_credentials(server: MlflowServer, discreet: Cli) -> None:
    """The line names the address to use; the other server is not even asked."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response:
        return web.Response(status=308, headers={"Location": f"{other.uri}/base{request.raw_path}"})

    with Gateway(server.uri) as other, Gateway(server.uri, check) as gateway:
        done = discreet("ping", gateway.uri, *LOGIN, "--debug")
        assert other.seen == []
    assert done.returncode == 4
    assert f"use {other.uri}/base if" in done.stderr


@pytest.mark.parametrize("how", ["redirect", "page", "in circles"])
def test_login_pages_are_named(server: MlflowServer, discreet: Cli, how: str) -> None:
    async def check(request: web.BaseRequest, body: bytes) -> web.Response:
        if how == "redirect":
            return web.Response(status=302, headers={"Location": f"/login?next={COOKIE}", "Set-Cookie": COOKIE})
        if how == "page":
            page = "<!DOCTYPE html><html><head><title>Acme SSO</title></head><input type=password></html>"
            return web.Response(text=page, content_type="text/html", headers={"Set-Cookie": COOKIE})
        return web.Response(status=302, headers={"Location": f"{request.raw_path}x"})

    with Gateway(server.uri, check) as gateway:
        done = discreet("ping", gateway.uri, *LOGIN, "--json")
    assert done.returncode == 4
    words = "in circles" if how == "in circles" else "this is a login page, not MLflow"
    assert words in done.stderr
    assert words in json.loads(done.stdout)["error"]


def test_a_login_page_instead_of_a_file_ends_the_export(server: MlflowServer, discreet: Cli, tmp_path: Path) -> None:
    """The session of some portal has ended: no page is taken for a file."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if "/b%20c.json" in request.raw_path:
            return web.Response(text="<html><title>Sign in</title></html>", content_type="text/html")
        return None

    with Gateway(server.uri, check) as gateway:
        done = discreet("export-all", "--tracking-uri", gateway.uri, *LOGIN, "--output-dir", tmp_path / "all")
    assert done.returncode == 4
    assert "this is a login page, not MLflow (Sign in)" in done.stdout
    assert "continue with: amigrate export-all" in done.stdout


def test_compressed_answers(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Also files, whose size on the way is not their own."""
    target = new_server()
    with Gateway(server.uri, compress=True) as reading, Gateway(target.uri, compress=True) as writing:
        done = discreet("copy-all", "--source", reading.uri, "--target", writing.uri, "--debug")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_proxies_and_who_is_spared_from_them(server: MlflowServer, discreet: Cli) -> None:
    """A forward proxy with a login; NO_PROXY by name and by network; its password is never shown."""
    pair = b64encode(f"ada:{PROXY}".encode()).decode()

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        known = request.headers.get("Proxy-Authorization") == f"Basic {pair}"
        return None if known else web.Response(status=407, text="who are you")

    with Gateway("", check) as proxy:
        with_login = proxy.uri.replace("//", f"//ada:{PROXY}@")
        assert discreet("ping", server.uri, HTTP_PROXY=with_login).returncode == 0
        asked = len(proxy.seen)
        assert asked > 5
        assert proxy.seen[0][0].startswith(server.uri)
        for spared in ("127.0.0.1", "127.0.0.0/8"):
            done = discreet("ping", server.uri, "--debug", HTTP_PROXY=with_login, NO_PROXY=spared)
            assert done.returncode == 0, done.stderr
        assert len(proxy.seen) == asked
        done = discreet("ping", server.uri, "--debug", HTTP_PROXY=proxy.uri.replace("//", f"//bob:{PROXY}@"))
        assert done.returncode == 4
        assert "proxy" in done.stderr
        secure = server.uri.replace("http:", "https:")
        done = discreet("ping", secure, "--debug", HTTPS_PROXY=proxy.uri.replace("//", f"//bob:{PROXY}@"))
        assert done.returncode == 4
        assert "wants a login" in done.stderr
    done = discreet("ping", server.uri, "--debug", HTTP_PROXY=f"http://ada:{PROXY}@127.0.0.1:{free_port()}")
    assert done.returncode == 4
    assert "NO_PROXY" in done.stderr
    done = discreet("ping", server.uri, ALL_PROXY=f"socks5://ada:{PROXY}@127.0.0.1:1")
    assert done.returncode == 2
    assert "SOCKS" in done.stderr


def test_a_gateway_that_gives_up_waiting(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Large pages and histories never come through, and create calls are answered 504 although the server does them.

    What can be asked in smaller pieces is, and nothing is made twice.
    """
    pages: list[int] = []
    histories: list[int] = []
    created = 0

    def too_late() -> web.Response:
        return web.Response(status=504, text="<html><h1>504 Gateway Time-out</h1></html>", content_type="text/html")

    async def read(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if "/get-history-bulk?" in request.raw_path:
            histories.append(request.raw_path.count("run_id="))
            return too_late() if histories[-1] > 10 else None
        if not request.raw_path.endswith("/runs/search"):
            return None
        pages.append(json.loads(body)["max_results"])
        return too_late() if pages[-1] > 30 else None

    async def write(request: web.BaseRequest, body: bytes) -> web.Response | None:
        nonlocal created
        if not request.raw_path.endswith(("/runs/create", "/experiments/create")):
            return None
        created += 1
        if created % 3:
            return None
        await writing.forward(request, body)
        return too_late()

    target = new_server()
    with Gateway(server.uri, read) as reading, Gateway(target.uri, write) as writing:
        done = discreet("copy-all", "--source", reading.uri, "--target", writing.uri, "--debug", "--json")
    assert done.returncode == 0, done.stderr
    assert max(pages) > 30
    assert sum(size > 30 for size in pages) == 2, "what was too much once is not asked for again"
    assert max(histories) > 10
    assert sum(size > 10 for size in histories) < 20, "and neither are histories"
    assert created > 10
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://no-such-host.invalid:5000", "there is no host of this name"),
        ("http://127.0.0.1:{free}", "check host and port"),
        ("https://127.0.0.1:{port}", "does not speak TLS: use http://"),
        ("https://adb-1.azuredatabricks.net", "Databricks"),
        ("http://127.0.0.1:{port}/nowhere", "check host, port and path"),
        ("ftp://127.0.0.1", "http://"),
    ],
)
def test_wrong_addresses(server: MlflowServer, discreet: Cli, address: str, words: str) -> None:
    """One line that names the address and what to do."""
    uri = address.format(free=free_port(), port=server.port)
    done = discreet("ping", uri.replace("//", f"//ada:{PASSWORD}@"))
    assert done.returncode in (2, 4)
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert uri.partition("://")[2] in done.stderr


def test_a_server_that_does_not_answer_in_time(server: MlflowServer, discreet: Cli) -> None:
    """MLflow's own variables say how long to wait and how often to try."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        await asyncio.sleep(4)
        return None

    with Gateway(server.uri, check) as gateway:
        done = discreet("ping", gateway.uri, MLFLOW_HTTP_REQUEST_TIMEOUT="1", MLFLOW_HTTP_REQUEST_MAX_RETRIES="2",
                        MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR="0")  # fmt: skip
        assert len(gateway.seen) == 3
    assert done.returncode == 4
    assert "no answer within 1 s" in done.stderr
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" in done.stderr


NO_SERVER = "<html><head><title>404 page not found</title></head></html>"


@pytest.mark.parametrize("listing", ["/runs/search", "/experiments/search"])
def test_a_gateway_without_a_server_behind_it_for_a_while(
    server: MlflowServer, new_server: NewServer, discreet: Cli, listing: str
) -> None:
    """What it answers meanwhile is no word of the server about what it has."""
    away = {"since": 0.0, "asked": 0.0}

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        away["asked"] += request.raw_path.partition("?")[0].endswith(listing)
        # The first search for experiments tells which server this is.
        if not away["since"] and away["asked"] > (listing == "/experiments/search"):
            away["since"] = monotonic()
        if away["since"] and monotonic() < away["since"] + 1.5:
            return web.Response(status=404, text=NO_SERVER, content_type="text/html")
        return None

    target = new_server()
    with Gateway(server.uri, check) as gateway:
        done = discreet("copy-all", "--source", gateway.uri, "--target", target.uri, "--debug")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_a_gateway_whose_server_never_comes_back(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """The command stops, and says that it has not seen everything; so does a comparison."""
    away = {"is": False}

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        away["is"] = away["is"] or "/runs/search" in request.raw_path
        return web.Response(status=404, text=NO_SERVER, content_type="text/html") if away["is"] else None

    target = new_server()
    with Gateway(server.uri, check) as gateway:
        copy = ("copy-all", "--source", gateway.uri, "--target", target.uri)
        for command in (copy, ("verify", gateway.uri, target.uri)):
            away["is"] = False
            done = discreet(*command, MLFLOW_HTTP_REQUEST_MAX_RETRIES="2")
            assert done.returncode == 4, done.stdout + done.stderr
            assert "is no MLflow server at the moment" in done.stdout + done.stderr


def test_files_cut_short_without_a_length(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Where nobody says how long an answer is, its end may be a cut: the listing told how long the file is."""
    cut = {"times": 0}

    async def check(request: web.BaseRequest, body: bytes) -> web.StreamResponse | None:
        if "/b%20c.json" not in request.raw_path or cut["times"] >= RUNS // 2:
            return None
        cut["times"] += 1
        whole = await gateway.forward(request, body)
        assert isinstance(whole, web.Response)
        assert isinstance(whole.body, bytes)
        answer = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        answer.enable_chunked_encoding()
        await answer.prepare(request)
        await answer.write(whole.body[:10])
        await answer.write_eof()
        return answer

    target = new_server()
    with Gateway(server.uri, check) as gateway:
        done = discreet("copy-all", "--source", gateway.uri, "--target", target.uri, "--debug")
    assert done.returncode == 0, done.stderr
    assert cut["times"] == RUNS // 2
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_empty_answers_are_no_answers(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """A listing that comes as nothing at all is asked for again."""
    asked: Counter[str] = Counter()

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        path = request.raw_path.partition("?")[0]
        asked[path] += 1
        return web.Response(status=200, text="") if "search" in path and asked[path] <= 2 else None

    target = new_server()
    with Gateway(server.uri, check) as gateway:
        done = discreet("copy-all", "--source", gateway.uri, "--target", target.uri, "--debug")
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []

"""Every way to log in, against something that checks it in front of a real server; and no secret anywhere after."""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from amigrate.cli.run import again
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.fakes.gateway import Gateway, refused
from tests.rest import API, Rest
from tests.secrets import AWS_SECRET, AWS_SESSION, CLIENT_SECRET, COOKIE, HEADER, PASSWORD, TOKEN
from tests.servers import MlflowServer, free_port

BASIC = "Basic " + b64encode(f"ada:{PASSWORD}".encode()).decode()
RUNS = 40


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> MlflowServer:
    """A real server with some runs, each with a file."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        experiment = rest.post(f"{API}experiments/create", {"name": "alpha"})["experiment_id"]
        for number in range(RUNS):
            run = rest.post(f"{API}runs/create", {"experiment_id": experiment, "start_time": 1})["run"]["info"]
            rest.upload(run["artifact_uri"], "a file.txt", b"some bytes %d" % number)
            rest.post(f"{API}runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})
    return server


@pytest.fixture
def by_password(server: MlflowServer) -> Iterator[Gateway]:
    """Lets in whoever knows the password, and tries to leave a cookie."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if request.headers.get("Authorization") == BASIC:
            return None
        answer = refused(text=f"got {request.headers.get('Authorization')} from https://idp/x?X-Amz-Signature=1")
        answer.headers["Set-Cookie"] = COOKIE
        return answer

    with Gateway(server.uri, check) as gateway:
        yield gateway


def answers(cli: Cli, *args: str | Path, **env: Any) -> dict[str, object]:
    """What a successful `ping` tells."""
    done = cli("ping", *args, "--json", "--debug", **env)
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told


def test_basic_wherever_it_comes_from(by_password: Gateway, discreet: Cli, elsewhere: Path) -> None:
    """Options, variables, MLflow's credentials file, the address; each alone."""
    uri = by_password.uri
    answers(discreet, uri, "--username", "ada", "--password", PASSWORD)
    answers(discreet, uri, "--username", "ada", AMIGRATE_PASSWORD=PASSWORD)
    answers(discreet, MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_USERNAME="ada", MLFLOW_TRACKING_PASSWORD=PASSWORD)
    file = elsewhere / ".mlflow" / "credentials"
    file.parent.mkdir()
    file.write_text(f"[mlflow]\nmlflow_tracking_username = ada\nmlflow_tracking_password = {PASSWORD}\n")
    answers(discreet, MLFLOW_TRACKING_URI=uri, HOME=str(elsewhere))
    answers(discreet, uri.replace("http://", f"http://ada:{PASSWORD}@"))


def test_wrong_and_missing_passwords(by_password: Gateway, discreet: Cli, elsewhere: Path) -> None:
    """One line with what to do; nothing that the server repeats of our secrets is shown."""
    done = discreet("ping", by_password.uri, "--debug")
    assert done.returncode == 4
    assert "--username" in done.stderr
    done = discreet("ping", by_password.uri, "--username", "bob", "--password", PASSWORD, "--debug")
    assert done.returncode == 4
    assert "check user name and password" in done.stderr
    assert "https://idp/x?…" in done.stderr
    done = discreet("ping", by_password.uri, "--token", TOKEN, "--debug")
    assert "the token is wrong or has expired" in done.stderr
    (elsewhere / ".mlflow").mkdir()
    (elsewhere / ".mlflow" / "credentials").write_text(f"password {PASSWORD}")
    done = discreet("ping", by_password.uri, HOME=str(elsewhere))
    assert done.returncode == 2
    assert "credentials" in done.stderr


def test_each_end_of_a_copy_has_its_own(
    by_password: Gateway, new_server: NewServer, discreet: Cli, server: MlflowServer
) -> None:
    """The source's password by variable, the target's token and header by option: neither meets the other server."""

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        known = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return None if known and request.headers.get("X-Tenant") == HEADER else refused()

    target = new_server()
    with Gateway(target.uri, check) as writing:
        done = discreet(
            "copy-all", "--source", by_password.uri, "--target", writing.uri, "--debug",
            "--target-token", TOKEN, "--target-header", f"X-Tenant: {HEADER}",
            AMIGRATE_SOURCE_USERNAME="ada", AMIGRATE_SOURCE_PASSWORD=PASSWORD,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert {headers.get("Authorization") for _, headers in writing.seen} == {f"Bearer {TOKEN}"}
    assert {headers.get("X-Tenant") for _, headers in by_password.seen} == {None}
    assert {headers.get("Cookie") for _, headers in by_password.seen} == {None}
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_a_token_that_expires_midway_is_fetched_once(
    server: MlflowServer, new_server: NewServer, discreet: Cli, elsewhere: Path
) -> None:
    """The target takes a new token from its 60th request on: all requests on their way share one new run."""
    log = elsewhere / "runs"
    program = elsewhere / "print token.py"
    program.write_text(
        f"import pathlib, time\nlog = pathlib.Path({str(log)!r})\nlog.open('a').write('x')\ntime.sleep(0.3)\n"
        f"print('{TOKEN}-' + str(len(log.read_text())))"
    )
    count, seen = 0, Counter[str]()

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        nonlocal count
        count += 1
        good = f"Bearer {TOKEN}-{1 if count < 60 else 2}" == request.headers.get("Authorization")
        seen["good" if good else "bad"] += 1
        return None if good else refused()

    target = new_server()
    with Gateway(target.uri, check) as writing:
        done = discreet(
            "copy-all", "--source", server.uri, "--target", writing.uri, "--debug",
            "--target-token-command", f"{sys.executable} '{program}'",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert log.read_text() == "xx"
    assert seen["bad"] > 0
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("no-such-program-at-all", "cannot be run"),
        (f"{sys.executable} -c 'exit(3)'", "exit code 3"),
        (f"{sys.executable} -c 'print(1, 2)'", "a token and nothing else"),
        (f"{sys.executable} -c 'print(0)'", "check the token that"),
        ("'unbalanced", "cannot be read"),
    ],
)
def test_token_commands_that_do_not_work(by_password: Gateway, discreet: Cli, command: str, words: str) -> None:
    done = discreet("ping", by_password.uri, "--token-command", command)
    assert done.returncode in (2, 4)
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_oauth_against_a_real_token_endpoint(server: MlflowServer, discreet: Cli, tmp_path: Path) -> None:
    """The first token is refused half-way through, the others expire by the clock; the secret stays with the issuer."""
    tokens: list[tuple[str, float]] = []
    asked: list[dict[str, list[str]]] = []
    count = 0

    async def endpoint(request: web.BaseRequest, body: bytes) -> web.Response | None:
        asked.append(parse_qs(body.decode()))
        pair = b64encode(f"amigrate:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("Authorization") != f"Basic {pair}":
            return web.json_response({"error": "invalid_client"}, status=401)
        tokens.append((f"{TOKEN}-{len(tokens)}", time.monotonic()))
        return web.json_response({"access_token": tokens[-1][0], "token_type": "Bearer", "expires_in": 2})

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        nonlocal count
        count += 1
        value, made = tokens[-1] if tokens else ("", 0.0)
        known = request.headers.get("Authorization") == f"Bearer {value}"
        return None if known and time.monotonic() < made + 2 and not (count > 30 and len(tokens) == 1) else refused()

    with Gateway("", endpoint) as issuer, Gateway(server.uri, check) as gateway:
        login = ("--oauth-token-url", f"{issuer.uri}/token", "--oauth-client-id", "amigrate", "--oauth-scope", "mlflow")
        out = ("--output-dir", tmp_path / "all", "--debug")
        done = discreet(
            "export-all", "--tracking-uri", gateway.uri, *login, *out, AMIGRATE_OAUTH_CLIENT_SECRET=CLIENT_SECRET
        )
        assert done.returncode == 0, done.stderr
        assert len(tokens) >= 2
        assert asked[0]["grant_type"] == ["client_credentials"]
        assert asked[0]["scope"] == ["mlflow"]
        done = discreet("ping", gateway.uri, *login, "--oauth-client-secret", "wrong", "--debug")
        assert done.returncode == 4
        assert "invalid_client" in done.stderr
        nobody = f"http://127.0.0.1:{free_port()}/token"
        done = discreet("ping", gateway.uri, "--oauth-token-url", nobody, *login[2:], "--oauth-client-secret", "x")
        assert done.returncode == 4
        assert "check --oauth-token-url" in done.stderr
        done = discreet("ping", gateway.uri, *login)
        assert done.returncode == 2
        assert "--oauth-client-secret" in done.stderr


def test_signatures_hold(server: MlflowServer, new_server: NewServer, discreet: Cli) -> None:
    """Every request of a copy is signed over method, path, query, host and body, as botocore computes it anew here."""
    wrong: list[str] = []

    async def check(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if _expected_signature(request, body) == request.headers.get("Authorization"):
            return None
        wrong.append(request.raw_path)
        return refused(403, '{"message": "The request signature we calculated does not match"}')

    target = new_server()
    aws: dict[str, Any] = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": AWS_SECRET,
        "AWS_SESSION_TOKEN": AWS_SESSION,
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with Gateway(server.uri, check) as reading, Gateway(target.uri, check) as writing:
        args = ("copy-all", "--source", reading.uri, "--target", writing.uri, "--debug")
        signed = ("--source-aws-sigv4", "--target-aws-sigv4")
        done = discreet(*args, *signed, **aws)
        assert done.returncode == 0, done.stderr
        assert wrong == []
        uploads = [headers for path, headers in writing.seen if "a%20file.txt" in path]
        assert len(uploads) >= RUNS
        done = discreet("ping", reading.uri, "--aws-sigv4", **(aws | {"AWS_SECRET_ACCESS_KEY": "other"}))
        assert done.returncode == 4
        assert "AWS credentials" in done.stderr
        done = discreet("ping", reading.uri, MLFLOW_TRACKING_AWS_SIGV4="true", **(aws | {"AWS_DEFAULT_REGION": ""}))
        assert done.returncode == 2
        assert "AWS_DEFAULT_REGION" in done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def _expected_signature(request: web.BaseRequest, body: bytes) -> str:
    """What botocore signs for the request as it arrived, at the time that it names."""
    signer = SigV4Auth(Credentials("AKIDEXAMPLE", AWS_SECRET, AWS_SESSION), "execute-api", "eu-central-1")
    names = request.headers["Authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    headers = {name: request.headers[name] for name in names}
    url = f"http://{request.headers['Host']}{request.raw_path}"
    arrived = AWSRequest(request.method, url, headers=headers, data=body)
    arrived.context["timestamp"] = request.headers["X-Amz-Date"]
    signature = signer.signature(signer.string_to_sign(arrived, signer.canonical_request(arrived)), arrived)
    assert {"host", "x-amz-date", "x-amz-security-token"} <= set(names)
    scope = signer.scope(arrived)
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={';'.join(names)}, Signature={signature}"


@pytest.mark.parametrize(
    ("package", "option", "extra"),
    [("botocore", "--aws-sigv4", "amigrate[aws]"), ("authlib", "--oauth-token-url=http://x/", "amigrate[oauth]")],
)
def test_a_missing_package_is_named(
    discreet: Cli, elsewhere: Path, server: MlflowServer, package: str, option: str, extra: str
) -> None:
    (elsewhere / f"{package}.py").write_text("raise ImportError('not here')")
    path = f"{elsewhere}:{discreet.env['PYTHONPATH']}"
    more = ("--oauth-client-id", "a", "--oauth-client-secret", "b") if package == "authlib" else ()
    done = discreet("ping", server.uri, option, *more, PYTHONPATH=path)
    assert done.returncode == 2
    assert f"pip install '{extra}'" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_settings_that_make_no_sense(discreet: Cli, server: MlflowServer, elsewhere: Path) -> None:
    """One line, exit code 2, and not a word of what might be secret."""
    bad = elsewhere / "bad.pem"
    bad.write_text(PASSWORD)
    for args in (
        ("--header", f"Key={HEADER}"),
        ("--header", f"a b: {HEADER}"),
        ("--client-cert", bad),
        ("--ca-bundle", bad),
        ("--ca-bundle", bad, "--insecure-tls"),
    ):
        done = discreet("ping", server.uri, *args)
        assert done.returncode == 2, args
        assert len(done.stderr.splitlines()) == 1
    for name, value in (("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon"), ("MLFLOW_ALLOW_HTTP_REDIRECTS", "maybe")):
        settings: dict[str, Any] = {name: value}
        done = discreet("ping", server.uri, **settings)
        assert done.returncode == 2
        assert name in done.stderr


def test_a_token_of_several_lines(discreet: Cli, server: MlflowServer) -> None:
    """A file often ends in a line break, and that is no part of the token; one inside of it is a mistake."""
    assert discreet("ping", server.uri, MLFLOW_TRACKING_TOKEN=f"{TOKEN}\n").returncode == 0
    done = discreet("ping", server.uri, MLFLOW_TRACKING_TOKEN=f"{TOKEN}\n{TOKEN}")
    assert done.returncode == 2
    assert "the token holds a line break" in done.stderr


def test_a_workspace_is_only_named_when_asked_for(server: MlflowServer, discreet: Cli) -> None:
    with Gateway(server.uri) as gateway:
        answers(discreet, gateway.uri)
        assert {headers.get("X-MLFLOW-WORKSPACE") for _, headers in gateway.seen} == {None}
        done = discreet("ping", gateway.uri, "--workspace", "team-a")
        assert {headers.get("X-MLFLOW-WORKSPACE") for _, headers in gateway.seen} == {None, "team-a"}
    assert done.returncode == 4
    assert "leave --workspace" in done.stderr


def test_what_continues_holds_no_secret() -> None:
    """The line to run again, for every option that takes one, in both spellings."""
    address = f"http://u:{PASSWORD}@h"
    words = ["x", "copy-all", "--source", address, f"--target={address}", "--debug", "--tracking-uri", address]
    for end in ("", "source-", "target-"):
        for name in ("password", "token", "token-command", "oauth-client-secret", "header"):
            words += [f"--{end}{name}", PASSWORD, f"--{end}{name}={PASSWORD}"]
        words += [f"--{end}oauth-token-url", f"{address}/t", f"--{end}username", "ada"]
    line = again(words)
    assert PASSWORD not in line
    assert line.count("ada") == 3
    assert "--source http://h --target=http://h --debug --tracking-uri http://h " in line

"""Where settings come from and whom they are meant for; patience as MLflow's variables set it; pages told apart."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amigrate.client import pages
from amigrate.client.http import Server, error_of
from amigrate.client.network import proxy_for
from amigrate.core.errors import AmigrateError, AuthError, Forbidden, NoServer, Transient, Unsupported, UsageError
from amigrate.core.ports import Retries, Work
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.options import Basic, Bearer, Given, OAuth, SigV4, TokenCommand, server_options

URI = "http://one:5000"
TRACKING = {
    "MLFLOW_TRACKING_URI": URI,
    "MLFLOW_TRACKING_USERNAME": "ada",
    "MLFLOW_TRACKING_PASSWORD": "p",
    "MLFLOW_WORKSPACE": "team",
    "MLFLOW_REGISTRY_URI": "http://registry",
    "MLFLOW_TRACKING_SERVER_CERT_PATH": "/ca.pem",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/me.pem",
    "HOME": "/nowhere",
}


def test_mlflows_settings_are_for_the_server_that_they_name() -> None:
    named = server_options(Given(), TRACKING)
    assert named.login == Basic("ada", "p")
    assert (named.workspace, named.registry_uri) == ("team", "http://registry")
    assert (named.tls.ca_bundle, named.tls.client_cert) == (Path("/ca.pem"), Path("/me.pem"))
    for end, given in (("", Given("http://two")), ("source", Given("http://two")), ("target", Given(f"{URI}/x"))):
        other = server_options(given, TRACKING, end)
        assert other.login is None
        assert (other.workspace, other.registry_uri, other.tls.ca_bundle) == ("", "", None)
    assert server_options(Given(URI), TRACKING, "source").login == Basic("ada", "p")
    nameless = {name: value for name, value in TRACKING.items() if name != "MLFLOW_TRACKING_URI"}
    assert server_options(Given("http://two"), nameless).login == Basic("ada", "p")
    assert server_options(Given("http://two"), nameless, "target").login is None


@pytest.mark.parametrize(
    ("given", "environ", "login"),
    [
        (Given(token="t"), {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p"}, Bearer("t")),
        (Given(username="u"), {"MLFLOW_TRACKING_PASSWORD": "p"}, Basic("u", "p")),
        (Given(), {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_TOKEN": "t"}, Bearer("t")),
        (
            Given(),
            {"MLFLOW_TRACKING_USERNAME": "u", "MLFLOW_TRACKING_PASSWORD": "p", "MLFLOW_TRACKING_TOKEN": "t"},
            Basic("u", "p"),
        ),
        (Given("http://v:q%40@one"), {"AMIGRATE_TOKEN": "t"}, Basic("v", "q@")),
        (Given(token_command="c"), {"AMIGRATE_TOKEN": "t"}, TokenCommand("c")),
        (Given(), {"MLFLOW_TRACKING_AWS_SIGV4": "1", "MLFLOW_TRACKING_TOKEN": "t"}, SigV4()),
        (Given(), {"MLFLOW_TRACKING_AWS_SIGV4": "false", "MLFLOW_TRACKING_TOKEN": "t"}, Bearer("t")),
        (
            Given(oauth_client_id="i"),
            {"AMIGRATE_OAUTH_CLIENT_SECRET": "s", "AMIGRATE_OAUTH_TOKEN_URL": "http://t"},
            OAuth("http://t", "i", "s"),
        ),
    ],
)
def test_which_way_to_log_in(given: Given, environ: dict[str, str], login: object) -> None:
    found = server_options(given, {"AMIGRATE_URI": URI, "HOME": "/nowhere", **environ})
    assert found.login == login
    assert "p'" not in repr(found)
    assert "'s'" not in repr(found)


def test_what_contradicts_itself() -> None:
    for given, environ in (
        (Given(URI, oauth_client_id="i"), {}),
        (Given(URI, insecure_tls=True, ca_bundle=Path("x")), {}),
        (Given(URI), {"MLFLOW_TRACKING_AUTH": "plugin"}),
        (Given(URI), {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "-1"}),
        (Given("https://x.cloud.databricks.com"), {}),
    ):
        with pytest.raises(UsageError):
            server_options(given, {"HOME": "/nowhere", **environ})


def test_headers_and_bundles_of_the_environment() -> None:
    environ = {"AMIGRATE_SOURCE_HEADERS": "A: 1\nB: x: y\n", "REQUESTS_CA_BUNDLE": "/all.pem", "HOME": "/nowhere"}
    found = server_options(Given(URI), environ, "source")
    assert found.headers == (("A", "1"), ("B", "x: y"))
    assert found.tls.ca_bundle == Path("/all.pem")
    assert server_options(Given(URI, insecure_tls=True), environ).tls.ca_bundle is None


def attempts(retries: Retries, error: Transient) -> list[float]:
    """The waits between the attempts at a request that always fails like this."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def fail() -> tuple[None, int]:
        raise error

    guard = AdaptiveGuard(Requests(), ceiling=4, sleep=sleep, retries=retries)
    with pytest.raises(Transient):
        asyncio.run(guard.call(Work.READ, fail))
    return waits


def test_patience_as_mlflows_variables_set_it() -> None:
    """Waits as urllib3 makes them: none, then factor times 2, 4, 8, at most two minutes; once means once."""
    assert attempts(Retries(5, 2, 0), Transient("x")) == [0, 4, 8, 16, 32]
    assert attempts(Retries(3, 100, 0), Transient("x")) == [0, 120, 120]
    assert attempts(Retries(0), Transient("x")) == []
    assert attempts(Retries(5), Transient("x", attempts=1)) == []
    assert attempts(Retries(2, 0, 0), Transient("x", retry_after=7.0)) == [7, 7]
    assert attempts(Retries(2, 0, 0, respect_retry_after=False), Transient("x", retry_after=7.0)) == [0, 0]
    assert len(attempts(Retries(), Transient("x"))) == 7


@pytest.mark.parametrize(
    ("status", "text", "error", "words"),
    [
        (401, "", AuthError, "do this"),
        (403, '{"error_code": "PERMISSION_DENIED", "message": "no"}', Forbidden, "not permitted"),
        (403, '{"message": "The security token included in the request is expired"}', AuthError, "do this"),
        (403, "Invalid Host header", AuthError, "--allowed-hosts"),
        (407, "", AuthError, "proxy"),
        (400, "<html><title>400 No required SSL certificate was sent</title></html>", AuthError, "--client-cert"),
        (500, '{"error_code": "FEATURE_DISABLED", "message": "Workspaces are off"}', NoServer, "--workspace"),
        (504, "<html><title>504 Gateway Time-out</title><p>x</html>", Transient, "504 Gateway Time-out"),
        (503, "Endpoint: /api/3.0/x disabled because the server is running without x", Unsupported, "switched off"),
        (503, '{"detail": "Artifact serving is disabled. Run `mlflow server` with ..."}', Unsupported, "switched off"),
        (503, "upstream connect error or disconnect/reset before headers", Transient, "upstream"),
        (503, "no healthy upstream", Transient, "upstream"),
        (
            404,
            '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "Workspace \'team\' not found"}',
            NoServer,
            "'team'",
        ),
        (302, "", NoServer, "check host"),
        (400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>", NoServer, "https://"),
        (401, '{"error": "invalid_token", "error_description": "it expired"}', AuthError, "it expired"),
    ],
)
def test_what_refusals_mean(status: int, text: str, error: type[AmigrateError], words: str) -> None:
    found = error_of(status, {}, text, "/x", Server("http://h", "do this", "team"))
    assert type(found) is error
    assert words in str(found)
    assert "<" not in str(found)


def test_pages_are_told_apart() -> None:
    assert pages.is_login("<!doctype html><title>Sign in to Acme</title>")
    assert pages.is_login("<html><body><input type='password'></body></html>")
    assert not pages.is_login("<html><title>Welcome to nginx!</title></html>")
    assert not pages.is_login('{"message": "please log in"}')
    assert pages.said("<html><head><style>p {}</style></head><p>It  &amp; works</p></html>") == "It & works"
    assert pages.leads_to_login("https://accounts.google.com/o/oauth2/v2/auth", "/version")
    assert pages.leads_to_login("http://h/sso/start?rd=/version", "/version")
    assert not pages.leads_to_login("http://h/sso/version", "/version")
    assert not pages.leads_to_login("http://h/mlflow/version", "/version")


def test_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    assert proxy_for("http://10.1.2.3:5000") is None
    monkeypatch.setenv("http_proxy", "proxy:3128")
    monkeypatch.setenv("no_proxy", "10.1.0.0/16,.inside.org")
    assert proxy_for("http://10.2.2.3:5000") == "http://proxy:3128"
    assert proxy_for("http://10.1.2.3:5000") is None
    assert proxy_for("http://a.inside.org") is None
    assert proxy_for("https://a.org") is None


@pytest.mark.parametrize("text", ["", "<html>"])
def test_an_answer_that_says_nothing_is_told_by_its_path(text: str) -> None:
    assert str(error_of(404, {}, text, "/api/x", Server("http://h", "do this"))) == "404: no explanation from /api/x"

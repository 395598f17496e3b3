"""nginx with TLS, client certificates, compression and a path prefix in front of a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.rest import API, Rest
from tests.servers import MlflowServer, NginxServer

pytestmark = pytest.mark.debian


@pytest.fixture(scope="module")
def server(new_module_server: NewServer) -> MlflowServer:
    """A real server with a run and a file."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        run = rest.post(f"{API}runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        rest.post(f"{API}runs/log-batch", {"run_id": run["run_id"], "params": [{"key": "p", "value": "1"}]})
        rest.upload(run["artifact_uri"], "deep/a b.bin", bytes(range(256)) * 5000)
        rest.post(f"{API}runs/update", {"run_id": run["run_id"], "status": "FINISHED", "end_time": 2})
    return server


@pytest.fixture(scope="module")
def nginx(server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[NginxServer]:
    """In front of it."""
    with NginxServer(tmp_path_factory.mktemp("nginx"), server.uri) as nginx:
        yield nginx


def test_a_copy_from_behind_nginx_to_behind_nginx(
    nginx: NginxServer, server: MlflowServer, new_server: NewServer, discreet: Cli, elsewhere: Path
) -> None:
    """Each end with its own authority and certificate; the files arrive although all is compressed on the way."""
    target = new_server()
    with NginxServer(elsewhere, target.uri, prefix="/x") as other:
        done = discreet(
            "copy-all", "--source", nginx.uri, "--target", other.uri, "--debug",
            "--source-ca-bundle", nginx.authority, "--source-client-cert", nginx.identity,
            AMIGRATE_TARGET_CA_BUNDLE=str(other.authority), AMIGRATE_TARGET_CLIENT_CERT=str(other.identity),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert differences(snapshot(server.uri), snapshot(target.uri)) == []


def test_who_is_not_trusted_and_who_is_not_known(nginx: NginxServer, discreet: Cli, tmp_path: Path) -> None:
    """One line each, naming the option that helps."""
    trusting = ("--ca-bundle", nginx.authority)
    for args, words in (
        ((), "give the authority's certificate with --ca-bundle"),
        (trusting, "give it with --client-cert"),
        ((*trusting, "--client-cert", nginx.stranger), "give it with --client-cert"),
    ):
        done = discreet("ping", nginx.uri, *args)
        assert done.returncode == 4, done.stderr
        assert words in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_mlflows_own_variables(nginx: NginxServer, discreet: Cli) -> None:
    """And the address without the prefix, which nginx redirects within its origin."""
    root = nginx.uri.removesuffix(nginx.prefix)
    for uri in (nginx.uri, root):
        done = discreet(
            "ping", MLFLOW_TRACKING_URI=uri, MLFLOW_TRACKING_SERVER_CERT_PATH=str(nginx.authority),
            MLFLOW_TRACKING_CLIENT_CERT_PATH=str(nginx.identity),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_unchecked_tls_is_said_loudly(nginx: NginxServer, discreet: Cli) -> None:
    """Once on standard error, and again in the result."""
    done = discreet("ping", nginx.uri, "--insecure-tls", "--client-cert", nginx.identity)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("is not checked") == 1
    assert done.stdout.count("is not checked") == 1

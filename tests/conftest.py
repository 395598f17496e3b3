"""Real servers, their contents and the command line, for every test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import secrets
from tests.campaign import IS_FULL, size
from tests.comparison import Workspace, snapshot
from tests.servers import MlflowServer, PostgresServer, clean_environment
from tests.workspace import ScaleName, Seeded, seed

ROOT = Path(__file__).parents[1]
MARKERS = (
    "debian: needs a Debian package (PostgreSQL, nginx)",
    "campaign: long, and only in the full campaign (AMIGRATE_CAMPAIGN=full)",
)

NewServer = Callable[..., MlflowServer]
"""Makes a running, empty server; takes the keyword arguments of `MlflowServer`."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the markers known where no pyproject does."""
    known = {line.partition(":")[0] for line in config.getini("markers")}
    for marker in MARKERS:
        if marker.partition(":")[0] not in known:
            config.addinivalue_line("markers", marker)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The small campaign does without the long tests."""
    long = [] if IS_FULL else [item for item in items if item.get_closest_marker("campaign")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("campaign")]


@dataclass(frozen=True, slots=True)
class SourceServer:
    """A running server with the seeded workspace. Shared by all tests: nobody writes to it."""

    server: MlflowServer
    seeded: Seeded

    @property
    def uri(self) -> str:
        """The server's base URL."""
        return self.server.uri


@pytest.fixture(scope="session")
def campaign() -> ScaleName:
    """How big the workspaces are, from the variable AMIGRATE_CAMPAIGN."""
    return size()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's first server leaves its empty database for the others: migrations take half of a start."""
    return tmp_path_factory.mktemp("template") / "empty.db"


@pytest.fixture(scope="session")
def source_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[SourceServer]:
    """One server for the whole session, with the small workspace."""
    with MlflowServer(tmp_path_factory.mktemp("source"), template=empty_database, warm=True) as server:
        yield SourceServer(server, seed(server.uri))


@pytest.fixture(scope="session")
def source_snapshot(source_server: SourceServer) -> Workspace:
    """What the source server holds. Copy it before you change it."""
    return snapshot(source_server.uri)


@pytest.fixture(scope="session")
def sized_server(
    campaign: ScaleName, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[SourceServer]:
    """A server with the workspace of the campaign's size; in the small campaign, the one that all tests share."""
    if campaign == "small":
        yield request.getfixturevalue("source_server")
        return
    with MlflowServer(tmp_path_factory.mktemp("sized")) as server:
        yield SourceServer(server, seed(server.uri, scale=campaign))


@pytest.fixture(scope="session")
def sized_snapshot(sized_server: SourceServer) -> Workspace:
    """What that server holds."""
    return snapshot(sized_server.uri)


@pytest.fixture
def new_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[NewServer]:
    """Starts an empty server per call; all are stopped after the test."""
    yield from _servers(tmp_path_factory, empty_database)


@pytest.fixture(scope="module")
def new_module_server(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[NewServer]:
    """Like `new_server`, for servers that live as long as the tests of one module."""
    yield from _servers(tmp_path_factory, empty_database)


def _servers(folders: pytest.TempPathFactory, template: Path) -> Iterator[NewServer]:
    with ExitStack() as running:

        def start(**options: Any) -> MlflowServer:
            wanted: dict[str, Any] = {"template": template, "warm": True} | options
            return running.enter_context(MlflowServer(folders.mktemp("server"), **wanted))

        yield start


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One PostgreSQL for the session's tests marked `debian`."""
    with PostgresServer() as server:
        yield server


class Cli:
    """Runs `python -m amigrate` as a user would: a process of its own, in an environment without leftovers."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.cwd = home / "work"
        self.cwd.mkdir(parents=True)
        self.env = clean_environment() | {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "PYTHONPATH": str(ROOT),
        }
        self._started: list[subprocess.Popen[str]] = []
        self.said: list[str] = []
        """Everything that was printed."""

    def __call__(self, *args: str | Path, timeout: float = 1800.0, **env: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; the result has returncode, stdout and stderr. Keywords are environment variables."""
        done = subprocess.run(
            self._command(args),
            env=self.env | env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        self.said.append(done.stdout + done.stderr)
        return done

    def popen(self, *args: str | Path, **env: str) -> subprocess.Popen[str]:
        """Start and return at once, for tests that interrupt or kill; what still runs after the test is killed."""
        process = subprocess.Popen(
            self._command(args),
            env=self.env | env,
            cwd=self.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Kill what `popen` left running, with its children."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        return [sys.executable, "-m", "amigrate", *map(str, args)]


@pytest.fixture
def discreet(cli: Cli, tmp_path: Path) -> Iterator[Cli]:
    """The command line, watched: afterwards no secret is found in what it printed or wrote."""
    yield cli
    assert cli.said
    assert not secrets.found(cli.said, [tmp_path])


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what a test writes itself, secrets too."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """Runs the command line: `cli("export", uri, folder)` or `cli.popen(...)`."""
    runner = Cli(tmp_path / "home")
    yield runner
    runner.close()

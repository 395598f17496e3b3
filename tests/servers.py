"""Real servers on loopback for the tests: `mlflow server` and, for the tests marked `debian`, PostgreSQL and nginx.

Nothing here imports amigrate: a test that asks a real server must not depend on the code it judges.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import requests
import sqlalchemy
import trustme

from tests.warm import QUIET, Warm

LOOPBACK = "127.0.0.1"


def clean_environment() -> dict[str, str]:
    """The inherited environment without what would steer MLflow or amigrate, or send loopback traffic to a proxy."""
    steering = ("MLFLOW_", "AMIGRATE_", "DATABRICKS_")
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(steering) and not key.lower().endswith("_proxy")
    }


def free_port() -> int:
    """A port that is free now; the kernel hands out another one to the next caller."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class Daemon(ABC):
    """A subprocess with its own process group and a log file: started when ready, always stopped as a group."""

    deadline = 120.0
    """Seconds until a server has to be ready; several starting at once on a small machine take their time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        self._process: subprocess.Popen[bytes] | Warm | None = None

    @property
    def pid(self) -> int:
        """The process id, which is also the id of the group."""
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} in {self.folder} is not running")
        return self._process.pid

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start, or start again with the data that is there; returns when the server is ready."""
        try:
            self._begin()
        except BaseException:
            self.stop()
            raise

    @abstractmethod
    def _begin(self) -> None:
        """Start the process and wait until it is ready."""

    def stop(self) -> None:
        """Kill the whole group and wait for it. The data stays, so `start` may follow."""
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    def _end(self, process: subprocess.Popen[bytes] | Warm) -> None:
        _kill_group(process, signal.SIGKILL)
        process.wait()

    def _launch(
        self, command: Sequence[str], env: Mapping[str, str], ready: Callable[[], bool], user: str | None
    ) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=dict(env),
                cwd=self.folder,
                user=user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._wait(self._process, ready)

    def _wait(self, process: subprocess.Popen[bytes] | Warm, ready: Callable[[], bool]) -> None:
        end = time.monotonic() + self.deadline
        while not ready():
            if process.poll() is not None:
                raise RuntimeError(f"server died with code {process.returncode}:\n{self.tail()}")
            if time.monotonic() > end:
                raise TimeoutError(f"server not ready after {self.deadline:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 40) -> str:
        """The last lines of the log, for an error message."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _kill_group(process: subprocess.Popen[bytes] | Warm, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        with suppress(ProcessLookupError):  # It may not lead its group yet.
            os.kill(process.pid, number)


class MlflowServer(Daemon):
    """A real `mlflow server`. `folder` holds its database, artifacts and log.

    `template` names a file with an empty, ready-made SQLite database: it is copied instead of running MLflow's
    schema migrations again, and made by the first server that starts when it does not exist yet. `python` is that of
    another environment, whose MLflow is served then; a template made by one version is no good for another one. One
    that is `warm` starts at once where it can: see `tests.warm`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        backend: str | None = None,
        workers: int = 1,
        prefix: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        template: Path | None = None,
        python: Path | None = None,
        warm: bool = False,
    ) -> None:
        super().__init__(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.database = folder / "mlflow.db"
        self.backend = backend or f"sqlite:///{self.database}"
        self.artifacts = folder / "artifacts"
        self.workers = workers
        self.prefix = prefix
        self.args = tuple(args)
        self.env = dict(env or {})
        self.template = template if backend is None and python is None else None
        self.python = python or Path(sys.executable)
        # Several workers need a supervisor, and a prefix has to be known when MLflow's server is imported.
        self.warm = warm and python is None and workers == 1 and not prefix
        self.port = free_port()
        self.uri = f"http://{LOOPBACK}:{self.port}{prefix}"

    def _begin(self) -> None:
        if self.template and self.template.exists() and not self.database.exists():
            shutil.copyfile(self.template, self.database)
        # MLflow up to 3.3 starts gunicorn by its name.
        path = {"PATH": f"{self.python.parent}{os.pathsep}{os.environ.get('PATH', '')}"}
        env = clean_environment() | QUIET | path | self.env
        if self.warm:
            self._process = Warm(self._words(), env, self.folder, self.log)
            self._wait(self._process, self._healthy)
        else:
            self._launch(self._command(), env, self._healthy, None)
        if self.template and not self.template.exists():
            _copy_database(self.database, self.template)

    def _command(self) -> list[str]:
        # 1.30 has no `python -m mlflow`; its warnings are about the packages beside it.
        start = [str(self.python), "-W", "ignore", "-c", "from mlflow.cli import cli; cli(prog_name='mlflow')"]
        return [*start, "server", *self._words()]

    def _words(self) -> list[str]:
        options = {
            "--host": LOOPBACK,
            "--port": str(self.port),
            "--workers": str(self.workers),
            "--backend-store-uri": self.backend,
            "--artifacts-destination": str(self.artifacts),
        }
        if self.prefix:
            options["--static-prefix"] = self.prefix
        return [*(word for option in options.items() for word in option), *self.args]

    def _healthy(self) -> bool:
        try:
            with requests.Session() as session:
                session.trust_env = False
                return session.get(f"{self.uri}/health", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False


def refill(server: MlflowServer, template: Path) -> None:
    """Give a running server the contents of another database: with an empty one as good as a new server, at once."""
    with closing(sqlite3.connect(template)) as wanted, closing(sqlite3.connect(server.database)) as used:
        wanted.backup(used)


def _copy_database(source: Path, target: Path) -> None:
    """Copy a database that is in use, by SQLite's own backup, and let it appear under its name only when whole."""
    part = target.with_suffix(f".{os.getpid()}")
    old, new = sqlite3.connect(source), sqlite3.connect(part)
    try:
        old.backup(new)
    finally:
        old.close()
        new.close()
    part.replace(target)


class PostgresServer(Daemon):
    """A throwaway PostgreSQL on loopback, with one superuser `postgres` and no password. Starts once."""

    def __init__(self) -> None:
        self.binaries = find_postgres()
        # postgres refuses root and must own its folder, so pytest's private folders cannot be used.
        self.user = _unprivileged() if os.geteuid() == 0 else None
        super().__init__(Path(tempfile.mkdtemp(prefix="postgres-")))
        self.port = free_port()
        self._databases = 0

    def _begin(self) -> None:
        if self.user:
            shutil.chown(self.folder, self.user)
        data = self.folder / "data"
        env = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C.UTF-8"}
        initdb = [
            str(self.binaries / "initdb"),
            "-D",
            str(data),
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--no-sync",
        ]
        subprocess.run(initdb, check=True, capture_output=True, env=env, cwd=self.folder, user=self.user)
        options = {
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "off",
            "max_connections": "200",
        }
        settings = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        command = [str(self.binaries / "postgres"), "-D", str(data), "-p", str(self.port), *settings]
        self._launch(command, env, self._accepts, self.user)

    def stop(self) -> None:
        """Stop and remove the cluster."""
        super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def create_database(self) -> str:
        """Make an empty database and return its SQLAlchemy URI."""
        self._databases += 1
        name = f"test_{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self._uri(name)

    def _uri(self, database: str) -> str:
        return f"postgresql+psycopg2://postgres@{LOOPBACK}:{self.port}/{database}"

    def execute(self, statement: str, uri: str = "") -> None:
        """Run a statement in a database, or in the cluster's own."""
        engine = sqlalchemy.create_engine(
            uri or self._uri("postgres"), isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.pool.NullPool
        )
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text(statement))

    def _accepts(self) -> bool:
        try:
            self.execute("SELECT 1")
        except sqlalchemy.exc.OperationalError:
            return False
        return True

    def _end(self, process: subprocess.Popen[bytes] | Warm) -> None:
        # A fast shutdown frees the shared memory that a kill would leave behind; the kill is for when it hangs.
        os.kill(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            super()._end(process)


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs; Debian keeps them out of PATH."""
    on_path = shutil.which("initdb")
    folders = [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise FileNotFoundError(
        "PostgreSQL is not installed: initdb and postgres are in neither PATH nor /usr/lib/postgresql"
    )


def _unprivileged() -> str:
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


class NginxServer(Daemon):
    """nginx on loopback with TLS, client certificates and a path prefix, in front of a server.

    `uri` is `https://127.0.0.1:PORT/prefix`; `authority`, `identity` and `stranger` are PEM files: whom to trust, the
    client certificate with its key that nginx knows, and one that it does not.
    """

    def __init__(self, folder: Path, upstream: str, *, prefix: str = "/team/mlflow") -> None:
        super().__init__(folder)
        self.binary = find_nginx()
        self.upstream = upstream
        self.prefix = prefix
        self.port = free_port()
        self.uri = f"https://{LOOPBACK}:{self.port}{prefix}"
        self.authority = folder / "authority.pem"
        self.identity = folder / "identity.pem"
        self.stranger = folder / "stranger.pem"

    def _begin(self) -> None:
        ours, other = trustme.CA(), trustme.CA()
        ours.cert_pem.write_to_path(self.authority)
        ours.issue_cert(LOOPBACK).private_key_and_cert_chain_pem.write_to_path(self.folder / "server.pem")
        ours.issue_cert("ada@example.org").private_key_and_cert_chain_pem.write_to_path(self.identity)
        other.issue_cert("eve@example.org").private_key_and_cert_chain_pem.write_to_path(self.stranger)
        (self.folder / "nginx.conf").write_text(self._configuration())
        command = [str(self.binary), "-p", str(self.folder), "-c", "nginx.conf", "-e", "stderr"]
        self._launch(command, {"PATH": os.environ.get("PATH", "")}, self._listens, None)

    def _configuration(self) -> str:
        places = " ".join(
            f"{name}_temp_path {self.folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        return f"""
            daemon off; worker_processes 1; pid {self.folder}/nginx.pid; error_log stderr; {user}
            events {{ worker_connections 256; }}
            http {{
                access_log off; {places}
                server {{
                    listen {LOOPBACK}:{self.port} ssl;
                    ssl_certificate {self.folder}/server.pem; ssl_certificate_key {self.folder}/server.pem;
                    ssl_client_certificate {self.authority}; ssl_verify_client on;
                    client_max_body_size 0; gzip on; gzip_types application/json; gzip_min_length 1;
                    location {self.prefix}/ {{ proxy_pass {self.upstream}/; proxy_request_buffering off; }}
                    location / {{ return 302 {self.prefix}$request_uri; }}
                }}
            }}"""

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((LOOPBACK, self.port)) == 0


def find_nginx() -> Path:
    """nginx; Debian keeps it where only root looks."""
    found = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if found is None:
        raise FileNotFoundError("nginx is not installed: it is in neither PATH nor /usr/sbin")
    return Path(found)

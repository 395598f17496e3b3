"""A private `mlflow server` on loopback, for `demo` and for local stores (see `serving`).

The server is never left behind. Between it and us stands a keeper, a Python of a few lines that leads the server's
process group and waits for the end of its standard input, a pipe that only this process holds open. Closing the pipe
is the one way in which a server is stopped, and the kernel closes it too when this process dies by whatever means,
`kill -9` included. (PR_SET_PDEATHSIG would reach `mlflow server` only, not the uvicorn that it starts, and needs code
between fork and exec.)
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from amigrate.core.errors import NoServer, UsageError

HOST = "127.0.0.1"
READY = 120.0
"""Seconds until the server has to answer: its imports and the schema take about seven on an idle machine."""
POLL = 0.1
GRACE = 2
"""Seconds between SIGTERM and SIGKILL; whole, because they are written into the keeper."""
LOG = "server.log"
ERROR_LINE = re.compile(r"(\w+\.)*\w*(Error|Exception)\b")
"""How the last line of a traceback begins."""
logger = logging.getLogger("amigrate")
LOG_LINES = 20

QUIET = {
    # Job execution starts seven more processes; telemetry and the model catalogue would leave the machine.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
}
STORE_ACCESS = ("MLFLOW_S3_", "MLFLOW_BOTO_", "MLFLOW_GCS_")
"""Settings of the stores that artifacts lie in."""
BACKEND = "MLFLOW_BACKEND_STORE_URI"
"""In the environment rather than on the command line, which every user of the machine can read."""

KEEPER = f"""
import os, signal, subprocess, sys, threading, time
server = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
def watch():
    if server.wait() < 0:
        print("somebody ended it with signal", -server.returncode, flush=True)
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.stdin.read()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
time.sleep({GRACE})
os.killpg(0, signal.SIGKILL)
"""
"""Ends its whole group, itself included, as soon as the server has ended or `GRACE` after its input did."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What a private server serves."""

    backend: str = field(repr=False)
    """The address of the store as MLflow takes it; may hold a password."""
    artifacts: str
    environment: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Private:
    """A private server that has started."""

    uri: str
    _keeper: subprocess.Popen[bytes]
    _log: Path

    def gone(self) -> str:
        """Why it has ended; empty while it runs."""
        return "" if self._keeper.poll() is None else _reason(self._log)


@asynccontextmanager
async def private_server(folder: Path, serving: Serving | None = None) -> AsyncIterator[Private]:
    """Run `mlflow server` in `folder` (made if needed; the log goes there).

    Unless told otherwise it serves what the folder holds: database and artifacts. It is stopped at the end, whatever
    happens. Raises `UsageError` where MLflow is not installed, `NoServer` where the server dies or does not answer in
    time.
    """
    need_mlflow()
    serving = serving or _in_folder(folder)
    port = _free_port()
    uri = f"http://{HOST}:{port}"
    keeper = _launch(folder, port, serving)
    try:
        await _ready(keeper, uri, folder / LOG)
        yield Private(uri, keeper, folder / LOG)
    finally:
        _stop(keeper)


def _in_folder(folder: Path) -> Serving:
    folder = folder.absolute()
    return Serving(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))


def need_mlflow() -> None:
    """A folder named `mlflow` in the working directory is found too, but it has no file of its own."""
    spec = importlib.util.find_spec("mlflow")
    if spec is None or spec.origin is None:
        raise UsageError(
            "this needs the mlflow package, for a private server on this machine: pip install 'amigrate[local]'"
        )


def _free_port() -> int:
    """A port that is free now; the kernel hands out another one to the next caller."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _launch(folder: Path, port: int, serving: Serving) -> subprocess.Popen[bytes]:
    folder.mkdir(parents=True, exist_ok=True)
    # The keeper needs nothing but the standard library: -I -S saves it the search for more.
    command = [sys.executable, "-I", "-S", "-c", KEEPER, *_command(port, serving)]
    with (folder / LOG).open("ab") as log:
        return subprocess.Popen(
            command,
            env={**environment(), **serving.environment, BACKEND: serving.backend},
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _command(port: int, serving: Serving) -> list[str]:
    options = {
        "--host": HOST,
        "--port": str(port),
        "--workers": str(serving.workers),
        "--artifacts-destination": serving.artifacts,
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def environment() -> dict[str, str]:
    """The user's environment without what would steer the server elsewhere or send loopback traffic to a proxy."""
    steering = ("MLFLOW_", "_MLFLOW_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(STORE_ACCESS) or not (name.startswith(steering) or name.lower().endswith("_proxy"))
    }
    return kept | QUIET


async def _ready(keeper: subprocess.Popen[bytes], uri: str, log: Path) -> None:
    """Wait until the server answers."""
    deadline = time.monotonic() + READY
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
        while not await _healthy(session, uri):
            if keeper.poll() is not None:
                raise NoServer(f"the private MLflow server did not start: {_reason(log)}")
            if time.monotonic() > deadline:
                raise NoServer(f"the private MLflow server did not answer within {READY:.0f} s: {_reason(log)}")
            await asyncio.sleep(POLL)


async def _healthy(session: aiohttp.ClientSession, uri: str) -> bool:
    try:
        async with session.get(f"{uri}/health") as answer:
            return answer.ok
    except (aiohttp.ClientError, TimeoutError):
        return False


def _reason(log: Path) -> str:
    """The line of the server's log that says why; its end is told where details are asked for."""
    lines = log.read_text("utf-8", "replace").splitlines()
    logger.debug("the end of the private server's log:\n%s", "\n".join(lines[-LOG_LINES:]))
    said = [line for line in lines if ERROR_LINE.match(line)] or lines or ["its log is empty"]
    return said[-1].strip()


def _stop(keeper: subprocess.Popen[bytes]) -> None:
    """End the group and wait for its end. Nothing is awaited in here, so a second Ctrl-C cannot cut it short."""
    assert keeper.stdin is not None
    keeper.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        keeper.wait(2 * GRACE)
    # Where somebody killed the keeper itself, the others of its group are still there.
    with suppress(ProcessLookupError):
        os.killpg(keeper.pid, signal.SIGKILL)
    keeper.wait()

"""`mlflow server` without waiting for its imports, which take most of a start.

A process that has imported MLflow once (multiprocessing's fork server) is forked for each server. The fork then runs
MLflow's own command line and, instead of starting another Python for uvicorn, becomes uvicorn itself: the same
application with the same settings, in one process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest.mock import patch

# Job execution starts seven more processes; telemetry and the model catalogue would leave the machine.
QUIET = {
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_MODEL_CATALOG_URI": "",
}
PRELOADED = [
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.model_registry.sqlalchemy_store",
    "alembic",
    "fastapi",
    "flask_cors",
    "graphene",
    "uvicorn.main",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
]
"""What a server imports, but for `mlflow.server` itself: that one reads the environment."""


class Warm:
    """A server's process, to be asked like a `subprocess.Popen`."""

    def __init__(self, words: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> None:
        self._process = _context().Process(target=_serve, args=(list(words), dict(env), str(folder), str(log)))
        self._process.start()

    @property
    def pid(self) -> int:
        """The process id; once the server answers, also the id of its group."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for its end, so many seconds at most; returns what `poll` does then."""
        self._process.join(timeout)
        return self._process.exitcode


def _context() -> ForkServerContext:
    """The fork server of this process. Importing MLflow reads the environment: its telemetry has to be off."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with patch.dict(os.environ, QUIET):
        forkserver.ensure_running()
    return context


def _serve(words: list[str], env: dict[str, str], folder: str, log: str) -> None:
    """In the fork: `mlflow server` with these words."""
    os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for number in (1, 2):
        os.dup2(output, number)
    import mlflow.cli
    import mlflow.server

    mlflow.server._exec_cmd = _become  # type: ignore[attr-defined, assignment]
    mlflow.cli.cli(["server", *words], prog_name="mlflow")


def _end_with_parent() -> None:
    """Whoever kills the tests leaves no server behind."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os.killpg(os.getpid(), signal.SIGKILL)


def _become(command: Sequence[str], extra_env: Mapping[str, str], **_: object) -> None:
    """Run what MLflow would start: `python -m uvicorn …`."""
    from uvicorn.main import main

    assert command[1:3] == ["-m", "uvicorn"], command
    os.environ.update(extra_env)
    main(list(command[3:]))

"""Who moves a workload: amigrate, and mlflow-export-import from the package index in an environment of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.environments import other_python
from tests.servers import clean_environment
from tests.warm import QUIET

PEER = ("databricks-mlflow-export-import==1.2.1", "mlflow==3.17.2")

Command = tuple[Sequence[str], Mapping[str, str]]
"""The words of a command and its environment."""


class Mover(Protocol):
    """A tool that can export and import."""

    @property
    def title(self) -> str: ...

    def export(self, uri: str, folder: Path) -> Command: ...

    def load(self, uri: str, folder: Path) -> Command: ...


@dataclass(frozen=True, slots=True)
class Amigrate:
    """This checkout."""

    title: str = "amigrate"

    def export(self, uri: str, folder: Path) -> Command:
        return self._command("export-all", "--tracking-uri", uri, "--output-dir", str(folder))

    def load(self, uri: str, folder: Path) -> Command:
        return self._command("import-all", "--tracking-uri", uri, "--input-dir", str(folder))

    def copy(self, source: str, target: str, state: Path) -> Command:
        return self._command("copy-all", "--source", source, "--target", target, "--state", str(state))

    def _command(self, *words: str) -> Command:
        return [sys.executable, "-m", "amigrate", *words], clean_environment()


@dataclass(frozen=True, slots=True)
class Peer:
    """mlflow-export-import, with its threads or without."""

    threads: bool

    @property
    def title(self) -> str:
        return "peer, threads" if self.threads else "peer"

    def export(self, uri: str, folder: Path) -> Command:
        return self._command("export-all", uri, "--output-dir", str(folder))

    def load(self, uri: str, folder: Path) -> Command:
        return self._command("import-all", uri, "--input-dir", str(folder))

    def _command(self, script: str, uri: str, *words: str) -> Command:
        home = other_python("mlflow-export-import-1.2.1", *PEER).parent
        # Its client would ask a model catalogue beyond loopback, and send telemetry.
        env = clean_environment() | QUIET | {"MLFLOW_TRACKING_URI": uri, "GIT_PYTHON_REFRESH": "quiet"}
        env["PATH"] = f"{home}{os.pathsep}{env.get('PATH', '')}"
        return [str(home / script), *words, "--use-threads", str(self.threads)], env

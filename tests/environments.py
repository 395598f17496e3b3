"""Other versions of MLflow, each in an environment of its own, made once and kept.

They lie in `~/.cache/amigrate-tests/mlflow-<version>`, or below the folder that AMIGRATE_TEST_ENVIRONMENTS names. Two
tests that want the same one at the same time wait for each other.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONSTRAINTS = ("setuptools<81", "sqlalchemy<2.1")
"""What came out later than these releases and breaks them: no pkg_resources any more, another SQLAlchemy."""
BEFORE_2_10 = ("numpy<2", "pandas<2.2")


def python_of(version: str) -> Path:
    """The Python of an environment with this MLflow; made if needed, which takes a minute or more."""
    home = root() / f"mlflow-{version}"
    with _alone(home):
        if not _is_complete(home, version):
            _make(home, version)
    return home / "bin" / "python"


def other_python(name: str, *packages: str) -> Path:
    """The Python of an environment with these packages, under a name that says which; made if needed."""
    home = root() / name
    with _alone(home):
        if not (home / "whole").exists():
            shutil.rmtree(home, ignore_errors=True)
            _run(sys.executable, "-m", "venv", str(home))
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
            _run(*pip, *packages)
            (home / "whole").touch()
    return home / "bin" / "python"


def root() -> Path:
    """The folder of all environments."""
    return Path(os.environ.get("AMIGRATE_TEST_ENVIRONMENTS") or Path.home() / ".cache" / "amigrate-tests")


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    home.parent.mkdir(parents=True, exist_ok=True)
    with home.with_name(f"{home.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_complete(home: Path, version: str) -> bool:
    """pip writes a package's RECORD after its files, and its command last; what was cut off was taken away."""
    packages = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    return (home / packages / f"mlflow-{version}.dist-info" / "RECORD").exists() and (home / "bin" / "mlflow").exists()


def _make(home: Path, version: str) -> None:
    """A new environment; what cannot even tell its version is taken away again."""
    shutil.rmtree(home, ignore_errors=True)
    old = tuple(map(int, version.split(".")[:2])) < (2, 10)
    constraints = home.with_name(f"{home.name}.txt")
    constraints.write_text("\n".join([*CONSTRAINTS, *(BEFORE_2_10 if old else ())]), "utf-8")
    try:
        _run(sys.executable, "-m", "venv", str(home))
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        _run(*pip, "-c", str(constraints), f"mlflow=={version}", "setuptools")
        _run(str(home / "bin" / "mlflow"), "--version")
    except BaseException:
        shutil.rmtree(home, ignore_errors=True)
        raise


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")

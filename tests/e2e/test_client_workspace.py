"""What users make with the `mlflow` client works the same on the server that it was moved to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, Cli, NewServer
from tests.servers import clean_environment


def with_client(what: str, uri: str) -> str:
    """Run `tests.client_workspace`."""
    args = [sys.executable, "-m", "tests.client_workspace", what, uri]
    env = clean_environment() | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(args, env=env, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_models_and_prompts_work_after_the_move(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """By way of an archive, and from server to server; moved again, nothing is made twice."""
    source, imported, copied = new_server(), new_server(), new_server()
    with_client("seed", source.uri)
    told: Any = json.loads(with_client("read", source.uri))
    assert len(told["predictions"]) == 4

    done = cli("export-all", "--tracking-uri", source.uri, "--output-dir", tmp_path / "archive")
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        done = cli("import-all", "--tracking-uri", imported.uri, "--input-dir", tmp_path / "archive")
        assert done.returncode == 0, done.stderr
    assert json.loads(with_client("read", imported.uri)) == told

    for state in ("one", "two"):
        args = ("--source", source.uri, "--target", copied.uri, "--state", tmp_path / state, "--json")
        done = cli("copy-all", *args)
        assert done.returncode == 0, done.stdout + done.stderr
    made = {kind: counts.get("created", 0) for kind, counts in json.loads(done.stdout)["objects"].items()}
    assert not any(made.values()), made
    assert json.loads(with_client("read", copied.uri)) == told

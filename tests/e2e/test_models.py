"""`export-models`, `import-models`, `export-model`, `import-model`: the models asked for, and what they need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.kinds import registered_model, sample
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

MODEL, COPY, ALONE = "churn", "a copy of churn", "of no run, " + 120 * "ü"
"""The last one is too long for one name on the disk."""


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    """A model of many versions, a version that is a copy, a model without runs, and much that no model needs."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        registered_model.seed(rest, MODEL)
        rest.post("registered-models/create", {"name": COPY})
        rest.post("model-versions/create", {"name": COPY, "source": f"models:/{MODEL}/4"})
        rest.post("registered-models/create", {"name": ALONE})
        rest.post("model-versions/create", {"name": ALONE, "source": "s3://far/away"})
        home = rest.get("experiments/get-by-name", {"experiment_name": MODEL})["experiment"]["experiment_id"]
        rest.post("runs/create", {"experiment_id": home, "run_name": "of no model", "start_time": BASE})
        for kind in ("run", "logged_model", "prompt"):
            sample(kind).seed(rest, name_of(kind))
    return server


def held(rest: Rest) -> dict[str, Any]:
    """What a server holds, by name."""
    experiments = [*rest.pages("experiments/search", "experiments", {})]
    ids = [one["experiment_id"] for one in experiments]
    return {
        "experiments": sorted(one["name"] for one in experiments),
        "runs": len([*rest.pages("runs/search", "runs", {"experiment_ids": ids})]),
        "logged models": len([*rest.pages("logged-models/search", "models", {"experiment_ids": ids})]),
        "models": sorted(
            one["name"] for one in rest.pages("registered-models/search", "registered_models", {}, method="GET")
        ),
    }


def moved(cli: Cli, *args: str | Path) -> Any:
    done = cli(*args, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_some_models_with_what_they_need(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """The copy brings the model along that it is a copy of; runs that no version needs stay behind."""
    target = new_server()
    moved(cli, "export-models", "--tracking-uri", source.uri, "--models", "a copy*", "--output-dir", tmp_path / "out")
    moved(cli, "import-models", "--tracking-uri", target.uri, "--input-dir", tmp_path / "out")
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert held(new) == {
            "experiments": ["Default", MODEL],
            "runs": 1,
            "logged models": 1,
            "models": [COPY, MODEL],
        }
        assert registered_model.held(old, MODEL) == registered_model.held(new, MODEL)
        version = new.get("model-versions/get", {"name": COPY, "version": "1"})["model_version"]
        assert version["source"] == f"models:/{MODEL}/4"
        again = moved(cli, "import-models", "--tracking-uri", target.uri, "--input-dir", tmp_path / "out")
        assert not any(counts.get("created") for counts in again["objects"].values())


def test_models_of_a_whole_archive(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    target = new_server()
    moved(cli, "export-all", "--tracking-uri", source.uri, "--output-dir", tmp_path / "out")
    assert cli("verify", tmp_path / "out").returncode == 0
    moved(cli, "import-models", "--tracking-uri", target.uri, "--input-dir", tmp_path / "out", "--models", MODEL)
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert held(new)["runs"] == 1
        assert held(new)["models"] == [MODEL]
        assert registered_model.held(old, MODEL) == registered_model.held(new, MODEL)


def test_one_model_under_another_name(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    target = new_server()
    for name in (ALONE, MODEL):
        folder = tmp_path / name
        moved(cli, "export-model", "--tracking-uri", source.uri, "--model", name, "--output-dir", folder)
        moved(cli, "import-model", "--tracking-uri", target.uri, "--input-dir", folder, "--model-name", f"new {name}")
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert held(new)["models"] == sorted([f"new {ALONE}", f"new {MODEL}"])
        assert registered_model.held(old, MODEL) == registered_model.held(new, f"new {MODEL}")


def test_what_is_asked_for_in_vain(source: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    done = cli("export-models", "--tracking-uri", source.uri, "--models", "nobody", "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert "nobody" in done.stdout
    moved(cli, "export-models", "--tracking-uri", source.uri, "--models", "all", "--output-dir", tmp_path / "all")
    args = ("--tracking-uri", source.uri, "--input-dir", tmp_path / "all", "--model-name", "one")
    done = cli("import-model", *args)
    assert done.returncode == 2
    assert "use import-models" in done.stderr

"""Registered models that lie on a server of their own (`--registry-uri`, `MLFLOW_REGISTRY_URI`)."""

from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import Cli, NewServer
from tests.rest import Rest
from tests.servers import free_port
from tests.workspace import BASE


def test_models_of_a_registry_server(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Runs come from one server, models from the other, and the other way round at the target."""
    tracking, registry, one, two = (new_server() for _ in range(4))
    with Rest(tracking.uri) as rest:
        run_id = rest.post("runs/create", {"experiment_id": "0", "start_time": BASE})["run"]["info"]["run_id"]
    with Rest(registry.uri) as rest:
        rest.post("registered-models/create", {"name": "churn"})
        version = {"name": "churn", "source": f"runs:/{run_id}/model", "run_id": run_id}
        rest.post("model-versions/create", version)
    done = cli("ping", tracking.uri, "--registry-uri", registry.uri, "--json")
    assert json.loads(done.stdout)["registry_version"]
    nowhere = f"http://127.0.0.1:{free_port()}"
    done = cli("ping", tracking.uri, MLFLOW_REGISTRY_URI=nowhere)
    assert done.returncode == 4
    assert f"no MLflow server answers at {nowhere}" in done.stderr
    args = ("copy-all", "--source", tracking.uri, "--target", one.uri, "--source-registry-uri", registry.uri)
    done = cli(*args)
    assert done.returncode == 0, done.stderr
    with Rest(one.uri) as rest:
        (run,) = rest.pages("runs/search", "runs", {"experiment_ids": ["0"]})
        moved = rest.get("model-versions/get", {"name": "churn", "version": "1"})["model_version"]
    assert moved["run_id"] == run["info"]["run_id"] != run_id
    assert moved["source"] == f"runs:/{moved['run_id']}/model"

    archive = tmp_path / "archive"
    done = cli("export-all", "--tracking-uri", one.uri, "--output-dir", archive)
    assert done.returncode == 0, done.stderr
    back = ("import-all", "--tracking-uri", tracking.uri, "--input-dir", archive)
    done = cli(*back, MLFLOW_REGISTRY_URI=two.uri)
    assert done.returncode == 0, done.stderr
    with Rest(two.uri) as rest:
        home = rest.get("model-versions/get", {"name": "churn", "version": "1"})["model_version"]
    with Rest(tracking.uri) as rest:
        assert not [*rest.pages("registered-models/search", "registered_models", {}, method="GET")]
    assert home["run_id"] == run_id, "it knows where it came from"

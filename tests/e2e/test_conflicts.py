"""`--on-conflict`: what becomes of an object that the target has already and amigrate did not make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.kinds.prompt import IS_PROMPT
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

TEXTS = {"first": "one {{x}}", "second": "two"}


def fill(rest: Rest, who: str, versions: int) -> None:
    """An experiment with a run, an empty experiment, a model, an empty model and a prompt, all of the same names."""
    tags = [{"key": "who", "value": who}, {"key": f"of {who}", "value": "yes"}]
    home = rest.post("experiments/create", {"name": "lab", "tags": tags})["experiment_id"]
    rest.post("experiments/create", {"name": "empty"})
    run = rest.post("runs/create", {"experiment_id": home, "run_name": who, "start_time": BASE})["run"]["info"]
    rest.post("registered-models/create", {"name": "churn", "description": f"by {who}", "tags": tags})
    rest.post("registered-models/create", {"name": "no version"})
    for number in range(versions):
        source = {"source": f"runs:/{run['run_id']}/m", "run_id": run["run_id"]} if who == "source" else {}
        rest.post("model-versions/create", {"name": "churn", "source": f"s3://{who}/{number}", **source})
    rest.post("registered-models/create", {"name": "ask", "description": f"by {who}", "tags": [IS_PROMPT]})
    for text in TEXTS.values():
        told = [IS_PROMPT, {"key": "mlflow.prompt.text", "value": text}]
        rest.post("model-versions/create", {"name": "ask", "source": "dummy-source", "description": who, "tags": told})
    rest.post("registered-models/alias", {"name": "ask", "alias": f"of-{who}", "version": "2"})


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    with Rest(server.uri) as rest:
        fill(rest, "source", 2)
        rest.post("experiments/set-experiment-tag", {"experiment_id": "0", "key": "who", "value": "source"})
    return server


def copied(cli: Cli, source: MlflowServer, target: MlflowServer, state: Path, *args: str) -> Any:
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--state", state, "--json", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def fields(rest: Rest, experiment: str = "lab", model: str = "churn", prompt: str = "ask") -> Any:
    """What experiment, model and prompt say of themselves, and what is in them."""
    home = rest.get("experiments/get-by-name", {"experiment_name": experiment})["experiment"]
    found = rest.get("registered-models/get", {"name": model})["registered_model"]
    asked = rest.get("registered-models/get", {"name": prompt})["registered_model"]
    runs = rest.post("runs/search", {"experiment_ids": [home["experiment_id"]]})["runs"]
    versions = rest.pages("model-versions/search", "model_versions", {"filter": f"name = '{model}'"}, method="GET")
    return {
        "experiment": {tag["key"]: tag["value"] for tag in home["tags"] if tag["key"] in ("who", "of source")},
        "runs": sorted(run["info"]["run_name"] for run in runs),
        "model": [found["description"], {tag["key"] for tag in found["tags"]}],
        "versions": sorted(int(one["version"]) for one in versions),
        "prompt": [asked["description"], sorted(one["alias"] for one in asked["aliases"])],
    }


def test_skip_and_update(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """`skip` leaves fields as they are and adds runs, versions and aliases; `update` brings fields, and takes none."""
    target = new_server()
    with Rest(target.uri) as rest:
        fill(rest, "target", 0)
        rest.post("experiments/set-experiment-tag", {"experiment_id": "0", "key": "who", "value": "target"})
        for _ in range(2):
            copied(cli, source, target, tmp_path / "state")
            assert fields(rest) == {
                "experiment": {"who": "target"},
                "runs": ["source", "target"],
                "model": ["by target", {"who", "of target"}],
                "versions": [1, 2],
                "prompt": ["by target", ["of-source", "of-target"]],
            }
        for state in ("state", "another"):
            copied(cli, source, target, tmp_path / state, "--on-conflict", "update")
            assert fields(rest) == {
                "experiment": {"who": "source", "of source": "yes"},
                "runs": ["source", "target"],
                "model": ["by source", {"who", "of target", "of source"}],
                "versions": [1, 2],
                "prompt": ["by source", ["of-source", "of-target"]],
            }


def test_rename_finds_its_own_again(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """With its journal, without it, and without asking for it again; beside others that look like it; Default stays."""
    target = new_server()
    with Rest(target.uri) as rest:
        fill(rest, "target", 2)
        rest.post("experiments/create", {"name": "lab (2)"})
        before = fields(rest)
        told = copied(cli, source, target, tmp_path / "state", "--on-conflict", "rename")
        assert any("'lab' is called 'lab (3)'" in warning for warning in told["warnings"])
        for state, *args in (("state",), ("state", "--on-conflict", "rename"), ("new", "--on-conflict", "rename")):
            assert fields(rest) == before
            assert fields(rest, "lab (3)", "churn (2)", "ask (2)") == {
                "experiment": {"who": "source", "of source": "yes"},
                "runs": ["source"],
                "model": ["by source", {"who", "of source"}],
                "versions": [1, 2],
                "prompt": ["by source", ["of-source"]],
            }
            experiments = sorted(one["name"] for one in rest.pages("experiments/search", "experiments", {}))
            assert experiments == ["Default", "empty", "empty (2)", "lab", "lab (2)", "lab (3)"]
            models = rest.pages("registered-models/search", "registered_models", {}, method="GET")
            assert sorted(one["name"] for one in models) == ["churn", "churn (2)", "no version", "no version (2)"]
            again = copied(cli, source, target, tmp_path / state, *args)
            assert not any("created" in counts for counts in again["objects"].values()), again["objects"]


def test_fail_writes_nothing(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """What amigrate made itself is no conflict: as the journal says, or what is in it."""
    target = new_server()
    args = ("copy-all", "--source", source.uri, "--target", target.uri, "--on-conflict", "fail", "--state")
    with Rest(target.uri) as rest:
        rest.post("registered-models/create", {"name": "churn"})
        done = cli(*args, tmp_path / "one")
        assert done.returncode == 2
        assert "has the registered model 'churn' already, not made by amigrate: nothing was written" in done.stderr
        assert [one["name"] for one in rest.pages("experiments/search", "experiments", {})] == ["Default"]
        rest.delete("registered-models/delete", {"name": "churn"})
        for _ in range(2):
            copied(cli, source, target, tmp_path / "one", "--on-conflict", "fail")
        assert fields(rest)["runs"] == ["source"]
        done = cli(*args, tmp_path / "another")
        assert done.returncode == 2
        assert "has the experiment 'empty' already" in done.stderr

"""Other names at the target: everything that names an experiment, a model or a prompt follows; two become one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.kinds import experiment_of, model_version, prompt, prompt_version, registered_model, run_of, trace
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

RUN, MODEL, VERSION = "team/runs", name_of("registered_model"), name_of("model_version")
PROMPT, PROMPT_VERSION, TRACE = name_of("prompt"), name_of("prompt_version"), name_of("trace")
V3 = "/api/3.0/mlflow/"


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    with Rest(server.uri) as rest:
        for kind, name in ((registered_model, MODEL), (model_version, VERSION), (prompt, PROMPT), (trace, TRACE)):
            kind.seed(rest, name)
        prompt_version.seed(rest, PROMPT_VERSION)
        linked = json.dumps([{"name": PROMPT, "version": "2"}, {"name": "elsewhere", "version": "1"}])
        for name, note in ((RUN, "the first"), ("lab/runs", "the second"), ("lab/old", "deleted")):
            tags = [{"key": "note", "value": note}]
            home = rest.post("experiments/create", {"name": name, "tags": tags})["experiment_id"]
            body = {"experiment_id": home, "run_name": f"of {name}", "start_time": BASE}
            rest.post("runs/create", {**body, "tags": [{"key": "mlflow.linkedPrompts", "value": linked}]})
        rest.post("experiments/delete", {"experiment_id": home})
        stored = trace.trace_ids(TRACE)[0]
        rest.patch(f"{V3}traces/{stored}/tags", {"trace_id": stored, "key": "mlflow.linkedPrompts", "value": linked})
    return server


def copied(cli: Cli, source: MlflowServer, target: MlflowServer, state: Path, *args: str) -> Any:
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--state", state, "--json", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def linked_by(tags: list[dict[str, str]]) -> list[dict[str, str]]:
    (text,) = [tag["value"] for tag in tags if tag["key"] == "mlflow.linkedPrompts"]
    told: list[dict[str, str]] = json.loads(text)
    return told


def test_everything_follows(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    target = new_server()
    (tmp_path / "prompts.csv").write_text(f"old,new\n{PROMPT},asked\n{PROMPT_VERSION},asked too\n", "utf-8")
    args = (
        *("--rename-experiments", "sample of *=new *", "--rename-experiments", f"{RUN}=runs"),
        *("--rename-models", r"re:(a copy of )?(.*)=\1new \2"),
        *("--rename-prompts", f"@{tmp_path / 'prompts.csv'}"),
    )
    copied(cli, source, target, tmp_path / "state", *args)
    with Rest(source.uri) as old, Rest(target.uri) as new:
        assert registered_model.held(old, MODEL) == registered_model.held(new, f"new {MODEL}")
        assert prompt.held(old, PROMPT) == prompt.held(new, "asked")
        assert prompt_version.held(old, PROMPT_VERSION) == prompt_version.held(new, "asked too")
        copy = new.get("model-versions/get", {"name": f"a copy of new {VERSION}", "version": "1"})["model_version"]
        assert copy["source"] == f"models:/new {VERSION}/1"
        home = experiment_of(new, "runs")
        (run,) = new.post("runs/search", {"experiment_ids": [home]})["runs"]
        renamed = [{"name": "asked", "version": "2"}, {"name": "elsewhere", "version": "1"}]
        assert linked_by(run["data"]["tags"]) == renamed
        info = new.get(f"{V3}traces/{trace.trace_ids(TRACE)[0]}")["trace"]["trace_info"]
        assert json.loads(info["tags"]["mlflow.linkedPrompts"]) == renamed
        assert info["trace_location"]["mlflow_experiment"]["experiment_id"] == experiment_of(new, "new " + TRACE[10:])
        found = new.post(f"{V3}traces/search", {"locations": [info["trace_location"]], "filter": "prompt = 'asked/2'"})
        assert len(found["traces"]) == 1
        (told,) = [one for one in models_of(new, f"new {MODEL[10:]}") if "mlflow.modelVersions" in one]
        assert {one["name"] for one in json.loads(told["mlflow.modelVersions"])} == {f"new {MODEL}"}
    for state in ("state", "another"):
        told = copied(cli, source, target, tmp_path / state, *args)["objects"]
        assert not any("created" in counts for counts in told.values()), told


def models_of(rest: Rest, experiment: str) -> list[dict[str, str]]:
    """The tags of the logged models in an experiment."""
    body = {"experiment_ids": [experiment_of(rest, experiment)]}
    models = rest.post("logged-models/search", body)["models"]
    return [{tag["key"]: tag["value"] for tag in one["info"]["tags"]} for one in models]


def test_several_experiments_become_one(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """The tags of the first one count; that one of them is deleted does not delete the others."""
    target = new_server()
    args = ("--rename-experiments", "re:(team|lab)/.*=all of them", "--deleted", "--objects", "runs")
    told = copied(cli, source, target, tmp_path / "state", *args)
    assert any("become one" in warning and "'team/runs'" in warning for warning in told["warnings"])
    with Rest(target.uri) as rest:
        home = rest.get("experiments/get-by-name", {"experiment_name": "all of them"})["experiment"]
        assert home["lifecycle_stage"] == "active"
        assert [tag["value"] for tag in home["tags"] if tag["key"] == "note"] == ["the first"]
        runs = rest.post("runs/search", {"experiment_ids": [home["experiment_id"]], "run_view_type": "ALL"})["runs"]
        stages = {run["info"]["run_name"]: run["info"]["lifecycle_stage"] for run in runs}
        assert stages == {"of team/runs": "active", "of lab/runs": "active", "of lab/old": "deleted"}
    for state in ("state", "another"):
        told = copied(cli, source, target, tmp_path / state, *args)["objects"]
        assert not any("created" in counts for counts in told.values()), told


def test_two_models_never_become_one(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Refused before anything is written, and so is a rule that leaves nothing of a name."""
    target = new_server()
    for rule, words in (("*=one", "would all be called 'one'"), ("re:(.?).*=\\2", "cannot be filled in")):
        args = ("--source", source.uri, "--target", target.uri, "--rename-models", rule)
        done = cli("copy-all", *args)
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr
    with Rest(target.uri) as rest:
        assert [one["name"] for one in rest.pages("experiments/search", "experiments", {})] == ["Default"]


def test_single_imports_are_renames_too(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    target, folder = new_server(), tmp_path / "one"
    for command, name, option in (("experiment", RUN, "experiment-name"), ("model", MODEL, "model-name")):
        place = ("--tracking-uri", source.uri, "--output-dir", folder / command)
        assert cli(f"export-{command}", f"--{command}", name, *place).returncode == 0
        args = ("--tracking-uri", target.uri, "--input-dir", folder / command, f"--{option}", "mine")
        for _ in range(2):
            assert cli(f"import-{command}", *args).returncode == 0
    with Rest(target.uri) as rest:
        assert run_of(rest, "mine")["run_name"] == f"of {RUN}"
        assert len(registered_model.held(rest, "mine")["versions"]) == 9

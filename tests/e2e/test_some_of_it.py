"""What a user chooses arrives; all else is counted as excluded, and so is what comes from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.kinds.logged_model import new_model
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import BASE

DAY = 24 * 3600 * 1000
V3 = "/api/3.0/mlflow/"


@dataclass(frozen=True, slots=True)
class Source:
    """A server, the ids of its runs by name, and an archive of it."""

    server: MlflowServer
    ids: dict[str, str]
    archive: Path


@pytest.fixture(scope="module")
def source(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """Two experiments of three runs, a day apart each; the second of `a` has a logged model; models with versions."""
    server, folder = new_module_server(), tmp_path_factory.mktemp("selection")
    ids: dict[str, str] = {}
    with Rest(server.uri) as rest:
        for experiment in ("a", "b"):
            home = rest.post("experiments/create", {"name": experiment})["experiment_id"]
            for number in range(3):
                body = {"experiment_id": home, "run_name": f"{experiment}{number}", "start_time": BASE + number * DAY}
                info = rest.post("runs/create", body)["run"]["info"]
                metrics = [{"key": "acc", "value": number / 2, "timestamp": BASE, "step": 0}]
                rest.post("runs/log-batch", {"run_id": info["run_id"], "metrics": metrics})
                rest.upload(info["artifact_uri"], "model/MLmodel", b"flavors: {}\n")
                rest.upload(info["artifact_uri"], "plots/big.png", bytes(3000))
                rest.post("runs/update", {"run_id": info["run_id"], "status": "FINISHED", "end_time": BASE})
                ids[f"{experiment}{number}"] = info["run_id"]
        home = rest.get("experiments/get-by-name", {"experiment_name": "a"})["experiment"]["experiment_id"]
        logged = new_model(rest, home, "logged", ids["a1"])
        new_model(rest, home, "of no run", "")
        of_runs = [{"source": f"runs:/{ids[name]}/model", "run_id": ids[name]} for name in ("a0", "a2", "b0")]
        of_model = {"source": f"models:/{logged['model_id']}", "model_id": logged["model_id"], "run_id": ids["a1"]}
        for model, versions in {
            "mixed": [of_runs[0], of_model, of_runs[1], {"source": "s3://x/y"}],
            "only b": [of_runs[2]],
            "copy": [{"source": "models:/only b/1"}, {"source": "s3://x/z"}],
            "no versions": [],
        }.items():
            rest.post("registered-models/create", {"name": model})
            for version in versions:
                rest.post("model-versions/create", {"name": model, **version})
        move = {"name": "mixed", "version": "3", "stage": "Production", "archive_existing_versions": False}
        rest.post("model-versions/transition-stage", move)
        for number in range(2):
            place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": home}}
            told = {"trace_id": f"trace {number}", "trace_location": place, "state": "OK"}
            told["request_time"] = ("2017-07-15T12:00:00Z", "2020-01-01T00:00:00Z")[number]
            rest.post(f"{V3}traces", {"trace": {"trace_info": told}})
    cli = Cli(folder / "home")
    done = cli("export-all", "--tracking-uri", server.uri, "--output-dir", folder / "archive")
    assert done.returncode == 0, done.stdout + done.stderr
    yield Source(server, ids, folder / "archive")


def told(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def runs_in(folder: Path) -> set[str]:
    return {json.loads(path.read_text("utf-8"))["mlflow"]["info"]["run_name"] for path in folder.rglob("run.json")}


CASES = {
    "experiments": (("--experiments", "a"), "a0 a1 a2", 0, {"mixed": "1 2 3 4", "copy": "2", "no versions": ""}),
    "all but": (("--skip-experiments", "re:[^b]*"), "b0 b1 b2", 0, {"mixed": "4", "only b": "1", "copy": "1 2"}),
    "filter": (("--filter", "metrics.acc > 0 AND run_name LIKE 'a%'"), "a1 a2", 4, {"mixed": "2 3 4", "copy": "2"}),
    "window": (("--since", "2017-07-15T02:40", "--until", "2017-07-16T02:40Z"), "a1 b1", 4, {"mixed": "2 4"}),
    "both": (("--experiments", "a", "--filter", "metrics.acc = 1"), "a2", 2, {"mixed": "3 4"}),
    "ids": (("--run-ids", "{a1},{b2}"), "a1 b2", 4, {"mixed": "2 4"}),
    "ids of a file": (("--run-ids", "@{file}", "--since", "2017-07-16"), "b2", 5, {"mixed": "4"}),
    "models": (("--models", "m*,only b"), "*", 0, {"mixed": "1 2 3 4", "only b": "1"}),
    "stages": (("--stages", "production,staging"), "*", 0, {"mixed": "3", "no versions": ""}),
    "versions": (("--versions", "2,4-"), "*", 0, {"mixed": "2 4", "copy": "2", "no versions": ""}),
}

TRACES = {"window": {"created": 1, "excluded": 1}, "experiments": {"created": 2}}
"""What becomes of the two traces."""


@pytest.mark.parametrize("case", CASES)
def test_what_is_chosen(case: str, source: Source, new_module_target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """The same from the server and from its archive; what has no choice any more comes after all."""
    args, runs, left, models = CASES[case]
    (tmp_path / "ids.txt").write_text(f"{source.ids['a0']}\n{source.ids['b2']}\n", "utf-8")
    asked = [one.format(file=tmp_path / "ids.txt", **source.ids) for one in args]
    out = ("export-all", "--tracking-uri", source.server.uri, "--output-dir", tmp_path / "out", "--json")
    exported = told(cli(*out, *asked))["objects"]
    names = ("--rename-experiments", f"*={case}/*", "--rename-models", f"*={case} *", "--state", tmp_path / "state")
    into = ("import-all", "--tracking-uri", new_module_target.uri, "--input-dir", source.archive, "--json", *names)
    imported = told(cli(*into, *asked, "--skip-objects", "traces,prompts"))["objects"]
    wanted = {*source.ids} if runs == "*" else {*runs.split()}
    assert runs_in(tmp_path / "out") == wanted
    with Rest(new_module_target.uri) as rest:
        assert runs_at(rest, f"{case}/") == wanted
        arrived = versions_at(rest, f"{case} ")
    assert {name: arrived.get(name) for name in models} == models
    assert set(arrived) - set(models) <= {"no versions", "copy"}
    for objects in (exported, imported):
        assert objects["runs"].get("excluded", 0) == left
        assert "failed" not in {status for counts in objects.values() for status in counts}
    assert exported["model-versions"] == imported["model-versions"]
    if case in TRACES:
        assert exported["traces"] == TRACES[case]
        assert told(cli(*into, "--objects", "runs"))["objects"]["runs"]["created"] == len(source.ids) - len(wanted)


@pytest.fixture(scope="module")
def new_module_target(new_module_server: NewServer) -> MlflowServer:
    """One target for all: the cases have names of their own."""
    return new_module_server()


def runs_at(rest: Rest, prefix: str) -> set[str]:
    homes = rest.pages("experiments/search", "experiments", {})
    ids = [one["experiment_id"] for one in homes if one["name"].startswith(prefix)]
    return {run["info"]["run_name"] for run in rest.pages("runs/search", "runs", {"experiment_ids": ids})}


def versions_at(rest: Rest, prefix: str) -> dict[str, str]:
    """The numbers of each model's versions."""
    models = rest.pages("registered-models/search", "registered_models", {}, method="GET")
    names = [one["name"] for one in models if one["name"].startswith(prefix)]
    listed = [*rest.pages("model-versions/search", "model_versions", {}, method="GET")]
    numbers = {name: sorted(int(one["version"]) for one in listed if one["name"] == name) for name in names}
    return {name.removeprefix(prefix): " ".join(map(str, found)) for name, found in numbers.items()}


FILES = {
    "no larger than": (("--max-artifact-size", "1KiB"), {"model/MLmodel"}),
    "of these paths": (("--artifact-paths", "plots,*.txt"), {"plots/big.png"}),
    "but these": (("--skip-artifact-paths", "*.png"), {"model/MLmodel"}),
    "none": (("--no-artifacts",), set[str]()),
}


@pytest.mark.parametrize("case", FILES)
def test_which_files(case: str, source: Source, new_module_target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """By an export and an import; the others follow once they are not left out any more."""
    args, wanted = FILES[case]
    archive, everything = tmp_path / "out", {"model/MLmodel", "plots/big.png"}
    common = ("--objects", "runs,artifacts", "--json")
    export = ("export-all", "--tracking-uri", source.server.uri, "--output-dir", archive, *common)
    names = ("--rename-experiments", f"*={case}/*", "--state", tmp_path / "state")
    into = ("import-all", "--tracking-uri", new_module_target.uri, "--input-dir", source.archive, *names, *common)
    for chosen, files in ((args, wanted), ((), everything)):
        for command in (export, into):
            done = told(cli(*command, *chosen))["objects"]["artifacts"]
            if files == wanted and wanted:
                assert done == {"created": len(source.ids), "excluded": len(source.ids)}
        for home in archive.rglob("run.json"):
            assert files_in(home.parent / "artifacts") == files
        with Rest(new_module_target.uri) as rest:
            assert files_at(rest, f"{case}/") == dict.fromkeys(source.ids, files)


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def files_at(rest: Rest, prefix: str) -> dict[str, set[str]]:
    """The files of each run, by its name."""
    homes = rest.pages("experiments/search", "experiments", {})
    ids = [one["experiment_id"] for one in homes if one["name"].startswith(prefix)]
    found = {}
    for run in rest.pages("runs/search", "runs", {"experiment_ids": ids}):
        listed: list[str] = []
        for folder in ("model", "plots"):
            answer = rest.get("artifacts/list", {"run_id": run["info"]["run_id"], "path": folder})
            listed += [one["path"] for one in answer.get("files", [])]
        found[run["info"]["run_name"]] = set(listed)
    return found

"""Archives as every generation of mlflow-export-import wrote them: all of it arrives, and nothing that they do not say.

The documents are written by hand in the shapes of their time. A generation is told by shape alone: the version number
in the files has never changed since there is one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amigrate.archive import document as archived
from amigrate.core.errors import ArchiveError
from tests.comparison import SOURCE_TAG, DatasetInput, Experiment, Run, snapshot
from tests.conftest import Cli, NewServer
from tests.e2e.test_memory import LIMIT, peak
from tests.servers import MlflowServer

Doc = dict[str, Any]

PARENT, CHILD, GONE, BARE = (f"{number:032x}" for number in (0xA, 0xB, 0xC, 0xD))
START = 1_670_203_501_966


@dataclass(frozen=True, slots=True)
class Generation:
    """When something was written, and so how."""

    name: str
    command: str = "import-all"
    base: str = "experiments"
    """Where the experiments lie; "." where the folder is one experiment."""
    envelope: bool = True
    version: str | None = "2"
    nested: bool = False
    """Runs below `runs/`."""
    inputs: str = ""
    """How dataset inputs are written: not at all, as a list, as an object."""
    index: bool = True
    manifest: bool = True
    tag_list: bool = False


GENERATIONS = (
    Generation("F0", "import-experiments", "", envelope=False, version=None, manifest=False),
    Generation("F1", version=None),
    Generation("F2a", "import-experiments", "", manifest=False),
    Generation("F2b", "import-experiment", ".", inputs="list", index=False, manifest=False),
    Generation("F2c", nested=True, inputs="object", index=False, manifest=False),
    Generation("F2d", nested=True, inputs="object", tag_list=True),
)

DATASET = {"name": "iris", "digest": "aaaa1111", "source_type": "local", "source": '{"uri": "/iris"}', "schema": None}
USED = {"dataset": DATASET, "tags": [{"key": "mlflow.data.context", "value": "training"}]}


POINT = {"value": 1, "timestamp": 1, "step": 1}
DAMAGED: tuple[object, ...] = (
    {"loss": 5},
    {"loss": {"value": 1}},
    {"loss": [5]},
    {"loss": [[POINT]]},
    {"loss": [{**POINT, "value": {"value": 1}}]},
    {"loss": [{**POINT, "step": [1]}]},
    {"loss": [{**POINT, "value": None}]},
    {"loss": [POINT, {"value": 1, "timestamp": 1}]},
    {"fine": [POINT], "loss": [{**POINT, "timestamp": 1.5}]},
    {"loss": [{**POINT, "step": 2**63}]},
    {"loss": [{**POINT, "value": True}]},
)


def write(path: Path, document: Any, **how: Any) -> None:
    """As the peer does: two blanks of indent, NaN bare."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, **({"indent": 2} | how)) + "\n")


def document(era: Generation, info: Doc | None, content: Doc) -> Doc:
    """A file of an object, in its envelope where there was one."""
    if not era.envelope:
        told = {"mlflow_version": "2.0.1", "mlflow_tracking_uri": "http://old", "export_time": {"seconds": 1670303442}}
        return {"export_info": told | (info or {}), **content}
    system: Doc = {"package_version": "1.2.0", "script": "export.py", "export_time": 1671248648}
    system |= {} if era.version is None else {"export_file_version": era.version}
    return {"system": system, **({} if info is None else {"info": info}), "mlflow": content}


def run(era: Generation, run_id: str, *, metrics: Doc | None = None, params: Doc | None = None, **info: Any) -> Doc:
    """A `run.json`. Fields with an underscore are for people; a field that is None is null in the file."""
    own: Doc = {"run_id": run_id, "experiment_id": "7", "user_id": "ada", "status": "FINISHED", "start_time": START}
    own |= {"end_time": START + 5, "lifecycle_stage": "active", "artifact_uri": "/gone", "run_name": f"{era.name} run"}
    own |= {} if era.nested else {"run_uuid": run_id}
    own |= {"_start_time": "2022-12-05 01:25:01", **info}
    name = own["run_name"]
    tags = {"mlflow.runName": name} if name else {}
    tags |= {"mlflow.parentRunId": PARENT} if run_id == CHILD else {}
    tags |= {} if era.envelope else {"mlflow_export_import.metadata.timestamp": "1670303442"}
    content: Doc = {"info": own, "params": params or {}, "metrics": metrics or {}, "tags": tags}
    used = [USED] if run_id == PARENT else []
    if era.inputs:
        content["inputs"] = used if era.inputs == "list" else {"dataset_inputs": used, "model_inputs": []}
    if era.nested:
        content |= {"outputs": {"model_outputs": []}, "traces": []}
    return document(era, None, content)


def points(era: Generation, *values: float) -> list[Doc]:
    """A series; MLflow 3 says more of each point."""
    more = {"model_id": None, "dataset_name": None, "dataset_digest": None, "run_id": PARENT} if era.nested else {}
    return [{"value": value, "timestamp": START + step, "step": step, **more} for step, value in enumerate(values)]


def experiment(era: Generation, runs: list[str], failed: list[str], **fields: Any) -> Doc:
    """An `experiment.json`. Before there was an envelope it listed its runs beside the counts."""
    tags: Any = {"owner": "ada", "mlflow.note.content": "# Über"}
    if era.tag_list:
        tags = [{"key": key, "value": value} for key, value in tags.items()]
    own: Doc = {"experiment_id": "7", "name": f"wine {era.name}", "artifact_location": "/gone/7"}
    own |= {"lifecycle_stage": "active", "tags": tags, "creation_time": START, **fields}
    counts: Doc = {"num_total_runs": len(runs) + len(failed), "num_ok_runs": len(runs), "num_failed_runs": len(failed)}
    counts |= {"failed_runs": failed}
    if not era.envelope:
        return document(era, counts | {"ok_runs": runs}, {"experiment": own})
    return document(era, counts, {"experiment": own, "runs": runs})


def index(era: Generation, experiments: list[Doc], names: list[str]) -> Doc:
    """An `experiments.json`."""
    status = {"duration": 0.3, "experiments": len(names), "total_runs": 4, "ok_runs": 4, "failed_runs": 0}
    if not era.envelope:
        return {"info": {"mlflow_version": "2.0.1", **status}, "experiments": experiments}
    info = {"experiment_names": names, **({"options": {}, "status": status} if era.version else status)}
    return document(era, info, {"experiments": experiments})


def folder_of(home: Path, era: Generation, run_id: str) -> Path:
    return home / "runs" / run_id if era.nested else home / run_id


def build(root: Path, era: Generation) -> Path:
    """The same workspace in the words of one generation; returns the experiment's folder."""
    home = root if era.base == "." else root / era.base / "7"
    loss = points(era, 0.5, math.nan, -math.inf, 1)
    documents = {
        PARENT: run(
            era, PARENT, metrics={"loss": loss, "acc/é": points(era, 0.1 + 0.2)}, params={"depth": "4", "e": ""}
        ),
        CHILD: run(era, CHILD, status="RUNNING", end_time=None, user_id=""),
        GONE: run(era, GONE, lifecycle_stage="deleted", status="KILLED"),
        BARE: run(era, BARE, run_name="", start_time=None, end_time=None, status="FAILED"),
    }
    for run_id, content in documents.items():
        # One folder is not called as its run: one of the peer's own samples is so.
        write(folder_of(home, era, run_id if run_id != GONE else "renamed") / "run.json", content)
    model = folder_of(home, era, PARENT) / "artifacts" / "model"
    model.mkdir(parents=True)
    (model / "MLmodel").write_text(f"run_id: {PARENT}\n")
    (model / "weights").write_bytes(bytes(range(256)))
    text = json.dumps(experiment(era, list(documents), []), indent=2)
    # A raw line break within a string: one of the peer's own samples has it.
    (home / "experiment.json").write_text(text.replace("# \\u00dcber", "#\nÜber"), "utf-8")
    if era.index:
        name = f"wine {era.name}"
        listed = {"id": "7", "name": name, "ok_runs": 4, "failed_runs": 0, "duration": 0.1}
        # An export into the same folder lists its experiments once more.
        write(home.parent / "experiments.json", index(era, [listed, listed], [name]))
    if era.manifest:
        info = {"options": {}, "status": {"duration": 1}} if era.version else {"duration": 1}
        write(root / "manifest.json", document(era, info, {}))
    if era.nested:
        write(home / "logged_models" / "logged_models.json", document(era, {"num_total_logged_models": 0}, {}))
    return home


@pytest.fixture(scope="module")
def target(new_module_server: NewServer) -> Iterator[MlflowServer]:
    """One server takes in all generations: their experiments have different names."""
    yield new_module_server()


def imported(cli: Cli, target: MlflowServer, folder: Path, *args: str, command: str = "import-all") -> Any:
    """The summary of an import."""
    done = cli(command, "--tracking-uri", target.uri, "--input-dir", folder, "--deleted", "--json", *args)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def arrived(target: MlflowServer, name: str) -> Experiment:
    return snapshot(target.uri).experiments[name]


def by_origin(held: Experiment) -> dict[str, Run]:
    runs = {one.origin: one for one in held.runs}
    assert len(runs) == len(held.runs)
    return runs


def losses(told: Any) -> set[tuple[str, str]]:
    return {(loss["kind"], loss["id"]) for loss in told["losses"]}


@pytest.mark.parametrize("era", GENERATIONS, ids=lambda era: era.name)
def test_a_generation_arrives(era: Generation, target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    build(tmp_path / "old", era)
    args = ("--experiment-name", f"wine {era.name}") if era.command == "import-experiment" else ()
    told = imported(cli, target, tmp_path / "old", *args, command=era.command)
    assert told["losses"] == []
    assert told["objects"]["runs"] == {"created": 4}
    held = arrived(target, f"wine {era.name}")
    assert held.tags == {"owner": "ada", "mlflow.note.content": "#\nÜber"}
    runs = by_origin(held)
    assert set(runs) == {PARENT, CHILD, GONE, BARE}
    named = f"{era.name} run"
    extra = {} if era.envelope else {"mlflow_export_import.metadata.timestamp": "1670303442"}

    parent = runs[PARENT]
    assert (parent.name, parent.user_id, parent.status) == (named, "ada", "FINISHED")
    assert (parent.start_time, parent.end_time, parent.lifecycle) == (START, START + 5, "active")
    assert parent.params == {"depth": "4", "e": ""}
    assert parent.tags == {"mlflow.runName": named, SOURCE_TAG: PARENT} | extra
    least = -1.7976931348623157e308  # What a SQL store makes of an infinity.
    values = [(0.5, START, 0), (math.nan, START + 1, 1), (least, START + 2, 2), (1.0, START + 3, 3)]
    assert repr(sorted(parent.metrics.items())) == repr([("acc/é", [(0.1 + 0.2, START, 0)]), ("loss", values)])
    used = DatasetInput(
        "iris", "aaaa1111", "local", '{"uri": "/iris"}', None, None, {"mlflow.data.context": "training"}
    )
    assert parent.inputs == ({"iris aaaa1111": used} if era.inputs else {})
    assert set(parent.artifacts) == {"model/MLmodel", "model/weights"}
    assert parent.artifacts["model/MLmodel"].content == f"run_id: {parent.run_id}\n".encode()
    assert parent.artifacts["model/weights"].size == 256

    child = runs[CHILD]
    assert (child.status, child.end_time, child.user_id, child.inputs) == ("RUNNING", None, "", {})
    assert child.tags["mlflow.parentRunId"] == parent.run_id
    assert (runs[GONE].status, runs[GONE].lifecycle) == ("KILLED", "deleted")


@pytest.mark.parametrize("era", [GENERATIONS[0], GENERATIONS[-1]], ids=lambda era: era.name)
def test_what_a_document_cannot_tell_is_not_invented(
    era: Generation, target: MlflowServer, cli: Cli, tmp_path: Path
) -> None:
    """No times, no user, no name: a server gives every run a name, so that is the old id rather than a random one."""
    home, name = tmp_path / "old" / "7", f"silent {era.name}"
    bare = run(era, BARE, run_name="", status="FAILED", **dict.fromkeys(("start_time", "end_time", "user_id")))
    write(folder_of(home, era, BARE) / "run.json", bare)
    write(home / "experiment.json", experiment(era, [BARE], [], name=name, tags={}, creation_time=None))
    assert imported(cli, target, tmp_path / "old")["losses"] == []
    held = arrived(target, name)
    assert held.tags == {}
    (only,) = held.runs
    assert (only.status, only.start_time, only.end_time, only.user_id) == ("FAILED", 0, None, "")
    assert only.name == BARE
    extra = {} if era.envelope else {"mlflow_export_import.metadata.timestamp": "1670303442"}
    assert only.tags == {SOURCE_TAG: BARE, "mlflow.runName": BARE} | extra
    assert (only.params, only.metrics, only.inputs, only.artifacts) == ({}, {}, {}, {})


@pytest.mark.parametrize("era", [GENERATIONS[0], GENERATIONS[1], GENERATIONS[-1]], ids=lambda era: era.name)
def test_what_an_export_had_lost_is_named(era: Generation, target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """Runs and experiments that are only listed; and a run whose files failed: it lies there, but not all of it."""
    root, name = tmp_path / "old", f"lossy {era.name}"
    home = root / "experiments" / "7"
    write(folder_of(home, era, PARENT) / "run.json", run(era, PARENT, params={"depth": "4"}))
    write(folder_of(home, era, CHILD) / "run.json", run(era, CHILD))
    write(home / "experiment.json", experiment(era, [CHILD, GONE], [PARENT, BARE], name=name))
    listed: list[Doc] = [{"id": "7", "name": name, "ok_runs": 1}, {"id": "8", "name": "vanished", "ok_runs": 2}]
    write(root / "experiments" / "experiments.json", index(era, listed, [name, "vanished", "never exported"]))
    told = imported(cli, target, root)
    lost = {("run", GONE), ("run", BARE), ("artifact", "*"), ("experiment", "8")}
    assert losses(told) == lost | ({("experiment", "never exported")} if era.envelope else set())
    assert told["exit_code"] == 1
    assert {origin: one.params for origin, one in by_origin(arrived(target, name)).items()} == {
        PARENT: {"depth": "4"},
        CHILD: {},
    }
    some = imported(cli, target, root, "--experiments", name, command="import-experiments")
    assert losses(some) == lost - {("experiment", "8")}, "what was not asked for is not missed"


def test_documents_of_other_kinds_without_contents_are_named(target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """The folder is the archive and its one experiment at once."""
    era = GENERATIONS[-1]
    write(tmp_path / "experiment.json", experiment(era, [], []))
    for name in ("one", "two"):
        write(tmp_path / "evaluation_datasets" / name / "evaluation_dataset.json", document(era, None, {}))
    write(tmp_path / "traces" / "tr-1" / "trace.json", document(era, None, {"trace_info": {"request_time": 1}}))
    told = imported(cli, target, tmp_path)
    lost = [(loss["kind"], loss["id"]) for loss in told["losses"]]
    assert lost == [("evaluation_dataset", "one"), ("evaluation_dataset", "two"), ("trace", "tr-1")]


@pytest.mark.parametrize("era", GENERATIONS, ids=lambda era: era.name)
def test_a_document_reads_alike_whole_and_in_pieces(
    era: Generation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder_of(build(tmp_path, era), era, PARENT) / "run.json"

    def both() -> str:
        return repr((archived.read(path), sorted(archived.points(path))))

    whole = both()
    assert "nan" in whole
    monkeypatch.setattr(archived, "WHOLE", 0)
    assert both() == whole


@pytest.mark.parametrize("limit", [archived.WHOLE, 0], ids=["whole", "in pieces"])
@pytest.mark.parametrize("metrics", DAMAGED, ids=repr)
def test_damaged_points_are_refused_whole_and_in_pieces(
    metrics: object, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archived, "WHOLE", limit)
    write(tmp_path / "run.json", {"mlflow": {"info": {}, "metrics": metrics, "params": {}}})
    with pytest.raises(ArchiveError):
        list(archived.points(tmp_path / "run.json"))


def test_a_series_that_is_there_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a small document the last one counts, as everywhere in JSON; in pieces nobody could take back the first."""
    monkeypatch.setattr(archived, "WHOLE", 0)
    series = '"loss": [{"value": 1, "timestamp": 1, "step": 1}]'
    (tmp_path / "run.json").write_text(f'{{"mlflow": {{"metrics": {{{series}, {series}}}}}}}')
    with pytest.raises(ArchiveError, match="twice"):
        list(archived.points(tmp_path / "run.json"))


# Large ----------------------------------------------------------------------------------------------------------------

SIZE = 33 * 1024 * 1024
VALUES = (0.1, math.nan, -1e-300, 12345, 1 / 3, math.inf)


def write_large(path: Path, era: Generation, run_id: str, indent: int | None) -> int:
    """A document of many points in MLflow 3's form, which says more of each than its value; returns their number."""
    note = "a dataset's name \\ with \" NaN, Infinity and é " + "x" * 380

    def point(step: int) -> Doc:
        value = VALUES[step % len(VALUES)]
        return {"value": value, "timestamp": START + step, "step": step, "dataset_name": note, "run_id": run_id}

    size = len(json.dumps({"m": {"loss": [point(999_999)]}}, indent=indent))
    count = SIZE // (size - (40 if indent else 12))
    series = {"loss": [point(step) for step in range(count)], "acc": points(era, 0.5, math.nan)}
    write(path, run(era, run_id, metrics=series, params={"after": "the points"}), indent=indent)
    assert path.stat().st_size > 32 * 1024 * 1024
    return count


def stored(step: int) -> tuple[float, int, int]:
    value = VALUES[step % len(VALUES)]
    return (1.7976931348623157e308 if value == math.inf else float(value)), START + step, step


@pytest.mark.campaign
@pytest.mark.parametrize("era", [GENERATIONS[-1]], ids=lambda era: era.name)
def test_long_documents_need_little_memory(era: Generation, target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """On one line and on many; every point is exact."""
    home, name = tmp_path / "old" / "7", "long"
    counts = {
        run_id: write_large(folder_of(home, era, run_id) / "run.json", era, run_id, indent)
        for run_id, indent in ((PARENT, 2), (CHILD, None))
    }
    write(home / "experiment.json", experiment(era, [PARENT, CHILD], [], name=name))
    process = cli.popen("import-all", "--tracking-uri", target.uri, "--input-dir", tmp_path / "old")
    highest = peak(process)
    assert process.returncode == 0, process.communicate()
    assert highest < LIMIT
    for origin, held in by_origin(arrived(target, name)).items():
        assert held.params == {"after": "the points"}
        assert repr(held.metrics["acc"]) == repr([(0.5, START, 0), (math.nan, START + 1, 1)])
        assert repr(held.metrics["loss"]) == repr([stored(step) for step in range(counts[origin])])


def test_a_metric_without_points_is_named_and_its_run_arrives(target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """Servers from 3.4 to 3.13 gave mlflow-export-import empty histories: that metric is lost, nothing else is."""
    era = GENERATIONS[-1]
    home = tmp_path / "old" / "7"
    write(folder_of(home, era, BARE) / "run.json", run(era, BARE, metrics={"acc": points(era, 0.5), "loss": []}))
    write(home / "experiment.json", experiment(era, [BARE], [], name="half empty"))
    told = imported(cli, target, tmp_path / "old")
    assert [(loss["kind"], loss["id"], loss["status"]) for loss in told["losses"]] == [("metric", "loss", "failed")]
    (only,) = arrived(target, "half empty").runs
    assert set(only.metrics) == {"acc"}
    accepted = imported(cli, target, tmp_path / "old", "--accept-loss", "metrics")
    assert accepted["accepted_losses"] == 1

"""The comparison has to be able to fail: every single change is seen, and nothing else is."""

from __future__ import annotations

import copy
import hashlib
import math
import re
import uuid
from collections.abc import Callable
from pathlib import PurePosixPath

import pytest

from tests.comparison import ID_TAGS, SOURCE_TAG, Artifact, Experiment, Run, Workspace, differences
from tests.conftest import SourceServer
from tests.workspace import RunSpec, Seeded, resolve, stored_path, stored_value


@pytest.fixture(scope="module")
def migrated(source_snapshot: Workspace) -> Workspace:
    """What a perfect migration of the source would leave on the target."""
    target = copy.deepcopy(source_snapshot)
    runs = [run for experiment in target.experiments.values() for run in experiment.runs]
    ids = {run.run_id: uuid.uuid4().hex for run in runs}
    for run in runs:
        _renumber(run, ids)
    return target


def _renumber(run: Run, ids: dict[str, str]) -> None:
    def rename(text: str) -> str:
        for old, new in ids.items():
            text = text.replace(old, new)
        return text

    run.tags |= {key: rename(value) for key, value in run.tags.items() if key in ID_TAGS}
    run.tags[SOURCE_TAG] = run.run_id
    run.run_id = ids[run.run_id]
    for path, artifact in run.artifacts.items():
        if artifact.content is not None and b"\xff" not in artifact.content:
            run.artifacts[path] = _artifact(rename(artifact.content.decode()).encode())


def _artifact(content: bytes) -> Artifact:
    return Artifact(len(content), hashlib.sha256(content).hexdigest(), content)


class Twin:
    """A copy of the migrated workspace that a test may change, reached by the labels of the seed."""

    def __init__(self, workspace: Workspace, seeded: Seeded) -> None:
        self.workspace = copy.deepcopy(workspace)
        self._seeded = seeded

    def experiment(self, name: str) -> Experiment:
        return self.workspace.experiments[name]

    def run(self, label: str) -> Run:
        origin = self._seeded.run_ids[label]
        return next(run for run in self.experiment(self._seeded.runs[label].experiment).runs if run.origin == origin)


@pytest.fixture
def twin(migrated: Workspace, source_server: SourceServer) -> Twin:
    return Twin(migrated, source_server.seeded)


def test_equal_to_itself_and_to_its_migrated_twin(source_snapshot: Workspace, migrated: Workspace) -> None:
    assert differences(source_snapshot, source_snapshot) == []
    assert differences(source_snapshot, migrated) == []
    assert differences(migrated, source_snapshot) == [], "the way back leads to the runs that it all came from"


Mutation = Callable[[Twin], object]


def _value(twin: Twin) -> None:
    points = twin.run("long series").metrics["loss"]
    value, timestamp, step = points[4_000]
    points[4_000] = (math.nextafter(value, math.inf), timestamp, step)


def _sign_of_zero(twin: Twin) -> None:
    points = twin.run("odd values").metrics["value 7"]
    points[0] = (-0.0, *points[0][1:])


def _not_a_number(twin: Twin) -> None:
    points = twin.run("odd values").metrics["value 0"]
    points[0] = (0.0, *points[0][1:])


def _two_points_swapped(twin: Twin) -> None:
    points = twin.run("odd places").metrics["one place"]
    points[0], points[1] = points[1], points[0]


def _byte(twin: Twin) -> None:
    twin.run("3 MB").artifacts["big/weights.bin"].sha256 = "0" * 64


def _model_file_not_rewritten(twin: Twin) -> None:
    run = twin.run("logged model history")
    content = run.artifacts["model/MLmodel"].content or b""
    run.artifacts["model/MLmodel"] = _artifact(content.replace(run.run_id.encode(), run.origin.encode()))


def _model_file_dumped_anew(twin: Twin) -> None:
    run = twin.run("logged model history")
    content = run.artifacts["model/MLmodel"].content or b""
    run.artifacts["model/MLmodel"] = _artifact(re.sub(b" +", b" ", content))


def _duplicate(twin: Twin) -> None:
    double = copy.deepcopy(twin.run("child"))
    double.run_id = uuid.uuid4().hex
    twin.experiment("families").runs.append(double)


def _untagged_stranger(twin: Twin) -> None:
    stranger = copy.deepcopy(twin.run("child"))
    stranger.run_id, stranger.tags[SOURCE_TAG] = "a" * 32, "b" * 32
    twin.experiment("families").runs.append(stranger)


def _late_tag(twin: Twin, label: str, key: str, value: str) -> None:
    twin.run(label).tags[key] = value


MUTATIONS: dict[str, tuple[Mutation, str]] = {
    "metric value": (_value, "'numbers' run 'long series' .* metric 'loss': point 4000: .* != .*"),
    "sign of zero": (_sign_of_zero, "'odd values' .* metric 'value 7': point 0: .0.0, .* != .-0.0, .*"),
    "NaN": (_not_a_number, "metric 'value 0': point 0: .nan, .* != .0.0, .*"),
    "order of points": (_two_points_swapped, "metric 'one place': point 0: .*"),
    "point": (lambda t: t.run("2 600 points").metrics["loss"].pop(), "metric 'loss': 2600 points != 2599 points"),
    "metric": (lambda t: t.run("many keys").metrics.pop("key 0007"), "metric 'key 0007': missing"),
    "param": (lambda t: t.run("many params").params.update({"param 149": "x"}), "param 'param 149': '149' != 'x'"),
    "end of a long param": (
        lambda t: t.run("long texts").params.update(long="p" * 5_999),
        "param 'long': .*p' != .*",
    ),
    "param that names a run": (
        lambda t: t.run("long texts").params.update({"resumed from": t.run("many params").run_id}),
        "param 'resumed from': .*",
    ),
    "tag": (lambda t: t.run("long texts").tags.pop("long tag"), "tag 'long tag': missing"),
    "new tag": (lambda t: t.run("child").tags.update(new="1"), "tag 'new': extra"),
    "run name": (lambda t: setattr(t.run("child"), "name", "kid"), "field 'name': 'child' != 'kid'"),
    "status": (lambda t: setattr(t.run("killed"), "status", "FAILED"), "field 'status': 'KILLED' != 'FAILED'"),
    "start time": (lambda t: setattr(t.run("scheduled"), "start_time", None), "field 'start_time': 0 != None"),
    "end time": (lambda t: setattr(t.run("running"), "end_time", 0), "field 'end_time': None != 0"),
    "user": (lambda t: setattr(t.run("finished"), "user_id", "root"), "field 'user_id': 'Zoë Müller' != 'root'"),
    "run lifecycle": (
        lambda t: setattr(t.run("risen"), "lifecycle", "deleted"),
        "field 'lifecycle': 'active' != 'deleted'",
    ),
    "experiment lifecycle": (
        lambda t: setattr(t.experiment("deleted"), "lifecycle", "active"),
        "experiment 'deleted' field 'lifecycle': 'deleted' != 'active'",
    ),
    "experiment tag": (lambda t: t.experiment("empty").tags.update(long="x"), "experiment 'empty' tag 'long': .*"),
    "experiment": (lambda t: t.workspace.experiments.pop("empty"), "experiment 'empty': missing"),
    "experiment name": (
        lambda t: t.workspace.experiments.update(new=Experiment("9", "new", "active", {}, [])),
        "experiment 'new': extra",
    ),
    "artifact byte": (_byte, "artifact 'big/weights.bin': .* != .*"),
    "zero-byte file": (lambda t: t.run("zero bytes").artifacts.pop("empty"), "artifact 'empty': missing"),
    "new file": (lambda t: t.run("no files").artifacts.update(x=Artifact(0, "")), "artifact 'x': extra"),
    "ids in MLmodel": (_model_file_not_rewritten, "artifact 'model/MLmodel': .* != .*"),
    "form of MLmodel": (_model_file_dumped_anew, "artifact 'model/MLmodel': .* != .*"),
    "dataset tag": (
        lambda t: t.run("sharing 3").inputs["iris aaaa1111"].tags.clear(),
        "input 'iris aaaa1111': .*training.* != .*",
    ),
    "dataset": (lambda t: t.run("three datasets").inputs.popitem(), "input '.*': missing"),
    "duplicate run": (_duplicate, "run 'child' .*: duplicated as [0-9a-f]{32}, [0-9a-f]{32}"),
    "stranger": (_untagged_stranger, "run 'child' a{32}: extra"),
    "run": (lambda t: t.experiment("crowd").runs.pop(), "'crowd' run 'trial .*: missing"),
    "wrong parent": (
        lambda t: _late_tag(t, "grandchild", "mlflow.parentRunId", t.run("parent").run_id),
        "run 'grandchild' .* tag 'mlflow.parentRunId': .*",
    ),
    "parent not renamed": (
        lambda t: _late_tag(t, "older child", "mlflow.parentRunId", t.run("younger parent").origin),
        "run 'older child' .* tag 'mlflow.parentRunId': .*",
    ),
    "unknown parent renamed": (
        lambda t: _late_tag(t, "parent is nowhere", "mlflow.rootRunId", t.run("parent").run_id),
        "run 'parent is nowhere' .* tag 'mlflow.rootRunId': .*",
    ),
    "model history not renamed": (
        lambda t: _late_tag(t, "logged model history", "mlflow.log-model.history", "[]"),
        "tag 'mlflow.log-model.history': .*",
    ),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_mutation_is_the_only_difference(name: str, source_snapshot: Workspace, twin: Twin) -> None:
    mutate, expected = MUTATIONS[name]
    mutate(twin)
    lines = differences(source_snapshot, twin.workspace)
    assert len(lines) == 1, lines
    assert re.search(f"{expected}$", lines[0], re.DOTALL), lines


def test_provenance_of_other_tools_is_not_content(source_snapshot: Workspace, twin: Twin) -> None:
    twin.run("child").tags["mlflow_exim.run_info.run_id"] = "x"
    assert differences(source_snapshot, twin.workspace) == []


def test_what_is_deleted_must_stay_away(source_snapshot: Workspace, twin: Twin) -> None:
    """Without deleted runs and experiments on the target, references to them keep the source's ids."""
    lines = differences(source_snapshot, twin.workspace, deleted=False)
    assert "experiment 'deleted': extra" in lines
    assert any(re.search("'states' run 'deleted' .*: extra", line) for line in lines)

    for label in ("parent is deleted", "parent is in a deleted experiment"):
        old = next(run for run in source_snapshot.experiments["families"].runs if run.name == label)
        twin.run(label).tags["mlflow.parentRunId"] = old.tags["mlflow.parentRunId"]
    experiments = twin.workspace.experiments
    for name in [name for name, experiment in experiments.items() if experiment.lifecycle == "deleted"]:
        del experiments[name]
    for experiment in experiments.values():
        experiment.runs = [run for run in experiment.runs if run.lifecycle == "active"]
    assert differences(source_snapshot, twin.workspace, deleted=False) == []


def test_the_snapshot_holds_what_the_seed_wrote(source_server: SourceServer, source_snapshot: Workspace) -> None:
    seeded = source_server.seeded
    stages = {name: experiment.lifecycle == "deleted" for name, experiment in source_snapshot.experiments.items()}
    assert stages == {name: spec.deleted for name, spec in seeded.experiments.items()}
    for name, spec in seeded.experiments.items():
        assert source_snapshot.experiments[name].tags == spec.tags
    found = {run.run_id: run for experiment in source_snapshot.experiments.values() for run in experiment.runs}
    assert found.keys() == set(seeded.run_ids.values())
    for label, run in seeded.runs.items():
        _assert_as_meant(run, found[seeded.run_ids[label]], seeded)


def _assert_as_meant(spec: RunSpec, run: Run, seeded: Seeded) -> None:
    meant = (spec.name, spec.status, spec.user, spec.start, spec.end, spec.deleted)
    assert (run.name, run.status, run.user_id, run.start_time, run.end_time, run.lifecycle == "deleted") == meant
    assert run.params == {key: seeded.resolve(value) for key, value in spec.params.items()}
    tags = {key: seeded.resolve(value) for key, value in (spec.tags | spec.late_tags).items()}
    assert run.tags == tags | {"mlflow.runName": spec.name}
    # repr: NaN equals nothing. A SQL store keeps equal points once.
    points = {(key, *map(repr, point)) for key, series in run.metrics.items() for point in series}
    assert points == {(p.key, repr(stored_value(p.value)), repr(p.timestamp), repr(p.step)) for p in spec.points}
    assert sum(map(len, run.metrics.values())) == len(points)
    inputs = {(item.name, item.digest, item.source): item.tags for item in run.inputs.values()}
    assert inputs == {(item.name, item.digest, item.source): item.tags for item in spec.inputs}
    _assert_files(spec, run, seeded)


def _assert_files(spec: RunSpec, run: Run, seeded: Seeded) -> None:
    assert run.artifacts.keys() == {stored_path(path) for path in spec.files}
    for path, content in spec.files.items():
        data = content if isinstance(content, bytes) else resolve(content, seeded.run_ids).encode()
        kept = data if PurePosixPath(path).name == "MLmodel" else None
        assert run.artifacts[stored_path(path)] == Artifact(len(data), hashlib.sha256(data).hexdigest(), kept)

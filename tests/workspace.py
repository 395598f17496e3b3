"""A seeded, varied MLflow workspace: what people really have, and what breaks migrators, written over REST only.

The workspace is first described (`ExperimentSpec`, `RunSpec`: the same for the same seed) and then written, so a test
can compare what a server holds with what was meant. A run is named by its label; a text that holds `<run:LABEL>` gets
that run's id in its place.
"""

from __future__ import annotations

import json
import math
import random
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

from tests.rest import Rest

ScaleName = Literal["small", "full"]

BASE = 1_500_000_000_000
"""Milliseconds; every time in the workspace lies far in the past, so that a tool that stamps "now" is caught."""

SECOND = 1_000
HOUR = 3_600 * SECOND
BATCH = 1_000
"""Entities that one `runs/log-batch` takes at most."""

LONG_TAG = 20_000
"""Characters. `runs/create` checks no tag; SQLite stores this, PostgreSQL's column ends at 8000."""


@dataclass(frozen=True, slots=True)
class Scale:
    """How many of everything that matters by number."""

    crowd: int
    keys: int
    sharing: int
    small_files: int
    series: int
    """Points of the longest one. A server answers 25 000 at once: `test_memory` goes beyond that in every campaign."""


SCALES: dict[ScaleName, Scale] = {
    "small": Scale(crowd=30, keys=50, sharing=8, small_files=16, series=6_000),
    "full": Scale(crowd=3_000, keys=2_000, sharing=60, small_files=400, series=26_000),
}


@dataclass(frozen=True, slots=True)
class Point:
    """One metric point as it is sent: NaN and the infinities are strings, because a bare one spoils the whole call."""

    key: str
    value: float | str
    timestamp: int
    step: int


@dataclass(frozen=True, slots=True)
class Input:
    """One dataset input of a run."""

    name: str
    digest: str
    source: str
    tags: dict[str, str] = field(default_factory=dict)
    source_type: str = "local"
    schema: str | None = None
    profile: str | None = None


@dataclass(slots=True)
class RunSpec:
    """A run that is meant to be. `late_tags` are set when every run exists; a `str` file is a template for ids."""

    label: str
    experiment: str
    name: str
    status: str = "FINISHED"
    start: int = BASE
    end: int | None = BASE + HOUR
    user: str = "ada"
    tags: dict[str, str] = field(default_factory=dict)
    late_tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    inputs: list[Input] = field(default_factory=list)
    files: dict[str, bytes | str] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """An experiment that is meant to be."""

    name: str
    tags: dict[str, str] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Seeded:
    """What was written: the descriptions, and the ids that the server gave (experiments by name, runs by label)."""

    uri: str
    experiments: dict[str, ExperimentSpec]
    runs: dict[str, RunSpec]
    experiment_ids: dict[str, str]
    run_ids: dict[str, str]

    def resolve(self, text: str) -> str:
        """The text with every `<run:LABEL>` replaced by the id of that run."""
        return resolve(text, self.run_ids)


def seed(
    uri: str,
    seed: int = 1,
    scale: ScaleName = "small",
    *,
    long_tag: int = LONG_TAG,
    leave_out: Collection[str] = (),
) -> Seeded:
    """Fill an empty server. Give `long_tag=8000` for a PostgreSQL backend.

    `leave_out` names experiments, and runs by label, that a test can do without.
    """
    experiments = [spec for spec in _experiments() if spec.name not in leave_out]
    runs = [
        spec
        for spec in _runs(random.Random(seed), SCALES[scale], long_tag)
        if not {spec.label, spec.experiment} & set(leave_out)
    ]
    with Rest(uri) as rest:
        return _Writer(rest, experiments, runs).write()


def resolve(text: str, ids: Mapping[str, str]) -> str:
    """The text with every `<run:LABEL>` replaced; a label that is not known is a mistake in this file."""
    return re.sub(r"<run:([^>]+)>", lambda match: ids[match[1]], text)


def stored_value(value: float | str) -> float:
    """What a SQL store keeps of a metric value: the infinities become the largest numbers, zero loses its sign."""
    number, largest = float(value), sys.float_info.max
    return number if math.isnan(number) else max(-largest, min(largest, number)) + 0.0


def stored_path(path: str) -> str:
    """Where MLflow 3.17 puts an uploaded file: it decodes the path until nothing changes, so `%20` becomes a space."""
    return unquote(path)


# What is written ------------------------------------------------------------------------------------------------------

HOSTILE_NAMES = (
    "a/b/c",
    "..",
    ".",
    "100% %2F done",
    "  spaces   around ",
    "query?x=1&y=2#fragment",
    "quotes ' \" and back\\slash",
    "Ünïcödé 日本語 العربية",
    "\N{ROCKET} emoji \N{WOMAN}\N{ZERO WIDTH JOINER}\N{MICROSCOPE}",
    "caf\u00e9",
    "cafe\u0301",
    "Case",
    "case",
    "CON",
    "long " + "n" * 195,
)


PLAIN = ("crowd", "long series", *HOSTILE_NAMES)
"""For `leave_out`: what makes the workspace large, and names that are a matter of the archive."""


def _experiments() -> Iterator[ExperimentSpec]:
    yield ExperimentSpec("Default", {"owner": "nobody"})
    yield ExperimentSpec("states", {"mlflow.note.content": "# Notes\n" + "é" * 5_000, "team/ключ": "zürich \N{ROCKET}"})
    for name in ("texts", "families", "numbers", "crowd", "datasets", "other datasets", "files"):
        yield ExperimentSpec(name)
    yield ExperimentSpec("empty", {"empty value": "", "long": "x" * 20_000})
    yield ExperimentSpec("deleted", {"why": "obsolete"}, deleted=True)
    yield ExperimentSpec("deleted, one run restored", deleted=True)
    for name in HOSTILE_NAMES:
        yield ExperimentSpec(name, {"name again": name})


def _runs(rng: random.Random, scale: Scale, long_tag: int) -> Iterator[RunSpec]:
    yield from _in_default(rng)
    yield from _in_hostile_experiments()
    yield from _states()
    yield from _texts(long_tag)
    yield from _families()
    yield from _numbers(rng, scale)
    yield from _crowd(rng, scale)
    yield from _datasets(scale)
    yield from _files(rng, scale)
    yield from _graves()


def _in_default(rng: random.Random) -> Iterator[RunSpec]:
    for number in range(3):
        yield RunSpec(
            label=f"default {number}",
            experiment="Default",
            name="same name",
            points=[Point("loss", rng.random(), BASE + step, step) for step in range(5)],
            files={"default.txt": f"file {number}".encode()} if number else {},
            deleted=number == 2,
        )


def _in_hostile_experiments() -> Iterator[RunSpec]:
    for name in HOSTILE_NAMES:
        yield RunSpec(
            label=f"in {name}",
            experiment=name,
            name=name,
            points=[Point("loss", 1.5, BASE, 0)],
            files={"here.txt": name.encode()},
        )


def _states() -> Iterator[RunSpec]:
    def run(label: str, status: str, start: int, end: int | None, user: str = "ada") -> RunSpec:
        return RunSpec(label, "states", label, status, start, end, user)

    yield run("running", "RUNNING", BASE, None)
    yield run("running with an end", "RUNNING", BASE, BASE + 1)
    yield run("finished", "FINISHED", BASE, BASE + HOUR, "Zoë Müller")
    yield run("finished without an end", "FINISHED", BASE, None, "")
    yield run("failed", "FAILED", BASE - 10 * HOUR, BASE, "domain\\user")
    yield run("killed", "KILLED", 1, 2, "user@example.com")
    yield run("scheduled", "SCHEDULED", 0, None, "\N{ROCKET}")
    yield run("ends before it starts", "FINISHED", BASE, BASE - HOUR)
    yield RunSpec("deleted", "states", "deleted", points=[Point("m", 1, BASE, 0)], files={"f": b"1"}, deleted=True)
    yield RunSpec("deleted while running", "states", "deleted", "RUNNING", end=None, deleted=True)


def _texts(long_tag: int) -> Iterator[RunSpec]:
    yield RunSpec(
        label="many params",
        experiment="texts",
        name="150 params",
        params={f"param {number:03d}": str(number) for number in range(150)},
    )
    yield RunSpec(
        label="long texts",
        experiment="texts",
        name="n" * 250,
        params={
            "long": "p" * 6_000,
            "long unicode": "é" * 6_000,
            "ключ é/日本": "значение \N{ROCKET}",
            "empty": "",
            "lines": "one\r\ntwo\n\tthree ",
            "looks like json": '{"a": [1, NaN]}',
            "resumed from": "<run:many params>",
        },
        tags={
            "mlflow.note.content": "# Über\n" + "ñ" * 7_890 + "end",
            "long tag": "t" * long_tag,
            "a key // with every ../ mistake!!": "create checks no key",
            "k" * 250: "",
            "mlflow.source.name": "train.py",
            "mlflow.user": "somebody else",
        },
        late_tags={"tag/ключ 日本": "zwölf", "names itself": "<run:long texts>"},
    )
    history = [
        {
            "run_id": "<run:logged model history>",
            "artifact_path": "model",
            "utc_time_created": "2017-07-14 02:40:00.000000",
            "flavors": {"python_function": {"loader_module": "mlflow.sklearn"}},
            "model_uuid": "0123456789abcdef0123456789abcdef",
        }
    ]
    yield RunSpec(
        label="logged model history",
        experiment="texts",
        name="model",
        late_tags={"mlflow.log-model.history": json.dumps(history)},
        files={
            "model/MLmodel": MLMODEL.replace("LABEL", "logged model history"),
            "model/conda.yaml": b"name: env\n",
            "model/python_model.pkl": bytes(range(256)),
            "names.txt": "a text file keeps its bytes: <run:logged model history>",
        },
    )


MLMODEL = """\
# written by hand: a tool that parses and dumps this changes it
artifact_path:   model
flavors: {python_function: {loader_module:  'mlflow.sklearn', python_version: 3.11.0}}
run_id:    <run:LABEL>   # the run's id

"signature":
    inputs: '[{"type": "double", "name": "Größe"}]'
utc_time_created: '2017-07-14 02:40:00.000000'
source_run: "<run:LABEL>"
unknown_run: 00000000000000000000000000000bad
"""


def _families() -> Iterator[RunSpec]:
    parent, root, nobody = "mlflow.parentRunId", "mlflow.rootRunId", "00000000000000000000000000000001"

    def run(label: str, start: int = 0, late: dict[str, str] | None = None, **tags: str) -> RunSpec:
        own = {f"mlflow.{key}": value for key, value in tags.items()}
        return RunSpec(label, "families", label, start=BASE + start, tags=own, late_tags=late or {})

    yield run("parent", start=HOUR, late={root: "<run:parent>"})
    yield run("child", parentRunId="<run:parent>", rootRunId="<run:parent>")
    yield run("grandchild", start=2 * HOUR, parentRunId="<run:child>", rootRunId="<run:parent>")
    yield run("great-grandchild", parentRunId="<run:grandchild>", rootRunId="<run:parent>")
    yield run("parent is nowhere", parentRunId=nobody, rootRunId=nobody)
    yield run("parent is no id", parentRunId="see the wiki")
    yield run("parent is elsewhere", parentRunId="<run:default 0>")
    yield run("parent is deleted", parentRunId="<run:deleted>")
    yield run("parent is in a deleted experiment", late={parent: "<run:buried>"})
    yield run("older child", start=-HOUR, late={parent: "<run:younger parent>"})
    yield run("younger parent", start=HOUR)
    yield run("its own parent", late={parent: "<run:its own parent>"})
    yield run("half of a circle", late={parent: "<run:other half>"})
    yield run("other half", parentRunId="<run:half of a circle>")


ODD_VALUES: tuple[float | str, ...] = (
    *("NaN", "Infinity", "-Infinity", 1e-300, 1e300, 5e-324, -0.0, 0.0, 0.1 + 0.2, 1 / 3),
    *(-1, 1e15, 1.7976931348623157e308, 123456789012345678, 2**53 + 1),
)


def _numbers(rng: random.Random, scale: Scale) -> Iterator[RunSpec]:
    def run(label: str, points: list[Point]) -> RunSpec:
        return RunSpec(label, "numbers", label, points=points)

    def series(length: int) -> list[Point]:
        return [Point("loss", rng.gauss(0, 1), BASE + step * SECOND, step) for step in range(length)]

    yield run("odd values", [Point(f"value {i}", value, BASE, 0) for i, value in enumerate(ODD_VALUES)])
    yield run("many values at one place", [Point("m", value, BASE, 7) for value in ODD_VALUES])
    yield run("odd places", list(_odd_places(rng)))
    yield run("odd keys", [Point(key, 1.25, BASE, 0) for key in ("val/loss é", "a.b-c d:e", "日本", "k" * 250, "_")])
    yield run("2 600 points", series(2_600))
    yield run("long series", series(scale.series))
    yield run("many keys", [Point(f"key {i:04d}", rng.random(), BASE + i, i) for i in range(scale.keys)])


def _odd_places(rng: random.Random) -> Iterator[Point]:
    steps = [-(2**53) - 1, -5, -1, 0, 3, 2, 1, 2**53 + 1, 1_000_000]
    for step in steps:
        yield Point("unsorted", rng.random(), BASE, step)
        yield Point("against the clock", rng.random(), BASE - step % 97, step)
    for timestamp in (0, 1, BASE, 2**53 + 1):
        yield Point("timestamps", rng.random(), timestamp, 0)
    for repeat in range(4):
        yield Point("one place", float(repeat % 3), 0, -3)


def _crowd(rng: random.Random, scale: Scale) -> Iterator[RunSpec]:
    """Many ordinary runs whose names and start times repeat, so only a provenance tag tells them apart."""
    for number in range(scale.crowd):
        running = number % 3 == 0
        yield RunSpec(
            label=f"crowd {number}",
            experiment="crowd",
            name=f"trial {number % 7}",
            status="RUNNING" if running else "FINISHED",
            start=BASE + number // 10 * SECOND,
            end=None if running else BASE + HOUR,
            tags={"trial": str(number % 5)},
            params={"lr": str(rng.choice([0.1, 0.01])), "depth": str(number % 4)},
            points=[Point(key, rng.random(), BASE + step, step) for key in ("loss", "acc") for step in range(2)],
            files={"note.txt": f"note {number}".encode()} if number % 10 == 0 else {},
            deleted=number % 25 == 24,
        )


def _datasets(scale: Scale) -> Iterator[RunSpec]:
    schema = json.dumps({"mlflow_colspec": [{"type": "double", "name": f"Spalte ä{i}"} for i in range(500)]})
    shared = Input("iris", "aaaa1111", '{"uri": "/data/iris.csv"}', schema=schema, profile='{"num_rows": 150}')

    def run(label: str, *inputs: Input, experiment: str = "datasets") -> RunSpec:
        return RunSpec(label, experiment, label, inputs=list(inputs))

    for number in range(scale.sharing):
        context = "training" if number % 2 else "evaluation"
        yield run(f"sharing {number}", replace(shared, tags={"mlflow.data.context": context}))
    newer = Input("iris", "bbbb2222", '{"uri": "/data/iris-2.csv"}', {"split": "test", "note": "Größe \N{ROCKET}"})
    remote = Input("wein é/日本", "d" * 36, '{"uri": "s3://bucket/wine"}', source_type="s3", profile="{}")
    yield run("three datasets", replace(shared, tags={"a": "1", "b": "", "long": "v" * 500}), newer, remote)
    yield run("untagged dataset", shared)
    elsewhere = Input("iris", "aaaa1111", '{"uri": "http://elsewhere.invalid/iris"}', source_type="http")
    yield run("same digest, other experiment", elsewhere, experiment="other datasets")


ODD_FILES = (
    "spaces in/a name .txt",
    "100%",
    "50% off",
    "percent%20twenty.txt",
    "plus+plus.txt",
    "a&b=c;d.txt",
    "what?.txt",
    "12:30:00.log",
    'quote\'s "double".txt',
    "Ünïcödé/日本語.bin",
    "\N{ROCKET}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{MICROSCOPE}.txt",
    "e\u0301.nfd",
    "\u00e9.nfc",
    "é" * 100,
    ".hidden/.file",
    "deep/1/2/3/4/5/6/7/8/leaf",
    "[brackets] {braces} (parens) *star* ~ ! @ $ ^ `",
    "MLmodel",
)


def _files(rng: random.Random, scale: Scale) -> Iterator[RunSpec]:
    def run(label: str, files: dict[str, bytes | str]) -> RunSpec:
        return RunSpec(label, "files", label, files=files)

    yield run("no files", {})
    yield run("odd names", {name: name.encode() for name in ODD_FILES})
    yield run("zero bytes", {"empty": b"", "folder/empty too": b""})
    yield run("3 MB", {"big/weights.bin": rng.randbytes(3_000_000), "one": b"\0"})
    yield run(
        "many files", {f"folder {i % 8}/{i:04d}.json": json.dumps({"i": i}).encode() for i in range(scale.small_files)}
    )
    yield run(
        "names another run", {"MLmodel": MLMODEL.replace("LABEL", "no files"), "copy/MLmodel": b"\xff\xfe not utf-8"}
    )


def _graves() -> Iterator[RunSpec]:
    points = [Point("loss", 0.5, BASE, 0), Point("loss", 0.25, BASE + 1, 1)]
    data = Input("iris", "aaaa1111", "{}", {"mlflow.data.context": "training"})

    def run(label: str, experiment: str, deleted: bool) -> RunSpec:
        files: dict[str, bytes | str] = {"kept/file.txt": label.encode()}
        return RunSpec(
            label, experiment, label, params={"p": "1"}, points=points, inputs=[data], files=files, deleted=deleted
        )

    yield run("buried", "deleted", deleted=True)
    yield run("buried too", "deleted", deleted=True)
    yield run("risen", "deleted, one run restored", deleted=False)
    yield run("stays buried", "deleted, one run restored", deleted=True)


# How it is written ----------------------------------------------------------------------------------------------------


class _Writer:
    """Writes descriptions to one server. Deletions come last: what is deleted cannot be written to."""

    def __init__(self, rest: Rest, experiments: Sequence[ExperimentSpec], runs: Sequence[RunSpec]) -> None:
        self._rest = rest
        self._experiments = {spec.name: spec for spec in experiments}
        self._runs = {spec.label: spec for spec in runs}
        self._experiment_ids: dict[str, str] = {}
        self._run_ids: dict[str, str] = {}
        self._roots: dict[str, str] = {}

    def write(self) -> Seeded:
        for experiment in self._experiments.values():
            self._experiment_ids[experiment.name] = self._create_experiment(experiment)
        for spec in self._runs.values():
            self._create(spec)
        self._each(self._fill)
        for spec in self._runs.values():
            self._log_inputs(spec)
        self._each(self._finish)
        self._bury()
        return Seeded(self._rest.uri, self._experiments, self._runs, self._experiment_ids, self._run_ids)

    def _each(self, write: Callable[[RunSpec], None]) -> None:
        """Two threads overlap the client's work with the server's; with more, SQLite gets slower."""
        with ThreadPoolExecutor(2) as pool:
            for _ in pool.map(write, self._runs.values()):
                pass

    def _create_experiment(self, spec: ExperimentSpec) -> str:
        if spec.name != "Default":
            body = {"name": spec.name, "tags": _pairs(spec.tags)}
            return str(self._rest.post("experiments/create", body)["experiment_id"])
        for tag in _pairs(spec.tags):
            self._rest.post("experiments/set-experiment-tag", {"experiment_id": "0"} | tag)
        return "0"

    def _create(self, spec: RunSpec) -> None:
        body = {
            "experiment_id": self._experiment_ids[spec.experiment],
            "run_name": spec.name,
            "user_id": spec.user,
            "start_time": spec.start,
            "tags": _pairs(self._resolved(spec.tags)),
        }
        info = self._rest.post("runs/create", body)["run"]["info"]
        self._run_ids[spec.label] = info["run_id"]
        self._roots[spec.label] = info["artifact_uri"]

    def _fill(self, spec: RunSpec) -> None:
        run_id = self._run_ids[spec.label]
        for batch in _batches(_pairs(self._resolved(spec.params)), [_metric(point) for point in spec.points]):
            self._rest.post("runs/log-batch", {"run_id": run_id} | batch)
        for path, content in spec.files.items():
            data = content if isinstance(content, bytes) else resolve(content, self._run_ids).encode()
            self._rest.upload(self._roots[spec.label], path, data)

    def _log_inputs(self, spec: RunSpec) -> None:
        """One at a time: calls that bring the same new dataset together race inside the server and answer 400."""
        if spec.inputs:
            datasets = [_dataset(data) for data in spec.inputs]
            self._rest.post("runs/log-inputs", {"run_id": self._run_ids[spec.label], "datasets": datasets})

    def _finish(self, spec: RunSpec) -> None:
        run_id = self._run_ids[spec.label]
        for tag in _pairs(self._resolved(spec.late_tags)):
            self._rest.post("runs/set-tag", {"run_id": run_id} | tag)
        if spec.status != "RUNNING" or spec.end is not None:
            end = {} if spec.end is None else {"end_time": spec.end}
            self._rest.post("runs/update", {"run_id": run_id, "status": spec.status} | end)

    def _bury(self) -> None:
        """Deleting an experiment deletes all its runs; what shall be active in it is restored afterwards."""
        gone = {name for name, spec in self._experiments.items() if spec.deleted}
        for label, run in self._runs.items():
            if run.deleted and run.experiment not in gone:
                self._rest.post("runs/delete", {"run_id": self._run_ids[label]})
        for name in gone:
            self._rest.post("experiments/delete", {"experiment_id": self._experiment_ids[name]})
        for label, run in self._runs.items():
            if run.experiment in gone and not run.deleted:
                self._rest.post("runs/restore", {"run_id": self._run_ids[label]})

    def _resolved(self, texts: Mapping[str, str]) -> dict[str, str]:
        return {key: resolve(text, self._run_ids) for key, text in texts.items()}


def _pairs(texts: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in texts.items()]


def _metric(point: Point) -> dict[str, Any]:
    return {"key": point.key, "value": point.value, "timestamp": point.timestamp, "step": point.step}


def _dataset(data: Input) -> dict[str, Any]:
    names = ("name", "digest", "source_type", "source", "schema", "profile")
    told = {name: getattr(data, name) for name in names if getattr(data, name) is not None}
    return {"dataset": told, "tags": _pairs(data.tags)}


def _batches(params: list[dict[str, str]], metrics: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`runs/log-batch` bodies: at most 100 params and 1000 entities each."""
    while params or metrics:
        some, params = params[:100], params[100:]
        room = BATCH - len(some)
        yield {"params": some, "metrics": metrics[:room]}
        metrics = metrics[room:]

"""A small workspace with a bit of everything that a migrator must not lose, written over REST.

Described first (`ExperimentSpec`, `RunSpec`), then written; the same seed describes the same workspace. Only kinds that
amigrate carries: experiments, runs with params, tags, points and dataset inputs, artifacts. A text that holds
`<run:NAME>` gets the id of the run of that name; the names of runs are unique here.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from amigrate.client.api import V2, Api, Endpoint, Work, encode_path
from amigrate.core import codec
from amigrate.core.model import Body, Doc, Stream

CREATE_EXPERIMENT = Endpoint("POST", f"{V2}/experiments/create", Work.WRITE)
DELETE_EXPERIMENT = Endpoint("POST", f"{V2}/experiments/delete", Work.WRITE)
CREATE_RUN = Endpoint("POST", f"{V2}/runs/create", Work.WRITE, resend=False)
LOG_BATCH = Endpoint("POST", f"{V2}/runs/log-batch", Work.WRITE)
LOG_INPUTS = Endpoint("POST", f"{V2}/runs/log-inputs", Work.WRITE)
UPDATE_RUN = Endpoint("POST", f"{V2}/runs/update", Work.WRITE)
DELETE_RUN = Endpoint("POST", f"{V2}/runs/delete", Work.WRITE)
PROXY = "/api/2.0/mlflow-artifacts/artifacts"

START = 1_700_000_000_000
"""Milliseconds since the epoch, well in the past: a tool that stamps "now" would be seen."""
MINUTE = 60_000
BATCH = 900
"""Points in one log-batch: with the params and tags of the first one it may take 1000."""
LONG_SERIES = 3000
NAN = math.nan
PARENT, ROOT = "mlflow.parentRunId", "mlflow.rootRunId"

Point = tuple[str, float, int, int]
"""Key, value, timestamp, step."""


@dataclass(frozen=True, slots=True)
class ExperimentSpec:
    """An experiment that is meant to be."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run that is meant to be. `links` are tags that name runs; they are set when every run exists."""

    experiment: str
    name: str
    status: str = "FINISHED"
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    points: Sequence[Point] = ()
    inputs: Sequence[Doc] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    deleted: bool = False


async def fill(api: Api, seed: int = 1) -> None:
    """Fill an empty server with the sample. Raises `ApiError` where the server refuses something."""
    await _Writer(api).write(EXPERIMENTS, list(_runs(Random(seed))))


# ---- what is written --------------------------------------------------------------------------------------------

SEARCH, VISION, SALES, STUDY, ODDS, OLD = (
    "churn / hyperparameter search",
    "image classifier",
    "Umsatzprognose 売上予測 \N{ROCKET}",
    "ablation study",
    "odds and ends",
    "abandoned",
)
EXPERIMENTS = (
    ExperimentSpec(SEARCH, {"mlflow.note.content": "# Churn\nSearch over depth and learning rate.", "team": "growth"}),
    ExperimentSpec(VISION, {"team": "vision"}),
    ExperimentSpec(SALES, {"Zuständig": "Jürgen Müller", "説明": "月次の売上"}),
    ExperimentSpec(STUDY),
    ExperimentSpec(ODDS, {"empty": ""}),
    ExperimentSpec(OLD, {"why": "superseded"}, deleted=True),
)

MLMODEL = b"""\
artifact_path: model
flavors:
  python_function: {loader_module: mlflow.sklearn, python_version: 3.11.9}
run_id: <run:resnet>
signature:
  inputs: '[{"type": "double", "name": "Gr\xc3\xb6\xc3\x9fe"}]'
"""
HISTORY = '[{"run_id": "<run:resnet>", "artifact_path": "model", "flavors": {"python_function": {}}}]'


def _runs(random: Random) -> Iterator[RunSpec]:
    yield from _search(random)
    yield from _vision(random)
    yield from _sales(random)
    yield from _study(random)
    yield from _odds()
    yield from _old(random)


def _search(random: Random) -> Iterator[RunSpec]:
    """A parent and its trials, one of which has a child of its own."""
    yield RunSpec(SEARCH, "search", params={"strategy": "random", "trials": "12"}, links={ROOT: "<run:search>"})
    for number in range(12):
        depth, rate = str(random.randint(2, 9)), f"{random.uniform(0.001, 0.3):.4f}"
        yield RunSpec(
            SEARCH,
            f"trial {number:02d}",
            "KILLED" if number == 7 else "FINISHED",
            params={"max_depth": depth, "learning_rate": rate, "objective": "binary:logistic"},
            links={PARENT: "<run:search>", ROOT: "<run:search>"},
            points=[*_series(random, "auc", 20), *_series(random, "logloss", 20)],
            files={"importance.json": codec.dumps({"tenure": random.random(), "plan": random.random()})},
        )
    yield RunSpec(SEARCH, "refit of trial 03", links={PARENT: "<run:trial 03>", ROOT: "<run:search>"})


def _vision(random: Random) -> Iterator[RunSpec]:
    """Long histories, a model with its `MLmodel`, folders in folders."""
    yield RunSpec(
        VISION,
        "resnet",
        params={"backbone": "resnet-50", "augment": "flip,crop"},
        tags={"mlflow.source.name": "train.py", "mlflow.source.type": "LOCAL"},
        links={"mlflow.log-model.history": HISTORY},
        points=[*_series(random, "train/loss", LONG_SERIES), *_series(random, "val/accuracy", 30)],
        files={
            "model/MLmodel": MLMODEL,
            "model/requirements.txt": b"mlflow\nnumpy\n",
            "model/data/weights.bin": random.randbytes(200_000),
            "plots/confusion/matrix.svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        },
    )
    for number in range(4):
        yield RunSpec(
            VISION,
            f"vit {number}",
            params={"patch": str(8 << number % 2), "dropout": f"{number / 10}"},
            points=_series(random, "train/loss", 50),
            files={f"checkpoints/{number}/last.ckpt": random.randbytes(10_000)},
        )


def _sales(random: Random) -> Iterator[RunSpec]:
    """Names in many scripts, and the datasets that runs share."""
    shared = _dataset("sales", "d41d8cd9", {"mlflow.data.context": "training"})
    recent = _dataset("sales", "0cc175b9", {"mlflow.data.context": "eval", "Quartal": "Q3"})
    for number, region in enumerate(("Zürich", "東京", "Санкт-Петербург", "القاهرة", "São Paulo", "Αθήνα")):
        yield RunSpec(
            SALES,
            f"Prognose {region}",
            params={"région": region, "Größe": str(100 + number)},
            tags={"ответственный": "Ада", "note": f"{region} \N{SPARKLES}"},
            points=_series(random, "fehler/μ", 12),
            inputs=[shared, recent] if number % 2 else [shared],
            files={f"Bericht/{region}.txt": f"Region: {region}\n".encode()},
        )


def _study(random: Random) -> Iterator[RunSpec]:
    """Children of a run in another experiment."""
    for number, without in enumerate(("augmentation", "warm-up", "weight decay", "dropout")):
        yield RunSpec(
            STUDY,
            f"without {without}",
            params={"removed": without},
            links={PARENT: "<run:resnet>"},
            points=_series(random, "val/accuracy", 10 + number),
        )


def _odds() -> Iterator[RunSpec]:
    """Every state a run can be in, and points that few tools carry right."""
    yield RunSpec(ODDS, "still running", "RUNNING", points=[("loss", 0.7, START, 0)])
    yield RunSpec(ODDS, "scheduled", "SCHEDULED")
    yield RunSpec(ODDS, "failed", "FAILED", tags={"error": "out of memory"}, files={"trace.log": b"Traceback\n"})
    yield RunSpec(ODDS, "killed", "KILLED")
    yield RunSpec(ODDS, "diverged", points=[("loss", 1.0, START, 0), ("loss", NAN, START, 1), ("loss", NAN, START, 2)])
    yield RunSpec(ODDS, "steps that repeat", points=list(_repeating()))
    yield RunSpec(ODDS, "no bytes", files={"empty.txt": b"", "folder/also empty": b"", "ünï cödé/文書.txt": b"x"})
    yield RunSpec(ODDS, "long texts", params={"sql": "SELECT 1; " * 500}, tags={"note": "ñ" * 4000})
    yield RunSpec(ODDS, "deleted", points=[("loss", 0.5, START, 0)], files={"keep.txt": b"kept"}, deleted=True)


def _repeating() -> Iterator[Point]:
    """The same step several times, steps before zero, points that were not logged in their order."""
    for step in (-5, -1, 0, 3, 3, 3, 2, 1):
        yield "unsorted", step / 8, START, step
    for repeat in range(4):
        yield "one place", repeat / 4, START, 7


def _old(random: Random) -> Iterator[RunSpec]:
    """Runs that are deleted because their experiment is."""
    for number in range(2):
        yield RunSpec(OLD, f"attempt {number}", points=_series(random, "loss", 5), files={"log.txt": b"no use"})


def _series(random: Random, key: str, length: int) -> list[Point]:
    """A noisy curve that falls."""
    values = [math.exp(-step / length) + random.gauss(0, 0.01) for step in range(length)]
    return [(key, value, START + 1000 * step, step) for step, value in enumerate(values)]


def _dataset(name: str, digest: str, tags: Mapping[str, str]) -> Doc:
    dataset = {
        "name": name,
        "digest": digest,
        "source_type": "local",
        "source": f'{{"uri": "/data/{digest}.parquet"}}',
        "schema": '{"mlflow_colspec": [{"type": "double", "name": "Umsatz"}]}',
        "profile": '{"num_rows": 1200}',
    }
    return {"dataset": dataset, "tags": _pairs(tags)}


# ---- how it is written ------------------------------------------------------------------------------------------


class _Writer:
    """Writes descriptions to one server. Deletions come last: what is deleted cannot be written to."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._experiments: dict[str, str] = {}
        self._runs: dict[str, Doc] = {}

    async def write(self, experiments: Sequence[ExperimentSpec], runs: Sequence[RunSpec]) -> None:
        for experiment in experiments:
            body = {"name": experiment.name, "tags": _pairs(experiment.tags)}
            self._experiments[experiment.name] = (await self._api.call(CREATE_EXPERIMENT, body))["experiment_id"]
        for number, run in enumerate(runs):
            await self._create(run, START + number * MINUTE)
        async with asyncio.TaskGroup() as group:
            for run in runs:
                group.create_task(self._fill(run))
        for run in runs:
            await self._end(run)
        for experiment in experiments:
            if experiment.deleted:
                await self._api.call(DELETE_EXPERIMENT, {"experiment_id": self._experiments[experiment.name]})

    async def _create(self, run: RunSpec, start: int) -> None:
        body = {
            "experiment_id": self._experiments[run.experiment],
            "run_name": run.name,
            "user_id": "ada",
            "start_time": start,
            "tags": _pairs(run.tags),
        }
        self._runs[run.name] = (await self._api.call(CREATE_RUN, body))["run"]["info"]

    async def _fill(self, run: RunSpec) -> None:
        run_id, batches = self._runs[run.name]["run_id"], list(_batches(run.points))
        links = {key: self._named(text.encode()).decode() for key, text in run.links.items()}
        first = {"run_id": run_id, "params": _pairs(run.params), "tags": _pairs(links), "metrics": batches[0]}
        await self._api.call(LOG_BATCH, first)
        for batch in batches[1:]:
            await self._api.call(LOG_BATCH, {"run_id": run_id, "metrics": batch})
        for path, data in run.files.items():
            await self._upload(run, path, self._named(data))

    async def _upload(self, run: RunSpec, path: str, data: bytes) -> None:
        root = self._runs[run.name]["artifact_uri"].removeprefix("mlflow-artifacts:").strip("/")
        await self._api.upload(Endpoint("PUT", f"{PROXY}/{encode_path(f'{root}/{path}')}", Work.FILE), _body(data))

    async def _end(self, run: RunSpec) -> None:
        """Inputs go one after the other: calls that bring the same new dataset at once race in the server."""
        info = self._runs[run.name]
        if run.inputs:
            await self._api.call(LOG_INPUTS, {"run_id": info["run_id"], "datasets": list(run.inputs)})
        if run.status != "RUNNING":
            ended = {} if run.status == "SCHEDULED" else {"end_time": info["start_time"] + MINUTE}
            await self._api.call(UPDATE_RUN, {"run_id": info["run_id"], "status": run.status, **ended})
        if run.deleted:
            await self._api.call(DELETE_RUN, {"run_id": info["run_id"]})

    def _named(self, data: bytes) -> bytes:
        """Every `<run:NAME>` replaced by the id of that run."""
        return re.sub(rb"<run:([^>]+)>", lambda match: self._runs[match[1].decode()]["run_id"].encode(), data)


def _pairs(texts: Mapping[str, str]) -> list[Doc]:
    return [{"key": key, "value": value} for key, value in texts.items()]


def _batches(points: Iterable[Point]) -> Iterator[list[Doc]]:
    """Points as `log-batch` takes them, in portions; one empty portion where there are none."""
    rows = [
        {"key": key, "value": codec.number(value), "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in points
    ]
    for start in range(0, max(len(rows), 1), BATCH):
        yield rows[start : start + BATCH]


def _body(data: bytes) -> Body:
    """Bytes in memory as a body."""

    async def chunks() -> AsyncIterator[bytes]:
        yield data

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stream]:
        yield Stream(chunks(), len(data))

    return Body(opened, len(data))

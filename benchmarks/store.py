"""Fills a server's store behind its back: what would take hours over REST takes seconds.

Rows go straight into the tables of MLflow 3.17, files straight into the folder of the server's artifacts. Traces go
through the server: its spans have a form of their own, and many fit into one request.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy

from benchmarks.workloads import START, Workload, value
from benchmarks.workspace import trace_spans
from tests.rest import Rest

ROWS = 20_000
"""Rows in one statement."""
TRACES = 100
"""Traces in one request."""

COUNT_IDS = "SELECT setval('experiments_experiment_id_seq', (SELECT max(experiment_id) FROM experiments))"

Row = dict[str, Any]


def fill(backend: str, artifacts: Path, rest: Rest, work: Workload) -> None:
    """Everything of a workload, into an empty server of MLflow 3.17."""
    engine = sqlalchemy.create_engine(backend)
    tables = sqlalchemy.MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for name, rows in _tables(work):
            insert = tables.tables[name].insert()
            while some := list(islice(rows, ROWS)):
                connection.execute(insert, some)
        if engine.dialect.name == "postgresql":  # The ids were given, so its sequence has not counted them.
            connection.execute(sqlalchemy.text(COUNT_IDS))
    engine.dispose()
    _files(artifacts, work)
    _traces(rest, work)


def _tables(work: Workload) -> Iterator[tuple[str, Iterator[Row]]]:
    yield "experiments", _experiments(work)
    yield "runs", _runs(work)
    yield "params", _texts(work, "param", work.params)
    yield "tags", _texts(work, "tag", work.tags)
    yield "metrics", _points(work, range(work.points))
    yield "latest_metrics", _points(work, range(work.points - 1, work.points))
    yield "registered_models", _models(work)
    yield "model_versions", _versions(work)


def _experiments(work: Workload) -> Iterator[Row]:
    for number in range(1, work.experiments + 1):
        yield {
            "experiment_id": number,
            "name": f"team {number % 7}/experiment {number}",
            "artifact_location": f"mlflow-artifacts:/{number}",
            "lifecycle_stage": "active",
            "creation_time": START,
            "last_update_time": START,
        }


def _runs(work: Workload) -> Iterator[Row]:
    for experiment, run, own in work.numbered():
        yield {
            "run_uuid": own,
            "name": f"run {run}",
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": "ada",
            "status": "FINISHED",
            "start_time": START + run,
            "end_time": START + 1000 + run,
            "lifecycle_stage": "active",
            "artifact_uri": f"mlflow-artifacts:/{experiment}/{own}/artifacts",
            "experiment_id": experiment,
        }


def _texts(work: Workload, what: str, count: int) -> Iterator[Row]:
    for _, _, own in work.numbered():
        for number in range(count):
            yield {"key": f"{what} {number}", "value": f"{what} {number} of {own}", "run_uuid": own}


def _points(work: Workload, steps: Iterable[int]) -> Iterator[Row]:
    for experiment, run, own in work.numbered():
        for key in range(work.metrics):
            for step in steps:
                yield {
                    "key": f"metric {key}",
                    "value": value(experiment, run, key, step),
                    "timestamp": START + step,
                    "step": step,
                    "is_nan": False,
                    "run_uuid": own,
                }


def _models(work: Workload) -> Iterator[Row]:
    for number in range(work.models):
        yield {"name": f"model {number}", "creation_time": START, "last_updated_time": START, "description": "x"}


def _versions(work: Workload) -> Iterator[Row]:
    runs = [(experiment, own) for experiment, _, own in work.numbered()]
    for number in range(work.models):
        experiment, own = runs[number % len(runs)]
        for version in range(1, work.versions + 1):
            yield {
                "name": f"model {number}",
                "version": version,
                "creation_time": START,
                "last_updated_time": START,
                "current_stage": "None",
                "source": f"mlflow-artifacts:/{experiment}/{own}/artifacts/model",
                "run_id": own,
                "status": "READY",
            }


def _files(artifacts: Path, work: Workload) -> None:
    names = list(work.file_names())
    for experiment, _, own in work.numbered() if names else ():
        folder = artifacts / str(experiment) / own / "artifacts"
        folder.mkdir(parents=True)
        for name, size in names:
            (folder / name).write_bytes((own.encode() * (size // len(own) + 1))[:size])


def _traces(rest: Rest, work: Workload) -> None:
    for experiment in range(1, work.experiments + 1):
        for start in range(0, work.traces, TRACES):
            ids = [f"{experiment:016x}{number:016x}" for number in range(start, min(start + TRACES, work.traces))]
            spans = [span for one in ids for span in trace_spans(one, work.spans)]
            body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
            rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": str(experiment)})

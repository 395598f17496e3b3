"""A workspace with every kind that a busy team has, written over REST, to count requests against."""

from __future__ import annotations

import json
import random
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.rest import Rest

V3 = "/api/3.0/mlflow/"
START = 1_700_000_000_000
PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}


@dataclass(frozen=True, slots=True)
class Size:
    """How many of each there are."""

    experiments: int = 10
    runs: int = 20
    """Of each experiment."""
    metrics: int = 10
    """Of each run."""
    points: int = 50
    """Of each metric."""
    files: int = 3
    """Of each run."""
    logged_models: int = 2
    """Of each experiment."""
    models: int = 20
    versions: int = 5
    """Of each model and prompt."""
    traces: int = 100
    """Of each experiment."""
    spans: int = 10
    """Of each trace."""


QUICK = Size(experiments=2, runs=2, metrics=2, points=2, files=1, logged_models=1, models=2, versions=2, traces=3)


def fill(rest: Rest, size: Size) -> None:
    """Write everything."""
    rng = random.Random(1)
    runs: list[str] = []
    for number in range(size.experiments):
        home = str(rest.post("experiments/create", {"name": f"team/experiment {number}"})["experiment_id"])
        runs += [_run(rest, size, rng, home, one) for one in range(size.runs)]
        for one in range(size.logged_models):
            _logged_model(rest, home, runs[-1 - one])
        _traces(rest, size, home, number, runs[-1])
    for number in range(size.models):
        _model(rest, size, f"model {number}", runs[number % len(runs)])
        _prompt(rest, size, f"prompt {number}")


def _run(rest: Rest, size: Size, rng: random.Random, home: str, number: int) -> str:
    tags = [{"key": f"tag {one}", "value": f"value {number}"} for one in range(10)]
    body = {"experiment_id": home, "run_name": f"run {number}", "start_time": START + number, "tags": tags}
    info = rest.post("runs/create", body)["run"]["info"]
    points = [
        {"key": f"metric {key}", "value": rng.random(), "timestamp": START + step, "step": step}
        for key in range(size.metrics)
        for step in range(size.points)
    ]
    params = [{"key": f"param {one}", "value": str(rng.random())} for one in range(20)]
    rest.post("runs/log-batch", {"run_id": info["run_id"], "metrics": points, "params": params})
    for one in range(size.files):
        rest.upload(info["artifact_uri"], f"file {one}.bin", rng.randbytes(5_000))
    rest.post("runs/update", {"run_id": info["run_id"], "status": "FINISHED", "end_time": START + 1000 + number})
    return str(info["run_id"])


def _logged_model(rest: Rest, home: str, run_id: str) -> None:
    params = [{"key": "depth", "value": "3"}]
    body = {"experiment_id": home, "name": "tree", "source_run_id": run_id, "params": params}
    info = rest.post("logged-models", body)["model"]["info"]
    rest.upload(info["artifact_uri"], "MLmodel", f"run_id: {run_id}\nmodel_id: {info['model_id']}\n".encode())
    status = {"model_id": info["model_id"], "status": "LOGGED_MODEL_READY"}
    rest.patch(f"logged-models/{info['model_id']}", status)
    rest.post("runs/outputs", {"run_id": run_id, "models": [{"model_id": info["model_id"], "step": 0}]})


def _model(rest: Rest, size: Size, name: str, run_id: str) -> None:
    rest.post("registered-models/create", {"name": name, "tags": [{"key": "team", "value": "x"}]})
    root = rest.get("runs/get", {"run_id": run_id})["run"]["info"]["artifact_uri"]
    for _ in range(size.versions):
        rest.post("model-versions/create", {"name": name, "source": f"{root}/model", "run_id": run_id})
    rest.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})


def _prompt(rest: Rest, size: Size, name: str) -> None:
    rest.post("registered-models/create", {"name": name, "tags": [PROMPT]})
    for number in range(size.versions):
        text = {"key": "mlflow.prompt.text", "value": f"{number}: {{{{question}}}}"}
        rest.post("model-versions/create", {"name": name, "source": "dummy-source", "tags": [PROMPT, text]})


def _traces(rest: Rest, size: Size, home: str, number: int, run_id: str) -> None:
    spans = [span for one in range(size.traces) for span in trace_spans(f"{number:016x}{one:016x}", size.spans)]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": home, "x-mlflow-run-id": run_id})
    for one in range(0, size.traces, 10):
        own = f"tr-{number:016x}{one:016x}"
        source = {"source_type": "HUMAN", "source_id": "ada"}
        judged = {"assessment_name": "correct", "trace_id": own, "source": source, "feedback": {"value": True}}
        rest.post(f"{V3}traces/{own}/assessments", {"assessment": judged})


def trace_spans(trace: str, count: int) -> Iterator[dict[str, Any]]:
    """Spans of one trace, as OTLP in JSON takes them."""
    start = START * 1_000_000
    for number in range(count):
        own = b64encode(bytes([*bytes(6), 1, number])).decode()
        yield {
            "trace_id": b64encode(bytes.fromhex(trace)).decode(),
            "span_id": own,
            **({"parent_span_id": b64encode(bytes([*bytes(6), 1, 0])).decode()} if number else {}),
            "name": f"span {number}",
            "start_time_unix_nano": start + number,
            "end_time_unix_nano": start + 1000,
            "attributes": [{"key": "mlflow.spanInputs", "value": {"string_value": json.dumps({"q": "why? " * 20})}}],
            "status": {"code": "STATUS_CODE_OK"},
        }

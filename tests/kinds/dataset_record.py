"""Sample records of an evaluation dataset: every kind of output, and values that few parsers give back as they were."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import evaluation_dataset, new_experiment
from tests.kinds.evaluation_dataset import V3, datasets_of, new_dataset
from tests.rest import Rest

RECORDS: list[dict[str, Any]] = [
    {"inputs": {"at": 0}, "outputs": {"answer": "an object", "score": 0.5}, "expectations": {}},
    {"inputs": {"at": 1}, "outputs": "a text"},
    {"inputs": {"at": 2}, "outputs": ["a", {"list": None}]},
    {"inputs": {"at": 3}, "outputs": None, "expectations": {"expected_response": "yes"}},
    {"inputs": {"at": 4}},
    {"inputs": {"at": 5}, "outputs": {}},
    {"inputs": {"at": 6}, "outputs": 0},
    {"inputs": {"at": 7}, "outputs": {"later": True}},
    {"inputs": {"z": 1, "a": {"y": [1, 2], "b": None}}, "source": {"source_type": "CODE", "source_data": {}}},
    {
        "inputs": {"long": 12345678901234567890123, "half a pair": "\ud83d", "nul": "\0", "not a number": float("nan")},
        "outputs": "NaN",
    },
    {
        "inputs": {"of a trace": "ü"},
        "tags": {"mlflow.user": "grace", "k": "v"},
        "source": {"source_type": "TRACE", "source_data": {"trace_id": f"tr-{7:032x}"}},
    },
]


def seed(rest: Rest, name: str) -> None:
    new_dataset(rest, name, [new_experiment(rest, name)], {}, RECORDS)
    new_dataset(rest, f"{name}, texts only", [], {}, RECORDS[1:2])


def roots(rest: Rest, name: str) -> set[str]:
    return evaluation_dataset.roots(rest, name) | evaluation_dataset.roots(rest, f"{name}, texts only")


def mutate(rest: Rest, name: str) -> None:
    (one,) = datasets_of(rest, name)
    record = {**RECORDS[1], "outputs": "another text"}
    rest.post(f"{V3}datasets/{one['dataset_id']}/records", {"records": json.dumps([record])})


def held(rest: Rest, name: str) -> Any:
    return [evaluation_dataset.held(rest, one) for one in (name, f"{name}, texts only")]

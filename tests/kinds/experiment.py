"""A sample experiment."""

from __future__ import annotations

from tests.kinds import experiment_of
from tests.rest import Rest


def seed(rest: Rest, name: str) -> None:
    tags = [{"key": "owner", "value": "ada"}, {"key": "mlflow.note.content", "value": "# Über\n"}]
    rest.post("experiments/create", {"name": name, "tags": tags})


def mutate(rest: Rest, name: str) -> None:
    tag = {"experiment_id": experiment_of(rest, name), "key": "owner", "value": "bob"}
    rest.post("experiments/set-experiment-tag", tag)

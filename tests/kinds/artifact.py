"""A sample file, in a run of its own."""

from __future__ import annotations

from tests.kinds import new_experiment, run_of
from tests.rest import Rest

PATH = "a folder/file.bin"


def seed(rest: Rest, name: str) -> None:
    rest.post("runs/create", {"experiment_id": new_experiment(rest, name), "start_time": 1})
    rest.upload(run_of(rest, name)["artifact_uri"], PATH, bytes(range(256)))


def mutate(rest: Rest, name: str) -> None:
    rest.upload(run_of(rest, name)["artifact_uri"], PATH, bytes(reversed(range(256))))

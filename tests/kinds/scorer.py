"""Sample scorers: with several versions and gaps between them, with a single one, with an online configuration."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import experiment_of, new_experiment
from tests.rest import Rest

V3 = "/api/3.0/mlflow/"
JUDGE = {"name": "judge", "instructions_judge_pydantic_data": {"instructions": "Is it polite? ü", "model": "openai:/x"}}
POLITE, SINGLE, LATE = "polite / ü?&#", "single", "late"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    for number in range(1, 6):
        register(rest, home, POLITE, {**JUDGE, "description": f"version {number}"})
    for number in (2, 3):
        forget(rest, home, POLITE, number)
    register(rest, home, SINGLE, JUDGE)
    for number in range(1, 4):
        register(rest, home, LATE, {**JUDGE, "description": f"version {number}"})
    for number in (1, 2):
        forget(rest, home, LATE, number)
    config = {"experiment_id": home, "sample_rate": 0.0, "filter_string": "trace.status = 'OK'"}
    rest.put_json(f"{V3}scorers/online-config", {**config, "name": POLITE})


def register(rest: Rest, home: str, name: str, serialized: dict[str, Any]) -> int:
    """One more version; returns its number."""
    body = {"experiment_id": home, "name": name, "serialized_scorer": json.dumps(serialized)}
    return int(rest.post(f"{V3}scorers/register", body)["version"])


def forget(rest: Rest, home: str, name: str, version: int) -> None:
    rest.delete(f"{V3}scorers/delete", {"experiment_id": home, "name": name, "version": version})


def mutate(rest: Rest, name: str) -> None:
    register(rest, experiment_of(rest, name), SINGLE, JUDGE)


def held(rest: Rest, name: str) -> Any:
    """Every version of every scorer, and their configurations."""
    home = experiment_of(rest, name)
    scorers = rest.get(f"{V3}scorers/list", {"experiment_id": home}).get("scorers", [])
    told = {}
    for one in scorers:
        query = {"experiment_id": home, "name": one["scorer_name"]}
        versions = rest.get(f"{V3}scorers/versions", query)["scorers"]
        configs = rest.get(f"{V3}scorers/online-configs", {"scorer_ids": one["scorer_id"]})["configs"]
        told[one["scorer_name"]] = {
            "versions": [(row["scorer_version"], json.loads(row["serialized_scorer"])) for row in versions],
            "configs": [(row["sample_rate"], row.get("filter_string")) for row in configs],
        }
    return told

"""A sample prompt: several versions with a gap, tags, aliases."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest

IS_PROMPT = {"key": "mlflow.prompt.is_prompt", "value": "true"}
PROMPTS = "tags.`mlflow.prompt.is_prompt` = 'true'"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    tags = [IS_PROMPT, {"key": "_mlflow_experiment_ids", "value": f",{home},"}, {"key": "team", "value": "x"}]
    rest.post("registered-models/create", {"name": name, "description": "asks", "tags": tags})
    for number in (1, 2, 3):
        text = {"key": "mlflow.prompt.text", "value": f"version {number} of {{{{question}}}}"}
        body = {"name": name, "source": "dummy-source", "description": f"commit {number}"}
        rest.post("model-versions/create", {**body, "tags": [IS_PROMPT, text]})
    rest.delete("model-versions/delete", {"name": name, "version": "1"})
    rest.post("registered-models/alias", {"name": name, "alias": "production", "version": "2"})


def mutate(rest: Rest, name: str) -> None:
    rest.patch("registered-models/update", {"name": name, "description": "asks more"})


def held(rest: Rest, name: str) -> Any:
    """Everything, the experiments counted."""
    query = {"filter": f"name = '{name}' AND {PROMPTS}"}
    (prompt,) = rest.pages("registered-models/search", "registered_models", query, method="GET")
    versions = rest.pages("model-versions/search", "model_versions", query, method="GET")
    tags = {tag["key"]: tag["value"] for tag in prompt["tags"]}
    experiments = tags.pop("_mlflow_experiment_ids")
    return {
        "description": prompt["description"],
        "tags": tags,
        "experiments": len(experiments.split(",")),
        "aliases": prompt["aliases"],
        "versions": sorted(
            (
                int(one["version"]),
                one["description"],
                sorted((tag["key"], tag["value"]) for tag in one["tags"] if not tag["key"].startswith("amigrate.")),
            )
            for one in versions
        ),
    }

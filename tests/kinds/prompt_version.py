"""A sample chat prompt with everything that a version of a prompt can hold."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import new_experiment
from tests.kinds.prompt import IS_PROMPT, PROMPTS
from tests.rest import Rest

TAGS = {
    "mlflow.prompt.text": json.dumps([{"role": "user", "content": "ask {{it}} – ünïcode"}]),
    "_mlflow_prompt_type": "chat",
    "_mlflow_prompt_response_format": json.dumps({"type": "object", "properties": {"a": {"type": "string"}}}),
    "_mlflow_prompt_model_config": json.dumps({"model_name": "m", "temperature": 0.5}),
    "owner": "ada",
}


def seed(rest: Rest, name: str) -> None:
    new_experiment(rest, name)
    rest.post("registered-models/create", {"name": name, "tags": [IS_PROMPT]})
    tags = [IS_PROMPT, *({"key": key, "value": value} for key, value in TAGS.items())]
    rest.post("model-versions/create", {"name": name, "source": "prompt-template", "description": "c", "tags": tags})


def mutate(rest: Rest, name: str) -> None:
    tag = {"name": name, "version": "1", "key": "owner", "value": "bob"}
    rest.post("model-versions/set-tag", tag)


def held(rest: Rest, name: str) -> Any:
    query = {"filter": f"name = '{name}' AND {PROMPTS}"}
    (one,) = rest.pages("model-versions/search", "model_versions", query, method="GET")
    tags = {tag["key"]: tag["value"] for tag in one["tags"] if not tag["key"].startswith("amigrate.")}
    return [one["source"], one["description"], one["version"], tags]

"""A sample model definition of the AI gateway, and the secret that it needs."""

from __future__ import annotations

from typing import Any

from tests.kinds import gateway_secret
from tests.kinds.gateway_secret import GATEWAY, named, prepare, secret
from tests.rest import Rest

__all__ = ["prepare"]


def seed(rest: Rest, name: str) -> None:
    gateway_secret.seed(rest, name)
    new_definition(rest, name, f"{name} / ü")


def new_definition(rest: Rest, name: str, called: str) -> str:
    """A definition with the sample's secret; returns its id."""
    body = {
        "name": called,
        "secret_id": secret(rest, name)["secret_id"],
        "provider": "openai",
        "model_name": "gpt-4o",
        "created_by": "ada",
    }
    made = rest.post(f"{GATEWAY}model-definitions/create", body)["model_definition"]
    return str(made["model_definition_id"])


def definition(rest: Rest, called: str) -> dict[str, Any]:
    return named(rest, "model-definitions", "model_definitions", "name", called)


def roots(rest: Rest, name: str) -> set[str]:
    return {str(definition(rest, f"{name} / ü")["model_definition_id"])}


def mutate(rest: Rest, name: str) -> None:
    own = definition(rest, f"{name} / ü")["model_definition_id"]
    rest.post(f"{GATEWAY}model-definitions/update", {"model_definition_id": own, "model_name": "gpt-5"})


def held(rest: Rest, name: str) -> Any:
    found = definition(rest, f"{name} / ü")
    return [found.get(key) for key in ("provider", "model_name", "secret_name", "created_by")]

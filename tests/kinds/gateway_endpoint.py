"""A sample endpoint of the AI gateway: two models that share the traffic, one to fall back to, an experiment, tags."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, gateway_secret
from tests.kinds.gateway_model_definition import new_definition
from tests.kinds.gateway_secret import GATEWAY, named, prepare
from tests.rest import Rest

__all__ = ["prepare"]


def endpoint_name(name: str) -> str:
    """Names of endpoints hold no spaces."""
    return name.replace(" ", "-")


def seed(rest: Rest, name: str) -> None:
    gateway_secret.seed(rest, name)
    models = [
        {"model_definition_id": new_definition(rest, name, f"{name} {number}"), **more}
        for number, more in enumerate(
            (
                {"linkage_type": "PRIMARY", "weight": 0.25},
                {"linkage_type": "PRIMARY", "weight": 0.75},
                {"linkage_type": "FALLBACK", "weight": 1.0, "fallback_order": 1},
            )
        )
    ]
    body = {
        "name": endpoint_name(name),
        "model_configs": models,
        "routing_strategy": "REQUEST_BASED_TRAFFIC_SPLIT",
        "fallback_config": {"strategy": "SEQUENTIAL", "max_attempts": 2},
        "experiment_id": experiment_of(rest, name),
        "usage_tracking": True,
        "created_by": "ada",
    }
    made = rest.post(f"{GATEWAY}endpoints/create", body)["endpoint"]
    for key, value in (("team", "x / ü"), ("empty", "")):
        tag = {"endpoint_id": made["endpoint_id"], "key": key, "value": value}
        rest.post(f"{GATEWAY}endpoints/set-tag", tag)


def endpoint(rest: Rest, name: str) -> dict[str, Any]:
    return named(rest, "endpoints", "endpoints", "name", endpoint_name(name))


def roots(rest: Rest, name: str) -> set[str]:
    return {str(endpoint(rest, name)["endpoint_id"])}


def mutate(rest: Rest, name: str) -> None:
    tag = {"endpoint_id": endpoint(rest, name)["endpoint_id"], "key": "team", "value": "y"}
    rest.post(f"{GATEWAY}endpoints/set-tag", tag)


def held(rest: Rest, name: str) -> Any:
    found = endpoint(rest, name)
    assert found["experiment_id"] == experiment_of(rest, name)
    models = [
        [one["model_definition"]["name"], one["linkage_type"], one["weight"], one.get("fallback_order")]
        for one in found["model_mappings"]
    ]
    kept = ("routing_strategy", "fallback_config", "usage_tracking", "created_by")
    return [sorted(models, key=str), sorted(map(str, found["tags"])), {key: found.get(key) for key in kept}]

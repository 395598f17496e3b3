"""Sample bindings: scorers that use an endpoint of the AI gateway, one by its own model, the others by hand."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import experiment_of, gateway_endpoint
from tests.kinds.gateway_endpoint import endpoint, endpoint_name, prepare
from tests.kinds.gateway_secret import GATEWAY
from tests.rest import Rest

__all__ = ["prepare"]

V3 = "/api/3.0/mlflow/"
FIRST, SECOND, OWN = "first / ü", "second", "its own"


def seed(rest: Rest, name: str) -> None:
    gateway_endpoint.seed(rest, name)
    for called in (FIRST, SECOND):
        bind(rest, name, new_scorer(rest, name, called, "openai:/x"))
    new_scorer(rest, name, OWN, f"gateway:/{endpoint_name(name)}")


def new_scorer(rest: Rest, name: str, called: str, model: str) -> str:
    """A scorer in the sample's experiment; returns its id."""
    judge = {"instructions": "Is it polite?", "model": model}
    text = json.dumps({"name": called, "instructions_judge_pydantic_data": judge})
    body = {"experiment_id": experiment_of(rest, name), "name": called, "serialized_scorer": text}
    return str(rest.post(f"{V3}scorers/register", body)["scorer_id"])


def bind(rest: Rest, name: str, scorer: str, who: str = "ada") -> None:
    rest.post(f"{GATEWAY}endpoints/bindings/create", {**binding(rest, name, scorer), "created_by": who})


def binding(rest: Rest, name: str, scorer: str) -> dict[str, str]:
    own = str(endpoint(rest, name)["endpoint_id"])
    return {"endpoint_id": own, "resource_type": "scorer", "resource_id": scorer}


def scorers(rest: Rest, name: str) -> dict[str, str]:
    """Names of the sample's scorers, by id."""
    listed = rest.get(f"{V3}scorers/list", {"experiment_id": experiment_of(rest, name)})["scorers"]
    return {one["scorer_id"]: one["scorer_name"] for one in listed}


def roots(rest: Rest, name: str) -> set[str]:
    own = endpoint(rest, name)["endpoint_id"]
    return {f"{own}/{scorer}" for scorer in scorers(rest, name)}


def mutate(rest: Rest, name: str) -> None:
    """Nothing of a binding can be changed, so one is made anew by somebody else."""
    (second,) = (own for own, called in scorers(rest, name).items() if called == SECOND)
    rest.delete(f"{GATEWAY}endpoints/bindings/delete", binding(rest, name, second))
    bind(rest, name, second, "bob")


def held(rest: Rest, name: str) -> Any:
    names = scorers(rest, name)
    found = rest.get(f"{GATEWAY}endpoints/bindings/list", {"endpoint_id": endpoint(rest, name)["endpoint_id"]})
    return sorted([names[one["resource_id"]], one.get("created_by", "")] for one in found["bindings"])

"""Sample guardrails of the AI gateway: one before an endpoint in its place, one that sanitizes, one that is nowhere."""

from __future__ import annotations

from typing import Any

from tests.kinds import gateway_endpoint
from tests.kinds.gateway_binding import new_scorer
from tests.kinds.gateway_endpoint import endpoint, prepare
from tests.kinds.gateway_secret import GATEWAY
from tests.rest import Rest

__all__ = ["prepare"]

FIRST, SECOND, NOWHERE = "no secrets", "clean", "kept for later"


def seed(rest: Rest, name: str) -> None:
    gateway_endpoint.seed(rest, name)
    scorer = new_scorer(rest, name, "safe", "openai:/x")
    own = endpoint(rest, name)["endpoint_id"]
    for called, more, order in (
        (FIRST, {"stage": "BEFORE", "action": "VALIDATION"}, 2),
        (SECOND, {"stage": "AFTER", "action": "SANITIZATION", "action_endpoint_id": own}, None),
        (NOWHERE, {"stage": "AFTER", "action": "VALIDATION"}, 0),
    ):
        body = {"name": f"{called} of {name}", "scorer_id": scorer, "scorer_version": 1, **more}
        made = rest.post(f"{GATEWAY}guardrails/create", body)["guardrail"]
        place = {"endpoint_id": own, "guardrail_id": made["guardrail_id"]}
        if called != NOWHERE:
            order_of = {} if order is None else {"execution_order": order}
            rest.post(f"{GATEWAY}guardrails/add-to-endpoint", {**place, **order_of})


def guardrails(rest: Rest, name: str) -> list[dict[str, Any]]:
    listed = rest.get(f"{GATEWAY}guardrails/list", {"max_results": 1000})["guardrails"]
    return [one for one in listed if one["name"].endswith(f" of {name}")]


def roots(rest: Rest, name: str) -> set[str]:
    return {str(one["guardrail_id"]) for one in guardrails(rest, name)}


def mutate(rest: Rest, name: str) -> None:
    (first,) = (one for one in guardrails(rest, name) if one["name"].startswith(FIRST))
    place = {"endpoint_id": endpoint(rest, name)["endpoint_id"], "guardrail_id": first["guardrail_id"]}
    rest.patch(f"{GATEWAY}guardrails/update-config", {**place, "execution_order": 9})


def held(rest: Rest, name: str) -> Any:
    own = endpoint(rest, name)["endpoint_id"]
    configs = rest.get(f"{GATEWAY}guardrails/list-for-endpoint", {"endpoint_id": own})["configs"]
    kept = ("name", "stage", "action", "action_endpoint_id")
    told = [[one.get(key) for key in kept] for one in guardrails(rest, name)]
    scorers = [[one["scorer"][key] for key in ("scorer_name", "scorer_version")] for one in guardrails(rest, name)]
    order = [[one["guardrail"]["name"], one.get("execution_order")] for one in configs]
    return [sorted(told, key=str), sorted(scorers), sorted(order, key=str)]

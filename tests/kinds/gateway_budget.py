"""Sample budgets of the AI gateway: one for an endpoint, and two equal ones for everything."""

from __future__ import annotations

from typing import Any

from tests.kinds import gateway_endpoint
from tests.kinds.gateway_endpoint import endpoint, prepare
from tests.kinds.gateway_secret import GATEWAY
from tests.rest import Rest

__all__ = ["prepare"]

BUDGET = {"budget_unit": "USD", "duration": {"unit": "WEEKS", "value": 2}, "budget_action": "ALERT"}


def seed(rest: Rest, name: str) -> None:
    gateway_endpoint.seed(rest, name)
    own = {"target_scope": "ENDPOINT", "target_value": endpoint(rest, name)["endpoint_id"]}
    rest.post(f"{GATEWAY}budgets/create", {**BUDGET, **own, "budget_amount": 0.3, "budget_action": "REJECT"})
    for _ in range(2):
        rest.post(f"{GATEWAY}budgets/create", {**BUDGET, "target_scope": "GLOBAL", "budget_amount": 7})


def budgets(rest: Rest, name: str) -> list[dict[str, Any]]:
    """Those of the sample's endpoint, and those for everything."""
    own = endpoint(rest, name)["endpoint_id"]
    found = rest.get(f"{GATEWAY}budgets/list", {"max_results": 1000})["budget_policies"]
    return [one for one in found if one.get("target_value", own) == own]


def roots(rest: Rest, name: str) -> set[str]:
    return {str(one["budget_policy_id"]) for one in budgets(rest, name) if one["target_scope"] == "ENDPOINT"}


def mutate(rest: Rest, name: str) -> None:
    (own,) = (one for one in budgets(rest, name) if one["target_scope"] == "ENDPOINT")
    rest.post(f"{GATEWAY}budgets/update", {"budget_policy_id": own["budget_policy_id"], "budget_amount": 0.4})


def held(rest: Rest, name: str) -> Any:
    kept = ("target_scope", "budget_unit", "budget_amount", "duration", "budget_action", "created_by")
    return sorted(str({key: one.get(key) for key in kept}) for one in budgets(rest, name))

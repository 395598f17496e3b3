"""A sample secret of the AI gateway. Its value stays where it is: an operator enters it at the target too."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest
from tests.secrets import TOKEN

GATEWAY = "/api/3.0/mlflow/gateway/"


def seed(rest: Rest, name: str) -> None:
    new_experiment(rest, name)
    prepare(rest, name)


def prepare(rest: Rest, name: str) -> None:
    body = {
        "secret_name": f"{name} / key",
        "secret_value": {"api_key": TOKEN},
        "provider": "openai",
        "auth_config": {"auth_mode": "api_key"},
    }
    rest.post(f"{GATEWAY}secrets/create", body)


def named(rest: Rest, what: str, key: str, field: str, called: str) -> dict[str, Any]:
    """The one object that a listing shows under this name."""
    (found,) = (one for one in rest.get(f"{GATEWAY}{what}/list")[key] if one[field] == called)
    return dict(found)


def secret(rest: Rest, name: str) -> dict[str, Any]:
    return named(rest, "secrets", "secrets", "secret_name", f"{name} / key")


def roots(rest: Rest, name: str) -> set[str]:
    return {str(secret(rest, name)["secret_id"])}


def mutate(rest: Rest, name: str) -> None:
    body = {"secret_id": secret(rest, name)["secret_id"], "auth_config": {"auth_mode": "other"}}
    rest.post(f"{GATEWAY}secrets/update", body)


def held(rest: Rest, name: str) -> Any:
    found = secret(rest, name)
    return [found.get("provider"), found.get("auth_config")]

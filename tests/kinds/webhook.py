"""Sample webhooks: two of one name, one of them enabled. Their host is an address, so that no name has to resolve."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest

HOST = "https://93.184.216.34"
EVENTS = [
    {"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"},
    {"entity": "PROMPT_TAG", "action": "SET"},
    {"entity": "REGISTERED_MODEL", "action": "CREATED"},
]


def hook_name(name: str) -> str:
    """Names of webhooks are lower case, without spaces."""
    return name.replace(" ", "-").replace("_", "-")


def seed(rest: Rest, name: str) -> None:
    new_experiment(rest, name)
    hook = {"name": hook_name(name), "events": EVENTS}
    rest.post("webhooks", {**hook, "url": f"{HOST}/a?b=ü%20c", "description": "tells the ü team", "status": "ACTIVE"})
    rest.post("webhooks", {**hook, "url": f"{HOST}/b", "events": EVENTS[:1], "status": "DISABLED"})


def hooks(rest: Rest, name: str) -> list[dict[str, Any]]:
    found = rest.get("webhooks", {"max_results": 1000}).get("webhooks", [])
    return sorted((one for one in found if one["name"] == hook_name(name)), key=lambda one: str(one["url"]))


def roots(rest: Rest, name: str) -> set[str]:
    return {str(one["webhook_id"]) for one in hooks(rest, name)}


def mutate(rest: Rest, name: str) -> None:
    rest.patch(f"webhooks/{hooks(rest, name)[0]['webhook_id']}", {"description": "tells nobody"})


def held(rest: Rest, name: str) -> Any:
    """Everything but whether they are enabled: none is, where amigrate made it."""
    own = ("webhook_id", "status", "creation_timestamp", "last_updated_timestamp")
    return [{key: value for key, value in one.items() if key not in own} for one in hooks(rest, name)]

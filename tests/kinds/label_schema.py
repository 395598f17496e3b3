"""Sample label schemas: one of each input, and the default one."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, new_experiment
from tests.kinds.trace import V3, new_trace
from tests.rest import Rest

INPUTS: dict[str, dict[str, Any]] = {
    "Is it right?": {"pass_fail": {"positive_label": "Yes", "negative_label": "No"}},
    "one of": {"categorical": {"options": ["b", "a – ü"], "multi_select": False}},
    "some of": {"categorical": {"options": ["x", "y"], "multi_select": True}},
    "how much": {"numeric": {"min_value": -0.5, "max_value": 10.25}},
    "at least": {"numeric": {"min_value": 0.0}},
    "what else": {"text": {"max_length": 7}},
    "anything": {"text": {}},
}


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    new_trace(rest, home, 1)
    new_schemas(rest, home)


def new_schemas(rest: Rest, home: str) -> dict[str, str]:
    """Label schemas of every kind, the default one too; returns their ids by name."""
    for number, (name, given) in enumerate(INPUTS.items()):
        told = {"experiment_id": home, "name": name, "type": ("FEEDBACK", "EXPECTATION")[number % 2], "input": given}
        rest.post(f"{V3}label-schemas/create", {**told, "instruction": f"*{name}*", "enable_comment": number % 2 == 0})
    return {one["name"]: one["schema_id"] for one in schemas_of(rest, home)}


def schemas_of(rest: Rest, home: str) -> list[dict[str, Any]]:
    """The label schemas of an experiment, the default one made where it lacked."""
    return [*rest.pages(f"{V3}label-schemas/list", "label_schemas", {"experiment_id": home}, method="GET")]


def mutate(rest: Rest, name: str) -> None:
    (own,) = [one for one in schemas_of(rest, experiment_of(rest, name)) if one["name"] == "one of"]
    rest.patch(f"{V3}label-schemas/update", {"schema_id": own["schema_id"], "instruction": "another"})


def held(rest: Rest, name: str) -> Any:
    """Every label schema without what a server makes; the default one is there, at one time or another."""
    own = ("experiment_id", "schema_id", "created_at", "last_updated_at")
    found = schemas_of(rest, experiment_of(rest, name))
    told = [{key: one[key] for key in one if key not in own} for one in found]
    return [
        [one for one in told if not one["is_default"]],
        [one for one in told if one["is_default"]],
    ]

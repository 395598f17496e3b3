"""Sample evaluation datasets: two of one name, one in two experiments and one in none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest

V3 = "/api/3.0/mlflow/"
RECORDS: list[dict[str, Any]] = [
    {"inputs": {"question": "who?", "n": 1}, "outputs": {"answer": "nobody"}, "expectations": {"facts": ["a", "b"]}},
    {"inputs": {"question": "ünïcode"}, "tags": {"mlflow.user": "grace", "k": "v"}},
]


def seed(rest: Rest, name: str) -> None:
    homes = [new_experiment(rest, name), new_experiment(rest, f"{name}, another one")]
    new_dataset(rest, name, homes, {"mlflow.user": "ada", "team": "ü"}, RECORDS)
    new_dataset(rest, name, [], {}, [])


def new_dataset(
    rest: Rest, name: str, experiments: Sequence[str], tags: dict[str, str], records: Sequence[dict[str, Any]]
) -> str:
    """A dataset with records; returns its id."""
    body = {"name": name, "experiment_ids": list(experiments), "tags": json.dumps(tags)}
    own = str(rest.post(f"{V3}datasets/create", body)["dataset"]["dataset_id"])
    for record in records:
        rest.post(f"{V3}datasets/{own}/records", {"records": json.dumps([record])})
    return own


def datasets_of(rest: Rest, name: str) -> list[dict[str, Any]]:
    """Those of this name, oldest first."""
    listing = {"experiment_ids": [], "order_by": ["created_time ASC"]}
    return [one for one in rest.pages(f"{V3}datasets/search", "datasets", listing) if one["name"] == name]


def roots(rest: Rest, name: str) -> set[str]:
    return {str(one["dataset_id"]) for one in datasets_of(rest, name)}


def mutate(rest: Rest, name: str) -> None:
    own = next(one["dataset_id"] for one in datasets_of(rest, name) if "team" in one["tags"])
    rest.patch(f"{V3}datasets/{own}/tags", {"tags": json.dumps({"team": "y"})})


def records_of(rest: Rest, dataset_id: str) -> list[dict[str, Any]]:
    """The records of a dataset, without what is the server's own."""
    found: list[dict[str, Any]] = []
    query: dict[str, Any] = {"max_results": 1000}
    while True:
        page = rest.get(f"{V3}datasets/{dataset_id}/records", query)
        found += json.loads(page["records"])
        if not page.get("next_page_token"):
            break
        query["page_token"] = page["next_page_token"]
    own = ("dataset_record_id", "dataset_id", "created_time", "last_update_time", "last_updated_by")
    return sorted(({key: value for key, value in one.items() if key not in own} for one in found), key=str)


def held(rest: Rest, name: str) -> Any:
    """Everything, the experiments by their names."""
    told = []
    for one in datasets_of(rest, name):
        homes = rest.get(f"{V3}datasets/{one['dataset_id']}/experiment-ids").get("experiment_ids", [])
        tags = json.loads(one["tags"])
        told.append(
            {
                "name": one["name"],
                "tags": {key: value for key, value in tags.items() if not key.startswith("amigrate.")},
                "created_by": one.get("created_by"),
                "schema": json.loads(one.get("schema") or "{}"),
                "profile": one.get("profile"),
                "experiments": sorted(
                    rest.get("experiments/get", {"experiment_id": home})["experiment"]["name"] for home in homes
                ),
                "records": json.dumps(records_of(rest, one["dataset_id"]), sort_keys=True),
            }
        )
    return sorted(told, key=str)

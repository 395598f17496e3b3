"""Sample review queues: one with users, questions and items in every status, and a reviewer's own one."""

from __future__ import annotations

from typing import Any

from tests.kinds import experiment_of, new_experiment
from tests.kinds.label_schema import new_schemas, schemas_of
from tests.kinds.trace import V3, new_trace
from tests.rest import Rest

QUEUE = "To be reviewed – ü"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    schemas = new_schemas(rest, home)
    traces = [new_trace(rest, home, number) for number in range(4)]
    body = {"experiment_id": home, "name": QUEUE, "queue_type": "CUSTOM", "users": ["bob", "Ada"]}
    body["schema_ids"] = [schemas["Feedback"], schemas["one of"]]
    queue = rest.post(f"{V3}review-queues/create", body)["review_queue"]["queue_id"]
    rest.post(f"{V3}review-queues/update", {"queue_id": queue, "new_owner": "Grace"})
    user = {"experiment_id": home, "user": "Ada"}
    own = rest.post(f"{V3}review-queues/get-or-create-user", user)["review_queue"]["queue_id"]
    rest.post(f"{V3}review-queues/create", {"experiment_id": home, "name": "Empty", "queue_type": "CUSTOM"})
    for one, items in ((queue, traces), (own, traces[:1])):
        rest.post(f"{V3}review-queues/items/add", {"queue_id": one, "item_type": "TRACE", "item_ids": items})
    done(rest, queue, traces[0], "COMPLETE", "ada")
    done(rest, queue, traces[1], "DECLINED", "bob")


def done(rest: Rest, queue: str, trace: str, status: str, user: str) -> None:
    """A reviewer has his say."""
    body = {"queue_id": queue, "item_id": trace, "status": status, "completed_by": user}
    rest.post(f"{V3}review-queues/items/set-status", body)


def queues_of(rest: Rest, name: str) -> list[dict[str, Any]]:
    """The review queues of the sample's experiment."""
    query = {"experiment_id": experiment_of(rest, name)}
    return [*rest.pages(f"{V3}review-queues/list", "review_queues", query, method="GET")]


def items_of(rest: Rest, queue: str) -> list[dict[str, Any]]:
    """The items of a queue."""
    return [*rest.pages(f"{V3}review-queues/items/list", "items", {"queue_id": queue}, method="GET")]


def mutate(rest: Rest, name: str) -> None:
    (queue,) = [one["queue_id"] for one in queues_of(rest, name) if one["name"] == QUEUE]
    waiting = min(one["item_id"] for one in items_of(rest, queue) if one["status"] == "PENDING")
    done(rest, queue, waiting, "COMPLETE", "bob")


def held(rest: Rest, name: str) -> Any:
    """Every queue with its items; label schemas by their names."""
    names = {one["schema_id"]: one["name"] for one in schemas_of(rest, experiment_of(rest, name))}
    told = [
        [
            one["name"],
            one["queue_type"],
            one.get("created_by"),
            one.get("users"),
            sorted(names[own] for own in one.get("schema_ids", [])),
            sorted(
                [item["item_id"], item["status"], item.get("completed_by")] for item in items_of(rest, one["queue_id"])
            ),
        ]
        for one in queues_of(rest, name)
    ]
    return sorted(told, key=str)

"""Sample issues: one with everything, found by a run and shown by a trace; two that are equal; all of one name."""

from __future__ import annotations

import json
from typing import Any

from tests.kinds import experiment_of, new_experiment, run_of
from tests.kinds.trace import V3, assessment, new_trace
from tests.rest import Rest
from tests.workspace import BASE


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    run_id = rest.post("runs/create", {"experiment_id": home, "start_time": BASE})["run"]["info"]["run_id"]
    full = {
        "experiment_id": home,
        "name": "wrong – ünïcode",
        "description": "# What is wrong\n",
        "status": "resolved",
        "severity": "high",
        "root_causes": ["the prompt", "the model"],
        "categories": ["b", "a"],
        "created_by": "ada",
        "source_run_id": run_id,
    }
    whole = rest.post(f"{V3}issues", full)["issue"]
    for _ in range(2):
        rest.post(f"{V3}issues", {"experiment_id": home, "name": full["name"], "description": "of two"})
    trace = new_trace(rest, home, 1)
    shown = assessment(trace, "i-1", True) | {"assessment_name": whole["issue_id"], "issue": {"issue_name": "wrong"}}
    shown.pop("feedback")
    rest.post(f"{V3}traces/{trace}/assessments", {"assessment": shown})


def issues_of(rest: Rest, name: str) -> list[dict[str, Any]]:
    """Every issue in the sample's experiment, in the order of their creation."""
    found = rest.pages(f"{V3}issues/search", "issues", {"experiment_id": experiment_of(rest, name)})
    return sorted(found, key=lambda one: int(one["created_timestamp"]))


def mutate(rest: Rest, name: str) -> None:
    own = issues_of(rest, name)[0]["issue_id"]
    rest.patch(f"{V3}issues/{own}", {"issue_id": own, "status": "rejected"})


def held(rest: Rest, name: str) -> Any:
    """Every issue without what a server makes, and what the trace says of one."""
    home, run_id = experiment_of(rest, name), run_of(rest, name)["run_id"]
    issues = issues_of(rest, name)
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": home}}
    (trace,) = rest.post(f"{V3}traces/search", {"locations": [place]})["traces"]
    told = json.dumps([issues, trace["assessments"]]).replace(run_id, "<run>")
    for number, one in enumerate(issues):
        told = told.replace(one["issue_id"], f"<issue {number}>")
    own = ("experiment_id", "created_timestamp", "last_updated_timestamp", "trace_id")
    return [[{key: one[key] for key in one if key not in own} for one in part] for part in json.loads(told)]

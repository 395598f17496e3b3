"""What reviewers and judges make of traces: issues, label schemas, review queues, links to evaluation runs."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import experiment_of, new_experiment, sample
from tests.kinds.issue import issues_of
from tests.kinds.label_schema import schemas_of
from tests.kinds.review_queue import done, items_of, queues_of
from tests.kinds.trace import V3, assessment, new_trace
from tests.kinds.trace_link import traces_of
from tests.rest import Rest, RestError
from tests.servers import MlflowServer
from tests.workspace import BASE

pytestmark = pytest.mark.timeout(3600)

QUIET: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
TEXT: dict[str, Any] = {"type": "FEEDBACK", "input": {"text": {}}}
MANY = 130
"""Traces linked to one run: more than one call takes."""


@pytest.fixture(scope="module")
def ends(new_module_server: NewServer) -> tuple[MlflowServer, MlflowServer]:
    """A source and a target; each test has experiments of its own there."""
    return new_module_server(), new_module_server()


def copied(cli: Cli, source: str, target: str, *args: str, code: int = 0, deleted: bool = True) -> dict[str, Any]:
    """All that the other tests left there, too."""
    args = (*args, *(["--deleted"] if deleted else []))
    done = cli("copy-all", "--source", source, "--target", target, "--json", *args)
    assert done.returncode == code, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def new_run(rest: Rest, home: str) -> str:
    return str(rest.post("runs/create", {"experiment_id": home, "start_time": BASE})["run"]["info"]["run_id"])


def has_default(rest: Rest, home: str) -> bool:
    try:
        rest.get(f"{V3}label-schemas/get-by-name", {"experiment_id": home, "name": "Feedback"})
    except RestError as error:
        assert error.status == 404
        return False
    return True


def test_what_is_not_looked_for_is_said_and_found_when_asked_for(
    ends: tuple[MlflowServer, MlflowServer], cli: Cli
) -> None:
    """A source is not written to, not even by a listing, until its owner says so; what queues name comes anyway."""
    source, target = ends
    with Rest(source.uri) as rest:
        bare, unlisted = new_experiment(rest, "no traces"), new_experiment(rest, "never listed")
        trace, run = new_trace(rest, unlisted, 1), new_run(rest, bare)
        rest.post("traces/link-to-run", {"trace_ids": [trace], "run_id": run})
        for home, name in ((bare, "asked"), (unlisted, "named"), (unlisted, "not named")):
            rest.post(f"{V3}label-schemas/create", {"experiment_id": home, "name": name, **TEXT})
        query = {"experiment_id": unlisted, "name": "named"}
        named = rest.get(f"{V3}label-schemas/get-by-name", query)["label_schema"]["schema_id"]
        queue = {"experiment_id": unlisted, "name": "queue", "queue_type": "CUSTOM", "schema_ids": [named]}
        rest.post(f"{V3}review-queues/create", queue)
        wanted = ("--objects", "all,label-schemas,review-queues,trace-links")
        told = copied(cli, source.uri, target.uri, "--dry-run", *wanted)
        assert told["not_looked_for"]
        assert not has_default(rest, bare)
        told = copied(cli, source.uri, target.uri)
        assert not has_default(rest, bare)
        assert not has_default(rest, unlisted)
    assert told["objects"]["label-schemas"] == {"created": 1, "excluded": 1}
    assert told["objects"]["trace-links"] == {"excluded": 1}
    unseen = {one.split(" ")[0]: one for one in told["not_looked_for"]}
    assert {*unseen} == {"label-schemas", "review-queues", "trace-links"}
    assert "in 3 experiments" in unseen["label-schemas"]
    assert "in 2 experiments" in unseen["review-queues"]
    told = copied(cli, source.uri, target.uri, *wanted)
    assert not told["not_looked_for"]
    assert told["objects"]["trace-links"] == {"created": 1}
    with Rest(target.uri) as rest:
        homes = [experiment_of(rest, name) for name in ("no traces", "never listed")]
        found = [{one["name"] for one in schemas_of(rest, home)} for home in homes]
        (run,) = [one["info"]["run_id"] for one in rest.post("runs/search", {"experiment_ids": homes})["runs"]]
        assert traces_of(rest, "never listed", f"run_id = '{run}'") == [trace]
    assert found == [{"asked", "Feedback"}, {"named", "not named", "Feedback"}]


def test_equal_issues_are_counted_whatever_is_lost(ends: tuple[MlflowServer, MlflowServer], cli: Cli) -> None:
    """Answers are lost after their effect: as many arrive as there are, and a journal that is gone makes no more."""
    source, target = ends
    with Rest(source.uri) as rest:
        home = new_experiment(rest, "equal")
        for number in range(24):
            body = {"experiment_id": home, "name": f"of {number % 3}", "description": "the same"}
            rest.post(f"{V3}issues", body)

    def is_made(method: str, path: str) -> bool:
        return method == "POST" and path.endswith("/issues")

    with FaultProxy(target.uri, seed=5, **{**QUIET, "lost_answers": 0.4}, only=is_made) as writing:
        told = copied(cli, source.uri, writing.uri)
        assert writing.faults["lost_answers"] > 5
    assert told["objects"]["issues"]["created"] == 24
    again = copied(cli, source.uri, target.uri)  # Another address, another journal.
    assert again["objects"]["issues"] == {"present": 24}
    with Rest(target.uri) as rest:
        assert Counter(one["name"] for one in issues_of(rest, "equal")) == {f"of {one}": 8 for one in range(3)}
    with Rest(source.uri) as rest:
        own = issues_of(rest, "equal")[0]["issue_id"]
        rest.patch(f"{V3}issues/{own}", {"issue_id": own, "status": "resolved", "severity": "low"})
    copied(cli, source.uri, target.uri)
    with Rest(target.uri) as rest:
        found = Counter(one["status"] for one in issues_of(rest, "equal"))
    assert found == {"pending": 23, "resolved": 1}


def test_an_issue_waits_for_its_run_and_traces_name_it_then(ends: tuple[MlflowServer, MlflowServer], cli: Cli) -> None:
    source, target = ends
    with Rest(source.uri) as rest:
        home = new_experiment(rest, "found by a deleted run")
        run, trace = new_run(rest, home), new_trace(rest, home, 1)
        full = {"experiment_id": home, "name": "wrong", "description": "d", "source_run_id": run}
        own = rest.post(f"{V3}issues", full)["issue"]["issue_id"]
        shown = assessment(trace, "w-1", True) | {"assessment_name": own, "issue": {"issue_name": "wrong"}}
        shown.pop("feedback")
        rest.post(f"{V3}traces/{trace}/assessments", {"assessment": shown})
        rest.post("runs/delete", {"run_id": run})
    told = copied(cli, source.uri, target.uri, code=1, deleted=False)
    assert told["objects"]["issues"]["left behind"] == 1
    assert any("comes when that does" in one["reason"] for one in told["losses"])
    for _ in range(2):
        copied(cli, source.uri, target.uri)
    with Rest(target.uri) as rest:
        (issue,) = issues_of(rest, "found by a deleted run")
        query = {"experiment_ids": [issue["experiment_id"]], "run_view_type": "DELETED_ONLY"}
        (new_run_there,) = rest.pages("runs/search", "runs", query)
        told = rest.get(f"{V3}traces/{trace}")["trace"]["trace_info"]
    assert issue["source_run_id"] == new_run_there["info"]["run_id"]
    assert [one["assessment_name"] for one in told["assessments"]] == [issue["issue_id"]]


def test_reviews_of_both_ends_live_together(ends: tuple[MlflowServer, MlflowServer], cli: Cli, tmp_path: Path) -> None:
    """What comes later at the source comes with the next command; what was reviewed at the target is not undone."""
    source, target = ends
    with Rest(source.uri) as old, Rest(target.uri) as new:
        sample("review_queue").seed(old, "reviews")
        copied(cli, source.uri, target.uri)
        home = experiment_of(old, "reviews")
        theirs = {one["name"]: one["queue_id"] for one in queues_of(old, "reviews")}
        ours = {one["name"]: one["queue_id"] for one in queues_of(new, "reviews")}
        assert {*theirs} == {*ours}
        traces = traces_of(old, "reviews")
        name = next(one for one in ours if one.startswith("To be"))
        done(new, ours[name], traces[2], "COMPLETE", "eve")  # At the target, pending at the source.
        done(old, theirs[name], traces[3], "DECLINED", "ada")
        later = new_trace(old, home, 77)
        body = {"queue_id": theirs["Empty"], "item_type": "TRACE", "item_ids": [later]}
        old.post(f"{V3}review-queues/items/add", body)
        old.post(f"{V3}review-queues/update", {"queue_id": theirs["Empty"], "update_users": True, "users": ["zoe"]})
        (gone,) = [one["schema_id"] for one in schemas_of(old, home) if one["name"] == "one of"]
        old.delete(f"{V3}label-schemas/delete", {"schema_id": gone})  # Queues go on naming it.
        told = copied(cli, source.uri, target.uri)
        assert "failed" not in told["objects"]["review-queues"]
        found = {item["item_id"]: (item["status"], item.get("completed_by")) for item in items_of(new, ours[name])}
        assert found[traces[0]] == ("COMPLETE", "ada")
        assert found[traces[2]] == ("COMPLETE", "eve")
        assert found[traces[3]] == ("DECLINED", "ada")
        assert [one["item_id"] for one in items_of(new, ours["Empty"])] == [later]
        assert {one["name"]: one.get("users") for one in queues_of(new, "reviews")}["Empty"] == ["zoe"]


def test_a_label_schema_of_somebody_else_is_not_replaced(ends: tuple[MlflowServer, MlflowServer], cli: Cli) -> None:
    source, target = ends
    with Rest(source.uri) as old, Rest(target.uri) as new:
        sample("label_schema").seed(old, "both have it")
        home = new_experiment(new, "both have it")
        new.post(f"{V3}label-schemas/create", {"experiment_id": home, "name": "how much", **TEXT})
        told = copied(cli, source.uri, target.uri, code=1)
        (loss,) = told["losses"]
        assert loss["kind"] == "label_schema"
        assert "another type and instruction" in loss["reason"] or "another instruction" in loss["reason"]
        (kept,) = [one for one in schemas_of(new, home) if one["name"] == "how much"]
        assert "text" in kept["input"]
        new.delete(f"{V3}label-schemas/delete", {"schema_id": kept["schema_id"]})
        copied(cli, source.uri, target.uri)
        assert sample("label_schema").held(old, "both have it")[0][0]["name"] == "anything"
        assert len(schemas_of(new, home)) == len(schemas_of(old, experiment_of(old, "both have it")))


def test_many_links_of_one_run(ends: tuple[MlflowServer, MlflowServer], cli: Cli) -> None:
    """A hundred in one call; later ones come later; nothing is searched for that cannot be there."""
    source, target = ends
    with Rest(source.uri) as old, Rest(target.uri) as new:
        home = new_experiment(old, "linked")
        run = new_run(old, home)
        traces = [new_trace(old, home, number) for number in range(MANY)]
        for start in range(0, MANY - 1, 100):
            old.post(
                "traces/link-to-run", {"trace_ids": traces[start : start + 100][: MANY - 1 - start], "run_id": run}
            )
        with FaultProxy(target.uri, seed=1, **QUIET) as writing:
            told = copied(cli, source.uri, writing.uri, "--objects", "trace-links")
            assert writing.requests["POST", "/api/2.0/mlflow/traces/link-to-run"] == 2
        assert told["objects"]["trace-links"]["created"] == 1
        assert "issues" not in told["objects"] or "created" not in told["objects"]["issues"]
        (ours,) = [
            one["info"]["run_id"]
            for one in new.post("runs/search", {"experiment_ids": [experiment_of(new, "linked")]})["runs"]
        ]
        assert len(traces_of(new, "linked", f"run_id = '{ours}'")) == MANY - 1
        old.post("traces/link-to-run", {"trace_ids": traces[-1:], "run_id": run})
        copied(cli, source.uri, target.uri)
        assert len(traces_of(new, "linked", f"run_id = '{ours}'")) == MANY

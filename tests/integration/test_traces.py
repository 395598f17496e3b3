"""Traces in bulk, and traces of older servers."""

from __future__ import annotations

import json
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.campaign import IS_FULL
from tests.conftest import Cli, NewServer
from tests.environments import python_of
from tests.fakes.fault_proxy import FaultProxy
from tests.fakes.gateway import Gateway
from tests.kinds import experiment_of, run_of, sample
from tests.kinds.trace import V3, assessment, info, new_trace, span, trace_ids
from tests.rest import Rest
from tests.workspace import BASE, ScaleName

pytestmark = pytest.mark.timeout(3600)

TRACES = {"small": 250, "full": 1000}
SPANS = 20
CURRENT = "the current one"
QUIET: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}


def spans_of(number: int) -> list[dict[str, Any]]:
    own = f"tr-{number:032x}"
    told = [span(own, 0, "0") | {"span_id": b64encode(bytes([*bytes(6), 1, one])).decode()} for one in range(SPANS)]
    return [{**one, "name": f"span {number} {at}"} for at, one in enumerate(told)]


def test_many_traces_in_few_requests(new_server: NewServer, cli: Cli, campaign: ScaleName) -> None:
    """1 000 traces of 20 spans: fewer than 60 requests read their spans, fewer than 20 write them."""
    source, target = new_server(), new_server()
    count = TRACES[campaign]
    with Rest(source.uri) as rest:
        for start in range(1, count + 1, 50):
            spans = [one for number in range(start, start + 50) for one in spans_of(number)]
            body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
            rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": "0"})
    with FaultProxy(source.uri, seed=1, **QUIET) as reading, FaultProxy(target.uri, seed=1, **QUIET) as writing:
        done = cli("copy-all", "--source", reading.uri, "--target", writing.uri, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["objects"]["traces"] == {"created": count}
        read = reading.requests["GET", "/api/3.0/mlflow/traces/batchGet"]
        written = writing.requests["POST", "/v1/traces"]
    assert 1 <= read < 60 * count / 1000
    assert 1 <= written < 20 * count / 1000
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for number in (1, count // 2, count):
            query = {"request_id": f"tr-{number:032x}"}
            pages = [one.get("/ajax-api/2.0/mlflow/get-trace-artifact", query) for one in (old, new)]
            assert len(pages[0]["spans"]) == SPANS
            assert pages[0] == pages[1]


def test_a_gateway_that_gives_up_on_many_traces(new_server: NewServer, cli: Cli) -> None:
    """What took too long once is not asked for again."""
    source, target = new_server(), new_server()
    asked: list[int] = []

    async def read(request: web.BaseRequest, body: bytes) -> web.Response | None:
        if not request.path.endswith("/traces/batchGet"):
            return None
        asked.append(request.raw_path.count("trace_ids="))
        return web.Response(status=504, text="<html>late</html>", content_type="text/html") if asked[-1] > 20 else None

    with Rest(source.uri) as rest:
        spans = [spans_of(number)[0] for number in range(1, 151)]
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
        rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": "0"})
    with Gateway(source.uri, read) as reading:
        done = cli("copy-all", "--source", reading.uri, "--target", target.uri, "--json", "--objects", "traces")
    assert json.loads(done.stdout)["objects"]["traces"] == {"created": 150}, done.stderr
    assert sum(size > 20 for size in asked) <= 4, asked  # Twice for each of the two pages that are under way at once.


@pytest.mark.parametrize("version", ["2.22.5", "3.4.0", CURRENT] if IS_FULL else [CURRENT])
def test_traces_whose_spans_lie_in_files(version: str, new_server: NewServer, cli: Cli) -> None:
    """As they do on older servers: their ids, times, tags, metadata and spans."""
    old = {} if version == CURRENT else {"python": python_of(version)}
    source, target = new_server(**old), new_server()
    spans = json.dumps({"spans": [{"name": "old", "attributes": {"mlflow.experimentId": '"0"'}}]}).encode()
    with Rest(source.uri) as rest:
        run_id = rest.post("runs/create", {"experiment_id": "0", "start_time": BASE})["run"]["info"]["run_id"]
        if version.startswith("2."):
            pairs = {
                "request_metadata": [{"key": "mlflow.sourceRun", "value": run_id}],
                "tags": [{"key": "team", "value": "x"}],
            }
            body = {"experiment_id": "0", "timestamp_ms": BASE, **pairs}
            made = rest.post("traces", body)["trace_info"]
            own = made["request_id"]
            end = {"request_id": own, "timestamp_ms": BASE + 1234, "status": "OK"}
            rest.patch(f"traces/{own}", end)
            place = next(tag["value"] for tag in made["tags"] if tag["key"] == "mlflow.artifactLocation")
        else:
            own = f"tr-{1:032x}"
            told = info(own, "0", run_id) | {"assessments": []}
            made = rest.post("/api/3.0/mlflow/traces", {"trace": {"trace_info": told}})["trace"]["trace_info"]
            place = made["tags"]["mlflow.artifactLocation"]
        rest.upload(place, "traces.json", spans)
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--json")
    assert json.loads(done.stdout)["objects"]["traces"] == {"created": 1}, done.stdout
    with Rest(target.uri) as rest:
        found = rest.get(f"/api/3.0/mlflow/traces/{own}")["trace"]["trace_info"]
        kept = rest.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": own})
        (run,) = rest.pages("runs/search", "runs", {"experiment_ids": ["0"]})
    assert found["request_time"] == "2017-07-14T02:40:00" + ("Z" if version.startswith("2.") else ".123Z")
    assert found["execution_duration"] == "1.234s"
    assert found["tags"]["team"]
    assert found["trace_metadata"]["mlflow.sourceRun"] == run["info"]["run_id"] != run_id
    assert kept["spans"][0]["name"] == "old"


def test_links_come_when_what_they_name_does(new_server: NewServer, cli: Cli) -> None:
    """A trace of a deleted run names the new run as soon as that arrives; its assessments stay as they are.

    Also one that names a model which never does.
    """
    source, target = new_server(), new_server()
    with Rest(source.uri) as rest:
        sample("trace").seed(rest, "traces")
        run_id = run_of(rest, "traces")["run_id"]
        told = info(trace_ids("traces")[0], experiment_of(rest, "traces"), run_id)
        told["trace_metadata"]["mlflow.modelId"] = f"m-{0:032x}"
        rest.post(f"{V3}traces", {"trace": {"trace_info": {**told, "assessments": []}}})
        rest.post("runs/delete", {"run_id": run_id})
        before = [rest.get(f"/api/3.0/mlflow/traces/{own}")["trace"]["trace_info"] for own in trace_ids("traces")]
    for more in ((), ("--deleted",), ("--deleted",)):
        done = cli("copy-all", "--source", source.uri, "--target", target.uri, *more)
        assert done.returncode == 0, done.stdout + done.stderr
    with Rest(target.uri) as rest:
        (run,) = rest.pages(
            "runs/search", "runs", {"experiment_ids": [experiment_of(rest, "traces")], "run_view_type": "DELETED_ONLY"}
        )
        after = [rest.get(f"/api/3.0/mlflow/traces/{own}")["trace"]["trace_info"] for own in trace_ids("traces")]
    for old, new in zip(before, after, strict=True):
        assert new["trace_metadata"]["mlflow.sourceRun"] == run["info"]["run_id"]
        assert new["request_time"] == old["request_time"]
        assert new["execution_duration"] == old["execution_duration"]
        assert new["state"] == old["state"]
        told = json.loads(json.dumps(new["assessments"]).replace(run["info"]["run_id"], run_id))
        for one in (*told, *old["assessments"]):
            one.pop("last_update_time")  # A change of its metadata is one, to the server.
        assert sorted(told, key=str) == sorted(old["assessments"], key=str)


ARCHIVE = """
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore({backend!r}, {artifacts!r})
assert store.archive_traces(resolved_trace_archival_location={archive!r}, broader_retention="1m") == {count}
"""
"""What a server with an archive for traces does by itself from time to time."""
ATTACHED = "5d1f0c1e-0000-4000-8000-00000000beef"


def test_attachments_and_archived_spans(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Files of a trace come along; spans come from wherever the source has put them."""
    source, target = new_server(), new_server()
    own, archived = (f"tr-{number:032x}" for number in (1, 2))
    query = {"request_id": own, "path": ATTACHED}
    with Rest(source.uri) as rest:
        address = f"mlflow-attachment://{ATTACHED}?content_type=text%2Fplain&trace_id={own}"
        spans = [span(own, 0, "0"), span(archived, 0, "0"), span(archived, 1, "0")]
        spans[0]["attributes"].append({"key": "mlflow.spanOutputs", "value": {"string_value": address}})
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans[1:]}]}]}
        rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": "0"})
        archive = ARCHIVE.format(
            backend=source.backend, artifacts=str(source.artifacts), archive=(tmp_path / "archive").as_uri(), count=1
        )
        subprocess.run([sys.executable, "-c", archive], check=True, capture_output=True, timeout=300)
        body = {"resourceSpans": [{"scopeSpans": [{"spans": spans[:1]}]}]}
        rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": "0"})
        tags = {one: rest.get(f"{V3}traces/{one}")["trace"]["trace_info"]["tags"] for one in (own, archived)}
        assert tags[archived]["mlflow.trace.spansLocation"] == "ARCHIVE_REPO"
        rest.upload(tags[own]["mlflow.artifactLocation"], f"attachments/{ATTACHED}", b"what was attached")
        before = [rest.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": one}) for one in (own, archived)]
        attached = rest.fetch("/ajax-api/2.0/mlflow/get-trace-artifact", query)
    ends = ("--source", source.uri, "--target", target.uri, "--json", "--state")
    # What looks the same without the journal that saw it may lack files all the same.
    for args, wanted in (
        ((tmp_path / "one", "--no-artifacts"), {"created": 2}),
        ((tmp_path / "another",), {"updated": 1, "present": 1}),
        ((tmp_path / "another",), {"present": 2}),
    ):
        done = cli("copy-all", *ends, *args)
        assert json.loads(done.stdout)["objects"]["traces"] == wanted, done.stdout
    with Rest(target.uri) as rest:
        after = [rest.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": one}) for one in (own, archived)]
        assert rest.fetch("/ajax-api/2.0/mlflow/get-trace-artifact", query) == attached == b"what was attached"
    assert before == after


def test_links_to_prompts_come_without_the_journal_that_waits_for_them(
    new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    source, target = new_server(), new_server()
    ends = ("--source", source.uri, "--target", target.uri, "--state")
    with Rest(source.uri) as rest:
        sample("prompt").seed(rest, "asked")
        own = new_trace(rest, "0", 1)
        linked_to = [{"name": "asked", "version": "3"}]
        rest.post("traces/link-prompts", {"trace_id": own, "prompt_versions": linked_to})
        tag = {"key": "mlflow.linkedPrompts", "value": json.dumps(linked_to)}
        rest.patch(f"{V3}traces/{own}/tags", {"trace_id": own, **tag})
    for args in ((tmp_path / "one", "--skip-objects", "prompts"), (tmp_path / "another",)):
        done = cli("copy-all", *ends, *args)
        assert done.returncode == 0, done.stdout + done.stderr
    linked = {
        "locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "0"}}],
        "filter": "prompt = 'asked/3'",
        "max_results": 100,
    }
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for rest in (old, new):
            assert [one["trace_id"] for one in rest.pages(f"{V3}traces/search", "traces", linked)] == [own]


@pytest.mark.parametrize("version", ["3.4.0"] if IS_FULL else [CURRENT])
def test_traces_go_on_to_a_third_server(version: str, new_server: NewServer, cli: Cli) -> None:
    """Also by way of an older one that takes no spans of others, no part of a trace and no issue."""
    between: dict[str, Any] = {} if version == CURRENT else {"python": python_of(version)}
    first, second, third = new_server(), new_server(**between), new_server()
    names = {"trace": "traces", "trace_link": "links", "issue": "issues"}
    stored, _ = trace_ids("traces")
    with Rest(first.uri) as rest:
        for kind, name in names.items():
            sample(kind).seed(rest, name)
    done = cli("copy-all", "--source", first.uri, "--target", second.uri, "--json")
    told = json.loads(done.stdout)
    assert {one["kind"] for one in told["losses"]} == (set() if version == CURRENT else {"issue", "assessment"})
    assert "failed" not in told["objects"]["traces"]
    with Rest(first.uri) as rest:
        rest.post(f"{V3}traces/{stored}/assessments", {"assessment": assessment(stored, "a-7", True)})
    cli("copy-all", "--source", first.uri, "--target", second.uri)
    done = cli("copy-all", "--source", second.uri, "--target", third.uri, "--json")
    assert done.returncode == 0, done.stdout
    with Rest(first.uri) as old, Rest(third.uri) as new:
        assert sample("trace_link").held(old, "links") == sample("trace_link").held(new, "links")
        if version == CURRENT:
            assert sample("issue").held(old, "issues") == sample("issue").held(new, "issues")
        before, after = (sample("trace").held(rest, "traces") for rest in (old, new))
    assert valid(before[stored]) == valid(after[stored])
    assert plain(before[f"spans of {stored}"]) == plain(after[f"spans of {stored}"])


def valid(info: dict[str, Any]) -> dict[str, bool]:
    return {one["assessment_id"]: one["valid"] for one in info["assessments"]}


def plain(spans: dict[str, Any]) -> list[dict[str, Any]]:
    """Spans whatever the spaces in the JSON of their attributes."""
    return [
        {**one, "attributes": {key: value.replace(" ", "") for key, value in one["attributes"].items()}}
        for one in spans["spans"]
    ]

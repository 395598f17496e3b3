"""Sample traces: spans in the tracking store with everything that a span can hold, assessments that override others,
and a trace whose spans lie in a file."""

from __future__ import annotations

import json
import zlib
from base64 import b64encode
from typing import Any

from tests.kinds import experiment_of, new_experiment, run_of
from tests.rest import Rest
from tests.workspace import BASE

V3 = "/api/3.0/mlflow/"
NANO = 1_500_000_000_123_456_789
TIME = "2017-07-14T02:40:00.123Z"
SERVERS_OWN = ("mlflow.trace.infoFinalized", "mlflow.trace.sizeBytes", "mlflow.trace.sizeStats")
PLACES = ("mlflow.artifactLocation", "mlflow.trace.spansLocation")


def trace_ids(name: str) -> tuple[str, str]:
    """One whose spans are in the tracking store, and one whose spans are in a file."""
    own = f"{sum(name.encode()) * 7919:032x}"
    return f"tr-{own}", f"from an old server {own[-8:]}"


def seed(rest: Rest, name: str) -> None:
    home = new_experiment(rest, name)
    run_id = rest.post("runs/create", {"experiment_id": home, "start_time": BASE})["run"]["info"]["run_id"]
    stored, filed = trace_ids(name)
    spans = [span(stored, number, home) for number in range(3)]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": home})
    rest.post(f"{V3}traces", {"trace": {"trace_info": info(stored, home, run_id)}})
    for own, other in (("a-3", "a-1"), ("a-0", "a-3")):  # What is overridden twice is not the first by any order.
        rest.post(f"{V3}traces/{stored}/assessments", {"assessment": assessment(stored, own, False, overrides=other)})
    started = rest.post(f"{V3}traces", {"trace": {"trace_info": info(filed, home, run_id)}})["trace"]["trace_info"]
    kept = {"spans": [{"name": "old", "span_id": "x", "attributes": {"mlflow.experimentId": json.dumps(home)}}]}
    rest.upload(started["tags"]["mlflow.artifactLocation"], "traces.json", json.dumps(kept).encode())


def new_trace(rest: Rest, home: str, number: int, run_id: str = "") -> str:
    """A trace of one span, made by a run or by none; returns its id."""
    own = f"tr-{zlib.crc32(f'{rest.uri} {home}'.encode()):024x}{number:08x}"
    told = info(own, home, run_id) | {"assessments": [], **({} if run_id else {"trace_metadata": {}})}
    body = {"resourceSpans": [{"scopeSpans": [{"spans": [span(own, 0, home)]}]}]}
    rest.post("/v1/traces", body, headers={"x-mlflow-experiment-id": home})
    rest.post(f"{V3}traces", {"trace": {"trace_info": told}})
    return own


def span(trace_id: str, number: int, home: str) -> dict[str, Any]:
    own = [b64encode(bytes([1, 2, 3, 4, 5, 6, 7, one])).decode() for one in range(number + 1)]
    attributes = {
        "mlflow.spanInputs": {"kvlist_value": {"values": [{"key": "ü", "value": {"double_value": 0.5}}]}},
        "mlflow.experimentId": {"string_value": home},
        "list": {"array_value": {"values": [{"int_value": 2**60}, {"bool_value": True}]}},
    }
    event = {
        "name": "an event",
        "time_unix_nano": NANO + number,
        "attributes": [{"key": "k", "value": {"int_value": 1}}],
    }
    return {
        "trace_id": b64encode(bytes.fromhex(trace_id.removeprefix("tr-"))).decode(),
        "span_id": own[-1],
        **({"parent_span_id": own[-2]} if number else {}),
        "name": f"span {number}",
        "start_time_unix_nano": NANO + number,
        "end_time_unix_nano": NANO + 1000 - number,
        "attributes": [{"key": key, "value": value} for key, value in attributes.items()],
        "events": [event],
        "status": {"code": "STATUS_CODE_ERROR", "message": "went wrong"} if number else {"code": "STATUS_CODE_OK"},
    }


def info(trace_id: str, home: str, run_id: str) -> dict[str, Any]:
    return {
        "trace_id": trace_id,
        "client_request_id": f"client of {trace_id}"[:50],
        "trace_location": {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": home}},
        "request_preview": "what?",
        "response_preview": "that",
        "request_time": TIME,
        "execution_duration": "1.234s",
        "state": "ERROR",
        "trace_metadata": {"mlflow.sourceRun": run_id, "mlflow.user": "ada"},
        "tags": {"mlflow.traceName": "a trace", "team": "x / ü"},
        "assessments": [
            assessment(trace_id, "a-1", True),
            assessment(trace_id, "a-2", {"b": [1]}) | {"metadata": {"mlflow.assessment.sourceRunId": run_id}},
        ],
    }


def assessment(trace_id: str, own: str, value: Any, **more: Any) -> dict[str, Any]:
    return {
        "assessment_id": suffixed(own, trace_id),
        "assessment_name": "correct",
        "trace_id": trace_id,
        "source": {"source_type": "HUMAN", "source_id": "ada"},
        "create_time": TIME,
        "last_update_time": TIME,
        "feedback": {"value": value},
        "rationale": "because",
        "metadata": {"k": "v"},
        **{key: suffixed(one, trace_id) for key, one in more.items()},
    }


def suffixed(own: str, trace_id: str) -> str:
    """Assessment ids are one namespace for the whole server."""
    return f"{own}-{trace_id[:2]}-{trace_id.replace(' ', '')[-16:]}"


def mutate(rest: Rest, name: str) -> None:
    stored, _ = trace_ids(name)
    rest.patch(f"{V3}traces/{stored}/tags", {"trace_id": stored, "key": "team", "value": "y"})


def held(rest: Rest, name: str) -> Any:
    """Everything of both traces, ids replaced by names."""
    home, run_id = experiment_of(rest, name), run_of(rest, name)["run_id"]
    stored, filed = trace_ids(name)
    told: dict[str, Any] = {}
    for own in (stored, filed):
        found = rest.get(f"{V3}traces/{own}")["trace"]["trace_info"]
        told[own] = {
            **found,
            "tags": {key: value for key, value in found["tags"].items() if key not in PLACES},
            "trace_metadata": {key: one for key, one in found["trace_metadata"].items() if key not in SERVERS_OWN},
        }
        told[f"spans of {own}"] = rest.get("/ajax-api/2.0/mlflow/get-trace-artifact", {"request_id": own})
    text = json.dumps(told, sort_keys=True).replace(run_id, "<run>")
    text = text.replace(f'"experiment_id": "{home}"', '"experiment_id": "<home>"')
    return json.loads(text.replace(json.dumps(json.dumps(home)), '"<home>"'))

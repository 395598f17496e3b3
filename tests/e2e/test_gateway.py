"""The AI gateway through the command line: what waits for a secret says so, and comes when that was entered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import secrets
from tests.conftest import Cli, NewServer
from tests.kinds.gateway_endpoint import endpoint
from tests.kinds.gateway_model_definition import new_definition
from tests.kinds.gateway_secret import GATEWAY, prepare, seed
from tests.rest import Rest
from tests.workspace import BASE

V3 = "/api/3.0/mlflow/"
TRACE = f"tr-{7:032x}"
GATEWAY_KINDS = {"gateway-secrets", "gateway-model-definitions", "gateway-endpoints", "gateway-budgets"}


def told(cli: Cli, code: int, *args: str | Path) -> Any:
    done = cli(*args, "--json", "--debug")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def ended(objects: Any) -> dict[str, int]:
    """What became of the one object of each kind, where that is the same for all."""
    (same,) = {tuple(objects[kind].items()) for kind in GATEWAY_KINDS}
    return dict(same)


def fill(rest: Rest) -> str:
    """An endpoint whose experiment the server makes, a trace of it there, and a budget; returns the endpoint's id."""
    seed(rest, "chat")
    model = {"model_definition_id": new_definition(rest, "chat", "gpt"), "linkage_type": "PRIMARY", "weight": 1.0}
    made = rest.post(f"{GATEWAY}endpoints/create", {"name": "chat", "model_configs": [model]})["endpoint"]
    limit = {"budget_unit": "USD", "budget_amount": 5, "duration": {"unit": "DAYS", "value": 1}}
    scope = {"target_scope": "ENDPOINT", "target_value": made["endpoint_id"], "budget_action": "ALERT"}
    rest.post(f"{GATEWAY}budgets/create", {**limit, **scope})
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": made["experiment_id"]}}
    info = {"trace_id": TRACE, "trace_location": place, "request_time": "2017-07-14T02:40:00Z", "state": "OK"}
    metadata = {"mlflow.gateway.endpointId": made["endpoint_id"]}
    rest.post(f"{V3}traces", {"trace": {"trace_info": {**info, "trace_metadata": metadata}}})
    return str(made["endpoint_id"])


def named_in_trace(rest: Rest) -> str:
    found = rest.get(f"{V3}traces/{TRACE}")["trace"]["trace_info"]
    return str(found["trace_metadata"]["mlflow.gateway.endpointId"])


def test_what_waits_for_a_secret_comes_when_it_is_there(new_server: NewServer, discreet: Cli, tmp_path: Path) -> None:
    source, target = new_server(), new_server()
    everything = ("--objects", "all,gateway")
    archive = tmp_path / "archive"
    with Rest(source.uri) as old, Rest(target.uri) as new:
        old_id = fill(old)
        told(discreet, 0, "export-all", "--tracking-uri", source.uri, "--output-dir", archive, *everything)
        into = ("import-all", "--tracking-uri", target.uri, "--input-dir", archive)

        objects = told(discreet, 0, *into)["objects"]
        assert objects["gateway"] == {"excluded": 1}
        assert named_in_trace(new) == old_id

        summary = told(discreet, 1, *into, *everything)
        assert ended(summary["objects"]) == {"left behind": 1}
        reasons = {loss["kind"]: loss["reason"] for loss in summary["losses"]}
        assert "enter secret 'chat / key' of openai at the target" in reasons["gateway_secret"]
        assert "'chat / key'" in reasons["gateway_model_definition"]
        assert "'chat / key'" in reasons["gateway_endpoint"]
        assert "'chat'" in reasons["gateway_budget"]

        prepare(new, "chat")
        objects = told(discreet, 0, *into, *everything)["objects"]
        assert objects["gateway-secrets"] == {"present": 1}
        assert objects["gateway-endpoints"] == {"created": 1}
        arrived = endpoint(new, "chat")
        experiment = new.get("experiments/get", {"experiment_id": arrived["experiment_id"]})["experiment"]
        tags = {tag["key"]: tag["value"] for tag in experiment["tags"]}
        assert experiment["name"] == "gateway/chat"
        assert tags["mlflow.experiment.sourceId"] == arrived["endpoint_id"]
        assert named_in_trace(new) == arrived["endpoint_id"]

        # Again, without and with the journal: nothing twice, and what was changed at the target stays.
        new.post(f"{GATEWAY}endpoints/update", {"endpoint_id": arrived["endpoint_id"], "usage_tracking": False})
        for state in (tmp_path / "fresh", None, None):
            own = () if state is None else ("--state", state)
            summary = told(discreet, 0, *into, *everything, *own)
            assert ended(summary["objects"]) == {"present": 1}
            # Without the journal, nobody knows that it was the source's.
            others = [one for one in summary["warnings"] if "endpoint 'chat' was at the target before" in one]
            assert len(others) == (state is not None)
        assert not endpoint(new, "chat")["usage_tracking"]


def test_what_changes_at_the_source_changes_at_the_target(new_server: NewServer, cli: Cli) -> None:
    source, target = new_server(), new_server()
    copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "all,gateway")
    with Rest(source.uri) as old, Rest(target.uri) as new:
        own = fill(old)
        prepare(new, "chat")
        told(cli, 0, *copy)
        model = {"model_definition_id": new_definition(old, "chat", "mini"), "linkage_type": "PRIMARY", "weight": 0.5}
        old.post(f"{GATEWAY}endpoints/update", {"endpoint_id": own, "model_configs": [model]})
        old.post(f"{GATEWAY}endpoints/set-tag", {"endpoint_id": own, "key": "team", "value": "x"})
        (budget,) = old.get(f"{GATEWAY}budgets/list")["budget_policies"]
        old.post(f"{GATEWAY}budgets/update", {"budget_policy_id": budget["budget_policy_id"], "budget_amount": 6})
        told(cli, 0, *copy)
        arrived = endpoint(new, "chat")
        assert [one["model_definition"]["name"] for one in arrived["model_mappings"]] == ["mini"]
        assert arrived["tags"] == [{"key": "team", "value": "x"}]
        (budget,) = new.get(f"{GATEWAY}budgets/list")["budget_policies"]
        assert budget["budget_amount"] == 6


def test_a_server_without_a_gateway_is_one_warning(new_server: NewServer, cli: Cli) -> None:
    source, target = new_server(env={"MLFLOW_ENABLE_AI_GATEWAY": "false"}), new_server()
    with Rest(source.uri) as rest:
        rest.post("runs/create", {"experiment_id": "0", "start_time": BASE})
    copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "all,gateway")
    summary = told(cli, 0, *copy)
    assert len([warning for warning in summary["warnings"] if "shows no gateway" in warning]) == 1
    assert not GATEWAY_KINDS & {*summary["objects"]}


def test_a_target_without_a_gateway_is_named(new_server: NewServer, cli: Cli) -> None:
    source, target = new_server(), new_server(env={"MLFLOW_ENABLE_AI_GATEWAY": "false"})
    with Rest(source.uri) as rest:
        fill(rest)
    copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "gateway")
    summary = told(cli, 1, *copy)
    assert ended(summary["objects"]) == {"left behind": 1}
    assert secrets.TOKEN not in str(summary)

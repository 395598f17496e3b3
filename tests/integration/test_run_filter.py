"""Archives are searched as servers are: the same filter finds the same runs, and what one refuses the other refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from amigrate.core.errors import UsageError
from amigrate.kinds.run_filter import parse
from tests.conftest import NewServer
from tests.rest import Rest, RestError
from tests.workspace import BASE

FILTERS = [
    "",
    "metrics.acc > 0.5",
    "metrics.acc >= 0.5 and metrics.acc<1e0",
    "metric.acc != 0.5",
    "metrics.nan != 1",
    "metrics.nan = 0",
    "metrics.`a b` = 2.0",
    'metrics."a b" <= 2',
    "metrics.acc = -1",
    "params.model = 'tree'",
    'param.model = "tree"',
    "parameters.model != 'tree'",
    "params.model LIKE 'tr%'",
    "params.model LIKE 'TR%'",
    "params.model ILIKE 'TR_e'",
    "params.depth = '1'",
    "params.none != 'x'",
    "params.model IS NULL",
    "tags.team IS NOT NULL AND params.model is not null",
    "tags.team = 'x / ü'",
    "tags.`odd key` = 'it (is) AND so'",
    "tags.mlflow.runName = 'run 1'",
    "tags.\"mlflow.note.content\" LIKE '%line%'",
    "run_name = 'run 2'",
    "attributes.`Run name` LIKE 'run %'",
    "attributes.status = 'FINISHED'",
    "status != 'FINISHED'",
    "attribute.user_id = 'ada'",
    f"start_time >= {BASE + 1}",
    f"attributes.start_time < {BASE + 2} AND attributes.end_time > {BASE}",
    f"Created = {BASE}",
    "attributes.run_id IN ('{0}', '{2}')",
    "run.run_id NOT IN ('{0}')",
    "attributes.run_id = '{1}'",
    "attributes.artifact_uri LIKE '%/artifacts'",
    "dataset.name = 'iris'",
    "datasets.digest IN ('d1', 'd2')",
    "dataset.context = 'train'",
    "dataset.name = 'iris' AND dataset.digest = 'd3'",
]
REFUSED = [
    "metrics.acc > 'x'",
    "metrics.acc LIKE 'x'",
    "params.model = tree",
    "params.model > 'a'",
    "attributes.colour = 'red'",
    "metrics.acc > 1 OR metrics.acc < 0",
    "(metrics.acc > 1)",
    "status IN ('FINISHED')",
    "start_time = 'x'",
    "weather.today = 'x'",
    "metrics.acc IS NULL",
    "params.model",
]


@pytest.fixture(scope="module")
def searched(new_module_server: NewServer) -> Iterator[tuple[Rest, list[dict[str, Any]]]]:
    """A server with some runs, and these as it tells them."""
    with Rest(new_module_server().uri) as rest:
        for number in range(4):
            tags = {"team": "x / ü", "odd key": "it (is) AND so", "mlflow.note.content": "one\nline\ntwo"}
            body: dict[str, Any] = {"experiment_id": "0", "run_name": f"run {number}", "start_time": BASE + number}
            body["tags"] = [{"key": key, "value": value} for key, value in tags.items()] if number % 2 else []
            run = rest.post("runs/create", {**body, "user_id": "ada" if number else "bob"})["run"]["info"]["run_id"]
            points = [("acc", 0.9, 0), ("acc", number / 2, 1), ("a b", number, 0), ("nan", "NaN", 0)][: 1 + number]
            metrics = [{"key": key, "value": one, "timestamp": BASE, "step": step} for key, one, step in points]
            params = [{"key": "model", "value": ["tree", "Tree", "line"][number]}] if number < 3 else []
            params += [{"key": "depth", "value": str(number)}]
            rest.post("runs/log-batch", {"run_id": run, "metrics": metrics, "params": params})
            data = {"name": "iris", "digest": f"d{number}", "source_type": "local", "source": "x"}
            used: dict[str, Any] = {"dataset": data}
            used |= {"tags": [{"key": "mlflow.data.context", "value": "train"}]} if number == 3 else {}
            if number > 1:
                rest.post("runs/log-inputs", {"run_id": run, "datasets": [used]})
            if number != 2:
                rest.post("runs/update", {"run_id": run, "status": "FINISHED", "end_time": BASE + number})
        yield rest, rest.post("runs/search", {"experiment_ids": ["0"]})["runs"]


@pytest.mark.parametrize("text", FILTERS)
def test_it_finds_what_the_server_finds(text: str, searched: tuple[Rest, list[dict[str, Any]]]) -> None:
    rest, runs = searched
    ids = sorted(run["info"]["run_id"] for run in runs)
    for place, one in enumerate(ids):
        text = text.replace(f"{{{place}}}", one)
    expected = rest.post("runs/search", {"experiment_ids": ["0"], "filter": text}).get("runs", [])
    wanted = parse(text)
    assert sorted(run["info"]["run_id"] for run in runs if wanted.matches(told(run))) == sorted(
        run["info"]["run_id"] for run in expected
    )


def told(run: dict[str, Any]) -> dict[str, Any]:
    """A run with its numbers as an archive has them."""
    data = run["data"]
    latest = [{**one, "value": float(one["value"])} for one in data.get("metrics", [])]
    return {**run, "data": {**data, "metrics": latest}}


@pytest.mark.parametrize("text", REFUSED)
def test_it_refuses_what_the_server_refuses(text: str, searched: tuple[Rest, list[dict[str, Any]]]) -> None:
    with pytest.raises(RestError):
        searched[0].post("runs/search", {"experiment_ids": ["0"], "filter": text})
    with pytest.raises(UsageError, match="--filter"):
        parse(text)

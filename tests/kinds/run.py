"""A sample run."""

from __future__ import annotations

from tests.kinds import new_experiment, run_of
from tests.rest import Rest
from tests.workspace import BASE


def seed(rest: Rest, name: str) -> None:
    body = {"experiment_id": new_experiment(rest, name), "run_name": "a run", "user_id": "ada", "start_time": BASE}
    run_id = rest.post("runs/create", body)["run"]["info"]["run_id"]
    values = (0.1 + 0.2, "NaN", -1e300)
    points = [{"key": "loss", "value": value, "timestamp": BASE, "step": step} for step, value in enumerate(values)]
    params, tags = [{"key": "depth", "value": "4"}], [{"key": "mlflow.parentRunId", "value": run_id}]
    rest.post("runs/log-batch", {"run_id": run_id, "metrics": points, "params": params, "tags": tags})
    data = {"name": "iris", "digest": "aaaa1111", "source_type": "local", "source": "{}", "profile": "{}"}
    used = {"dataset": data, "tags": [{"key": "context", "value": "training"}]}
    rest.post("runs/log-inputs", {"run_id": run_id, "datasets": [used]})
    rest.post("runs/update", {"run_id": run_id, "status": "KILLED", "end_time": BASE + 1})


def mutate(rest: Rest, name: str) -> None:
    point = {"run_id": run_of(rest, name)["run_id"], "key": "loss", "value": 1, "timestamp": BASE, "step": 3}
    rest.post("runs/log-metric", point)

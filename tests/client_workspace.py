"""A workspace as users make one with the `mlflow` client, and what that client reads of it again.

A process of its own, so that the client's global state meets no test: `python -m tests.client_workspace seed|read URI`.
`read` prints a JSON object; server and copy must print the same.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # It would leave this machine.

import mlflow
import pandas as pd  # type: ignore[import-untyped]
from mlflow.genai.datasets import create_dataset, get_dataset
from mlflow.genai.scorers import Correctness, Guidelines, get_scorer, list_scorers, scorer
from mlflow.tracking import MlflowClient
from sklearn.linear_model import LinearRegression  # type: ignore[import-untyped]

MODEL, PROMPT, CHAT, QUESTIONS = "churn", "greeting", "chat", "questions"
DATA = pd.DataFrame({"x": [1.0, 2.0, 3.0], "y": [2.0, 4.0, 6.0]})


def seed() -> None:
    """Models logged by hand and by autologging, registered from a run and from a logged model, prompts."""
    mlflow.set_experiment("client workspace")
    mlflow.sklearn.autolog(registered_model_name=None)
    with mlflow.start_run(run_name="parent"), mlflow.start_run(run_name="autologged", nested=True) as run:
        LinearRegression().fit(DATA[["x"]], DATA["y"])
    mlflow.sklearn.autolog(disable=True)
    registered = mlflow.register_model(f"runs:/{run.info.run_id}/model", MODEL)
    with mlflow.start_run(run_name="by hand"):
        fitted = LinearRegression(fit_intercept=False).fit(DATA[["x"]], DATA["y"] * 2)
        logged = mlflow.sklearn.log_model(fitted, name="doubled", params={"depth": 4}, input_example=DATA[["x"]][:1])
        data = mlflow.data.pandas_dataset.from_pandas(DATA, name="training")
        mlflow.log_input(data, context="training")
        mlflow.log_metric("mae", 0.5, step=3, model_id=logged.model_id, dataset=data)
    doubled = mlflow.register_model(logged.model_uri, MODEL, tags={"kind": "doubled"})
    client = MlflowClient()
    client.set_registered_model_alias(MODEL, "champion", doubled.version)
    client.set_registered_model_alias(MODEL, "old", registered.version)
    client.copy_model_version(f"models:/{MODEL}/{doubled.version}", "archived churn")
    mlflow.genai.register_prompt(PROMPT, "Hello {{name}}", commit_message="first", tags={"tone": "kind"})
    mlflow.genai.register_prompt(PROMPT, "Good day, {{name}}", commit_message="second")
    mlflow.genai.set_prompt_alias(PROMPT, alias="production", version=1)
    mlflow.genai.register_prompt(CHAT, [{"role": "user", "content": "Who is {{name}}?"}])
    evaluate()


@scorer
def as_expected(outputs: str, expectations: dict[str, Any]) -> bool:
    """A scorer that needs no model."""
    return bool(outputs == expectations["expected_response"])


def evaluate() -> None:
    """A dataset, registered judges, and an evaluation run that leaves traces with assessments."""
    home = mlflow.set_experiment("evaluations").experiment_id
    questions = create_dataset(name=QUESTIONS, experiment_id=[home], tags={"stage": "draft"})
    questions.merge_records(
        [
            {"inputs": {"question": one}, "expectations": {"expected_response": one.upper()}, "tags": {"length": size}}
            for one, size in (("who?", "short"), ("how many?", "long"))
        ]
    )
    Guidelines(name="polite", guidelines=["Be polite."]).register()
    Guidelines(name="polite", guidelines=["Be polite.", "Be brief."]).register()
    Correctness(name="right").register()
    with mlflow.start_run(run_name="evaluation"):
        mlflow.genai.evaluate(
            data=questions, predict_fn=lambda question: question.replace("who", "WHO"), scorers=[as_expected]
        )


def read_evaluations() -> dict[str, Any]:
    """What a user gets of that."""
    home = mlflow.set_experiment("evaluations").experiment_id
    questions = get_dataset(name=QUESTIONS)
    traces = mlflow.search_traces(locations=[home], return_type="list")
    (run,) = MlflowClient().search_runs([home])
    assert run.inputs is not None
    used = [json.loads(one.dataset.source)["dataset_id"] for one in run.inputs.dataset_inputs]
    return {
        "dataset": [questions.name, content(questions.tags), questions.experiment_ids == [home], questions.schema],
        "records": sorted(
            map(str, questions.to_df()[["inputs", "outputs", "expectations", "tags", "source_type"]].to_dict("records"))
        ),
        "used": used == [questions.dataset_id],
        "metrics": run.data.metrics,
        "traces": sorted(
            [
                trace.info.request_preview,
                trace.info.response_preview,
                trace.info.trace_metadata["mlflow.sourceRun"] == run.info.run_id,
                sorted([str(one.name), str(one.value)] for one in trace.info.assessments),
                [[span.name, span.inputs, span.outputs] for span in trace.data.spans],
            ]
            for trace in traces
        ),
        "scorers": [
            [one.name, _settings(one)]
            for one in (
                *sorted(list_scorers(experiment_id=home), key=lambda one: str(one.name)),
                get_scorer(name="polite", experiment_id=home, version=1),
            )
        ],
    }


def _settings(one: Any) -> dict[str, Any]:
    """What makes up a scorer; a set in it comes in an order that differs from process to process."""
    told: dict[str, Any] = one.model_dump()["builtin_scorer_pydantic_data"]
    return told | {"required_columns": sorted(told["required_columns"])}


def read() -> dict[str, Any]:
    """What a user gets of it."""
    inputs = pd.DataFrame({"x": [10.0]})
    predictions = {
        uri: float(mlflow.pyfunc.load_model(uri).predict(inputs)[0])
        for uri in (
            f"models:/{MODEL}@champion",
            f"models:/{MODEL}@old",
            f"models:/{MODEL}/2",
            "models:/archived churn/1",
        )
    }
    client = MlflowClient()
    experiment = mlflow.get_experiment_by_name("client workspace")
    assert experiment is not None
    models = client.search_logged_models([experiment.experiment_id])
    runs = {run.info.run_id: run for run in client.search_runs([experiment.experiment_id])}
    return {
        "evaluations": read_evaluations(),
        "predictions": predictions,
        "prompts": [
            [one.name, one.version, one.template, one.commit_message, content(one.tags)]
            for one in (
                mlflow.genai.load_prompt(f"prompts:/{PROMPT}@production"),
                mlflow.genai.load_prompt(f"prompts:/{PROMPT}/2"),
                mlflow.genai.load_prompt(f"prompts:/{CHAT}/1"),
            )
        ],
        "logged models": sorted(
            [
                model.name,
                model.model_type or "",
                str(model.status),
                dict(sorted(model.params.items())),
                [[one.key, one.value, one.step, one.dataset_name] for one in model.metrics or []],
                runs[model.source_run_id].info.run_name,
                sorted(json.loads(model.tags.get("mlflow.modelVersions", "[]")), key=str),
                sorted(one.path for one in client.list_logged_model_artifacts(model.model_id)),
                model.model_id in (mlflow.models.Model.load(model.artifact_location).model_id or ""),
            ]
            for model in models
        ),
        "versions": sorted(
            [one.name, int(one.version), runs[one.run_id].info.run_name, sorted(one.aliases), content(one.tags)]
            for name in (MODEL, "archived churn")
            for one in (client.get_model_version(name, found.version) for found in versions(client, name))
        ),
        "parents": sorted(
            runs[parent].info.run_name for run in runs.values() if (parent := run.data.tags.get("mlflow.parentRunId"))
        ),
    }


def versions(client: MlflowClient, name: str) -> Any:
    return client.search_model_versions(f"name = '{name}'")


def content(tags: dict[str, str]) -> dict[str, str]:
    """Tags without those that say where an object came from."""
    return {key: value for key, value in sorted(tags.items()) if not key.startswith("amigrate.")}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    mlflow.set_tracking_uri(sys.argv[2])
    if sys.argv[1] == "seed":
        seed()
    else:
        sys.stdout.write(json.dumps(read(), sort_keys=True))

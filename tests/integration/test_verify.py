"""`amigrate verify` finds each of many single changes, names the object that changed, and says nothing else.

One workspace is exported, and imported from its archive. Then everything is changed at once, each change on an object
of its own: on the server that got the copy, and in a copy of the archive.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from amigrate.kinds import REGISTRY
from amigrate.report import summary
from tests.conftest import Cli, NewServer
from tests.kinds import objects, plain_kinds, prepare, prompt, sample
from tests.kinds.logged_model import new_model
from tests.kinds.trace import V3, info, span
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.verified import Verdict, verified
from tests.workspace import BASE

Doc = dict[str, Any]
Seen = tuple[str, str, str]
"""Sigil, kind, and the object by names that both sides share: `label` of a run, `label/path` of a file."""

FILES = {"MLmodel": b"", "data/table.csv": b"1,2,3\n", "weights": bytes(range(99))}
HOME = "main"


# ---- what is there ---------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Side:
    """One server, and the ids of what is there by the names that both sides share."""

    server: MlflowServer
    rest: Rest
    experiments: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)

    def read(self) -> None:
        """Learn the ids."""
        found = list(self.rest.pages("experiments/search", "experiments", {"view_type": "ALL"}))
        self.experiments = {one["name"]: one["experiment_id"] for one in found}
        query = {"experiment_ids": list(self.experiments.values()), "run_view_type": "ALL"}
        runs = self.rest.pages("runs/search", "runs", query)
        self.runs = {one["info"]["run_name"]: one["info"]["run_id"] for one in runs}
        home = {"experiment_ids": [self.experiments[HOME]]}
        models = self.rest.pages("logged-models/search", "models", home)
        self.models = {one["info"]["name"]: one["info"]["model_id"] for one in models}

    def run(self, experiment: str, label: str, tags: dict[str, str] | None = None) -> str:
        """Make a run; returns where its files are."""
        body = {"experiment_id": self.experiments[experiment], "run_name": label, "start_time": BASE, "user_id": "ada"}
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        made = self.rest.post("runs/create", {**body, "tags": pairs})["run"]["info"]
        self.runs[label] = made["run_id"]
        return str(made["artifact_uri"])

    def fill(self, label: str) -> None:
        """Give a run something of everything but files."""
        run_id = self.runs[label]
        points = [{"key": "loss", "value": step / 7, "timestamp": BASE + step, "step": step} for step in range(3)]
        points.append({"key": "accuracy", "value": 0.5, "timestamp": BASE, "step": 0})
        params = [{"key": "depth", "value": "4"}, {"key": "width", "value": "é" * 90}]
        self.rest.post("runs/log-batch", {"run_id": run_id, "metrics": points, "params": params})
        data = {"name": "iris", "digest": label[:36], "source_type": "local", "source": "{}", "profile": "{}"}
        used = {"dataset": data, "tags": [{"key": "context", "value": "training"}]}
        self.rest.post("runs/log-inputs", {"run_id": run_id, "datasets": [used]})
        self.rest.post("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": BASE + 5})

    def file(self, label: str, path: str) -> Path:
        """A run's file on the server's disk."""
        return self.server.artifacts / self.experiments[HOME] / self.runs[label] / "artifacts" / path

    def sql(self, statement: str, *values: str) -> None:
        """Change what no request can change."""
        with closing(sqlite3.connect(self.server.database, timeout=60)) as db, db:
            assert db.execute(statement, values).rowcount == 1, statement


def seed(side: Side) -> None:
    """One object for each change, and some that are never changed."""
    for name in (HOME, "tagged", "doomed", "gone"):
        body = {"name": name, "tags": [{"key": "owner", "value": "ada"}]}
        side.experiments[name] = side.rest.post("experiments/create", body)["experiment_id"]
    side.run("doomed", "in doomed")
    for label in ("neighbour", *IN_RUNS, *ARCHIVED_RUNS):
        if label not in side.runs:
            side.run(HOME, label, {"team": "red", "mlflow.parentRunId": side.runs.get("neighbour", "")})
            side.fill(label)
    for label in IN_FILES:
        location = side.run(HOME, label)
        for path, content in (FILES | {"MLmodel": f"run_id: {side.runs[label]}\n".encode()}).items():
            side.rest.upload(location, path, content)
    for label in ("linked", *IN_LOGGED_MODELS):
        measured(side, new_model(side.rest, side.experiments[HOME], label, side.runs["neighbour"])["model_id"])
    linked = next(one for one in side.rest.pages("logged-models/search", "models", home_of(side)) if named(one))
    models = [{"model_id": linked["info"]["model_id"], "step": 1}]
    side.rest.post("runs/outputs", {"run_id": side.runs["a link less"], "models": models})
    for label in (*IN_MODELS, "another name"):
        registered(side.rest, label, [], {"source": "s3://elsewhere/and/far"})
    for label in IN_PROMPTS:
        tags = [prompt.IS_PROMPT, {"key": "mlflow.prompt.text", "value": "ask {{it}}"}]
        registered(side.rest, label, [prompt.IS_PROMPT], {"source": "prompt-template", "tags": tags})
    traces(side)
    for kind in plain_kinds():
        sample(kind).seed(side.rest, name_of(kind))


def home_of(side: Side) -> Doc:
    return {"experiment_ids": [side.experiments[HOME]]}


def named(model: Doc) -> bool:
    return bool(model["info"]["name"] == "linked")


def measured(side: Side, model_id: str) -> None:
    """Give a logged model a metric; its run gets the point too."""
    point = {"key": "of a model", "value": 0.5, "timestamp": BASE, "step": 0, "model_id": model_id}
    side.rest.post("runs/log-batch", {"run_id": side.runs["neighbour"], "metrics": [point]})


def registered(rest: Rest, name: str, tags: list[Doc], version: Doc) -> None:
    """A name of the registry with two versions."""
    rest.post("registered-models/create", {"name": name, "description": "before", "tags": tags})
    for number in ("1", "2"):
        rest.post("model-versions/create", {"name": name, "description": f"version {number}", **version})
    rest.post("registered-models/alias", {"name": name, "alias": "champion", "version": "1"})


def traces(side: Side) -> None:
    """A trace for each change: the spans of all of them in one request."""
    home = side.experiments[HOME]
    spans = [span(trace_id(label), number, home) for label in IN_TRACES for number in range(2)]
    headers = {"x-mlflow-experiment-id": home}
    side.rest.post("/v1/traces", {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}, headers=headers)
    for label in IN_TRACES:
        told = info(trace_id(label), home, side.runs["neighbour"])
        told["tags"]["mlflow.traceName"] = label
        side.rest.post(f"{V3}traces", {"trace": {"trace_info": told}})


def trace_id(label: str) -> str:
    return f"tr-{[*IN_TRACES].index(label) + 1:024x}{'0' * 8}"[:27] + f"{[*IN_TRACES].index(label) + 1:08x}"


def name_of(kind: str) -> str:
    return f"sample of {kind}"


# ---- changes on a server ---------------------------------------------------------------------------------------------

Change = Callable[[Side, str], object]
"""Changes one thing of the object with this label, at the side that got the copy."""


def posted(path: str, **body: object) -> Change:
    """A request about a run."""
    return lambda side, label: side.rest.post(path, {"run_id": side.runs[label], **body})


def point(key: str, value: float) -> Change:
    return posted("runs/log-metric", key=key, value=value, timestamp=BASE, step=9)


def in_database(statement: str) -> Change:
    """One row that belongs to a run."""
    return lambda side, label: side.sql(statement, side.runs[label])


def in_metrics(what: str) -> Change:
    return in_database(f"{what} AND key = 'loss' AND step = 1 AND run_uuid = ?")


def on_disk(path: str, change: Callable[[Path], object]) -> Change:
    return lambda side, label: change(side.file(label, path))


def flipped(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def other_ids(side: Side, label: str) -> None:
    """Its MLmodel names the neighbour now, as the source's names the run itself."""
    path = side.file(label, "MLmodel")
    path.write_text(path.read_text().replace(side.runs[label], side.runs["neighbour"]))


def twin(side: Side, label: str) -> None:
    """A second run that claims to be the same one."""
    tags = side.rest.get("runs/get", {"run_id": side.runs[label]})["run"]["data"]["tags"]
    origin = next(tag["value"] for tag in tags if tag["key"] == "amigrate.source_run_id")
    side.rest.post("runs/create", {**home_of_run(side), "tags": [{"key": "amigrate.source_run_id", "value": origin}]})


def home_of_run(side: Side) -> Doc:
    return {"experiment_id": side.experiments[HOME], "run_name": "a twin", "start_time": BASE}


def origin_as_parent(side: Side, label: str) -> None:
    """The id of the parent at the source, as tools leave it that do not map ids."""
    tags = side.rest.get("runs/get", {"run_id": side.runs["neighbour"]})["run"]["data"]["tags"]
    origin = next(tag["value"] for tag in tags if tag["key"] == "amigrate.source_run_id")
    posted("runs/set-tag", key="mlflow.parentRunId", value=origin)(side, label)


def vanished(side: Side, label: str) -> None:
    """As after `mlflow gc`."""
    with closing(sqlite3.connect(side.server.database, timeout=60)) as db, db:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            db.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (side.runs[label],))


def without_accuracy(side: Side, label: str) -> None:
    for table in ("metrics", "latest_metrics"):
        side.sql(f"DELETE FROM {table} WHERE key = 'accuracy' AND run_uuid = ?", side.runs[label])


OF_INPUT = "(SELECT input_uuid FROM inputs WHERE source_type = 'DATASET' AND destination_id = ?)"
OF_DATASET = "(SELECT source_id FROM inputs WHERE source_type = 'DATASET' AND destination_id = ?)"
IN_RUNS: dict[str, Change] = {
    "another value": in_metrics("UPDATE metrics SET value = 9 WHERE 1"),
    "a value next to it": in_metrics("UPDATE metrics SET value = value * (1 + 3e-16) WHERE 1"),
    "NaN": in_metrics("UPDATE metrics SET value = 0, is_nan = 1 WHERE 1"),
    "another time": in_metrics("UPDATE metrics SET timestamp = timestamp + 1 WHERE 1"),
    "another step": in_metrics("UPDATE metrics SET step = -1 WHERE 1"),
    "a point less": in_metrics("DELETE FROM metrics WHERE 1"),
    "a point more": point("loss", 1.0),
    "a series more": point("more", 1.0),
    "a series less": without_accuracy,
    "another param": in_database("UPDATE params SET value = '5' WHERE key = 'depth' AND run_uuid = ?"),
    "a param less": in_database("DELETE FROM params WHERE key = 'depth' AND run_uuid = ?"),
    "a param more": posted("runs/log-parameter", key="more", value="1"),
    "the end of a long param": in_database(
        "UPDATE params SET value = substr(value, 1, 89) || 'e' WHERE key = 'width' AND run_uuid = ?"
    ),
    "another tag": posted("runs/set-tag", key="team", value="blue"),
    "a tag less": posted("runs/delete-tag", key="team"),
    "a tag more": posted("runs/set-tag", key="more", value=""),
    "another name": posted("runs/update", run_name="renamed"),
    "another status": posted("runs/update", status="FAILED", end_time=BASE + 5),
    "another end": posted("runs/update", status="FINISHED", end_time=BASE + 6),
    "another start": in_database("UPDATE runs SET start_time = 7 WHERE run_uuid = ?"),
    "another user": in_database("UPDATE runs SET user_id = 'bob' WHERE run_uuid = ?"),
    "deleted": posted("runs/delete"),
    "another input tag": in_database(f"UPDATE input_tags SET value = 'evaluation' WHERE input_uuid = {OF_INPUT}"),
    "another profile": in_database(f"UPDATE datasets SET dataset_profile = '[]' WHERE dataset_uuid = {OF_DATASET}"),
    "an input less": in_database("DELETE FROM inputs WHERE source_type = 'DATASET' AND destination_id = ?"),
    "a moved parent": lambda side, label: posted("runs/set-tag", key="mlflow.parentRunId", value=side.runs[label])(
        side, label
    ),
    "a parent by its old id": origin_as_parent,
    "a link less": in_database("DELETE FROM inputs WHERE source_type = 'RUN_OUTPUT' AND source_id = ?"),
    "twice": twin,
    "vanished": vanished,
}
SIGILS = {"twice": "!", "vanished": "-"}
"""Where a change is not simply a difference."""
IN_FILES: dict[str, tuple[Change, tuple[str, str]]] = {
    "another byte": (on_disk("weights", flipped), ("*", "weights")),
    "a byte less": (on_disk("weights", shortened), ("*", "weights")),
    "a byte more": (on_disk("data/table.csv", lambda path: path.write_bytes(b"1,2,3\n4")), ("*", "data/table.csv")),
    "a file less": (on_disk("data/table.csv", Path.unlink), ("-", "data/table.csv")),
    "a file more": (on_disk("data/more", lambda path: path.write_bytes(b"")), ("+", "data/more")),
    "names of others": (other_ids, ("*", "MLmodel")),
}


def on_model(statement: str) -> Change:
    return lambda side, label: side.sql(statement, side.models[label])


def patched(side: Side, label: str, path: str, **body: object) -> object:
    own = side.models[label]
    return side.rest.patch(f"logged-models/{own}{path}", {"model_id": own, **body})


IN_LOGGED_MODELS: dict[str, Change] = {
    "metric of a logged model": on_model("UPDATE logged_model_metrics SET metric_value = 1 WHERE model_id = ?"),
    "dataset of its metric": on_model(
        "UPDATE logged_model_metrics SET dataset_name = 'x', dataset_digest = 'y' WHERE model_id = ?"
    ),
    "param of a logged model": on_model(
        "UPDATE logged_model_params SET param_value = '5' WHERE param_key = 'depth' AND model_id = ?"
    ),
    "tag of a logged model": lambda side, label: patched(side, label, "/tags", tags=[{"key": "owner", "value": "bob"}]),
    "status of a logged model": lambda side, label: patched(side, label, "", status="LOGGED_MODEL_UPLOAD_FAILED"),
}

InRegistry = tuple[str, Callable[[Rest, str], object]]
"""The kind that changes, and the change of the name with this label."""
IN_MODELS: dict[str, InRegistry] = {
    "swapped alias": (
        "registered_model",
        lambda rest, name: rest.post("registered-models/alias", {"name": name, "alias": "champion", "version": "2"}),
    ),
    "description of a model": (
        "registered_model",
        lambda rest, name: rest.patch("registered-models/update", {"name": name, "description": "after"}),
    ),
    "moved stage": (
        "model_version",
        lambda rest, name: rest.post(
            "model-versions/transition-stage",
            {"name": name, "version": "1", "stage": "Production", "archive_existing_versions": False},
        ),
    ),
    "description of a version": (
        "model_version",
        lambda rest, name: rest.patch("model-versions/update", {"name": name, "version": "1", "description": "after"}),
    ),
}
IN_PROMPTS: dict[str, InRegistry] = {
    "text of a prompt": (
        "prompt_version",
        lambda rest, name: rest.post(
            "model-versions/set-tag", {"name": name, "version": "1", "key": "mlflow.prompt.text", "value": "ask {{me}}"}
        ),
    ),
    "alias of a prompt": (
        "prompt",
        lambda rest, name: rest.post("registered-models/alias", {"name": name, "alias": "new", "version": "1"}),
    ),
}


def in_span(change: Callable[[Doc], object]) -> Change:
    """The second span of a trace, as the database has it."""

    def changed(side: Side, label: str) -> None:
        with closing(sqlite3.connect(side.server.database, timeout=60)) as db, db:
            own, text = db.execute(
                "SELECT span_id, content FROM spans WHERE trace_id = ? AND name = 'span 1'", (trace_id(label),)
            ).fetchone()
            content = json.loads(text)
            change(content)
            query = "UPDATE spans SET content = ? WHERE trace_id = ? AND span_id = ?"
            db.execute(query, (json.dumps(content), trace_id(label), own))

    return changed


def of_trace(statement: str) -> Change:
    return lambda side, label: side.sql(statement, trace_id(label))


IN_TRACES: dict[str, Change] = {
    "lost event": in_span(lambda content: content["events"].clear()),
    "event attribute": in_span(lambda content: content["events"][0]["attributes"].update(k=2)),
    "span attribute": in_span(lambda content: content["attributes"].update({"list": "[1152921504606846975, true]"})),
    "span status": in_span(lambda content: content["status"].update(message="went right")),
    "assessment value": of_trace("UPDATE assessments SET value = 'false' WHERE value = 'true' AND trace_id = ?"),
    "assessment rationale": of_trace("UPDATE assessments SET rationale = 'x' WHERE value = 'true' AND trace_id = ?"),
    "trace tag": of_trace("UPDATE trace_tags SET value = 'y' WHERE key = 'team' AND request_id = ?"),
    "trace preview": of_trace("UPDATE trace_info SET response_preview = 'this' WHERE request_id = ?"),
    "trace duration": of_trace("UPDATE trace_info SET execution_time_ms = 1235 WHERE request_id = ?"),
}


def experiments(side: Side) -> set[Seen]:
    """Changes of experiments, and what they take along."""
    tag = {"experiment_id": side.experiments["tagged"], "key": "owner", "value": "bob"}
    side.rest.post("experiments/set-experiment-tag", tag)
    side.rest.post("experiments/delete", {"experiment_id": side.experiments["doomed"]})
    side.rest.post("experiments/update", {"experiment_id": side.experiments["gone"], "new_name": "new"})
    return {
        ("*", "experiment", "tagged"),
        ("*", "experiment", "doomed"),
        ("*", "run", "in doomed"),
        ("-", "experiment", "gone"),
        ("+", "experiment", "new"),
    }


def changed(side: Side) -> set[Seen]:
    """Change everything; returns what has to be found."""
    expected = experiments(side)
    for label, change in IN_RUNS.items():
        change(side, label)
        expected.add((SIGILS.get(label, "*"), "run", label))
    for label, (change, (sigil, path)) in IN_FILES.items():
        change(side, label)
        expected.add((sigil, "artifact", f"{label}/{path}"))
    for label, change in IN_LOGGED_MODELS.items():
        change(side, label)
        expected.add(("*", "logged_model", label))
    for label, (kind, change_it) in (IN_MODELS | IN_PROMPTS).items():
        change_it(side.rest, label)
        expected.add(("*", kind, f"{label}/1" if kind.endswith("_version") else label))
    for label, change in IN_TRACES.items():
        change(side, label)
        expected.add(("*", "trace", label))
    return expected


# ---- changes in an archive -------------------------------------------------------------------------------------------


def loss(number: int) -> Callable[[Doc], Doc]:
    """A point of a run's document."""
    return lambda doc: doc["mlflow"]["metrics"]["loss"][number]


InDocument = Callable[[Doc], object]
ARCHIVED_RUNS: dict[str, InDocument] = {
    "another value": lambda doc: loss(1)(doc).update(value=9.0),
    "a value next to it": lambda doc: loss(1)(doc).update(value=loss(1)(doc)["value"] * (1 + 3e-16)),
    "NaN": lambda doc: loss(1)(doc).update(value="NaN"),
    "another time": lambda doc: loss(1)(doc).update(timestamp=BASE + 2),
    "another step": lambda doc: loss(1)(doc).update(step=-1),
    "a point less": lambda doc: doc["mlflow"]["metrics"]["loss"].pop(),
    "a point more": lambda doc: doc["mlflow"]["metrics"]["loss"].append({**loss(1)(doc), "step": 9}),
    "a point more, counted": lambda doc: (
        doc["mlflow"]["metrics"]["loss"].append({**loss(1)(doc), "step": 9}),
        doc["info"]["series"]["loss"].update(points=4),
    ),
    "a series less": lambda doc: (doc["mlflow"]["metrics"].pop("accuracy"), doc["info"]["series"].pop("accuracy")),
    "another param": lambda doc: doc["mlflow"]["params"].update(depth="5"),
    "a param less": lambda doc: doc["mlflow"]["params"].pop("depth"),
    "a param more": lambda doc: doc["mlflow"]["params"].update(more="1"),
    "the end of a long param": lambda doc: doc["mlflow"]["params"].update(width="é" * 89 + "e"),
    "another tag": lambda doc: doc["mlflow"]["tags"].update(team="blue"),
    "a tag less": lambda doc: doc["mlflow"]["tags"].pop("team"),
    "a tag more": lambda doc: doc["mlflow"]["tags"].update(more=""),
    "another name": lambda doc: doc["mlflow"]["info"].update(run_name="renamed"),
    "another status": lambda doc: doc["mlflow"]["info"].update(status="FAILED"),
    "another end": lambda doc: doc["mlflow"]["info"].update(end_time=BASE + 6),
    "another start": lambda doc: doc["mlflow"]["info"].update(start_time=7),
    "another user": lambda doc: doc["mlflow"]["info"].update(user_id="bob"),
    "deleted": lambda doc: doc["mlflow"]["info"].update(lifecycle_stage="deleted"),
    "another input tag": lambda doc: doc["mlflow"]["inputs"]["dataset_inputs"][0]["tags"][0].update(value="x"),
    "another profile": lambda doc: doc["mlflow"]["inputs"]["dataset_inputs"][0]["dataset"].update(profile="[]"),
    "an input less": lambda doc: doc["mlflow"]["inputs"]["dataset_inputs"].clear(),
    "a moved parent": lambda doc: doc["mlflow"]["tags"].update({"mlflow.parentRunId": "f" * 32}),
    "a link less": lambda doc: doc["mlflow"]["outputs"]["model_outputs"].clear(),
}
ARCHIVED_MODELS: dict[str, InDocument] = {
    "metric of a logged model": lambda doc: doc["mlflow"]["metrics"][0].update(value=1.0),
    "param of a logged model": lambda doc: doc["mlflow"]["params"].update(depth="5"),
    "tag of a logged model": lambda doc: doc["mlflow"]["tags"].update(owner="bob"),
    "status of a logged model": lambda doc: doc["mlflow"].update(status="FAILED"),
}
ARCHIVED_NAMES: dict[str, tuple[str, InDocument]] = {
    "swapped alias": ("registered_model", lambda of: of["aliases"][0].update(version="2")),
    "description of a model": ("registered_model", lambda of: of.update(description="after")),
    "moved stage": ("model_version", lambda of: of["versions"][0].update(current_stage="Production")),
    "description of a version": ("model_version", lambda of: of["versions"][0].update(description="after")),
    "text of a prompt": ("prompt_version", lambda of: of["versions"][0]["tags"].update({"mlflow.prompt.text": "x"})),
    "alias of a prompt": ("prompt", lambda of: of["aliases"].append({"alias": "new", "version": "1"})),
}
ARCHIVED_TRACES: dict[str, InDocument] = {
    "lost event": lambda doc: doc["mlflow"]["spans"][1].pop("events"),
    "span attribute": lambda doc: doc["mlflow"]["spans"][1]["attributes"].pop(),
    "span status": lambda doc: doc["mlflow"]["spans"][1]["status"].update(message="went right"),
    "assessment value": lambda doc: doc["mlflow"]["trace_info"]["assessments"][0]["feedback"].update(value=False),
    "trace tag": lambda doc: doc["mlflow"]["trace_info"]["tags"].update(team="y"),
    "trace duration": lambda doc: doc["mlflow"]["trace_info"].update(execution_duration="1.235s"),
}
ARCHIVED_FILES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "another byte": ("weights", flipped, "*"),
    "a byte less": ("weights", shortened, "*"),
    "a byte more": ("data/table.csv", lambda path: path.write_bytes(b"1,2,3\n4"), "*"),
    "a file less": ("data/table.csv", Path.unlink, "-"),
}


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive on disk."""

    folder: Path
    home: Path
    """The folder of the experiment that holds most of it."""

    def documents(self, kind: str) -> dict[str, Path]:
        """The documents of one kind by the names of their objects."""
        names = {
            "runs/*/run.json": lambda doc: doc["info"]["run_name"],
            "logged_models/*/logged_model.json": lambda doc: doc["name"],
            "traces/*/trace.json": lambda doc: doc["trace_info"]["tags"]["mlflow.traceName"],
        }
        return {names[kind](json.loads(path.read_text())["mlflow"]): path for path in self.home.glob(kind)}

    def place(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()


def inside(what: str, change: InDocument) -> InDocument:
    return lambda doc: change(doc["mlflow"][what])


def edited(path: Path, change: InDocument) -> None:
    doc = json.loads(path.read_text())
    change(doc)
    path.write_text(json.dumps(doc, indent=2, ensure_ascii=False) + "\n")


def damaged(archive: Archive) -> tuple[set[Seen], set[Seen]]:
    """Change everything in an archive. Returns what a comparison has to find, and what the archive alone tells."""
    expected: set[Seen] = set()
    alone: set[Seen] = set()
    runs = archive.documents("runs/*/run.json")
    changes = {runs[label]: (("*", "run", label), change) for label, change in ARCHIVED_RUNS.items()}
    models = archive.documents("logged_models/*/logged_model.json")
    changes |= {models[name]: (("*", "logged_model", name), change) for name, change in ARCHIVED_MODELS.items()}
    told = archive.documents("traces/*/trace.json")
    changes |= {told[name]: (("*", "trace", name), change) for name, change in ARCHIVED_TRACES.items()}
    for name, (kind, change) in ARCHIVED_NAMES.items():
        of_prompt = kind.startswith("prompt")
        document = archive.folder / (f"prompts/{name}/prompt.json" if of_prompt else f"models/{name}/model.json")
        label = f"{name}/1" if kind.endswith("_version") else name
        changes[document] = (("*", kind, label), inside("prompt" if of_prompt else "registered_model", change))
    for document, (seen, change) in changes.items():
        edited(document, change)
        expected.add(seen)
        alone.add(("*", "document", archive.place(document)))
    for label, (name, change_file, sigil) in ARCHIVED_FILES.items():
        change_file(runs[label].parent / "artifacts" / name)
        expected.add(("*", "artifact", f"{label}/{name}"))
        alone.add((sigil, "artifact", f"{label}/{name}"))
    return expected, alone


# ---- the tests -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """A workspace, its archive, and the server that got it from there."""

    a: Side
    b: Side
    archive: Path
    cli: Cli

    def seen(self, verdict: Verdict) -> set[Seen]:
        """What was found, each object by the names that both sides share."""
        labels = {own: label for side in (self.a, self.b) for label, own in side.runs.items()}
        found = set()
        for one in verdict.found:
            owner = labels.get(one["key"].split("/")[1], "") if one["kind"] == "artifact" else ""
            label = f"{owner}/{one['id']}" if owner else one["name"] if one["kind"] in NAMED else one["id"]
            found.add((one["sigil"], one["kind"], label))
        return found


EVERYTHING = ("--deleted", "--objects", objects())
NAMED = ("experiment", "run", "logged_model", "trace")


@pytest.fixture(scope="module")
def moved(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    folder = tmp_path_factory.mktemp("verified")
    a, b = (Side(server, Rest(server.uri)) for server in (new_module_server(), new_module_server()))
    cli, archive = Cli(folder), folder / "archive"
    seed(a)
    prepare(b.rest, ((kind, name_of(kind)) for kind in plain_kinds()))
    for args in (
        ("export-all", "--tracking-uri", a.server.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", b.server.uri, "--input-dir", archive),
    ):
        done = cli(*args, *EVERYTHING)
        assert done.returncode == 0, done.stdout + done.stderr
    for side in (a, b):
        side.read()
    return Moved(a, b, archive, cli)


def test_an_equal_pair(moved: Moved) -> None:
    one, other, archive = moved.a.server.uri, moved.b.server.uri, moved.archive
    verdicts = [verified(moved.cli, *pair, *EVERYTHING) for pair in ((one, other), (one, archive), (archive, other))]
    for verdict in verdicts:
        assert (verdict.code, verdict.found) == (0, [])
        assert verdict.told["equal"] is True
        assert verdict.objects == verdicts[0].objects > 100
        assert {*verdict.told["objects"]} == {summary.label(kind) for kind in plain_kinds()}


def test_an_archive_alone(moved: Moved) -> None:
    verdict = verified(moved.cli, moved.archive)
    assert (verdict.code, verdict.found) == (0, [])
    names = {"manifest.json", "experiments.json", *(kind.document for kind in REGISTRY.values() if kind.document)}
    documents = [path for path in moved.archive.rglob("*.json") if path.name in names]
    assert verdict.told["objects"]["documents"]["="] == len(documents)


def test_changes_in_an_archive(moved: Moved, tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(moved.archive, folder)
    expected, alone = damaged(Archive(folder, folder / "experiments" / moved.a.experiments[HOME]))
    assert len(expected) >= 40
    verdict = verified(moved.cli, moved.a.server.uri, folder, *EVERYTHING)
    assert verdict.code == 3
    assert moved.seen(verdict) == expected
    stray = folder / "experiments" / "stray.json"
    stray.write_text("{}")
    more = next(folder.glob("experiments/*/runs/*/artifacts/weights")).with_name("more")
    more.write_text("more")
    (folder / "prompts" / "text of a prompt" / "prompt.json").unlink()
    verdict = verified(moved.cli, folder)
    assert verdict.code == 3
    seen = moved.seen(verdict)
    assert ("+", "file", "experiments/stray.json") in seen
    assert ("+", "file", more.relative_to(folder).as_posix()) in seen
    assert ("-", "prompt", "text of a prompt") in seen
    gone = ("*", "document", "prompts/text of a prompt/prompt.json")
    assert alone - {gone} <= seen


def test_changes_on_a_server(moved: Moved) -> None:
    expected = changed(moved.b)
    assert len(expected) >= 40
    verdict = verified(moved.cli, moved.a.server.uri, moved.b.server.uri, *EVERYTHING)
    assert verdict.code == 3
    assert moved.seen(verdict) == expected
    for kind in plain_kinds():
        sample(kind).mutate(moved.b.rest, name_of(kind))
    moved.b.rest.post("registered-models/rename", {"name": "another name", "new_name": "the same"})
    renames = ("--rename-experiments", "gone=new", "--rename-models", "re:another (.*)=the same")
    again = verified(moved.cli, moved.a.server.uri, moved.b.server.uri, *EVERYTHING, "--quick", *renames)
    found = moved.seen(again)
    of_the_same_size = {("*", "artifact", one) for one in ("another byte/weights", "names of others/MLmodel")}
    assert expected - found == {("-", "experiment", "gone"), ("+", "experiment", "new"), *of_the_same_size}
    assert sorted(kind for _, kind, _ in found - expected) == sorted({*plain_kinds()} - {"artifact"})

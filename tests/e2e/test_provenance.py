"""Who is who after a move: three tags tell, or with `--no-provenance` the journal alone; nothing arrives twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.kinds import prompt, sample
from tests.rest import Rest
from tests.servers import MlflowServer

KINDS = (
    "run", "logged_model", "registered_model", "model_version", "prompt", "prompt_version", "trace",
    "evaluation_dataset", "dataset_record", "scorer",
)  # fmt: skip
MODEL, PROMPT = name_of("registered_model"), name_of("prompt")
ALLOWED = {"amigrate.source_run_id", "amigrate.source_model_id", "amigrate.source_dataset_id"}


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    with Rest(server.uri) as rest:
        for kind in KINDS:
            sample(kind).seed(rest, name_of(kind))
    return server


def copied(cli: Cli, source: MlflowServer, target: MlflowServer, state: Path, *args: str, code: int = 0) -> Any:
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--state", state, "--json", *args)
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def created(told: Any) -> dict[str, int]:
    return {kind: counts["created"] for kind, counts in told["objects"].items() if counts.get("created")}


def tags_of_ours(rest: Rest) -> Iterator[str]:
    """The keys of every tag that amigrate has written, wherever tags are."""
    experiments = [*rest.pages("experiments/search", "experiments", {"view_type": "ALL"})]
    ids = [one["experiment_id"] for one in experiments]
    prompts = {"filter": prompt.PROMPTS}
    docs = [
        *experiments,
        *(run["data"] for run in rest.pages("runs/search", "runs", {"experiment_ids": ids, "run_view_type": "ALL"})),
        *(one["info"] for one in rest.pages("logged-models/search", "models", {"experiment_ids": ids})),
    ]
    for filters in ({}, prompts):
        docs += rest.pages("registered-models/search", "registered_models", filters, method="GET")
        docs += rest.pages("model-versions/search", "model_versions", filters, method="GET")
    for one in rest.pages("/api/3.0/mlflow/datasets/search", "datasets", {"experiment_ids": []}):
        docs.append({"tags": [{"key": key} for key in json.loads(one["tags"])]})
    return (tag["key"] for doc in docs for tag in doc.get("tags", []) if tag["key"].startswith("amigrate."))


def test_from_a_to_b_to_c_and_back(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Each object is known by the id where it was first made, by every one of them, with and without a journal."""
    b, c = new_server(), new_server()
    assert created(copied(cli, source, b, tmp_path / "ab"))
    assert created(copied(cli, b, c, tmp_path / "bc"))
    assert created(copied(cli, c, source, tmp_path / "ca")) == {}
    assert created(copied(cli, source, c, tmp_path / "ac")) == {}
    with Rest(b.uri) as rest:
        assert set(tags_of_ours(rest)) == ALLOWED
    with Rest(source.uri) as rest:
        assert set(tags_of_ours(rest)) == set()


def test_without_tags_the_journal_knows(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    target = new_server()
    assert created(copied(cli, source, target, tmp_path / "one", "--no-provenance"))
    with Rest(target.uri) as rest:
        assert set(tags_of_ours(rest)) == set()
    assert created(copied(cli, source, target, tmp_path / "one", "--no-provenance")) == {}
    assert set(created(copied(cli, source, target, tmp_path / "another", "--objects", "runs"))) == {"runs"}


def numbers(rest: Rest, name: str) -> list[int]:
    listed = rest.pages("model-versions/search", "model_versions", {"filter": f"name = '{name}'"}, method="GET")
    return sorted(int(one["version"]) for one in listed)


def test_a_number_that_the_target_has_given_away_costs_one_other_at_most(
    source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """The newest version is deleted at the target: its number is gone, and the source's next ones still arrive."""
    target = new_server()
    models = ("--objects", "models", "--accept-loss", "sources")
    copied(cli, source, target, tmp_path / "state", *models)
    with Rest(source.uri) as old, Rest(target.uri) as new:
        all_of_them = numbers(old, MODEL)
        last = all_of_them[-1]
        new.delete("model-versions/delete", {"name": MODEL, "version": str(last)})
        for state in ("state", "state", "another"):
            told = copied(cli, source, target, tmp_path / state, *models, code=1)
            assert [loss["id"] for loss in told["losses"]] == [f"{MODEL}/{last}"]
        for number in (last + 1, last + 2):
            old.post("model-versions/create", {"name": MODEL, "source": f"s3://b/{number}"})
        told = copied(cli, source, target, tmp_path / "state", *models, code=1)
        assert numbers(new, MODEL) == [*all_of_them[:-1], last + 2]
        assert {loss["id"] for loss in told["losses"]} == {f"{MODEL}/{last}", f"{MODEL}/{last + 1}"}
        assert not [one for one in tags_of_ours(new) if "last_version" in one or "placeholder" in one]


@pytest.mark.parametrize("kind", ["registered_model", "prompt"])
def test_placeholders_that_a_kill_left_behind(
    kind: str, source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """One that waits for its successor is deleted; one that is the wanted version already becomes it."""
    target, name = new_server(), {"registered_model": MODEL, "prompt": PROMPT}[kind]
    is_prompt = [prompt.IS_PROMPT] if kind == "prompt" else []
    with Rest(source.uri) as old, Rest(target.uri) as new:
        copied(cli, source, target, tmp_path / "state")
        wanted = sample(kind).held(old, name)
        highest = max(version[0] for version in wanted["versions"])
        lacking = {"source": "dummy-source" if is_prompt else "s3://x/y", "name": name}
        for _ in range(2):
            text = [{"key": "mlflow.prompt.text", "value": "later"}] if is_prompt else []
            old.post("model-versions/create", {**lacking, "tags": [*is_prompt, *text]})
            waits = {"key": "amigrate.placeholder", "value": str(highest + 2)}
            new.post("model-versions/create", {**lacking, "tags": [*is_prompt, *text, waits]})
        old.delete("model-versions/delete", {"name": name, "version": str(highest + 1)})
        copied(cli, source, target, tmp_path / "state")
        assert sample(kind).held(old, name) == sample(kind).held(new, name)
        assert not [one for one in tags_of_ours(new) if "placeholder" in one]
        for server, number in ((old, highest + 2), (new, highest + 2)):
            server.delete("model-versions/delete", {"name": name, "version": str(number)})

"""Prompts in archives of mlflow-export-import: a folder for each version, in a form of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import Cli, NewServer
from tests.kinds.prompt import PROMPTS
from tests.rest import Rest

SYSTEM = {"package_version": "1.2.1", "script": "export_prompt.py", "export_file_version": "2"}
CHAT = [{"role": "user", "content": "Who is {{name}}?"}]


def write(folder: Path, name: str, version: int, template: Any, **more: Any) -> None:
    prompt = {
        "name": name,
        "version": version,
        "template": template,
        "tags": {"tone": "kind"},
        "creation_timestamp": 1_700_000_000_000,
        "last_updated_timestamp": 1_700_000_000_000,
        "user_id": None,
        "description": None,
        "commit_message": f"commit {version}",
        "variables": ["name"],
        "uri": f"prompts:/{name}/{version}",
        **more,
    }
    home = folder / "prompts" / f"{name}_v{version}"
    home.mkdir(parents=True)
    (home / "prompt.json").write_text(json.dumps({"system": SYSTEM, "mlflow": {"prompt": prompt}}))


def test_all_versions_arrive_under_their_numbers(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    folder, target = tmp_path / "archive", new_server()
    for version in (1, 2, 10):
        write(folder, "greeting", version, f"Hello {{{{name}}}} {version}")
    write(folder, "greeting_v1", 1, CHAT)
    (folder / "experiments").mkdir()
    (folder / "manifest.json").write_text(json.dumps({"system": SYSTEM, "info": {}, "mlflow": {}}))
    for _ in range(2):
        done = cli("import-all", "--tracking-uri", target.uri, "--input-dir", folder, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
    with Rest(target.uri) as rest:
        query = {"filter": PROMPTS}
        prompts = list(rest.pages("registered-models/search", "registered_models", query, method="GET"))
        versions = list(rest.pages("model-versions/search", "model_versions", query, method="GET"))
    assert sorted(one["name"] for one in prompts) == ["greeting", "greeting_v1"]
    told = {(one["name"], int(one["version"])): {tag["key"]: tag["value"] for tag in one["tags"]} for one in versions}
    assert {*told} == {("greeting", 1), ("greeting", 2), ("greeting", 10), ("greeting_v1", 1)}
    assert told["greeting", 10]["mlflow.prompt.text"] == "Hello {{name}} 10"
    assert told["greeting", 10]["tone"] == "kind"
    assert json.loads(told["greeting_v1", 1]["mlflow.prompt.text"]) == CHAT
    assert told["greeting_v1", 1]["_mlflow_prompt_type"] == "chat"
    assert {one["description"] for one in versions if one["name"] == "greeting"} == {f"commit {n}" for n in (1, 2, 10)}

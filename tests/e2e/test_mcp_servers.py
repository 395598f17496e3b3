"""MCP servers through the command line: lost answers, what a target refuses, what it has already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import mcp_server_version
from tests.kinds.mcp_server import SERVERS, held, seed, server_name
from tests.rest import Rest


def told(cli: Cli, code: int, *args: str | Path) -> Any:
    done = cli(*args, "--json", "--debug")
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.mark.campaign
def test_lost_answers_make_nothing_twice(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    source, target = new_server(), new_server()
    with Rest(source.uri) as old, Rest(target.uri) as new:
        seed(old, "one")
        mcp_server_version.seed(old, "two")
        lossy = FaultProxy(target.uri, seed=5, lost_answers=0.4, only=lambda method, path: method != "GET")
        copy = ("copy-all", "--source", source.uri, "--objects", "mcp-servers", "--target")
        with lossy as writing:
            summary = told(cli, 0, *copy, writing.uri)
        assert lossy.faults["lost_answers"] > 5
        assert summary["objects"]["mcp-servers"] == {"created": 2}
        assert held(old, "one") == held(new, "one")
        assert mcp_server_version.held(old, "two") == mcp_server_version.held(new, "two")

        # Without the journal of the proxy's address, then with one.
        for _ in range(2):
            objects = told(cli, 0, *copy, target.uri)["objects"]
            assert objects["mcp-servers"] == {"present": 2}
            assert set(objects["mcp-server-versions"]) == {"present"}
        assert held(old, "one") == held(new, "one")


def test_what_the_target_refuses_or_has_is_named(new_server: NewServer, cli: Cli) -> None:
    """Icons on a private host; a version of the same number that is another one; texts and tags of its own."""
    source, target = new_server(env={"MLFLOW_ICON_URL_ALLOW_PRIVATE_IPS": "true"}), new_server()
    icons = [{"src": "https://10.0.0.7/i.png"}]
    with Rest(source.uri) as old, Rest(target.uri) as new:
        own = server_name("icons")
        old.post(SERVERS, {"name": own, "icons": icons})
        for version in ("1.0.0", "2.0.0"):
            body = {"server_json": {"name": own, "version": version, "icons": icons, "title": "T"}}
            old.post(f"{SERVERS}/{own}/versions", body)
        seed(old, "one")
        at = f"{SERVERS}/{server_name('one')}"
        new.post(SERVERS, {"name": server_name("one"), "description": "ours"})
        new.post(f"{at}/tags", {"key": "team", "value": "ours"})
        other = {"server_json": {"name": server_name("one"), "version": "2.0.0", "title": "another"}}
        new.post(f"{at}/versions", other)

        copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "mcp-servers")
        summary = told(cli, 1, *copy)
        assert summary["objects"]["mcp-server-versions"] == {"created": 3, "failed": 1}
        assert summary["objects"]["icons"] == {"left behind": 3}
        assert any("another version of this number" in loss["reason"] for loss in summary["losses"])
        arrived = new.get(at)
        assert [arrived["description"], arrived["display_name"]] == ["ours", "The ü"]
        assert arrived["tags"] == {"team": "ours", "empty": ""}
        assert arrived["aliases"] == [{"alias": "stable", "version": "1.0.0"}]
        assert len(arrived["access_endpoints"]) == 4
        found = new.get(f"{SERVERS}/{own}/versions")["mcp_server_versions"]
        assert [one["server_json"].get("icons") for one in found] == [None, None]

        summary = told(cli, 1, *copy)
        assert summary["objects"]["mcp-server-versions"] == {"present": 3, "failed": 1}
        assert len(new.get(at)["access_endpoints"]) == 4


def test_what_changes_at_the_source_changes_at_the_target(new_server: NewServer, cli: Cli) -> None:
    source, target = new_server(), new_server()
    copy = ("copy-all", "--source", source.uri, "--target", target.uri, "--objects", "mcp-servers")
    with Rest(source.uri) as old, Rest(target.uri) as new:
        seed(old, "one")
        told(cli, 0, *copy)
        at = f"{SERVERS}/{server_name('one')}"
        old.patch(at, {"description": "another"})
        old.patch(f"{at}/versions/1.0.0", {"status": "draft"})
        old.post(f"{at}/aliases", {"alias": "stable", "version": "2.0.0"})
        told(cli, 0, *copy)
        assert held(old, "one") == held(new, "one")
        assert new.get(f"{at}/versions/1.0.0")["status"] == "draft"

"""Sample versions of an MCP server that says nothing of itself: each status, tools, options, tags, equal numbers."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.kinds.mcp_server import ICONS, SERVERS, server_name
from tests.rest import Rest

STATUSES = {"1.0.0": "deprecated", "1.1.0": "active", "2.0.0-rc.1": "draft", "1.1.0+b": "draft", "1.1.0+a": "draft"}


def seed(rest: Rest, name: str) -> None:
    new_experiment(rest, name)
    for version, status in STATUSES.items():
        rest.post(f"{SERVERS}/{server_name(name)}/versions", body(name, version, status))
    at = f"{SERVERS}/{server_name(name)}/versions"
    rest.patch(f"{at}/1.0.0", {"status": "deprecated"})
    rest.post(f"{at}/1.1.0/tags", {"key": "reviewed / ü", "value": "by ada"})


def body(name: str, version: str, status: str) -> dict[str, Any]:
    package = {"registryType": "npm", "identifier": "x", "transport": {"type": "stdio"}, "environmentVariables": []}
    about = {"title": f"T {version}", "description": "told by a version", "_meta": {"a": [1, None, 0.5]}, "ü": {}}
    own = {"name": server_name(name), "version": version, "icons": ICONS, "packages": [package], **about}
    tool = {"name": "t", "description": "x", "inputSchema": {"type": "object", "z": None}, "icons": ICONS}
    options = {"npm": {"hidden": True}}
    first = "active" if status == "deprecated" else status
    return {"server_json": own, "status": first, "source": "https://s", "tools": [tool], "connect_options": options}


def roots(rest: Rest, name: str) -> set[str]:
    return {server_name(name)}


def mutate(rest: Rest, name: str) -> None:
    at = f"{SERVERS}/{server_name(name)}/versions/1.1.0/tags"
    rest.post(at, {"key": "reviewed / ü", "value": "by bob"})


def held(rest: Rest, name: str) -> Any:
    found = rest.get(f"{SERVERS}/{server_name(name)}/versions", {"max_results": 1000})["mcp_server_versions"]
    own = ("creation_timestamp", "last_updated_timestamp")
    listed = [{key: value for key, value in one.items() if key not in own} for one in found]
    server = rest.get(f"{SERVERS}/{server_name(name)}")
    return [listed, {key: server[key] for key in ("description", "icons", "latest_version", "status")}]

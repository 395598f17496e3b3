"""A sample MCP server: tags, aliases, every sort of access endpoint (two are equal), a name and icons of its own."""

from __future__ import annotations

from typing import Any

from tests.kinds import new_experiment
from tests.rest import Rest

SERVERS = "/api/3.0/mlflow/mcp-servers"
ICONS = [{"src": "https://93.184.216.34/i.png", "sizes": ["48x48"], "mimeType": "image/png", "more": 1}]


def server_name(name: str) -> str:
    """Names of servers have two parts and hold no spaces."""
    return f"com.example/{name.replace(' ', '-')}"


def seed(rest: Rest, name: str) -> None:
    new_experiment(rest, name)
    own = server_name(name)
    at = f"{SERVERS}/{own}"
    rest.post(SERVERS, {"name": own, "description": "what it does", "icons": ICONS})
    rest.patch(at, {"display_name": "The ü"})
    for version in ("1.0.0", "2.0.0"):
        rest.post(f"{at}/versions", {"server_json": {"name": own, "version": version}, "status": "active"})
    for key, value in (("team", "x / ü"), ("empty", "")):
        rest.post(f"{at}/tags", {"key": key, "value": value})
    rest.post(f"{at}/aliases", {"alias": "stable", "version": "1.0.0"})
    for endpoint in (
        {"url": "https://a.example/mcp", "server_alias": "stable"},
        {"url": "https://a.example/mcp", "server_alias": "stable"},
        {"url": "http://b.example/mcp?x=ü", "server_version": "2.0.0", "transport_type": "sse"},
        {"url": "https://c.example/mcp", "server_alias": "latest"},
    ):
        rest.post(f"{at}/endpoints", endpoint)


def roots(rest: Rest, name: str) -> set[str]:
    return {server_name(name)}


def mutate(rest: Rest, name: str) -> None:
    rest.post(f"{SERVERS}/{server_name(name)}/tags", {"key": "team", "value": "y"})


def held(rest: Rest, name: str) -> Any:
    found = rest.get(f"{SERVERS}/{server_name(name)}")
    endpoints = [
        [one[key] for key in ("url", "transport_type", "server_version", "server_alias")]
        for one in found["access_endpoints"]
    ]
    kept = ("display_name", "description", "icons", "status", "latest_version", "tags")
    return [{key: found[key] for key in kept}, sorted(map(str, found["aliases"])), sorted(endpoints, key=str)]

"""Credentials become headers. Nothing here is ever shown or logged."""

from __future__ import annotations

from base64 import b64encode

from amigrate.options import ServerOptions


def headers(server: ServerOptions) -> dict[str, str]:
    """The Authorization header; basic wins over the token where both are set, as in MLflow's own client."""
    if server.username or server.password:
        pair = f"{server.username}:{server.password}".encode()
        return {"Authorization": "Basic " + b64encode(pair).decode()}
    if server.token:
        return {"Authorization": f"Bearer {server.token}"}
    return {}

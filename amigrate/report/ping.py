"""What `ping` found out, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from amigrate.report.summary import EXIT_DONE


@dataclass(frozen=True, slots=True)
class Ping:
    """A server that answered."""

    uri: str
    version: str
    store: str
    workspaces: bool | None
    workspace_names: Sequence[str]
    workspace: str
    registry_uri: str
    registry_version: str
    proxied: bool | None
    administrator: bool | None
    experiments: int
    more_experiments: bool
    features: Mapping[str, bool | None]
    milliseconds: float
    login_milliseconds: float | None
    warnings: Sequence[str] = field(default_factory=tuple)
    exit_code: int = EXIT_DONE

    def as_json(self) -> dict[str, Any]:
        """For machines; stable names."""
        return {
            "command": "ping",
            "exit_code": self.exit_code,
            "uri": self.uri,
            "version": self.version,
            "store": self.store or None,
            "workspaces": self.workspaces,
            "workspace_names": list(self.workspace_names),
            "workspace": self.workspace or None,
            "registry_uri": self.registry_uri or None,
            "registry_version": self.registry_version or None,
            "artifacts_proxied": self.proxied,
            "administrator": self.administrator,
            "experiments": self.experiments,
            "more_experiments": self.more_experiments,
            "features": dict(self.features),
            "round_trip_ms": round(self.milliseconds, 1),
            "login_ms": None if self.login_milliseconds is None else round(self.login_milliseconds, 1),
            "warnings": list(self.warnings),
        }


def show(ping: Ping, console: Console) -> None:
    """One fact per line."""
    for name, value in _facts(ping):
        console.print(f"{name:<38}{value}", highlight=False, markup=False, soft_wrap=True)
    for warning in ping.warnings:
        console.print(f"warning: {warning}", highlight=False, markup=False, soft_wrap=True)


def _facts(ping: Ping) -> Iterator[tuple[str, str]]:
    yield "server", ping.uri
    yield "version", ping.version
    yield "store", ping.store or "does not say"
    names = f": {', '.join(ping.workspace_names)}" if ping.workspace_names else ""
    yield "workspaces", _word(ping.workspaces) + names + (f"; asked for {ping.workspace}" if ping.workspace else "")
    if ping.registry_uri:
        yield "registry of models", f"{ping.registry_uri}, version {ping.registry_version}"
    yield "artifacts through the server", _word(ping.proxied)
    if ping.administrator is not None:
        yield "administrator", _word(ping.administrator)
    yield "experiments, deleted ones included", f"{ping.experiments}{' or more' if ping.more_experiments else ''}"
    for name, there in ping.features.items():
        yield name, _word(there)
    yield "round trip", f"{ping.milliseconds:.0f} ms"
    if ping.login_milliseconds is not None:
        yield "of which for basic authentication", f"{ping.login_milliseconds:.0f} ms"


def _word(there: bool | None) -> str:
    return "does not say" if there is None else "yes" if there else "no"

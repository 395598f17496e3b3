"""What amigrate's own comparison says of two servers, and of what its command prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from amigrate.client.abilities import probe
from amigrate.client.api import Api
from amigrate.client.http import Http
from amigrate.core.model import Finding
from amigrate.engine.budget import ByteBudget
from amigrate.engine.check import Side, check
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests, Stats
from amigrate.engine.survey import Scope
from amigrate.kinds import REGISTRY
from amigrate.options import Basic, ServerOptions
from amigrate.server.source import ServerSource
from tests.conftest import Cli
from tests.servers import MlflowServer


async def compared(one: MlflowServer, other: MlflowServer, login: Basic | None = None) -> list[Finding]:
    """Every finding of a comparison, deleted objects included."""
    async with Http(ServerOptions(one.uri, login)) as a, Http(ServerOptions(other.uri, login)) as b:
        apis = [Api(http, AdaptiveGuard(Requests(), ceiling=4)) for http in (a, b)]
        for api in apis:
            await probe(api)
        left, right = (Side(ServerSource(api, REGISTRY), Scope()) for api in apis)
        found = check(left, right, REGISTRY, Stats(), ByteBudget(32 * 1024 * 1024))
        return [finding async for finding in found]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `amigrate verify --json` said."""

    code: int
    told: dict[str, Any]
    lines: str
    """The same for people."""

    @property
    def found(self) -> list[dict[str, Any]]:
        """Every finding that is a difference."""
        return [one for one in self.told["differences"] if one["sigil"] != "="]

    @property
    def objects(self) -> int:
        """How many objects were compared."""
        return sum(sum(counts.values()) for counts in self.told["objects"].values())


def verified(cli: Cli, *args: object) -> Verdict:
    """Run the command to its end."""
    done = cli("verify", *map(str, args), "--json")
    assert done.stdout, done.stderr
    return Verdict(done.returncode, json.loads(done.stdout), done.stderr)

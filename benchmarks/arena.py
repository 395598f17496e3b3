"""Where it is measured: which server, and how far away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.beside import beside
from tests.servers import MlflowServer, PostgresServer


@dataclass(frozen=True, slots=True)
class Arena:
    """A kind of server: its workers, its database, and the round trip to it in seconds."""

    name: str
    workers: int = 1
    postgres: bool = False
    round_trip: float = 0.0

    @property
    def title(self) -> str:
        database = "PostgreSQL" if self.postgres else "SQLite"
        away = f", {1000 * self.round_trip:.0f} ms" if self.round_trip else ""
        return f"{database}, {self.workers} worker{'s' if self.workers > 1 else ''}{away}"

    @contextmanager
    def server(self, folder: Path) -> Iterator[Place]:
        """A new, empty server; gone afterwards."""
        with ExitStack() as stack:
            backend = stack.enter_context(PostgresServer()).create_database() if self.postgres else None
            server = stack.enter_context(MlflowServer(folder, backend=backend, workers=self.workers))
            uri = (
                stack.enter_context(beside("benchmarks.latency", server.port, self.round_trip))
                if self.round_trip
                else server.uri
            )
            yield Place(server, uri)


ARENAS = {
    one.name: one
    for one in (
        Arena("sqlite-1"),
        Arena("sqlite-4", 4),
        Arena("postgres-1", 1, True),
        Arena("postgres-4", 4, True),
        Arena("sqlite-1-far", 1, False, 0.04),
        Arena("postgres-4-far", 4, True, 0.04),
    )
}


@dataclass(frozen=True, slots=True)
class Place:
    """A running server, and the address at which it is asked."""

    server: MlflowServer
    uri: str

    def requests(self) -> int:
        """How many it has answered, by its own log."""
        with self.server.log.open(errors="replace") as log:
            return sum(1 for line in log if " HTTP/1." in line)

    def cpu(self) -> float:
        """Seconds of processor time that it has used, without its database."""
        parent = psutil.Process(self.server.pid)
        return sum(sum(one.cpu_times()[:2]) for one in (parent, *parent.children(recursive=True)))

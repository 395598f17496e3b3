"""amigrate against the limit and against the peer: the same work on the same server in the same run.

Each command runs in a process of its own, measured from outside. Its requests are counted by the server's own log.
"""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import limit, store
from benchmarks.arena import Arena, Place
from benchmarks.movers import Amigrate, Command, Mover, Peer
from benchmarks.process import measured
from benchmarks.workloads import Workload
from tests.rest import Rest

CONCURRENCY = (1, 4, 12)
"""What the limit is tried at."""
MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Figures:
    """What one command, or one bare loop, took."""

    seconds: float
    requests: int
    server_cpu: float
    cpu: float = 0.0
    memory: int = 0
    """Bytes at the most."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured."""

    work: Workload
    arena: Arena
    repeat: int = 3
    share: float = 0.0
    """The part of the workload that the peer gets; 0 leaves it out."""
    tried: Sequence[int] = CONCURRENCY
    """Concurrencies that the limit is looked for at."""
    exports_only: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One direction of one workload on one server."""

    plan: Plan
    direction: str
    ours: Figures
    limit: Figures
    concurrency: int
    """At which the limit was reached."""
    share: Figures | None = None
    """amigrate on the part that the peer got."""
    peers: tuple[Figures, ...] = ()

    def cells(self) -> list[str]:
        """The row of the table."""
        work, ours = self.plan.work, self.ours
        faster = min(one.seconds for one in self.peers) / self.share.seconds if self.peers and self.share else None
        part = f" ({self.plan.work.part(self.plan.share).name})" if faster and self.plan.share < 1 else ""
        objects = work.all_runs or work.experiments * work.traces
        return [
            work.name,
            self.plan.arena.title,
            self.direction,
            f"{ours.seconds:.1f}",
            f"{ours.seconds / self.limit.seconds:.2f}",
            f"{faster:.1f}{part}" if faster else "",
            f"{ours.requests:,}",
            f"{ours.requests / max(objects, 1):.2f}",
            f"{work.all_points / ours.seconds:,.0f}" if work.all_points else "",
            f"{work.all_bytes / 1e6 / ours.seconds:,.1f}" if work.all_bytes else "",
            f"{ours.cpu:.1f}",
            f"{ours.memory / MEBIBYTE:.0f}",
            f"{ours.server_cpu:.1f}",
        ]


HEADS = (
    "workload",
    "server",
    "",
    "seconds",
    "of the limit",
    "times faster than the peer",
    "requests",
    "per run or trace",
    "points/s",
    "MB/s",
    "CPU s",
    "MiB",
    "server CPU s",
)


def measure(plan: Plan) -> list[Row]:
    """Export, import and copy of one workload on one kind of server, or its export alone."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amigrate-benchmark-")))
        bench = _Bench(plan, home)
        source = stack.enter_context(bench.filled(plan.work))
        archive = home / "archive"
        exported = [bench.run(source, Amigrate().export(source.uri, archive), archive) for _ in range(plan.repeat)]
        reading, read_at = bench.limit_of_reading(source)
        if plan.exports_only:
            return [Row(plan, "export", _median(exported), reading, read_at)]
        imported = [bench.imported(Amigrate(), archive) for _ in range(plan.repeat)]
        copied = [bench.copied(source) for _ in range(plan.repeat)]
        writing, written_at = bench.limit_of_writing()
        slower = max((reading, read_at), (writing, written_at), key=lambda one: one[0].seconds)
        shares = bench.against_peer() if plan.share else ((None, ()), (None, ()))
    return [
        Row(plan, "export", _median(exported), reading, read_at, *shares[0]),
        Row(plan, "import", _median(imported), writing, written_at, *shares[1]),
        Row(plan, "copy", _median(copied), *slower),
    ]


class _Bench:
    """One plan on its way."""

    def __init__(self, plan: Plan, home: Path) -> None:
        self._plan = plan
        self._home = home
        self._numbers = itertools.count()

    @contextmanager
    def _empty(self) -> Iterator[Place]:
        with self._plan.arena.server(self._home / f"server {next(self._numbers)}") as place:
            yield place

    @contextmanager
    def filled(self, work: Workload) -> Iterator[Place]:
        """A server that holds a workload."""
        with self._empty() as place, Rest(place.server.uri) as rest:
            store.fill(place.server.backend, place.server.artifacts, rest, work)
            yield place

    def run(self, place: Place, command: Command, output: Path | None = None) -> Figures:
        """Run a command to its end; what it wrote before is taken away first."""
        if output is not None and output.exists():
            subprocess.run(["rm", "-r", str(output)], check=True)
        requests, server_cpu = place.requests(), place.cpu()
        took = measured(*command)
        return Figures(took.seconds, place.requests() - requests, place.cpu() - server_cpu, took.cpu, took.memory)

    def imported(self, mover: Mover, archive: Path) -> Figures:
        """An import into a server of its own."""
        subprocess.run(["rm", "-rf", *map(str, (archive / ".amigrate").glob("import-*"))], check=True)
        with self._empty() as target:
            return self.run(target, mover.load(target.uri, archive))

    def copied(self, source: Place) -> Figures:
        """A copy; the requests and the work of both servers."""
        with self._empty() as target:
            state = self._home / f"journal {next(self._numbers)}"
            before = source.requests(), source.cpu()
            found = self.run(target, Amigrate().copy(source.uri, target.uri, state))
            requests, cpu = source.requests() - before[0], source.cpu() - before[1]
        return Figures(found.seconds, found.requests + requests, found.server_cpu + cpu, found.cpu, found.memory)

    def limit_of_reading(self, source: Place) -> tuple[Figures, int]:
        """The best of some concurrencies."""
        return self._best(lambda at: self._bare(source, limit.export(self._plan.work), at))

    def limit_of_writing(self) -> tuple[Figures, int]:
        """The same; each into a server of its own."""

        def once(at: int) -> Figures:
            with self._empty() as target:
                return self._bare(target, limit.load(self._plan.work), at)

        return self._best(once)

    def _best(self, once: Callable[[int], Figures]) -> tuple[Figures, int]:
        return min(((once(at), at) for at in self._plan.tried), key=lambda one: one[0].seconds)

    def _bare(self, place: Place, waves: Sequence[Sequence[limit.Job]], at: int) -> Figures:
        requests, cpu = place.requests(), place.cpu()
        seconds = limit.seconds(place.uri, waves, at)
        return Figures(seconds, place.requests() - requests, place.cpu() - cpu)

    def against_peer(self) -> tuple[tuple[Figures, tuple[Figures, ...]], tuple[Figures, tuple[Figures, ...]]]:
        """amigrate and the peer on the peer's part: export, import."""
        work = self._plan.work.part(self._plan.share) if self._plan.share < 1 else self._plan.work
        movers: tuple[Mover, ...] = (Amigrate(), Peer(threads=False), Peer(threads=True))
        exported, imported = [], []
        with self.filled(work) as source:
            for mover in movers:
                archive = self._home / f"archive {mover.title}"
                exported.append(self.run(source, mover.export(source.uri, archive), archive))
                imported.append(self.imported(mover, archive))
        return (exported[0], tuple(exported[1:])), (imported[0], tuple(imported[1:]))


def _median(figures: Sequence[Figures]) -> Figures:
    """The run whose time is the median."""
    return sorted(figures, key=lambda one: one.seconds)[(len(figures) - 1) // 2]


def table(rows: Sequence[Row]) -> str:
    """As Markdown."""
    lines = [HEADS, ["---"] * len(HEADS), *(row.cells() for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"

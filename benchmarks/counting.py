"""The requests of each command, by what they are for: what a migration costs a server."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.workspace import QUICK, Size, fill
from tests.fakes.fault_proxy import FaultProxy
from tests.rest import Rest
from tests.servers import MlflowServer, clean_environment

PURPOSES: Mapping[str, tuple[str, ...]] = {
    "points": ("metrics/get-history", "metrics/get-history-bulk"),
    "files": ("mlflow-artifacts/", "artifacts/list", "get-artifact", "/artifacts/"),
    "runs": ("runs/", "graphql"),
    "experiments": ("experiments/",),
    "logged-models": ("logged-models",),
    "models and prompts": ("registered-models/",),
    "their versions": ("model-versions/",),
    "traces": ("traces",),
    "evaluation-datasets": ("datasets/",),
    "scorers": ("scorers/",),
    "issues": ("issues",),
    "reviews": ("label-schemas/", "review-queues/"),
}
OTHER = "the server itself"


@dataclass(frozen=True, slots=True)
class Counted:
    """One command: requests at either end by purpose, and the objects that its summary names."""

    command: str
    read: Counter[str]
    written: Counter[str]
    objects: dict[str, int]


def measure(quick: bool) -> str:
    """Seed a server, run every command once, render the table."""
    size = QUICK if quick else Size()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amigrate-benchmark-")))
        servers = [stack.enter_context(MlflowServer(home / name)) for name in ("source", "imported", "copied")]
        with Rest(servers[0].uri) as rest:
            fill(rest, size)
        source, first, second = (stack.enter_context(_proxy(server)) for server in servers)
        archive = home / "archive"
        ends = ("--source", source.uri, "--target", second.uri)
        return _rendered(
            [
                _counted("export-all", home, source, None, "--tracking-uri", source.uri, "--output-dir", archive),
                _counted("import-all", home, None, first, "--tracking-uri", first.uri, "--input-dir", archive),
                _counted("copy-all", home, source, second, *ends),
                _counted("copy-all, again", home, source, second, *ends),
            ]
        )


def _counted(
    title: str, home: Path, source: FaultProxy | None, target: FaultProxy | None, *words: str | Path
) -> Counted:
    """Run one command, with a counting proxy before each of its servers."""
    ends = [end.requests if end else Counter[tuple[str, str]]() for end in (source, target)]
    for end in ends:
        end.clear()
    command = [sys.executable, "-m", "amigrate", title.partition(",")[0], *map(str, words), "--json"]
    env = clean_environment() | {"XDG_STATE_HOME": str(home / "state")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{title} ended with {done.returncode}: {done.stderr}")
    objects = {kind: sum(by.values()) for kind, by in json.loads(done.stdout)["objects"].items()}
    return Counted(title, _by_purpose(ends[0]), _by_purpose(ends[1]), objects)


def _proxy(server: MlflowServer) -> FaultProxy:
    return FaultProxy(server.uri, seed=1, lost_answers=0, resets=0, unavailable=0, cut_bodies=0)


def _by_purpose(requests: Mapping[tuple[str, str], int]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (_, path), number in requests.items():
        counts[purpose(path)] += number
    return counts


def purpose(path: str) -> str:
    """What a request to this path is for."""
    return next((name for name, parts in PURPOSES.items() if any(part in path for part in parts)), OTHER)


def _rendered(told: Sequence[Counted]) -> str:
    heads = ["requests", *(f"{one.command}: {end}" for one in told for end in ("source", "target"))]
    rows = [
        [name, *(str(counts[name]) for one in told for counts in (one.read, one.written))]
        for name in (*PURPOSES, OTHER)
        if any(one.read[name] + one.written[name] for one in told)
    ]
    rows.append(["**all**", *(str(counts.total()) for one in told for counts in (one.read, one.written))])
    objects = ", ".join(f"{count} {kind}" for kind, count in told[0].objects.items() if count > 1)
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, ["---"] * len(heads), *rows])
    return f"The requests of moving {objects}.\n\n{table}\n"

"""The workspaces that are measured. The same name and part always mean the same objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

START = 1_700_000_000_000
"""Milliseconds since the epoch: when the first run began."""


@dataclass(frozen=True, slots=True)
class Workload:
    """How many of each kind there are."""

    name: str
    experiments: int = 0
    runs: int = 0
    """Of each experiment."""
    metrics: int = 0
    """Of each run."""
    points: int = 0
    """Of each metric."""
    params: int = 0
    tags: int = 0
    files: tuple[tuple[int, int], ...] = ()
    """Of each run: how many, and of how many bytes each."""
    traces: int = 0
    """Of each experiment."""
    spans: int = 0
    """Of each trace."""
    models: int = 0
    versions: int = 0
    """Of each model."""

    @property
    def all_runs(self) -> int:
        return self.experiments * self.runs

    @property
    def all_points(self) -> int:
        return self.all_runs * self.metrics * self.points

    @property
    def all_files(self) -> int:
        return self.all_runs * sum(count for count, _ in self.files)

    @property
    def all_bytes(self) -> int:
        """Of all files together."""
        return self.all_runs * sum(count * size for count, size in self.files)

    def part(self, share: float) -> Workload:
        """The same with fewer experiments; where there are few of them, with fewer runs and traces in each."""
        less = replace(self, name=f"{share:.0%} of {self.name}", models=round(self.models * share))
        if self.experiments * share >= 2:
            return replace(less, experiments=round(self.experiments * share))
        runs = max(2, round(self.runs * share)) if self.runs else 0
        return replace(less, runs=runs, traces=round(self.traces * share))

    def numbered(self) -> Iterator[tuple[int, int, str]]:
        """Every run: the number of its experiment from 1, its own from 0, and its id."""
        for experiment in range(1, self.experiments + 1):
            for run in range(self.runs):
                yield experiment, run, run_id(experiment, run)

    def file_names(self) -> Iterator[tuple[str, int]]:
        """Path and size of each file of a run, all in its artifact root."""
        for group, (count, size) in enumerate(self.files):
            yield from ((f"file {group} {number}.bin", size) for number in range(count))


def run_id(experiment: int, run: int) -> str:
    """The id of a run at the source."""
    return f"{experiment:016x}{run:016x}"


def value(experiment: int, run: int, key: int, step: int) -> float:
    """Any number that needs all its digits."""
    return ((experiment * 7919 + run * 104729 + key * 1299709 + step * 15485863) % 1_000_003) / 1_000_003


WIDE = Workload("wide", 1000, 20, 10, 1)
DEEP = Workload("deep", 1, 20, 20, 5000)
TYPICAL = Workload("typical", 100, 10, 10, 100, params=20, tags=10, files=((3, 10_000),))
FILES = Workload("files", 1, 20, 1, 1, files=((1, 100_000_000), (200, 10_000)))
GENAI = Workload("genai", 10, 0, traces=2000, spans=10)
REGISTRY = Workload("registry", 1, 500, 1, 1, models=500, versions=10)
ALL = {one.name: one for one in (WIDE, DEEP, TYPICAL, FILES, GENAI, REGISTRY)}
TINY = Workload("tiny", 3, 4, 3, 5, params=2, tags=2, files=((1, 1000),), models=2, versions=2)

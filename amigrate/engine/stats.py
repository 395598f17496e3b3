"""Counters of one session. The engine and the guards write them, the report samples them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from amigrate.core.model import Notes, Status


@dataclass(slots=True)
class Requests:
    """What one server was asked."""

    sent: Counter[str] = field(default_factory=Counter)
    """Attempts by class of work."""
    retried: int = 0
    overloads: int = 0
    concurrency: dict[str, int] = field(default_factory=dict)
    """The limit found for each class of work."""
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """How long the answers took in all, by class of work; those that are files are not counted."""

    def latency(self, work: str) -> float:
        """Seconds that an answer of this class takes on the average; 0 where nothing was asked."""
        return self.seconds[work] / self.sent[work] if self.sent[work] else 0.0

    def add(self, other: Requests) -> None:
        self.sent.update(other.sent)
        self.retried += other.retried
        self.overloads += other.overloads


@dataclass(slots=True)
class Stats:
    """Everything that is counted while a command runs."""

    started: float = field(default_factory=time.monotonic)
    ended: float | None = None
    listed: Counter[str] = field(default_factory=Counter)
    """Objects listed at the source, by kind."""
    done: Counter[tuple[str, Status]] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    """Objects by kind that had come to their end when they were carried, and were not read again."""
    vanished: Counter[str] = field(default_factory=Counter)
    """Objects by kind that were deleted at the source since they were carried, and stay at the sink."""
    points: int = 0
    bytes: int = 0
    total_experiments: int = 0
    ended_experiments: int = 0
    sized_experiments: int = 0
    """Experiments whose runs have been counted, roughly."""
    expected_runs: int = 0
    """About how many runs those have."""
    source: Requests = field(default_factory=Requests)
    sink: Requests = field(default_factory=Requests)
    notes: Notes = field(default_factory=Notes)

    def add(self, part: Stats) -> None:
        """Count what a part of this session has done."""
        self.listed.update(part.listed)
        self.done.update(part.done)
        self.points += part.points
        self.bytes += part.bytes
        self.source.add(part.source)
        self.sink.add(part.sink)

    @property
    def seconds(self) -> float:
        """How long the command has run, or ran."""
        return (self.ended or time.monotonic()) - self.started

    def share(self) -> float:
        """About how much of the runs is done, from 0 to 1; those of experiments not yet looked at are guessed."""
        if not self.expected_runs or not self.sized_experiments:
            return self.ended_experiments / max(self.total_experiments, 1)
        expected = self.expected_runs / self.sized_experiments * max(self.total_experiments, self.sized_experiments)
        return min(self.finished("run") / expected, 1.0)

    def finished(self, kind: str) -> int:
        """Objects of a kind that have an outcome."""
        return sum(count for (name, _), count in self.done.items() if name == kind)

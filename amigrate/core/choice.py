"""What of the source is asked for beyond kinds and names, as the user says it."""

from __future__ import annotations

from dataclasses import dataclass, field

from amigrate.core.patterns import Patterns

NOTHING = Patterns()


@dataclass(frozen=True, slots=True)
class RunChoice:
    """Which runs."""

    ids: tuple[str, ...] = ()
    """These; empty means any."""
    filter: str = ""
    """In the syntax of MLflow's own search."""
    since: int | None = None
    """Milliseconds since the epoch; inclusive."""
    until: int | None = None
    """Exclusive."""

    def __bool__(self) -> bool:
        return bool(self.ids or self.filter) or self.since is not None or self.until is not None


@dataclass(frozen=True, slots=True)
class VersionChoice:
    """Which versions of registered models."""

    stages: frozenset[str] = frozenset()
    """Empty means any."""
    numbers: tuple[tuple[int, int | None], ...] = ()
    """First and last one, or no last one; empty means any."""

    def __bool__(self) -> bool:
        return bool(self.stages or self.numbers)


@dataclass(frozen=True, slots=True)
class FileChoice:
    """Which files of runs and logged models."""

    largest: int | None = None
    """Bytes."""
    paths: Patterns = NOTHING
    """Below the root of the run or model; a folder means all that is in it. Empty means any."""
    skipped: Patterns = NOTHING

    def __bool__(self) -> bool:
        return self.largest is not None or bool(self.paths or self.skipped)


@dataclass(frozen=True, slots=True)
class Choice:
    """All of it."""

    runs: RunChoice = field(default_factory=RunChoice)
    versions: VersionChoice = field(default_factory=VersionChoice)
    files: FileChoice = field(default_factory=FileChoice)

"""Journals as jobs: where they lie, what they say, and the command lines that they belong to."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from amigrate.archive.layout import PRIVATE
from amigrate.core.errors import UsageError
from amigrate.engine import ledger
from amigrate.engine.ledger import Ledger

TO_ITS_END = (0, 1)
"""Exit codes of a command that has looked at everything, unless an error has stopped it."""


def state_home() -> Path:
    """The user's state folder for amigrate (XDG)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "amigrate"


def jobs(place: Path | None) -> list[Ledger]:
    """The journals at a place: it is the folder of one, an archive, or (None) where those of copies are kept.

    Raises `UsageError` where there is none.
    """
    return [ledger.read(folder) for folder in _folders(place)]


def _folders(place: Path | None) -> list[Path]:
    if place is not None and ledger.is_journal(place):
        return [place]
    home = state_home() if place is None else place / PRIVATE
    found = sorted(one for one in home.glob("*") if ledger.is_journal(one))
    if not found:
        raise UsageError(f"there is no journal in {place or home}: give an archive, or the folder of a journal")
    return found


@dataclass(frozen=True, slots=True)
class CommandLine:
    """A command as it can be given once more."""

    words: Sequence[str]
    """Without the name of the program."""
    folder: Path
    """Where it was given."""


def command_line(place: Path, more: Sequence[str]) -> CommandLine:
    """The command of the journal at a place, for what failed; with `more` options.

    Archive and journal are those at `place`, also where they have been moved. A command that did not come to its end
    is continued whole: what it never listed is in no journal. Raises `UsageError` where there is not one journal, or it
    does not say enough.
    """
    folders = _folders(place)
    if len(folders) > 1:
        raise UsageError(f"there are several journals in {place}: give one of {', '.join(map(str, folders))}")
    job = ledger.read(folders[0])
    words = [str(word) for word in job.command.get("argv") or ()]
    if not words:
        raise UsageError(f"the journal in {job.folder} does not say which command it belongs to: give that itself")
    folder = Path(str(job.command["cwd"]))
    if not folder.is_dir():
        raise UsageError(f"the command was given in {folder}, which is not there any more: give it yourself")
    words += [word for name, uri in job.command["ends"].items() if not _has(words, name) for word in (name, uri)]
    words += _places(job.folder.resolve(), exports=words[0].startswith("export"))
    ended = job.pulse.get("exit_code") in TO_ITS_END and not job.pulse.get("error")
    if ended and not _has(words, "--only-failed"):
        words.append("--only-failed")
    return CommandLine([*words, *more], folder)


def _has(words: Sequence[str], name: str) -> bool:
    return any(word == name or word.startswith(f"{name}=") for word in words)


def _places(journal: Path, *, exports: bool) -> list[str]:
    """Where archive and journal lie now. The last one of several equal options counts."""
    if journal.parent.name == PRIVATE:
        return ["--output-dir" if exports else "--input-dir", str(journal.parent.parent)]
    return ["--state", str(journal)]

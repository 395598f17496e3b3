"""Which folders of an archive hold objects, whoever wrote it.

Symbolic links are never followed below the root: what one leads to is no part of the archive. A link or an unreadable
folder in the place of an object is found all the same, so that it can be named.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from amigrate.archive.layout import DOCUMENT, EXPERIMENTS, GOES_ON
from amigrate.core.errors import AmigrateError, ArchiveError, Missing, Uncarriable

RUN = "run.json"
RUNS = "runs"
LINK = Uncarriable("a symbolic link: not followed")
SPECIAL = Uncarriable("no regular file: not read")


def base_of(root: Path) -> Path:
    """Where the folders of experiments lie."""
    return root / EXPERIMENTS if is_folder(root / EXPERIMENTS) else root


def experiment_folders(root: Path) -> list[Path]:
    """What holds experiments, in the order of their ids. Raises `ArchiveError` where the archive cannot be read."""
    if is_there(root / DOCUMENT):
        return [root]
    found = [one for one in entries(base_of(root)) if _is_experiment(one)]
    return sorted(found, key=lambda one: (len(one.name), one.name))


def run_folders(home: Path) -> list[Path]:
    """What holds the runs of an experiment: below `runs/`, or before October 2025 beside its document."""
    nested = entries(home / RUNS) if is_there(home / RUNS) else []
    below = [one for one in nested if not stat.S_ISREG(_mode(one))]
    return [*below, *(one for one in entries(home) if is_there(one / RUN))]


def _is_experiment(path: Path) -> bool:
    """Also without its document, which is written last: its runs are there, or nobody can look."""
    if is_there(path / DOCUMENT):
        return True
    if not is_folder(path):
        return False
    try:
        return is_there(path / RUNS) or any(is_there(one / RUN) for one in entries(path))
    except ArchiveError:
        return True


def entries(folder: Path) -> list[Path]:
    """What lies in a folder, by name. Raises `ArchiveError` where nobody can look, and where it is a link."""
    if is_link(folder):
        raise ArchiveError(f"{folder} is {LINK}")
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ArchiveError(f"{folder} cannot be read: {error.strerror or error}") from error


def object_folders(home: Path, document: str) -> Iterator[Path]:
    """The folders below one that hold such a document; a long name is several folders, one in another."""
    for one in entries(home):
        if is_there(one / document):
            yield one
        elif one.name.endswith(GOES_ON) and is_folder(one):
            yield from object_folders(one, document)


def is_folder(path: Path) -> bool:
    """True for a folder, false for a link to one."""
    return stat.S_ISDIR(_mode(path))


def is_link(path: Path) -> bool:
    return stat.S_ISLNK(_mode(path))


def is_there(path: Path) -> bool:
    """True for anything of this name, also for a link that leads nowhere."""
    return bool(_mode(path))


def _mode(path: Path) -> int:
    """What lies there; 0 where nothing does, or where nobody may look."""
    try:
        return path.lstat().st_mode
    except (OSError, ValueError):
        return 0


def barred(root: Path, path: Path) -> AmigrateError | None:
    """Why a file below the root cannot be read as a part of the archive; None where it can."""
    place = root
    try:
        for part in path.relative_to(root).parts:
            place = place / part
            mode = place.lstat().st_mode
            if stat.S_ISLNK(mode):
                return LINK
    except (FileNotFoundError, NotADirectoryError):
        return Missing(f"{path} is missing")
    except (OSError, ValueError) as error:  # A name that no file can have is a ValueError.
        return ArchiveError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}")
    return None if stat.S_ISREG(mode) else SPECIAL


def walked(base: Path) -> Iterator[tuple[Path, AmigrateError | None]]:
    """Every file below a folder, each with why it cannot be had; a folder that cannot be read stands for its files."""
    waiting = [base]
    while waiting:
        folder = waiting.pop()
        try:
            found = entries(folder)
        except ArchiveError as error:
            yield folder / "*", LINK if is_link(folder) else error
            continue
        for one in found:
            if is_folder(one):
                waiting.append(one)
            else:
                yield one, barred(base, one)


def printable(name: str) -> str:
    """A name on disk that is not UTF-8, as people and documents can hold it."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

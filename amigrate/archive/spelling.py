"""Names on a disk that takes upper case for lower case, as those of macOS and Windows do: two objects, one folder.

Where a name lies there already in other letters, nothing is written over it: the object, or the file, fails.
"""

from __future__ import annotations

from pathlib import Path

from amigrate.archive.layout import PRIVATE
from amigrate.archive.writing import on_disk
from amigrate.core.errors import ArchiveError


class Spelling:
    """Knows how names are spelled that lie in an archive already."""

    def __init__(self, root: Path, tells_apart: bool | None = None) -> None:
        """`tells_apart` says that upper and lower case differ; None finds out when that is first asked."""
        self._root = root
        self._tells_apart = tells_apart
        self._held: dict[Path, dict[str, str]] = {}

    def check(self, path: Path) -> None:
        """Raises `ArchiveError` where the disk takes what is to be written for something else."""
        if self._tells_apart is None:
            self._tells_apart = _tells_apart(self._root / PRIVATE)
        if self._tells_apart:
            return
        folder = self._root
        for name in path.relative_to(self._root).parts:
            there = self._names(folder).setdefault(name.casefold(), name)
            if there != name:
                raise ArchiveError(
                    f"this disk takes {folder / name} for {there!r}, which is there already: export to one that tells "
                    "upper from lower case"
                )
            folder = folder / name

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._held:
            names = [one.name for one in folder.iterdir()] if folder.is_dir() else []
            self._held[folder] = {name.casefold(): name for name in names}
        return self._held[folder]


def _tells_apart(folder: Path) -> bool:
    """Whether a folder holds two files whose names differ in their letters' case only."""
    upper, lower = folder / "LETTERS", folder / "letters"
    on_disk(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
    on_disk(upper.touch, upper)
    try:
        return not lower.exists()
    finally:
        upper.unlink()

"""Disks that take upper case for lower case: what would be written over is told instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from amigrate.archive.spelling import Spelling
from amigrate.core.errors import ArchiveError


def test_names_that_differ_in_their_letters_case(tmp_path: Path) -> None:
    """Whether they were met in this session, or lie there from an earlier one; also those of folders on the way."""
    (tmp_path / "models/Churn").mkdir(parents=True)
    spelling = Spelling(tmp_path, tells_apart=False)
    spelling.check(tmp_path / "models/Churn/model.json")
    spelling.check(tmp_path / "models/other/a/B.txt")
    spelling.check(tmp_path / "models/other/a/B.txt")
    for taken in ("models/churn", "models/other/A/c.txt", "models/other/a/b.txt"):
        with pytest.raises(ArchiveError, match="which is there already"):
            spelling.check(tmp_path / taken)
    spelling.check(tmp_path / "models/other/a/c.txt")


def test_a_disk_says_itself_whether_it_tells_them_apart(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    apart = not (tmp_path / "A").exists()
    spelling = Spelling(tmp_path)
    if apart:
        spelling.check(tmp_path / "A")
    else:
        with pytest.raises(ArchiveError):
            spelling.check(tmp_path / "A")
    assert [*(tmp_path / ".amigrate").iterdir()] == []

"""What a power cut takes although a kill does not: files that were written and had not reached the disk.

The journal of a move onto a disk of this machine may say of such a file that it is whole. So the disk is synced when a
session ends, however it ends, and what a session has moved that was cut off is moved again where the system has started
anew since.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from amigrate.core.errors import JournalError
from amigrate.engine.journal import Journal

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
START, SAFE = "system start", "on disk"
"""What the journal notes: which start of the system it was written in, and the last session that is on the disk."""


def started() -> str:
    """Which start of the system this is; empty where it does not tell (Linux does)."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def forget_unsafe(journal: Journal) -> bool:
    """Before a session: trust nothing that went dark with the system. True where there is such a thing."""
    before, now = journal.noted(START), started()
    doubted = bool(before and before != now) and journal.doubt(journal.noted(SAFE) or 0)
    journal.note(START, now)  # Last: who is killed before it doubts once more.
    return doubted


def make_safe(journal: Journal) -> None:
    """At the end of a session: everything on the disk, and then the word that it is."""
    os.sync()
    with suppress(JournalError):  # Without that word, less is trusted.
        journal.note(SAFE, journal.session)

"""Every file below a folder, as records."""

from __future__ import annotations

from collections.abc import AsyncIterator

from amigrate.artifacts.folder import Entry, Folder
from amigrate.core.errors import Uncarriable
from amigrate.core.model import Record, Ref

ARTIFACT = "artifact"


async def walk(folder: Folder) -> AsyncIterator[list[Entry]]:
    """The files below a folder, one request and one page for each folder in it."""
    waiting = [""]
    while waiting:
        entries = await folder.entries(waiting.pop())
        waiting.extend(entry.path for entry in entries if entry.is_folder)
        files = [entry for entry in entries if not entry.is_folder]
        if files:
            yield files


def file_record(owner: Ref, entry: Entry, folder: Folder) -> Record:
    """A file as a record of its own, a child of the object that owns it."""
    doc, reason = {"path": entry.path, "size": entry.size}, folder.refusal(entry.path)
    error = Uncarriable(reason) if reason else None
    return Record(Ref(ARTIFACT, entry.path, owner), doc, entry.path, error=error)

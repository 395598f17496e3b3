"""The interface of a folder of artifacts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from amigrate.core.model import Body


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a listing: path relative to the folder's root, and bytes (0 for folders)."""

    path: str
    is_folder: bool
    size: int


class Folder(Protocol):
    """The artifacts of one run (later: of a logged model, a trace)."""

    async def entries(self, path: str) -> list[Entry]:
        """One level below `path` ("" is the root); empty where nothing is there."""
        ...

    def refusal(self, path: str) -> str:
        """Why a file of this name can be neither read nor written here; empty where it can."""
        ...

    def body(self, path: str, size: int | None) -> Body: ...

    async def put(self, path: str, body: Body) -> int:
        """Write a file, replacing what is there; returns its size."""
        ...

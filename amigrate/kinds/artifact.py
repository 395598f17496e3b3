"""Artifacts: the files of runs. Found and moved by way of the object that owns them."""

from __future__ import annotations

from amigrate.core.model import Doc, Record
from amigrate.core.ports import Names
from amigrate.kinds.base import Kind


class Artifact(Kind):
    """A file: its id is its path below the owner's root."""

    name = "artifact"
    label = "artifacts"
    parent = "run"
    listed = False
    folder = "artifacts"

    def comparable(self, record: Record, names: Names) -> Doc:
        """`sha256` leaves out the ids that the file holds; `names` are those ids, as (kind, id)."""
        doc = record.doc
        named = [names(kind, identity) for kind, identity in doc.get("names") or []]
        return {"size": doc.get("size"), "sha256": doc.get("sha256"), "names": named}

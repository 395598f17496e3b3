"""Artifacts: the files of runs. Found and moved by way of the object that owns them."""

from __future__ import annotations

from dataclasses import replace

from amigrate.artifacts.names import refusal
from amigrate.artifacts.through import UPLOAD_LIMIT
from amigrate.core.errors import Uncarriable
from amigrate.core.model import Doc, Record
from amigrate.core.ports import Names
from amigrate.kinds.base import Kind, Target


class Artifact(Kind):
    """A file: its id is its path below the owner's root."""

    name = "artifact"
    label = "artifacts"
    parent = "run"
    listed = False
    folder = "artifacts"

    def judged(self, target: Target, file: Record) -> Record:
        """By its name, and by its size where the server would have to pass it on to a store that it does not proxy."""
        api = target.api
        if file.error or api.store:
            return file
        reason = refusal(file.ref.id)
        if not reason and api.abilities.proxied is False and int(file.doc["size"]) > UPLOAD_LIMIT:
            reason = "over 10 MB, and the target does not proxy its artifacts"
        return replace(file, error=Uncarriable(reason)) if reason else file

    def comparable(self, record: Record, names: Names) -> Doc:
        """`sha256` leaves out the ids that the file holds; `names` are those ids, as (kind, id)."""
        doc = record.doc
        named = [names(kind, identity) for kind, identity in doc.get("names") or []]
        return {"size": doc.get("size"), "sha256": doc.get("sha256"), "names": named}

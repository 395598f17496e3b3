"""Artifacts: the files of runs. Found and moved by way of the object that owns them."""

from __future__ import annotations

from amigrate.kinds.base import Kind


class Artifact(Kind):
    """A file: its id is its path below the owner's root."""

    name = "artifact"
    label = "artifacts"
    parent = "run"
    folder = "artifacts"

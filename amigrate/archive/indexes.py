"""The index files of an archive that is written to again: what they list and is still there stays listed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from amigrate.archive import document
from amigrate.archive.envelope import Tally
from amigrate.archive.layout import EXPERIMENT, INDEX, MANIFEST, Layout
from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc, Ref
from amigrate.core.ports import Shape
from amigrate.core.typed import items, mapping, text, whole


def experiments(layout: Layout) -> dict[str, Tally]:
    """The experiments that `experiments.json` lists and that lie in the archive, by id."""
    try:
        listed = items(_read(layout.base / INDEX).get("experiments"), "experiments")
        tallies = [_tally(mapping(one, "an experiment")) for one in listed]
    except (ArchiveError, *document.DAMAGE):
        return {}
    return {one.id: one for one in tallies if layout.document(Ref(EXPERIMENT, one.id)).is_file()}


def others(layout: Layout, shapes: Mapping[str, Shape]) -> dict[str, set[str]]:
    """The ids that `manifest.json` lists in the other folders of the root and that lie in them, by folder."""
    by_folder = {shape.folder: kind for kind, shape in shapes.items() if shape.parent is None and kind != EXPERIMENT}
    try:
        listed = {folder: items(ids, folder) for folder, ids in _read(layout.root / MANIFEST).items()}
    except (ArchiveError, *document.DAMAGE):
        return {}
    return {
        folder: {str(own) for own in ids if layout.document(Ref(by_folder[folder], str(own))).is_file()}
        for folder, ids in listed.items()
        if folder in by_folder
    }


def _tally(entry: Doc) -> Tally:
    runs = [whole(entry.get(field), field) for field in ("ok_runs", "failed_runs")]
    return Tally(text(entry.get("id"), "id"), text(entry.get("name"), "name"), *runs)


def _read(path: Path) -> Doc:
    return mapping(document.read(path).get("mlflow"), "mlflow") if path.is_file() else {}

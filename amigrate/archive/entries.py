"""Objects that lie in the document of their parent: those of this session, and those that are there from before.

What an earlier export has written stays until it is removed on purpose: also what the source does not have any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from amigrate.archive import document
from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc, Record, Ref
from amigrate.core.ports import Shape
from amigrate.core.typed import items, mapping

Own = tuple[str, str]
"""Kind and id."""


class Entries:
    """The objects within one document."""

    def __init__(self, path: Path, parent: Ref, shapes: Mapping[str, Shape]) -> None:
        self._kept = dict(_read(path, parent, shapes)) if path.is_file() else {}
        self._new: dict[Own, Doc] = {}
        self._seen: dict[Own, None] = {}
        """What the source lists now, in its order: the order in which an import makes them."""

    def see(self, ref: Ref, doc: Doc) -> None:
        """The source lists this one like this, after those that were seen before.

        What is there becomes this, whatever is remembered of it: whoever was killed may have noted what it had not
        written.
        """
        own = ref.kind, ref.id
        self._seen.setdefault(own)
        if own in self._kept:
            self._kept[own] = doc

    def __contains__(self, ref: Ref) -> bool:
        return (ref.kind, ref.id) in self._kept

    def put(self, record: Record, doc: Doc) -> None:
        self._new[record.ref.kind, record.ref.id] = doc

    def remove(self, ref: Ref) -> None:
        self._kept.pop((ref.kind, ref.id), None)
        self._new.pop((ref.kind, ref.id), None)

    def docs(self, kind: str) -> list[Doc]:
        """In the order of their listing; what the source lists no more stays behind the one that it came after."""
        there = {own: doc for own, doc in (self._kept | self._new).items() if own[0] == kind}
        ordered = [own for own in {**self._seen, **self._new} if own in there]
        before: Own | None = None
        for own in self._kept:
            if own in there and own not in ordered:
                ordered.insert(ordered.index(before) + 1 if before in ordered else 0, own)
            before = own if own in there else before
        return [there[own] for own in ordered]


def _read(path: Path, parent: Ref, shapes: Mapping[str, Shape]) -> Iterator[tuple[Own, Doc]]:
    """Kind, id and document of each; nothing of a document that cannot be read, which is written anew."""
    inside = [shape for shape in shapes.values() if shape.inside and not shape.lines and shape.parent == parent.kind]
    try:
        held = shapes[parent.kind].decode(document.read(path), parent.id, None).doc
        for shape in inside:
            for number, doc in enumerate(items(held.get(shape.inside), shape.inside)):
                read = shape.decode({"mlflow": mapping(doc, shape.inside)}, str(number), parent)
                yield (shape.name, read.ref.id), doc
    except (ArchiveError, *document.DAMAGE):
        return

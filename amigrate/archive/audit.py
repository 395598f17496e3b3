"""An archive of ours against itself: the checksum of every document, what lies there unlisted, numbers that disagree.

What an archive lists and does not have, and files and series that are not as their document says, `archive.source`
finds when it reads them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from amigrate.archive import checksum, document
from amigrate.archive.envelope import PACKAGE
from amigrate.archive.folders import base_of, entries, is_folder, is_there, printable, walked
from amigrate.archive.layout import DOCUMENT, EXPERIMENT, EXPERIMENTS, INDEX, MANIFEST, PRIVATE, REPORT, escape
from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc, Finding, Ref
from amigrate.core.ports import Shape
from amigrate.core.typed import identity, items, mapping, text

ARTIFACTS = "artifacts"
DOCUMENT_KIND, FILE_KIND = "document", "file"


def audit(root: Path, shapes: Mapping[str, Shape]) -> Iterator[Finding]:
    """One finding for each document, and `+` for everything that is there and that no document lists.

    Nothing for an archive that another tool has written: its documents have no checksums.
    """
    root = root.resolve()
    if _is_ours(root):
        yield from _Audit(root, shapes).run()


def _is_ours(root: Path) -> bool:
    return any(_told(path).package == PACKAGE for path in (root / DOCUMENT, root / MANIFEST, base_of(root) / INDEX))


@dataclass(frozen=True, slots=True)
class _Told:
    """What a document says of other documents and of files; None where it cannot be read."""

    package: str = ""
    lists: Doc | None = None
    """Ids of objects by the folder that holds them."""
    files: set[str] = field(default_factory=set)
    tallies: dict[str, int] = field(default_factory=dict)
    """Of an index: how many runs each experiment has."""

    def listed(self, folder: str, home: Path, name: str) -> list[str]:
        """The folders that should be in `home`; all that have a document where nobody says which."""
        if self.lists is not None:
            return [escape(identity(one, "an id")) for one in items(self.lists.get(folder), folder)]
        return [one.name for one in entries(home) if is_there(one / name)] if is_folder(home) else []


def _told(path: Path) -> _Told:
    """Damaged documents have findings of their own."""
    try:
        read = document.read(path)
        info, lists = mapping(read.get("info"), "info"), mapping(read.get("mlflow"), "mlflow")
        files = [mapping(one, "a file") for one in items(info.get("artifacts"), "info.artifacts")]
        tallies = [mapping(one, "an experiment") for one in items(lists.get("experiments"), "experiments")]
        return _Told(
            str(mapping(read.get("system"), "system").get("package")),
            {name: value for name, value in lists.items() if isinstance(value, list)},
            {text(one.get("path"), "a path") for one in files},
            {identity(one.get("id"), "an id"): int(one["ok_runs"]) for one in tallies if "ok_runs" in one},
        )
    except (ArchiveError, ValueError, TypeError):
        return _Told()


class _Audit:
    def __init__(self, root: Path, shapes: Mapping[str, Shape]) -> None:
        self._root = root
        self._shapes = shapes

    def run(self) -> Iterator[Finding]:
        if is_there(self._root / DOCUMENT):
            yield from self._object(self._root, self._shapes[EXPERIMENT], {PRIVATE, REPORT})
            return
        base = base_of(self._root)
        yield from self._experiments(base)
        if base == self._root:
            return
        yield from self._document(self._root / MANIFEST, "missing: the export did not end, or somebody removed it")
        roots = [one for one in self._shapes.values() if one.parent is None and one.document and one.name != EXPERIMENT]
        yield from self._below(
            self._root, roots, _told(self._root / MANIFEST), {EXPERIMENTS, MANIFEST, REPORT, PRIVATE}
        )

    def _experiments(self, base: Path) -> Iterator[Finding]:
        """The index, and every experiment that it lists; of each, the index counts what its own document lists."""
        index, wrong = _told(base / INDEX), []
        for own, number in index.tallies.items():
            lists = _told(base / escape(own) / DOCUMENT).lists
            runs = number if lists is None else len(items(lists.get("runs"), "runs"))
            if runs != number:
                wrong.append(f"it counts {number} runs of experiment {own}, whose document lists {runs}")
        yield from self._document(base / INDEX, "missing: the export did not end, or somebody removed it", wrong)
        known = None if index.lists is None else {EXPERIMENTS: [*index.tallies]}
        beside = {INDEX, *({MANIFEST, REPORT, PRIVATE} if base == self._root else ())}
        yield from self._children(base, self._shapes[EXPERIMENT], _Told(lists=known), beside)

    def _children(self, home: Path, shape: Shape, told: _Told, beside: Collection[str] = ()) -> Iterator[Finding]:
        """The objects of one kind in one folder, each with all that belongs to it; what else lies there is a stray."""
        folders = told.listed(shape.folder, home, shape.document)
        for folder in folders:
            if is_there(home / folder / shape.document):
                yield from self._object(home / folder, shape)
        yield from self._strays(home, {*beside, *(folder.partition("/")[0] for folder in folders)})

    def _object(self, home: Path, shape: Shape, beside: Collection[str] = ()) -> Iterator[Finding]:
        told, own = _told(home / shape.document), {shape.document, *beside}
        yield from self._document(home / shape.document, "missing")
        if told.files:
            yield from self._files(home / ARTIFACTS, told.files)
        if told.files or told.lists is None:
            own.add(ARTIFACTS)
        children = [one for one in self._shapes.values() if one.parent == shape.name and one.document]
        own.update(one.lines for one in self._shapes.values() if one.parent == shape.name and one.lines)
        yield from self._below(home, children, told, own)

    def _below(self, home: Path, shapes: Sequence[Shape], told: _Told, own: set[str]) -> Iterator[Finding]:
        """The objects of some kinds in one folder, and what else lies there. Kinds may share a folder of folders."""
        for shape in shapes:
            yield from self._children(home / shape.folder, shape, told)
        paths = [shape.folder.partition("/") for shape in shapes]
        yield from self._strays(home, own | {first for first, _, _ in paths})
        for shared in sorted({first for first, _, rest in paths if rest}):
            yield from self._strays(home / shared, {rest for first, _, rest in paths if first == shared})

    def _document(self, path: Path, missing: str, wrong: Collection[str] = ()) -> Iterator[Finding]:
        ref, reason = Ref(DOCUMENT_KIND, self._place(path)), "; ".join(wrong)
        if not is_there(path):
            yield Finding("-", ref, missing)
            return
        try:
            checksum.check(path)
        except ArchiveError as error:
            reason = str(error)
        yield Finding("*" if reason else "=", ref, reason)

    def _files(self, base: Path, listed: Collection[str]) -> Iterator[Finding]:
        """Files of an object that its document does not list."""
        known = {base.joinpath(*map(escape, name.split("/"))) for name in listed}
        yield from (self._stray(path) for path, _ in walked(base) if is_there(base) and path not in known)

    def _strays(self, folder: Path, own: Collection[str]) -> Iterator[Finding]:
        """What lies in a folder besides what belongs there: each file of it, also in folders below."""
        known = {name.partition("/")[0] for name in own}  # A long name is several folders.
        for one in entries(folder) if is_folder(folder) else ():
            if one.name not in known:
                yield from map(self._stray, (path for path, _ in walked(one)) if is_folder(one) else (one,))

    def _stray(self, path: Path) -> Finding:
        return Finding("+", Ref(FILE_KIND, self._place(path)), "nothing lists it")

    def _place(self, path: Path) -> str:
        return printable(path.relative_to(self._root).as_posix())

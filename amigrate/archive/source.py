"""A folder as a Source: any archive of runs, ours or mlflow-export-import's, with or without its index files.

Accepted layouts: experiments below `experiments/`, directly in the folder, or the folder itself is one experiment;
runs below `runs/` or directly in the experiment's folder. What an experiment's document lists and is not there is a
failed run, never a silent one.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from amigrate.archive import document
from amigrate.archive.layout import DOCUMENT, EXPERIMENTS, MANIFEST, PRIVATE, escape
from amigrate.core.errors import AmigrateError, ArchiveError, NotAnArchive, Uncarriable
from amigrate.core.model import POINT_BYTES, Body, Doc, Notes, Outcome, Record, Ref, Rows, Status, Stream
from amigrate.core.ports import RowCall, Scan, Shape

PAGE = 200
CALL = 20_000
"""Points that one call reads."""
READ = 256 * 1024
OTHERS = {
    "models": "registered-models",
    "prompts": "prompts",
    "evaluation_datasets": "evaluation-datasets",
    "logged_models": "logged-models",
    "traces": "traces",
}
"""Folders of kinds that are not carried yet, and what `--accept-loss` calls them."""
LINK = Uncarriable("a symbolic link: not followed")
FoundFile = tuple[Doc, str, AmigrateError | None]
"""What is said of a file, where it lies below the archive's root, and why it cannot be had."""


def holds_archive(root: Path) -> bool:
    """True for the folder of an archive, whole or not."""
    return (root / MANIFEST).is_file() or (root / PRIVATE).is_dir() or next(_experiment_folders(root), None) is not None


class ArchiveSource:
    """See `core.ports.Source`."""

    def __init__(self, root: Path, shapes: Mapping[str, Shape], notes: Notes) -> None:
        """Raises `NotAnArchive` where there is no experiment in the folder."""
        self.label = str(root)
        self.root = root
        self._shapes = shapes
        self.homes = list(_experiment_folders(root))
        if not self.homes:
            raise NotAnArchive(f"{root} holds no archive: no {DOCUMENT} in it, in its folders, or in {EXPERIMENTS}/")
        if (root / EXPERIMENTS).is_dir() and not (root / MANIFEST).is_file():
            notes.warn(f"{root} has no {MANIFEST}: its export did not end, or it was put together by hand")

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan:
        return _Scan(self._experiments() if kind == "experiment" else self._runs(parents))

    async def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        reader = _PointReader(self.root, batch)
        while reader.open:
            yield reader.call()

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        return [record for record in batch if (self.root / record.place / "artifacts").is_dir() or _listed(record)]

    async def files(self, record: Record) -> AsyncIterator[list[Record]]:
        listed = _listed(record)
        yield [
            Record(Ref("artifact", str(one["path"]), record.ref), one, str(one["path"]), place, error)
            for one, place, error in (self._own(record, listed) if listed is not None else self._walked(record))
        ]

    def open(self, record: Record, file: Record) -> Body:
        path, digest = self.root / file.place, str(file.doc.get("sha256") or "")
        return Body(lambda: _opened(path, int(file.doc["size"]), digest), int(file.doc["size"]))

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        reason = "amigrate does not carry this kind yet"
        outcomes = []
        for folder, label in OTHERS.items():
            homes = [self.root, *self.homes]
            number = sum(_count_folders(home / folder) for home in homes)
            if number:
                outcomes.append(Outcome(Ref(label, "*"), Status.LEFT_BEHIND, reason=reason, name=label, count=number))
        return outcomes

    # ---- experiments and runs -----------------------------------------------------------------------------------

    def _experiments(self) -> Iterator[list[Record]]:
        for home in self.homes:
            yield [self._decoded("experiment", home / DOCUMENT, None)]

    def _runs(self, parents: Sequence[Record]) -> Iterator[list[Record]]:
        page: list[Record] = []
        for parent in parents:
            for record in self._runs_of(parent):
                page.append(record)
                if len(page) == PAGE:
                    yield page
                    page = []
        if page:
            yield page

    def _runs_of(self, parent: Record) -> Iterator[Record]:
        home = self.root / parent.place
        seen = set()
        for folder in _run_folders(home):
            record = self._decoded("run", folder / "run.json", parent.ref)
            seen |= {record.ref.id, folder.name}
            yield record
        for run_id, reason in _expected(parent.doc):
            if run_id not in seen:
                yield Record(Ref("run", run_id, parent.ref), {}, error=ArchiveError(reason))

    def _decoded(self, kind: str, path: Path, parent: Ref | None) -> Record:
        place = str(path.parent.relative_to(self.root))
        try:
            read = document.read(path)
            record = self._shapes[kind].decode(read, path.parent.name, parent)
            doc = {**record.doc, "archive": {"info": read.get("info") or {}, "runs": _run_ids(read)}}
            return Record(record.ref, doc, record.name, place)
        except ArchiveError as error:
            return Record(Ref(kind, path.parent.name, parent), {}, path.parent.name, place, error)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            reason = f"{path} has not the shape of a document of this kind: {type(error).__name__} {error}"
            return Record(Ref(kind, path.parent.name, parent), {}, path.parent.name, place, ArchiveError(reason))

    # ---- files --------------------------------------------------------------------------------------------------

    def _own(self, record: Record, listed: Sequence[Doc]) -> Iterator[FoundFile]:
        """Files that the document lists; each must be there with its size."""
        for one in listed:
            place = Path(record.place, "artifacts", *map(escape, str(one["path"]).split("/")))
            error = _wrong(self.root / place, int(one["size"]))
            yield one, str(place), error

    def _walked(self, record: Record) -> Iterator[FoundFile]:
        """Files on the disk, where no list says what should be there. Links are not followed."""
        base = self.root / record.place / "artifacts"
        for folder, folders, names in os.walk(base):
            folders.sort()
            for name in sorted([*names, *(one for one in folders if Path(folder, one).is_symlink())]):
                path = Path(folder, name)
                doc = {"path": path.relative_to(base).as_posix(), "size": path.lstat().st_size}
                error = LINK if path.is_symlink() else None
                yield doc, str(path.relative_to(self.root)), error


class _Scan:
    """A listing of a folder that nobody writes to."""

    def __init__(self, pages: Iterator[list[Record]]) -> None:
        self._pages = pages

    async def pages(self) -> AsyncIterator[list[Record]]:
        for page in self._pages:
            yield page

    async def again(self) -> AsyncIterator[list[Record]]:
        nothing: tuple[list[Record], ...] = ()
        for page in nothing:
            yield page


class _PointReader:
    """The points of a batch of runs, file after file, as many at a time as one call may bring."""

    def __init__(self, root: Path, batch: Sequence[Record]) -> None:
        self._rows = self._read(root, batch)
        self._refs = [record.ref for record in batch]
        self._next: Rows | None = next(self._rows, None)

    @property
    def open(self) -> bool:
        return self._next is not None

    def call(self) -> RowCall:
        return _PointCall(self, self._refs)

    def take(self) -> list[Rows]:
        """The next rows. Calls come one after the other: nothing is awaited in here."""
        taken, points = [], 0
        while self._next is not None and points < CALL:
            taken.append(self._next)
            points += len(self._next.points)
            self._next = next(self._rows, None)
        return taken

    def _read(self, root: Path, batch: Sequence[Record]) -> Iterator[Rows]:
        for record in batch:
            keys = [metric["key"] for metric in record.doc["data"]["metrics"]]
            if not keys:
                continue
            try:
                yield from self._run(root / record.place / "run.json", record, keys)
            except ArchiveError as error:
                yield Rows(record.ref, keys[0], [], error=str(error))

    def _run(self, path: Path, record: Record, keys: list[str]) -> Iterator[Rows]:
        counts: dict[str, int] = dict.fromkeys(keys, 0)
        for key, points in document.points(path):
            counts[key] = counts.get(key, 0) + len(points)
            yield Rows(record.ref, key, points)
        for key, count in counts.items():
            expected = ((record.doc["archive"]["info"].get("series") or {}).get(key) or {}).get("points", count)
            if count != expected:
                raise ArchiveError(f"{path} holds {count} points of '{key}' instead of {expected}")
            yield Rows(record.ref, key, [], total=count)


class _PointCall:
    """See `core.ports.RowCall`."""

    def __init__(self, reader: _PointReader, refs: list[Ref]) -> None:
        self._reader = reader
        self.refs = refs
        self.cost = CALL * POINT_BYTES * 2

    async def __call__(self) -> list[Rows]:
        return self._reader.take()


def _experiment_folders(root: Path) -> Iterator[Path]:
    """The folders of experiments in an archive, in the order of their ids."""
    if (root / DOCUMENT).is_file():
        yield root
        return
    base = root / EXPERIMENTS if (root / EXPERIMENTS).is_dir() else root
    if not base.is_dir():
        return
    folders = [one for one in base.iterdir() if one.is_dir() and (one / DOCUMENT).is_file()]
    yield from sorted(folders, key=lambda one: (len(one.name), one.name))


def _run_folders(home: Path) -> Iterator[Path]:
    """The folders of an experiment's runs: below `runs/`, or before October 2025 beside its document."""
    nested = home / "runs"
    if nested.is_dir():
        yield from sorted(one for one in nested.iterdir() if one.is_dir() and not one.is_symlink())
    for one in sorted(home.iterdir()):
        if one.is_dir() and not one.is_symlink() and (one / "run.json").is_file():
            yield one


def _expected(doc: Doc) -> Iterator[tuple[str, str]]:
    """The runs that an experiment's document names, with what to say where one is not there."""
    kept = doc.get("archive") or {}
    for run_id in kept.get("runs") or []:
        yield run_id, "listed in experiment.json, but its folder is missing"
    for run_id in (kept.get("info") or {}).get("failed_runs") or []:
        yield str(run_id), "its export failed, so it is not in the archive"


def _run_ids(read: Doc) -> list[str]:
    runs = (read.get("mlflow") or {}).get("runs") if isinstance(read.get("mlflow"), dict) else None
    return [str(one) for one in runs] if isinstance(runs, list) else []


def _listed(record: Record) -> list[Doc] | None:
    listed = record.doc["archive"]["info"].get("artifacts")
    return listed if isinstance(listed, list) else None


def _wrong(path: Path, size: int) -> AmigrateError | None:
    try:
        found = path.lstat()
    except OSError:
        return ArchiveError("the file is missing in the archive")
    if path.is_symlink():
        return LINK
    if found.st_size != size:
        return ArchiveError(f"the file has {found.st_size} bytes in the archive instead of {size}")
    return None


def _count_folders(path: Path) -> int:
    if not path.is_dir() or path.name == PRIVATE:
        return 0
    return sum(1 for one in path.iterdir() if one.is_dir())


@asynccontextmanager
async def _opened(path: Path, size: int, digest: str) -> AsyncIterator[Stream]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error

    async def chunks() -> AsyncIterator[bytes]:
        """One chunk late, so that a file with a wrong checksum never arrives whole."""
        hashed, held = hashlib.sha256(), b""
        while data := file.read(READ):
            hashed.update(data)
            if held:
                yield held
            held = data
        if digest and hashed.hexdigest() != digest:
            raise ArchiveError(f"{path} is damaged: its sha256 is not the one that was written")
        if held:
            yield held

    with file:
        yield Stream(chunks(), size)

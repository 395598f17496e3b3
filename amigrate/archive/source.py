"""A folder as a Source: any archive of runs, ours or mlflow-export-import's, with or without its index files.

Accepted layouts: experiments below `experiments/`, directly in the folder, or the folder itself is one experiment;
runs below `runs/` or directly in the experiment's folder. What the archive's documents list and is not there has
failed, never silently. Documents may come from anybody: one that is not as it should be fails alone, and nothing
outside of the archive is ever read.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import IO, Any

from amigrate.archive import document
from amigrate.archive.folders import (
    RUN,
    RUNS,
    barred,
    base_of,
    entries,
    experiment_folders,
    is_folder,
    is_there,
    object_folders,
    printable,
    run_folders,
    walked,
)
from amigrate.archive.layout import DOCUMENT, EXPERIMENTS, INDEX, MANIFEST, PRIVATE, escape
from amigrate.archive.lines import read_lines
from amigrate.core.errors import AmigrateError, ArchiveError, Missing, NotAnArchive
from amigrate.core.model import POINT_BYTES, Body, Doc, Forecast, Notes, Outcome, Record, Ref, Rows, Status, Stream
from amigrate.core.ports import RowCall, Scan, Shape
from amigrate.core.typed import identity, items, mapping, text, whole

PAGE = 200
CALL = 20_000
"""Points that one call reads."""
READ = 256 * 1024
LINES = 2000
"""Lines of one page at most."""
PAGE_BYTES = 4 * 1024 * 1024
OTHERS = {
    "logged_models": "logged-models",
    "traces": "traces",
}
"""Folders of kinds that are not carried yet, and what `--accept-loss` calls them."""
EXPORT_FAILED = "its export failed, so it is not in the archive"
FoundFile = tuple[str, Path, AmigrateError | None, str]
"""The path of a file for its server, where it lies, why it cannot be had, and its checksum where one was noted."""


def holds_archive(root: Path) -> bool:
    """True for the folder of an archive, whole or not."""
    if not root.is_dir():
        return False
    return (root / MANIFEST).is_file() or (root / PRIVATE).is_dir() or bool(experiment_folders(root.resolve()))


class ArchiveSource:
    """See `core.ports.Source`."""

    local = True

    def __init__(self, root: Path, shapes: Mapping[str, Shape], notes: Notes) -> None:
        """Raises `NotAnArchive` where there is no experiment in the folder."""
        self.label = str(root)
        self.shows_all = True
        self.latest: Collection[str] = ()
        """Metrics of runs whose latest value is to be read with the run."""
        self.root = root = root.resolve()
        self._shapes = shapes
        self._lined = {shape.inside for shape in shapes.values() if shape.lines}
        self._folders = {shape.folder for shape in shapes.values() if shape.parent and shape.document} - {RUNS}
        if not is_there(root):
            raise NotAnArchive(f"{root} is no archive: there is nothing of this name")
        try:
            self.homes = experiment_folders(root)
        except ArchiveError as error:
            raise NotAnArchive(str(error)) from error
        has_others = any(
            is_folder(root / shape.folder)
            for shape in shapes.values()
            if not shape.parent and shape.folder != EXPERIMENTS
        )
        is_empty = is_there(root / MANIFEST) and is_folder(root / EXPERIMENTS)
        if not (has_others or is_empty or any(is_there(home / DOCUMENT) for home in self.homes)):
            raise NotAnArchive(
                f"{root} holds no archive: no {DOCUMENT} in it, in its folders, or in {EXPERIMENTS}/"
                " (symbolic links are not followed)"
            )
        if is_folder(root / EXPERIMENTS) and not (root / MANIFEST).is_file():
            notes.warn(f"{root} has no {MANIFEST}: its export did not end, or it was put together by hand")
        self._notes = notes

    def scan(self, kind: str, parents: Sequence[Record]) -> Scan:
        if kind == "experiment":
            return _Scan(self._experiments(), len(self.homes))
        runs = sum(len(parent.doc["archive"]["runs"]) for parent in parents) if kind == "run" else 0
        return _Scan(self._below(kind, parents), runs)

    async def count(self, kind: str, parents: Sequence[Record]) -> int | None:
        return None  # Everything is listed.

    async def locate(self, kind: str, ids: Sequence[str]) -> list[Record]:
        experiments = [record for page in self._experiments() for record in page if not record.error]
        page = [record for records in self._below(kind, experiments) for record in records]
        return [record for record in page if record.ref.id in {*ids}]

    def _below(self, kind: str, parents: Sequence[Record]) -> Iterator[list[Record]]:
        """The objects of a kind below these parents."""
        shape = self._shapes[kind]
        if kind == "run":
            return self._runs(parents)
        if shape.lines:
            return (page for parent in parents for page in self._many(shape, parent))
        return self._pages(self._inside(shape, parents) if shape.inside else self._others(shape, parents))

    async def load(self, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        yield [*batch]

    async def missed(self, kind: str, records: Sequence[Record]) -> list[Record]:
        """A folder shows all that it holds."""
        return []

    async def rows(self, kind: str, batch: Sequence[Record]) -> AsyncIterator[RowCall]:
        reader = _PointReader(self.root, batch)
        while reader.open:
            yield reader.call()

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        """A document says how many points it has; one of another tool only of which series."""
        known = [_kept(one, "points").values() or _series_of(one) for one in batch if self._shapes[one.ref.kind].points]
        return Forecast(sum(map(sum, known)))

    async def with_files(self, batch: Sequence[Record]) -> list[Record]:
        return [record for record in batch if self._may_have_files(record)]

    def _may_have_files(self, record: Record) -> bool:
        if self._shapes[record.ref.kind].inside:
            return False
        listed = _kept(record, "files") or _is_partial(record)
        return bool(listed) or is_there(self.root / record.place / "artifacts")

    async def files(self, record: Record) -> AsyncIterator[list[Record]]:
        listed = _kept(record, "files")
        found = self._walked(record) if listed is None else self._own(record, listed)
        yield [self._file(record, *one) for one in found]
        if _is_partial(record):
            reason = "the export of this run failed: not all of its artifacts may be there"
            yield [Record(Ref("artifact", "*", record.ref), {}, "all artifacts of the run", error=ArchiveError(reason))]

    def open(self, record: Record, file: Record) -> Body:
        path, size = self.root / file.place, file.doc["size"]
        return Body(lambda: _opened(path, size, file.doc["sha256"]), size)

    async def keeps_repeats(self) -> bool:
        return True

    async def uncarried(self, parents: Sequence[Record], whole: bool) -> list[Outcome]:
        outcomes = []
        for folder, label in OTHERS.items():
            reason, number = "amigrate does not carry this kind yet", 0
            for home in self._uncarried_homes(folder):
                try:
                    number += _count_folders(home / folder)
                except ArchiveError as error:
                    reason, number = f"could not be counted: {error}", number + 1
            if number:
                outcomes.append(Outcome(Ref(label, "*"), Status.LEFT_BEHIND, reason=reason, name=label, count=number))
        return outcomes

    def _uncarried_homes(self, folder: str) -> list[Path]:
        """Where a folder would hold what nobody looks into."""
        carried = any(shape.folder == folder for shape in self._shapes.values())
        everywhere = [*dict.fromkeys([self.root, *self.homes])]
        return [home for home in everywhere if not carried or (home == self.root and home not in self.homes)]

    # ---- experiments and runs -----------------------------------------------------------------------------------

    def _experiments(self) -> Iterator[list[Record]]:
        beside, taken = {home.name for home in self.homes}, set[str]()
        names: dict[str, str] = {}
        for home in self.homes:
            record = _claimed(self._decoded("experiment", home / DOCUMENT, None), home, beside, taken)
            if not record.error and record.name in names:
                reason = f"experiment {names[record.name]} of this archive has the same name: import it alone, renamed"
                record = replace(record, error=ArchiveError(reason))
            names.setdefault(record.name, record.ref.id)
            yield [_with_runs(record, home) if record.error else record]
        lost = self._lost_experiments(taken | beside)
        if lost:
            yield lost

    def _lost_experiments(self, seen: Collection[str]) -> list[Record]:
        """What the index lists and is not there: by id where it was exported, by name where that had failed."""
        base = base_of(self.root)
        if barred(self.root, base / INDEX) or is_there(self.root / DOCUMENT):
            return []
        try:
            listed, failed = _indexed(document.read(base / INDEX))
        except (ArchiveError, ValueError) as error:
            self._notes.warn(f"{base / INDEX} cannot be used, so missing experiments go unnoticed: {error}")
            return []
        gone = Missing(f"listed in {INDEX}, but its folder is missing")
        return [
            *(Record(Ref("experiment", own), {}, name, error=gone) for own, name in listed.items() if own not in seen),
            *(Record(Ref("experiment", name), {}, name, error=Missing(EXPORT_FAILED)) for name in failed),
        ]

    def _runs(self, parents: Sequence[Record]) -> Iterator[list[Record]]:
        return self._pages(record for parent in parents for record in self._runs_of(parent))

    def _pages(self, records: Iterator[Record]) -> Iterator[list[Record]]:
        while page := list(islice(records, PAGE)):
            yield page

    def _others(self, shape: Shape, parents: Sequence[Record]) -> Iterator[Record]:
        """Objects with a folder and a document of their own, below their parents or the archive's root."""
        homes: list[Record | None] = [*parents] if shape.parent else [None]
        for parent in homes:
            home = self.root / (parent.place if parent else "") / shape.folder
            ref = parent.ref if parent else None
            beside, taken = set[str](), set[str]()
            try:
                folders = list(object_folders(home, shape.document)) if is_there(home) else []
                listed = _kept(parent, "children").get(shape.folder, ()) if parent else self._manifest(shape.folder)
            except ArchiveError as error:
                yield Record(Ref(shape.name, "*", ref), {}, error=error)
                continue
            beside.update(folder.name for folder in folders)
            read = ((folder, self._decoded(shape.name, folder / shape.document, ref)) for folder in sorted(folders))
            found = (_claimed(record, folder, beside, taken) for folder, record in _joined(read, shape, beside))
            yield from _ranked(shape, found) if shape.sequential else found
            for own in sorted({*listed} - taken - beside):
                gone = Missing("listed in the archive, but its folder is missing")
                yield Record(Ref(shape.name, own, ref), {}, error=gone)

    def _manifest(self, folder: str) -> list[str]:
        """The ids of what the archive's root should hold in one of its folders."""
        path = self.root / MANIFEST
        if not is_there(path) or barred(self.root, path):
            return []
        try:
            return _ids(mapping(document.read(path).get("mlflow"), "mlflow").get(folder), folder)
        except ValueError as error:
            raise ArchiveError(f"{path} is not as it should be: {error}") from error

    def _inside(self, shape: Shape, parents: Sequence[Record]) -> Iterator[Record]:
        """Objects in the documents of their parents."""
        for parent in parents:
            for number, doc in enumerate(parent.doc.get(shape.inside) or []):
                try:
                    record = shape.decode({"mlflow": mapping(doc, shape.inside)}, str(number), parent.ref)
                    yield replace(record, doc={**record.doc, "archive": _archived({})}, place=parent.place)
                except document.DAMAGE as damage:
                    error = ArchiveError(f"{parent.place}: {shape.inside}[{number}] is not as it should be: {damage}")
                    yield Record(Ref(shape.name, f"{parent.ref.id}[{number}]", parent.ref), {}, error=error)

    def _many(self, shape: Shape, parent: Record) -> Iterator[list[Record]]:
        """Objects that have a line each in a file beside their parent's document, in pages that fit into memory.

        Where there is no such file they lie in the document itself, as mlflow-export-import writes it.
        """
        path = self.root / parent.place / shape.lines
        expected = _kept(parent, "lines").get(shape.inside)
        listed = self._within(shape, parent) if expected is None and not is_there(path) else None
        if listed is None:
            error = barred(self.root, path)
            listed = iter([(0, error)]) if error else read_lines(path, expected)
        page: list[Record] = []
        weight, taken = 0, set[str]()
        for number, doc in listed:
            record = self._line(shape, parent, number, doc)
            if record.ref.id in taken:
                ref = replace(record.ref, id=f"{shape.inside}[{number}]")
                record = replace(record, ref=ref, error=ArchiveError(f"the same as another of its {shape.inside}"))
            taken.add(record.ref.id)
            page.append(record)
            weight += sum(len(value) for value in record.doc.values() if isinstance(value, str))
            if len(page) == LINES or weight > PAGE_BYTES:
                yield page
                page, weight = [], 0
        if page:
            yield page

    def _within(self, shape: Shape, parent: Record) -> Iterator[tuple[int, Doc | AmigrateError]]:
        """The objects in their parent's document, read anew: with all parents they would not fit into memory."""
        owner = self._shapes[shape.parent or ""]
        try:
            read = document.read(self.root / parent.place / owner.document)
            for number, doc in enumerate(owner.decode(read, parent.ref.id, None).doc[shape.inside], 1):
                yield number, mapping(doc, shape.inside)
        except ArchiveError as error:
            yield 0, error
        except document.DAMAGE as damage:
            yield 0, ArchiveError(f"{parent.place}: {shape.inside} are not as they should be: {damage}")

    def _line(self, shape: Shape, parent: Record, number: int, doc: Doc | AmigrateError) -> Record:
        error = doc if isinstance(doc, AmigrateError) else None
        try:
            if isinstance(doc, dict):
                return replace(shape.decode({"mlflow": doc}, str(number), parent.ref), place=parent.place)
        except document.DAMAGE as damage:
            error = ArchiveError(f"{parent.place}: {shape.inside} {number} is not as it should be: {damage}")
        own = f"{shape.inside}[{number}]" if number else "*"
        return Record(Ref(shape.name, own, parent.ref), {}, place=parent.place, error=error)

    def _runs_of(self, parent: Record) -> Iterator[Record]:
        expected, failed = _kept(parent, "runs"), set(_kept(parent, "failed"))
        missing = "listed in experiment.json, but its folder is missing"
        try:
            folders = run_folders(self.root / parent.place)
        except ArchiveError as error:
            folders, missing, expected = [], str(error), expected or ["*"]
        beside, taken = {folder.name for folder in folders}, set[str]()
        for folder in folders:
            record = self._with_latest(_claimed(self._decoded("run", folder / RUN, parent.ref), folder, beside, taken))
            if record.ref.id in failed and not record.error:
                record.doc["archive"]["partial"] = True
            yield record
        for run_id in dict.fromkeys([*expected, *sorted(failed)]):
            if run_id not in taken and run_id not in beside:
                reason = EXPORT_FAILED if run_id in failed else missing
                yield Record(Ref("run", run_id, parent.ref), {}, error=Missing(reason))

    def _with_latest(self, record: Record) -> Record:
        """A run with the latest value of those metrics that somebody wants to know of."""
        wanted = {one["key"]: one for one in record.doc.get("data", {}).get("metrics", ()) if one["key"] in self.latest}
        if not wanted or record.error:
            return record
        latest: dict[str, tuple[int, int, float]] = {}
        try:
            for key, points in document.points(self.root / record.place / RUN):
                if key in wanted and points:
                    newest = max((step, time, value) for value, time, step in points)
                    latest[key] = max(latest.get(key, newest), newest)
        except ArchiveError as error:
            return replace(record, error=error)
        for key, (_, _, value) in latest.items():
            wanted[key]["value"] = value
        return record

    def _decoded(self, kind: str, path: Path, parent: Ref | None) -> Record:
        """What a document holds; its record has no name where it cannot be read."""
        place = str(path.parent.relative_to(self.root))
        error = barred(self.root, path)
        try:
            if error is None:
                read = document.read(path)
                record = self._shapes[kind].decode(read, printable(path.parent.name), parent)
                many = {shape.inside for shape in self._shapes.values() if shape.lines and shape.parent == kind}
                kept = {key: value for key, value in record.doc.items() if key not in many}
                kept["archive"] = _archived(read, self._folders, self._lined)
                return Record(record.ref, kept, record.name, place)
        except ArchiveError as damage:
            error = damage
        except document.DAMAGE as damage:
            error = ArchiveError(f"{path} is not as it should be: {damage}")
        return Record(Ref(kind, printable(path.parent.name), parent), {}, "", place, error)

    # ---- files --------------------------------------------------------------------------------------------------

    def _file(self, record: Record, name: str, path: Path, error: AmigrateError | None, digest: str) -> Record:
        doc = {"path": name, "size": 0 if error else path.lstat().st_size, "sha256": digest}
        return Record(Ref("artifact", name, record.ref), doc, name, str(path.relative_to(self.root)), error)

    def _own(self, record: Record, listed: Mapping[str, Doc]) -> Iterator[FoundFile]:
        """Files that the document lists; each must be there with its size."""
        home = self.root / record.place
        for name, noted in listed.items():
            path = Path(home, "artifacts", *map(escape, name.split("/")))
            yield name, path, _wrong(home, path, noted["size"]), noted["sha256"]

    def _walked(self, record: Record) -> Iterator[FoundFile]:
        """Files on the disk, where no list says what should be there."""
        base = self.root / record.place / "artifacts"
        if not is_there(base):
            return
        for path, error in walked(base):
            name = path.relative_to(base).as_posix()
            if printable(name) != name:
                error = error or ArchiveError("its name is not UTF-8, so no server takes it")
            yield printable(name), path, error, ""


class _Scan:
    """A listing of a folder that nobody writes to."""

    def __init__(self, pages: Iterator[list[Record]], size: int) -> None:
        self._pages = pages
        self._size = size

    async def size(self) -> int | None:
        return self._size or None

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
                yield from self._run(root / record.place / RUN, record, keys)
            except ArchiveError as error:
                yield Rows(record.ref, keys[0], [], error=str(error))

    def _run(self, path: Path, record: Record, keys: list[str]) -> Iterator[Rows]:
        counts: dict[str, int] = dict.fromkeys(keys, 0)
        for key, points in document.points(path):
            counts[key] = counts.get(key, 0) + len(points)
            yield Rows(record.ref, key, points)
        for key, count in counts.items():
            expected = _kept(record, "points").get(key, count)
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


# ---- what documents say of the archive --------------------------------------------------------------------------


def _archived(read: Doc, folders: Collection[str] = (), lined: Collection[str] = ()) -> Doc:
    """What a document says of its own archive: runs and what lies in these other `folders`, what has a line each in a
    file beside it, files, numbers of points.

    Raises `ValueError`.

    Before December 2022 the runs of an experiment were listed in `export_info`.
    """
    outer, inner = mapping(read.get("export_info"), "export_info"), read.get("mlflow")
    info = mapping(read.get("info"), "info") if inner is not None else outer
    runs = mapping(inner, "mlflow").get("runs") if inner is not None else outer.get("ok_runs")
    series = mapping(info.get("series"), "info.series")
    return {
        "runs": _ids(runs, "runs"),
        "failed": _ids(info.get("failed_runs"), "failed_runs"),
        "children": _children(inner, folders),
        "lines": {one: info.get(one) for one in lined},
        "files": None if info.get("artifacts") is None else _files(info["artifacts"]),
        "points": {key: whole(mapping(one, key).get("points"), f"points of '{key}'") for key, one in series.items()},
    }


def _children(inner: object, folders: Collection[str]) -> dict[str, list[str]]:
    """The ids that an experiment's document lists, by folder."""
    listed = mapping(inner, "mlflow") if inner is not None else {}
    return {what: _ids(listed[what], what) for what in folders if listed.get(what)}


def _ids(value: object, what: str) -> list[str]:
    ids = [identity(one, f"an id in {what}") for one in items(value, what)]
    if not all(ids):
        raise ValueError(f"an id in {what} is empty")
    return ids


def _files(value: object) -> dict[str, Doc]:
    """Path to size and checksum. A size may be anything here: it is not the file's then."""
    listed = [mapping(one, "an item of info.artifacts") for one in items(value, "info.artifacts")]
    return {
        text(one.get("path"), "the path of a file"): {
            "size": one.get("size"),
            "sha256": text(one.get("sha256") or "", "the sha256 of a file"),
        }
        for one in listed
    }


def _indexed(read: Doc) -> tuple[dict[str, str], list[str]]:
    """The experiments that an index lists, id to name, and the names that it has no id for: their export failed."""
    listed = items(mapping(read.get("mlflow", read), "mlflow").get("experiments"), "experiments")
    names = {
        identity(mapping(one, "an experiment").get("id"), "an id"): text(one.get("name"), "a name") for one in listed
    }
    asked = items(mapping(read.get("info"), "info").get("experiment_names"), "experiment_names")
    known = {*names, *names.values()}
    return names, [text(name, "a name") for name in dict.fromkeys(asked) if name not in known]


def _series_of(record: Record) -> list[int]:
    """One point at least of each series."""
    return [1 for _ in record.doc["data"]["metrics"]]


def _kept(record: Record, what: str) -> Any:
    return record.doc["archive"][what]


def _ranked(shape: Shape, records: Iterable[Record]) -> list[Record]:
    """The children of one parent in the order of their creation; those that cannot be read come last."""
    return sorted(records, key=lambda one: (bool(one.error), (0, "") if one.error else shape.rank(one)))


def _is_partial(record: Record) -> bool:
    """True for a run that lies in the archive although its export failed."""
    return bool(record.doc["archive"].get("partial"))


def _joined(read: Iterable[tuple[Path, Record]], shape: Shape, beside: set[str]) -> Iterator[tuple[Path, Record]]:
    """Objects as they are, and those of which other tools write a folder for each child, put together.

    The names of such folders are no ids: they are taken out of `beside`.
    """
    parts: dict[str, dict[int, tuple[Path, Record]]] = {}
    for folder, record in read:
        number = None if record.error else shape.part(record)
        some = parts.setdefault(record.ref.id, {}) if number is not None else {}
        if number is None:
            yield folder, record
        elif number in some:
            error = ArchiveError(f"another folder holds number {number} of it too")
            yield folder, replace(record, ref=replace(record.ref, id=printable(folder.name)), error=error)
        else:
            some[number] = folder, record
            beside.discard(folder.name)
    for some in parts.values():
        in_order = [some[number] for number in sorted(some)]
        yield in_order[0][0], shape.joined([record for _, record in in_order])


def _claimed(record: Record, folder: Path, beside: Collection[str], taken: set[str]) -> Record:
    """The record under an id that no other one has: of two that claim one id, the one whose folder is called so."""
    own = record.ref.id
    is_other = own != folder.name and own in beside
    if own not in taken and (record.error or not is_other):
        taken.add(own)
        return record
    name = printable(folder.name)
    ref = replace(record.ref, id=name if name not in taken else f"{folder.parent.name}/{name}")
    taken.add(ref.id)
    return replace(record, ref=ref, error=record.error or ArchiveError(f"another folder holds the same id {own}"))


def _with_runs(record: Record, home: Path) -> Record:
    """An experiment that cannot be moved takes its runs along: say how many."""
    try:
        number = len(run_folders(home)) if is_folder(home) else 0
    except ArchiveError:
        return record
    return replace(record, error=ArchiveError(f"{record.error}; its runs ({number}) stay too")) if number else record


def _wrong(home: Path, path: Path, size: object) -> AmigrateError | None:
    error = barred(home, path)
    if error is None and (found := path.lstat().st_size) != size:
        return ArchiveError(f"the file has {found} bytes in the archive instead of {size}")
    return error


def _count_folders(path: Path) -> int:
    return sum(1 for one in entries(path) if is_folder(one)) if is_folder(path) else 0


@asynccontextmanager
async def _opened(path: Path, size: int, digest: str) -> AsyncIterator[Stream]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error

    async def chunks() -> AsyncIterator[bytes]:
        """One chunk late, so that a file with a wrong checksum never arrives whole."""
        hashed, held = hashlib.sha256(), b""
        while data := _read(file, path):
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


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        return file.read(READ)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error

"""A folder as a Sink: documents and files, each written beside its name and renamed; an object's document last."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from shutil import rmtree

from amigrate.archive import checksum, envelope, indexes
from amigrate.archive.document import HEAD_END, METRICS_LINE, read
from amigrate.archive.entries import Entries
from amigrate.archive.layout import EXPERIMENT, INDEX, MANIFEST, PART, PRIVATE, Layout
from amigrate.archive.lines import LineFile
from amigrate.archive.spelling import Spelling
from amigrate.archive.spool import Spool
from amigrate.archive.writing import on_disk, write
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, Uncarriable
from amigrate.core.model import Body, Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Rows, Status
from amigrate.core.ports import Children, Ids, Shape

SPOOLED = 16 * 1024 * 1024
"""Bytes of points that all open runs together may hold in memory."""
IN_THREAD = 1024 * 1024
"""Documents with more points than this many bytes are written in a thread."""

ARRIVED = (Status.CREATED, Status.UPDATED, Status.PRESENT)


@dataclass(slots=True)
class Open:
    """An object being written."""

    spool: Spool
    files: list[Doc] = field(default_factory=list)


class ArchiveSink:
    """See `core.ports.Sink`."""

    local = True

    def __init__(
        self, layout: Layout, shapes: Mapping[str, Shape], origin: envelope.Origin, *, bare_nan: bool = False
    ) -> None:
        self.label = str(layout.root)
        self._layout = layout
        self._shapes = shapes
        self._system = origin.system()
        self._bare_nan = bare_nan
        self._open: dict[str, Open] = {}
        self._spooled = 0
        self._tallies: dict[str, envelope.Tally] = {}
        self._listed: dict[str, set[str]] = {}
        """Ids of what lies in the root's folders, by folder."""
        self._entries: dict[str, Entries] = {}
        """Children without a document of their own, by their parent's key."""
        self._lines: dict[Path, LineFile] = {}
        """Those of which there may be very many."""
        self._spelling = Spelling(layout.root)

    async def agree(self, records: Sequence[Record], children: Children, ids: Ids) -> dict[str, tuple[str, str]]:
        return {}  # Folders are called by the ids of the source.

    async def find(self, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        for record in records:
            shape = self._shapes[record.ref.kind]
            if shape.inside and not shape.lines and record.ref.parent:
                self._entries_of(record.ref.parent).see(record.ref, shape.encode(record))
        return {
            record.ref.key: Found(record.ref.id, same=False, ours=True)
            for record in records
            if self._holds(self._shapes[record.ref.kind], record.ref)
        }

    def _holds(self, shape: Shape, ref: Ref) -> bool:
        if shape.lines:  # Their file is written anew.
            return False
        if shape.inside and ref.parent:
            return ref in self._entries_of(ref.parent)
        return self._layout.document(ref).is_file()

    async def begin(self, record: Record, ids: Ids) -> str:
        self._start(record)
        return record.ref.id

    def _start(self, record: Record) -> None:
        if self._shapes[record.ref.kind].inside:
            return
        folder = self._layout.folder(record.ref)
        self._spelling.check(folder)
        on_disk(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
        spool = self._layout.root.joinpath(PRIVATE, "spool", _short(record.ref))
        self._open[_key(record)] = Open(Spool(spool, self._bare_nan))

    async def rehearse(self, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        return Foreseen(requests=0.0)

    def judged(self, file: Record) -> Record:
        return file

    async def begin_batch(self, records: Sequence[Record], ids: Ids) -> dict[str, str | AmigrateError]:
        return {record.ref.key: await self.begin(record, ids) for record in records}

    async def resume(self, record: Record, new_id: str, made: bool, ids: Ids) -> None:
        self._start(record)

    async def keep(self, record: Record, new_id: str, ids: Ids) -> None:
        self._start(record)

    async def put_rows(self, record: Record, rows: Sequence[Rows], ids: Ids) -> None:
        spool = self._open[_key(record)].spool
        for chunk in rows:
            self._spooled += spool.add(chunk.series, chunk.points)
        if self._spooled > SPOOLED:
            self._spooled -= on_disk(spool.spill, self._layout.folder(record.ref))

    async def held_files(self, record: Record) -> dict[str, int]:
        return {}

    async def put_file(self, record: Record, file: Record, body: Body, ids: Ids) -> int:
        path = self._layout.file(record.ref, file.ref.id)
        digest, size = hashlib.sha256(), 0
        self._spelling.check(path)
        on_disk(lambda: path.parent.mkdir(parents=True, exist_ok=True), path)
        # Not beside it: `x.part` may be the name of another file of the same object.
        part = self._layout.root.joinpath(PRIVATE, "spool", f"{_short(Ref('file', file.ref.id, record.ref))}{PART}")
        on_disk(lambda: part.parent.mkdir(parents=True, exist_ok=True), part)
        out = on_disk(lambda: part.open("wb"), path)
        try:
            async with body.open() as stream:
                async for chunk in stream.chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    on_disk(lambda data=chunk: out.write(data), path)  # type: ignore[misc]
                    if len(chunk) >= 256 * 1024:
                        await asyncio.sleep(0)
            on_disk(out.close, path)  # What was held back is written now, and may be too much for the disk too.
            on_disk(lambda: part.replace(path), path)
        except BaseException:
            with suppress(OSError):  # Why it failed is known.
                out.close()
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        self._open[_key(record)].files.append({"path": file.ref.id, "size": size, "sha256": digest.hexdigest()})
        return size

    async def commit(self, record: Record, ids: Ids) -> list[Outcome]:
        opened = self._open.pop(_key(record), None)
        document: Doc = {"system": self._system}
        shape = self._shapes[record.ref.kind]
        if shape.lines and record.ref.parent:
            self._add_line(record.ref.parent, shape, shape.encode(record))
            return []
        if shape.inside and record.ref.parent:
            self._entries_of(record.ref.parent).put(record, shape.encode(record))
            return []
        if self._has_children(record):
            document |= self._counted(record, ids)
        else:
            assert opened is not None, f"{record.ref} was never begun"
            document |= {"info": _contents(record, opened)}
        document["info"] = checksum.with_blank(document["info"])
        document["mlflow"] = {**shape.encode(self._with_entries(record)), **document.get("mlflow", {})}
        path = self._layout.document(record.ref)
        if record.ref.parent is None and record.ref.kind != EXPERIMENT:
            self._listed.setdefault(shape.folder, set()).add(record.ref.id)
        if opened is None or not shape.points:
            write(path, [codec.pretty(document, bare_nan=self._bare_nan)])
            return []
        self._spooled -= opened.spool.held
        if opened.spool.held > IN_THREAD or (opened.spool.counts and sum(opened.spool.counts.values()) > 20_000):
            await asyncio.to_thread(self._write_run, path, document, opened.spool)
        else:
            self._write_run(path, document, opened.spool)
        return []

    def drop(self, record: Record) -> None:
        opened = self._open.pop(_key(record), None)
        if opened is not None:
            self._spooled -= opened.spool.held
            opened.spool.remove()

    def deferred(self, record: Record) -> list[Deferred]:
        return []

    async def remove(self, ref: Ref, new_id: str, ids: Ids) -> None:
        """An object and all that lies in its folder; it is out of the archive before the first file is deleted."""
        shape = self._shapes[ref.kind]
        if shape.inside and ref.parent:
            if not shape.lines:  # Their file is written anew.
                self._entries_of(ref.parent).remove(ref)
                self._write_entries(ref.parent)
            return
        if ref.kind == EXPERIMENT and self._layout.single:
            raise Uncarriable("it is all that this archive holds")
        folder = self._layout.folder(ref)
        trash = self._layout.root / PRIVATE / f"removed-{_short(ref)}"
        on_disk(lambda: trash.parent.mkdir(parents=True, exist_ok=True), trash)
        with suppress(FileNotFoundError):  # It was out of the archive already when we were killed.
            on_disk(lambda: folder.rename(trash), folder)
        await asyncio.to_thread(on_disk, lambda: rmtree(trash, ignore_errors=True), trash)
        self._tallies.pop(ref.id, None)

    async def link(self, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return True

    def finish(self, options: Doc, seconds: float, *, whole: bool) -> None:
        """Write the index files. `whole` adds the manifest, which says that the export came to its end."""
        # Points of a run that failed, or that an earlier export was killed at.
        rmtree(self._layout.root / PRIVATE / "spool", ignore_errors=True)
        if self._layout.single:
            return
        there = indexes.experiments(self._layout) | self._tallies
        tallies = sorted(there.values(), key=lambda tally: (len(tally.id), tally.id))
        index = envelope.experiments_index(self._system, tallies, seconds, options)
        write(self._layout.base / INDEX, [codec.pretty(index)])
        if whole and self._layout.base != self._layout.root:
            os.sync()  # What the manifest says is there must be there after a power cut too.
            listed = indexes.others(self._layout, self._shapes)
            for folder, ids in self._listed.items():
                listed[folder] = listed.get(folder, set()) | ids
            manifest = envelope.manifest(self._system, index, options, listed)
            write(self._layout.root / MANIFEST, [codec.pretty(manifest)])

    def _children_of(self, record: Record) -> list[Shape]:
        return [shape for shape in self._shapes.values() if shape.parent == record.ref.kind]

    def _has_children(self, record: Record) -> bool:
        return any(shape.document or shape.inside for shape in self._children_of(record))

    def _line_file(self, parent: Ref, shape: Shape) -> LineFile:
        path = self._layout.lines(parent, shape.name)
        if path not in self._lines:
            self._lines[path] = on_disk(lambda: LineFile(path), path)
        return self._lines[path]

    def _add_line(self, parent: Ref, shape: Shape, doc: Doc) -> None:
        file = self._line_file(parent, shape)
        on_disk(lambda: file.add(doc), self._layout.folder(parent))

    def _closed_lines(self, record: Record, shape: Shape, ids: Ids) -> Doc:
        """Finish the file of an object's children; what changed while it was exported is in it once."""
        file = self._line_file(record.ref, shape)
        arrived = [own for own, status, _ in ids.children(shape.name, record.ref) if status in ARRIVED]

        def close() -> Doc:
            if file.lines > len(arrived):
                file.keep_last(lambda doc: shape.decode({"mlflow": doc}, "", record.ref).ref.id)
            return file.close()

        return on_disk(close, self._layout.folder(record.ref))

    def _with_entries(self, record: Record) -> Record:
        """A parent with those of its children that have no document of their own."""
        inside = [one for one in self._children_of(record) if one.inside and not one.lines]
        if not inside:
            return record
        entries = self._entries_of(record.ref)
        return replace(record, doc={**record.doc, **{shape.inside: entries.docs(shape.name) for shape in inside}})

    def _write_entries(self, parent: Ref) -> None:
        """A document that is there, with what is inside as it is now: nothing will say later what was removed."""
        path, shape = self._layout.document(parent), self._shapes[parent.kind]
        if not path.is_file():
            return
        document = read(path)
        held = self._with_entries(shape.decode(document, parent.id, parent.parent))
        document["info"] = checksum.with_blank(document["info"])
        document["mlflow"] = {**document["mlflow"], **shape.encode(held)}
        write(path, [codec.pretty(document, bare_nan=self._bare_nan)])

    def _entries_of(self, parent: Ref) -> Entries:
        if parent.key not in self._entries:
            self._entries[parent.key] = Entries(self._layout.document(parent), parent, self._shapes)
        return self._entries[parent.key]

    def _counted(self, record: Record, ids: Ids) -> Doc:
        """The `info` of a parent, counted from what became of its children, and the ids of those that are here."""
        info: Doc = {}
        listed: Doc = {}
        for shape in self._children_of(record):
            if shape.lines:
                info[shape.inside] = self._closed_lines(record, shape, ids)
            elif shape.document:
                ok, failed = self._ended(shape, record.ref, ids)
                listed[shape.folder] = ok
                info |= envelope.children(shape.folder, ok, failed)
        if record.ref.kind == EXPERIMENT:
            runs, failed_runs = info["num_ok_runs"], info["num_failed_runs"]
            self._tallies[record.ref.id] = envelope.Tally(record.ref.id, record.name, runs, failed_runs)
        return {"info": info, "mlflow": listed}

    def _ended(self, shape: Shape, parent: Ref, ids: Ids) -> tuple[list[str], list[str]]:
        """The ids of children that are in the archive, and of those that failed."""
        ok, failed = [], []
        for own, status, _ in ids.children(shape.name, parent):
            if status is Status.FAILED:
                failed.append(own)
            elif self._holds(shape, Ref(shape.name, own, parent)):  # Also what was left out this time.
                ok.append(own)
        return ok, failed

    def _write_run(self, path: Path, document: Doc, spool: Spool) -> None:
        """A document whose points come last. The head is cut open where they belong."""
        head = codec.pretty(document, bare_nan=self._bare_nan).removesuffix(HEAD_END) + b",\n"
        if not spool.counts:
            write(path, [head, METRICS_LINE, b"}", HEAD_END, b"\n"])
        else:
            write(path, _chain([head, METRICS_LINE], spool.lines(), [b"\n    }", HEAD_END, b"\n"]))
        spool.remove()


def _chain(*parts: Iterable[bytes]) -> Iterator[bytes]:
    for part in parts:
        yield from part


def _contents(record: Record, opened: Open) -> Doc:
    """The `info` of a run: its files with their checksums, its metrics with their numbers of points."""
    latest = {metric["key"]: metric for metric in record.doc.get("data", {}).get("metrics") or []}
    series = {}
    for key in sorted(opened.spool.counts):
        point = latest.get(key, {})
        series[key] = {
            "points": opened.spool.counts[key],
            "timestamp": point.get("timestamp", 0),
            "step": point.get("step", 0),
        }
    return {"artifacts": sorted(opened.files, key=lambda one: str(one["path"])), "series": series}


def _short(ref: Ref) -> str:
    """A name for something of an object that does not lie in the object's own folder."""
    return hashlib.sha256(f"{ref.kind} {ref.key}".encode()).hexdigest()[:24]


def _key(record: Record) -> str:
    return f"{record.ref.kind} {record.ref.key}"

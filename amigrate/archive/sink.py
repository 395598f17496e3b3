"""A folder as a Sink: documents and files, each written beside its name and renamed; an object's document last."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from amigrate.archive import envelope
from amigrate.archive.document import HEAD_END, METRICS_LINE
from amigrate.archive.layout import EXPERIMENT, INDEX, MANIFEST, PART, PRIVATE, Layout
from amigrate.archive.spool import Spool
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, DiskError
from amigrate.core.model import Body, Deferred, Doc, Found, Outcome, Record, Rows, Status
from amigrate.core.ports import Ids, Shape

T = TypeVar("T")
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
        self._entries: dict[str, list[Doc]] = {}
        """Children without a document of their own, by their parent's key, until that is written."""

    async def find(self, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        found = {}
        for record in records:
            if not self._shapes[record.ref.kind].inside and self._layout.document(record.ref).is_file():
                found[record.ref.key] = Found(record.ref.id, same=False, ours=True)
        return found

    async def begin(self, record: Record, ids: Ids) -> str:
        if self._shapes[record.ref.kind].inside:
            return record.ref.id
        folder = self._layout.folder(record.ref)
        _on_disk(lambda: folder.mkdir(parents=True, exist_ok=True), folder)
        spool = self._layout.root / PRIVATE / "spool" / f"{hashlib.sha256(record.ref.key.encode()).hexdigest()[:24]}"
        _on_disk(lambda: spool.parent.mkdir(parents=True, exist_ok=True), spool)
        _on_disk(lambda: spool.unlink(missing_ok=True), spool)
        self._open[_key(record)] = Open(Spool(spool, self._bare_nan))
        return record.ref.id

    async def begin_batch(self, records: Sequence[Record], ids: Ids) -> dict[str, str | AmigrateError]:
        return {record.ref.key: await self.begin(record, ids) for record in records}

    async def resume(self, record: Record, new_id: str, made: bool, ids: Ids) -> None:
        await self.begin(record, ids)

    async def put_rows(self, record: Record, rows: Sequence[Rows], ids: Ids) -> None:
        spool = self._open[_key(record)].spool
        for chunk in rows:
            self._spooled += spool.add(chunk.series, chunk.points)
        if self._spooled > SPOOLED:
            self._spooled -= _on_disk(spool.spill, self._layout.folder(record.ref))

    async def held_files(self, record: Record) -> dict[str, int]:
        return {}

    async def put_file(self, record: Record, file: Record, body: Body, ids: Ids) -> int:
        path = self._layout.file(record.ref, file.ref.id)
        digest, size = hashlib.sha256(), 0
        _on_disk(lambda: path.parent.mkdir(parents=True, exist_ok=True), path)
        part = path.with_name(path.name + PART)
        out = _on_disk(lambda: part.open("wb"), path)
        try:
            async with body.open() as stream:
                async for chunk in stream.chunks:
                    digest.update(chunk)
                    size += len(chunk)
                    _on_disk(lambda data=chunk: out.write(data), path)  # type: ignore[misc]
                    if len(chunk) >= 256 * 1024:
                        await asyncio.sleep(0)
            _on_disk(out.close, path)  # What was held back is written now, and may be too much for the disk too.
            _on_disk(lambda: part.replace(path), path)
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
        if shape.inside and record.ref.parent:
            self._entries.setdefault(record.ref.parent.key, []).append(shape.encode(record))
            return []
        if self._has_children(record):
            document |= self._counted(record, ids)
        else:
            assert opened is not None, f"{record.ref} was never begun"
            document |= {"info": _contents(record, opened)}
        document["mlflow"] = {**shape.encode(self._with_entries(record)), **document.get("mlflow", {})}
        path = self._layout.document(record.ref)
        if opened is None or not shape.points:
            self._write(path, [codec.pretty(document, bare_nan=self._bare_nan)])
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

    async def link(self, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        return True

    def finish(self, options: Doc, seconds: float, *, whole: bool) -> None:
        """Write the index files. `whole` adds the manifest, which says that the export came to its end."""
        with suppress(OSError):  # Points of a run that failed may still lie there.
            (self._layout.root / PRIVATE / "spool").rmdir()
        if self._layout.single:
            return
        tallies = sorted(self._tallies.values(), key=lambda tally: (len(tally.id), tally.id))
        index = envelope.experiments_index(self._system, tallies, seconds, options)
        self._write(self._layout.base / INDEX, [codec.pretty(index)])
        if whole and self._layout.base != self._layout.root:
            manifest = envelope.manifest(self._system, index, options, self._listed)
            self._write(self._layout.root / MANIFEST, [codec.pretty(manifest)])

    def _has_children(self, record: Record) -> bool:
        kind = record.ref.kind
        return any(shape.parent == kind and (shape.document or shape.inside) for shape in self._shapes.values())

    def _with_entries(self, record: Record) -> Record:
        """A parent with those of its children that have no document of their own."""
        inside = [shape.inside for shape in self._shapes.values() if shape.inside and shape.parent == record.ref.kind]
        return replace(record, doc={**record.doc, **{name: self._entries.get(record.ref.key, []) for name in inside}})

    def _counted(self, record: Record, ids: Ids) -> Doc:
        """The `info` of a parent, counted from what became of its children, and the ids of those that are here."""
        info: Doc = {}
        listed: Doc = {}
        for shape in self._shapes.values():
            if shape.parent == record.ref.kind and shape.document:
                ok, failed = _ended(ids.children(shape.name, record.ref))
                listed[shape.folder] = ok
                info |= envelope.children(shape.folder, ok, failed)
        if record.ref.kind != EXPERIMENT:
            self._listed.setdefault(self._shapes[record.ref.kind].folder, set()).add(record.ref.id)
        else:
            runs, failed_runs = info["num_ok_runs"], info["num_failed_runs"]
            self._tallies[record.ref.id] = envelope.Tally(record.ref.id, record.name, runs, failed_runs)
        return {"info": info, "mlflow": listed}

    def _write_run(self, path: Path, document: Doc, spool: Spool) -> None:
        """A document whose points come last. The head is cut open where they belong."""
        head = codec.pretty(document, bare_nan=self._bare_nan).removesuffix(HEAD_END) + b",\n"
        if not spool.counts:
            self._write(path, [head, METRICS_LINE, b"}", HEAD_END, b"\n"])
        else:
            self._write(path, _chain([head, METRICS_LINE], spool.lines(), [b"\n    }", HEAD_END, b"\n"]))
        spool.remove()

    def _write(self, path: Path, parts: Iterable[bytes]) -> None:
        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + PART)
            try:
                with part.open("wb") as out:
                    for data in parts:
                        out.write(data)
                part.replace(path)
            except BaseException:
                part.unlink(missing_ok=True)
                raise

        _on_disk(write, path)


def _ended(children: Iterable[tuple[str, Status, str]]) -> tuple[list[str], list[str]]:
    """The ids of children that are in the archive, and of those that failed."""
    ok, failed = [], []
    for own, status, _ in children:
        if status in ARRIVED:
            ok.append(own)
        elif status is Status.FAILED:
            failed.append(own)
    return ok, failed


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


def _key(record: Record) -> str:
    return f"{record.ref.kind} {record.ref.key}"


def _on_disk(action: Callable[[], T], path: Path) -> T:
    """Run something that writes; a disk that is full or read-only ends the session, not one record."""
    try:
        return action()
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}") from error

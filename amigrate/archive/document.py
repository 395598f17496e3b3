"""Reading documents, of any size and any generation.

Our own `run.json` has its points at the end, one on a line: the head is parsed as a whole, the points chunk by chunk.
Any other document is parsed as a whole up to 8 MiB (a point takes ten times its bytes then), beyond that with ijson.
Other writers emit bare NaN, which ijson does not take, so the bytes pass through `Quoted` on their way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

import ijson

from amigrate.core import codec
from amigrate.core.errors import ArchiveError
from amigrate.core.model import Doc, Point
from amigrate.core.typed import LEAST, MOST, items, mapping, real, whole

WHOLE = 8 * 1024 * 1024
READ = 65536
LONGEST_HEAD = 16 * WHOLE
LONGEST_WORD = len(b"-Infinity")
CHUNK = 5000
"""Points in one chunk."""
METRICS_LINE = b'    "metrics": {'
METRICS = (["mlflow", "metrics"], ["metrics"])
"""Where the points lie; without an envelope before December 2022."""
FIELDS = itemgetter("value", "timestamp", "step")
FRAME = ((2, "start_array"), (3, "start_map"), (2, "end_array"))
"""The events that a series consists of, besides what its points hold."""
DEEPEST = 200
"""Objects and lists within each other; no document of ours or of others has ten."""
FIRST_LINE = b"{\n"
OWN = b'{\n  "system": {\n    "package": "amigrate",\n'
BEGINNING = 16 * 1024
TAIL = b"\n    }\n  }\n}\n"
HEAD_END = b"\n  }\n}"
Chunk = tuple[str, list[Point]]
DAMAGE = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, ijson.JSONError)
"""What comes of reading a document that is none, or not the one it should be."""


def read(path: Path) -> Doc:
    """A document without its points: of `mlflow.metrics` only the keys are kept. Raises `ArchiveError`."""
    try:
        document = _read(path)
        codec.dumps(document)  # Half characters and longer numbers are read by one parser, and taken by no server.
        return document
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise ArchiveError(f"{path} is no valid document: {_short(error)}") from error


def _read(path: Path) -> Doc:
    head = _own_head(path)
    if head is not None:
        return head
    if path.stat().st_size <= WHOLE:
        return _without_points(_whole(path))
    return _streamed_head(path)


def points(path: Path) -> Iterator[Chunk]:
    """The points of a run's document, in chunks of one series. Raises `ArchiveError`."""
    try:
        with path.open("rb") as file:
            is_own = _own_lines(file) is not None
            if is_own:
                yield from _own_points(file)
        if is_own:
            return
        if path.stat().st_size <= WHOLE:
            document = _whole(path)
            for key, series in mapping((document.get("mlflow") or document).get("metrics"), "metrics").items():
                for start in range(0, len(items(series, key)), CHUNK):
                    yield key, [_point(row) for row in series[start : start + CHUNK]]
        else:
            yield from _streamed_points(path)
    except OSError as error:
        raise ArchiveError(f"{path} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        raise ArchiveError(f"{path} is damaged: {_short(error)}") from error


def _whole(path: Path) -> Doc:
    document = codec.loads(path.read_bytes())
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    return document


def _without_points(document: Doc) -> Doc:
    inner = document.get("mlflow") or document
    if isinstance(inner.get("metrics"), dict):
        inner["metrics"] = dict.fromkeys(inner["metrics"])
    return document


def _point(row: Any) -> Point:
    return real(row["value"], "a value"), whole(row["timestamp"], "a timestamp"), whole(row["step"], "a step")


# ---- our own ----------------------------------------------------------------------------------------------------


def _own_lines(file: IO[bytes]) -> list[bytes] | None:
    """The head of a `run.json` that we wrote with points in it, up to those; None for any other document."""
    lines: list[bytes] = []
    held = 0
    beginning = file.read(BEGINNING)
    head, found, _ = beginning.partition(b"\n" + METRICS_LINE + b"\n")
    if found and head.startswith(OWN):  # Most heads are short.
        file.seek(len(head) + len(found))
        return [head, b"\n"]
    file.seek(0)
    if len(file.readline(len(FIRST_LINE) + 1)) > len(FIRST_LINE):
        return None
    file.seek(0)
    for number, line in enumerate(iter(partial(file.readline, WHOLE), b"")):
        if line.rstrip(b"\n") == METRICS_LINE:
            return lines
        if number == 2 and line.strip() != b'"package": "amigrate",':
            return None
        held += len(line)
        if held > LONGEST_HEAD:
            raise ValueError("its head is too long")
        lines.append(line)
    return None


def _own_head(path: Path) -> Doc | None:
    """The same, parsed, of a document that has come to its end."""
    with path.open("rb") as file:
        lines = _own_lines(file)
        if lines is None:
            return None
        file.seek(-len(TAIL), os.SEEK_END)
        if file.read() != TAIL:
            raise ValueError("it ends too early")
    head = codec.loads(b"".join(lines).rstrip().rstrip(b",") + HEAD_END)
    head["mlflow"]["metrics"] = dict.fromkeys(head["info"]["series"])
    return head if isinstance(head, dict) else None


def _own_points(file: IO[bytes]) -> Iterator[Chunk]:
    while (line := file.readline().strip()) not in (b"}", b""):
        if not line.endswith(b": ["):
            raise ValueError(f"a series should begin at {line[:60]!r}")
        key = codec.loads(line.removesuffix(b": ["))
        yield from _own_series(file, key)
    if not line or file.read().split() != [b"}", b"}"]:
        raise ValueError("it ends too early")


def _own_series(file: IO[bytes], key: str) -> Iterator[Chunk]:
    held: list[bytes] = []
    while (line := file.readline().strip()) not in (b"]", b"],"):
        if not line:
            raise ValueError("it ends too early")
        held.append(line)
        if len(held) == CHUNK:
            yield key, _parsed(held)
            held = []
    yield key, _parsed(held)


def _parsed(lines: list[bytes]) -> list[Point]:
    rows = codec.loads(b"[" + b"".join(lines).rstrip(b",") + b"]")
    try:
        points: list[Point] = [*map(FIELDS, rows)]
    except KeyError:
        points = []
    return points if points and _are_plain(points) else [_point(row) for row in rows]


def _are_plain(points: list[Point]) -> bool:
    """True where they are as we write most of them, so that none needs to be looked at by itself."""
    values, *numbers = zip(*points, strict=True)
    whole_ones = all(set(map(type, some)) == {int} and min(some) >= LEAST and max(some) <= MOST for some in numbers)
    return whole_ones and set(map(type, values)) == {float}


# ---- others, large ----------------------------------------------------------------------------------------------


class Quoted:
    """A file whose bare NaN and infinities read as strings, however long its lines are."""

    _LITERAL = re.compile(rb'("(?:[^"\\]++|\\.)*+")|(-?\bInfinity\b|\bNaN\b)', re.DOTALL)
    _ENDED = re.compile(rb'(?:[^"]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)
    _WORD = re.compile(rb"[\w.+-]*\Z")

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._rest = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, up to where a string or a word may go on; ijson takes what it gets."""
        if size == 0:
            return b""
        ready = b""
        while not ready:
            data = self._file.read(READ)
            if not data:
                ready, self._rest = self._rest, b""
                break
            data = self._rest + data
            end = self._end(data)
            ready, self._rest = data[:end], data[end:]
        return self._LITERAL.sub(lambda match: match[1] or b'"' + match[2] + b'"', ready)

    def _end(self, data: bytes) -> int:
        """Where the last string that has ended, or the last word before it, lies behind us."""
        ended = self._ENDED.match(data)
        end = ended.end() if ended else 0
        word = self._WORD.search(data, max(0, end - LONGEST_WORD), end) if end == len(data) else None
        return word.start() if word else end


def _streamed(path: Path) -> Iterator[tuple[int, str, Any]]:
    """ijson's events, each with its depth within `metrics`: 0 outside of it, 1 at a series, 2 in it, 3 in a point."""
    keys: list[str] = []
    base = 0
    with path.open("rb") as file:
        for event, value in ijson.basic_parse(Quoted(file), use_float=True):
            if event in ("start_map", "start_array"):
                if not base and keys in METRICS and event == "start_map":
                    base = len(keys)
                    yield 0, event, value
                else:
                    yield len(keys) + 1 - base if base else 0, event, value
                keys.append("")
                if len(keys) > DEEPEST:
                    raise ValueError("it is nested too deeply")
                continue
            if event in ("end_map", "end_array"):
                keys.pop()
                if len(keys) == base:
                    base = 0
                yield len(keys) + 1 - base if base else 0, event, value
                continue
            if event == "map_key":
                keys[-1] = value
            yield len(keys) - base if base else 0, event, value


def _streamed_head(path: Path) -> Doc:
    """Everything but the points, built from ijson's events."""
    builder = ijson.ObjectBuilder()
    keys: dict[str, None] = {}
    for depth, event, value in _streamed(path):
        if not depth:
            builder.event(event, value)
        elif depth == 1 and event == "map_key":
            keys[value] = None
    document = mapping(builder.value, "it")
    if isinstance((document.get("mlflow") or document).get("metrics"), dict):
        (document.get("mlflow") or document)["metrics"] = keys
    return document


def _streamed_points(path: Path) -> Iterator[Chunk]:
    key, field = "", ""
    seen: set[str] = set()
    row: dict[str, Any] = {}
    held: list[Point] = []
    for depth, event, value in _streamed(path):
        if not depth:
            continue
        if depth == 1 and event == "map_key":
            if value in seen:
                raise ValueError(f"'{value}' is in it twice")
            seen.add(value)
            key = value
        elif depth == 3 and event == "map_key":
            field = value
        elif depth == 3 and event == "end_map":
            held.append(_point(row))
            row = {}
        elif depth == 3 and event != "start_map":
            row[field] = value
        elif (depth, event) not in FRAME:
            raise ValueError(f"'{key}' is no list of points")
        if held and (len(held) == CHUNK or event == "end_array"):
            yield key, held
            held = []


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

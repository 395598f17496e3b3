"""`report.json` and `id-map.json`: streamed, so that a million objects need no memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from amigrate.core import codec
from amigrate.core.errors import DiskError


def write_report(path: Path, summary: dict[str, Any], objects: Iterable[dict[str, object]]) -> None:
    """The summary and every object with its outcome, one object on a line."""
    head = codec.pretty(summary).removesuffix(b"\n}")
    _write(path, _array(head + b',\n  "outcomes": [', (codec.dumps(one) for one in objects)))


def write_id_map(path: Path, ids: Iterable[tuple[str, str, str]]) -> None:
    """Old id to new id, by kind."""
    _write(path, _id_map(ids))


def _array(head: bytes, items: Iterable[bytes]) -> Iterator[bytes]:
    yield head
    separator = b"\n    "
    for item in items:
        yield separator + item
        separator = b",\n    "
    yield b"\n  ]\n}\n"


def _id_map(ids: Iterable[tuple[str, str, str]]) -> Iterator[bytes]:
    yield b"{"
    current, separator = None, b"\n"
    for kind, old, new in ids:
        if kind != current:
            yield (b"\n  }," if current is not None else b"") + b"\n  " + codec.dumps(kind) + b": {"
            current, separator = kind, b"\n"
        yield separator + b"    " + codec.dumps(old) + b": " + codec.dumps(new)
        separator = b",\n"
    yield b"\n  }\n}\n" if current is not None else b"}\n"


def _write(path: Path, parts: Iterable[bytes]) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as out:
            for data in parts:
                out.write(data)
        part.replace(path)
    except FileExistsError as error:
        raise DiskError(f"{path} cannot be written: {path.parent} is no folder") from error
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror or error}") from error

"""The points of a run on their way into `run.json`: appended as they come, written out key by key.

A point is one line. Small runs stay in memory, others lie in a file beside the document.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from math import isfinite
from pathlib import Path

from amigrate.core import codec
from amigrate.core.model import Point

READ = 1024 * 1024


class Spool:
    """Lines of points by series. `path` is the file that is used when memory will not do."""

    def __init__(self, path: Path, bare_nan: bool) -> None:
        self._path = path
        self._bare = bare_nan
        self._memory: dict[str, list[bytes]] = defaultdict(list)
        self._segments: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._end = 0
        self.held = 0
        """Bytes in memory."""
        self.counts: dict[str, int] = defaultdict(int)

    def add(self, series: str, points: list[Point]) -> int:
        """Append points; returns the bytes added to memory."""
        self.counts[series] += len(points)
        if not points:
            return 0
        lines = [
            f'        {{"value":{value if isfinite(value) else self._word(value)},"timestamp":{time},"step":{step}}}'
            for value, time, step in points
        ]
        data = ",\n".join(lines).encode()
        self._memory[series].append(data)
        self.held += len(data)
        return len(data)

    def spill(self) -> int:
        """Move what is in memory to the file; returns the bytes freed."""
        freed, self.held = self.held, 0
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab" if self._segments else "wb") as file:  # Never after what a killed export left.
            for series, parts in self._memory.items():
                for data in parts:
                    self._segments[series].append((self._end, len(data)))
                    self._end += file.write(data)
        self._memory.clear()
        return freed

    def lines(self) -> Iterator[bytes]:
        """The inside of the `metrics` object, in pieces: every series with its points."""
        comma = b""
        file = self._path.open("rb") if self._segments else None
        try:
            for series in sorted(self.counts):
                yield comma + b"\n      " + codec.dumps(series) + b": ["
                separator = b"\n"
                for offset, size in self._segments.get(series, ()):
                    assert file is not None
                    file.seek(offset)
                    while size:
                        data = file.read(min(size, READ))
                        if not data:
                            raise OSError(f"{self._path} is shorter than it was written")
                        yield separator + data
                        separator, size = b"", size - len(data)
                    separator = b",\n"
                for data in self._memory.get(series, ()):
                    yield separator + data
                    separator = b",\n"
                yield b"\n      ]"
                comma = b","
        finally:
            if file is not None:
                file.close()

    def remove(self) -> None:
        """Forget everything, the file included."""
        self._memory.clear()
        self.held = 0
        if self._segments:
            self._path.unlink(missing_ok=True)

    def _word(self, value: float) -> str:
        text = str(codec.number(value))
        return text if self._bare else f'"{text}"'

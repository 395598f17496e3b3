"""Secrets that no server tells: an operator gives them, by the name of what they belong to."""

from __future__ import annotations

from collections.abc import Mapping


class Secrets:
    """Secrets by name. They are handed out one by one and shown nowhere."""

    def __init__(self, place: str = "", values: Mapping[str, str] | None = None, *, exposed: bool = False) -> None:
        """`place` is where they were read, for people; `exposed` says that others than its owner may read it."""
        self.place = place
        self.exposed = exposed
        self._values = dict(values or {})
        self._asked: set[str] = set()

    def __repr__(self) -> str:
        return f"Secrets({self.place!r})"

    def __getitem__(self, name: str) -> str | None:
        """The secret of this name, or None where none was given."""
        self._asked.add(name)
        return self._values.get(name)

    def known(self, name: str) -> None:
        """Something of this name is there, and needs no secret any more."""
        self._asked.add(name)

    def names(self) -> list[str]:
        """Whose secrets they are."""
        return sorted(self._values)

    def values(self) -> list[str]:
        """All of them, so that they can be kept out of what is shown."""
        return [*self._values.values()]

    def unasked(self) -> list[str]:
        """Names that nobody asked for: most likely they are written otherwise."""
        return sorted({*self._values} - self._asked)

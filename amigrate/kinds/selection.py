"""Which kinds are asked for, by the names that `--objects` and `--skip-objects` take."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from amigrate.kinds import REGISTRY
from amigrate.kinds.base import Kind
from amigrate.kinds.uncarried import LABELS

ALL = "all"
NAMES = tuple(dict.fromkeys(kind.group or kind.label for kind in REGISTRY.values()))
"""The names of what amigrate carries, in the order of the registry."""
KNOWN = (*NAMES, *LABELS)


def chosen(objects: Collection[str], skipped: Collection[str]) -> tuple[Mapping[str, Kind], frozenset[str]]:
    """The kinds to move, and the names of those that were not asked for.

    A kind brings the one it belongs to along; where that one is skipped, so is the kind.
    """
    wanted = {name for name, kind in REGISTRY.items() if ALL in objects or _named(kind) in objects}
    kept = {name for name in wanted if not any(_named(one) in skipped for one in _line(name))}
    names = {one.name for name in kept for one in _line(name)}
    kinds = {name: kind for name, kind in REGISTRY.items() if name in names}
    carried = {_named(kind) for kind in kinds.values()}
    counted = {name for name in LABELS if (ALL in objects or name in objects) and name not in skipped}
    return kinds, frozenset(name for name in KNOWN if name not in carried | counted)


def _named(kind: Kind) -> str:
    """What `--objects` calls a kind."""
    return kind.group or kind.label


def _line(name: str) -> list[Kind]:
    """A kind, the one it belongs to, and so on."""
    kind = REGISTRY[name]
    return [kind, *(_line(kind.parent) if kind.parent else [])]

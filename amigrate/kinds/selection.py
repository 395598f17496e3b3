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
    """The kinds to move, and the names of those that were not asked for. A kind brings the one it belongs to along."""
    wanted = {name for name in KNOWN if (ALL in objects or name in objects) and name not in skipped}
    names = {name for name, kind in REGISTRY.items() if (kind.group or kind.label) in wanted}
    while missing := {parent for name in names if (parent := REGISTRY[name].parent)} - names:
        names |= missing
    kinds = {name: kind for name, kind in REGISTRY.items() if name in names}
    carried = {kind.group or kind.label for kind in kinds.values()}
    return kinds, frozenset(name for name in KNOWN if name not in wanted | carried)

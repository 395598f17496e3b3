"""Cutting the work into groups and ordering the steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter

from amigrate.core.model import Record
from amigrate.core.ports import Kind

EXPERIMENT = "experiment"
"""The kind that a selection chooses from; others come with the whole workspace only."""
EXPERIMENTS_PER_GROUP = 200
"""Experiments whose runs are listed together: one wide listing instead of one for each."""


def order(kinds: Mapping[str, Kind]) -> list[str]:
    """The kinds so that each comes after those it needs, else as they are registered."""
    needs = {name: {*kind.needs, *([kind.parent] if kind.parent else [])} & {*kinds} for name, kind in kinds.items()}
    return list(TopologicalSorter(needs).static_order())


def own_children(kinds: Mapping[str, Kind], parent: str) -> list[str]:
    """The kinds that are listed below this one and need nothing but it: they are walked right with it."""
    return [
        name
        for name in order(kinds)
        if kinds[name].parent == parent and kinds[name].listed and {*kinds[name].needs} & {*kinds} <= {parent}
    ]


def below(kinds: Mapping[str, Kind], name: str) -> list[str]:
    """The kinds whose objects belong to one of this kind, directly or not."""
    own = [kind.name for kind in kinds.values() if kind.parent == name]
    return [*own, *(one for kind in own for one in below(kinds, kind))]


def groups(records: Sequence[Record]) -> Iterable[Sequence[Record]]:
    """Parents of one kind, as their children are listed together.

    Experiments have the most below them. Of all others one listing shows the children of every one, or each has its
    own: in groups they would be listed again for each group.
    """
    size = EXPERIMENTS_PER_GROUP if records and records[0].ref.kind == EXPERIMENT else max(1, len(records))
    return (records[start : start + size] for start in range(0, len(records), size))

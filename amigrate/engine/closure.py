"""What chosen objects cannot do without: the runs, logged models and experiments of some registered models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from amigrate.core.model import Record
from amigrate.core.ports import Kind, Source
from amigrate.engine.plan import EXPERIMENT

MEMBERS = ("logged_model", "run")
"""Children of experiments that others need, each before what it needs itself."""


@dataclass(frozen=True, slots=True)
class Closure:
    """Ids of everything that is to be moved, by kind. A kind that is not in it is moved whole."""

    ids: Mapping[str, set[str]]

    def wants(self, record: Record) -> bool:
        """Whether a record is asked for, by its name or by what needs it."""
        wanted = self.ids.get(record.ref.kind)
        return wanted is None or record.ref.id in wanted

    def add(self, named: Iterable[tuple[str, str]]) -> None:
        for kind, own in named:
            self.ids[kind].add(own)


async def closure_of(
    source: Source,
    kinds: Mapping[str, Kind],
    tree: tuple[str, str],
    wants: Callable[[Record], bool],
    leaves_out: Callable[[Record], str],
) -> Closure:
    """Those objects of a parentless kind that are wanted, and all that their children need which are not left out.

    `tree` names both kinds.

    Where a child needs another root, as a version that is a copy of another model's does, that one comes along too.
    """
    root, child = tree
    roots = {record.ref.id: record async for page in source.scan(root, []).pages() for record in page}
    found = Closure({root: set(), EXPERIMENT: set(), **{kind: set[str]() for kind in MEMBERS}})
    asked = {own for own, record in roots.items() if wants(record)}
    while asked:
        parents = [roots[own] for own in sorted(asked) if not roots[own].error]
        found.ids[root].update(asked)
        named = [
            pair
            async for page in source.scan(child, parents).pages()
            for record in page
            if not record.error and not leaves_out(record)
            for pair in kinds[child].needed(record)
        ]
        asked = {own for kind, own in named if kind == root} & {*roots} - found.ids[root]
        found.add(pair for pair in named if pair[0] != root)
    for member in MEMBERS:
        for record in await source.locate(member, sorted(found.ids[member])):
            assert record.ref.parent is not None, f"{record.ref} belongs to no experiment"
            found.ids[EXPERIMENT].add(record.ref.parent.id)
            found.add([] if record.error else kinds[member].needed(record))
    return found

"""The comparison of two Sources: what is the same in both, what differs, what only one of them has.

Each side is read once, both at the same time, and noted down in an inventory; then the notes of both are merged by
key. So memory does not grow with the workspace, and references are compared when everything is known: a tag of A that
names a run by id, and the tag of B that names that run's copy by its own id, mean the same.

What is the same object on the other side (`Kind.match`) and what must be equal (`Kind.comparable`) is a matter of the
kind. One side alone can be examined too: for what it says itself to be missing or damaged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc, Finding, Record
from amigrate.core.ports import Kind, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.inventory import A, B, Inventory, Noted
from amigrate.engine.plan import order
from amigrate.engine.stats import Stats
from amigrate.engine.survey import Scope, Store, Survey

PAUSE = 500
"""Findings after which others get their turn."""
SHOWN = 8
"""Differences of one object that are told; the others are counted."""
WIDTH = 60
"""Characters of a value that are shown."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    source: Source
    scope: Scope


async def check(
    a: Side, b: Side, kinds: Mapping[str, Kind], stats: Stats, budget: ByteBudget
) -> AsyncIterator[Finding]:
    """Read both sides to their end, then give one finding for each object that either of them has, kind by kind.

    Findings name objects as A knows them, or as B does where A has none. `stats` counts both sides together. Raises
    what ends a session; that a listing cannot be read to its end does.
    """
    with closing(_inventory(kinds, a.scope, b.scope)) as inventory:
        store = Store(inventory, budget, stats)
        async with asyncio.TaskGroup() as both:
            for name, side in ((A, a), (B, b)):
                both.create_task(Survey(name, side.source, kinds, side.scope, store).read())
        inventory.settle(_parents_first(kinds))
        judge = Judge(inventory, inventory.repeats and await _keep_repeats(a.source, b.source))
        for number, finding in enumerate(judge.findings(kinds.values())):
            if not number % PAUSE:
                await asyncio.sleep(0)
            yield finding


async def examine(side: Side, kinds: Mapping[str, Kind], stats: Stats, budget: ByteBudget) -> AsyncIterator[Finding]:
    """Read one side to its end: `=` for what is whole, `*` for what cannot be read, `-` for what is missing."""
    with closing(_inventory(kinds, side.scope)) as inventory:
        await Survey(A, side.source, kinds, side.scope, Store(inventory, budget, stats)).read()
        inventory.settle(_parents_first(kinds))
        for kind in kinds.values():
            for claims, _ in inventory.by_key(kind.name):
                for one in claims:
                    sigil = "-" if one.absent else "*" if one.error else "="
                    yield Finding(sigil, one.ref, one.error, one.name)


def _inventory(kinds: Mapping[str, Kind], *scopes: Scope) -> Inventory:
    everything = all(scope.whole and scope.deleted for scope in scopes)
    by_origin = {kind.name for kind in kinds.values() if kind.by_origin}
    return Inventory(by_origin, frozenset(kinds) if everything else frozenset())


def _parents_first(kinds: Mapping[str, Kind]) -> list[str]:
    """What has no listing of its own may belong to anything that has one."""
    return sorted(order(kinds), key=lambda name: not kinds[name].listed)


async def _keep_repeats(a: Source, b: Source) -> bool:
    return await a.keeps_repeats() and await b.keeps_repeats()


class Judge:
    """Says of each object whether it is the same on both sides."""

    def __init__(self, inventory: Inventory, repeats: bool) -> None:
        """`repeats`: how often a point is there counts."""
        self._inventory = inventory
        self._repeats = repeats

    def findings(self, kinds: Iterable[Kind]) -> Iterator[Finding]:
        """Of every object, kind by kind."""
        for kind in kinds:
            for a, b in self._inventory.by_key(kind.name):
                if self._same(kind, a, b):
                    yield from (Finding("=", one.ref, "", one.name) for one in a)
                else:
                    sigil, detail = self._judged(kind, a, b)
                    one = (a or b)[0]
                    yield Finding(sigil, one.ref, detail, one.name)

    def _same(self, kind: Kind, a: Sequence[Noted], b: Sequence[Noted]) -> bool:
        """Of several that claim one key, each has to have its equal; what cannot be read has none.

        Where several of A have become one, that one has to equal one of them.
        """
        merged = kind.merges and len(a) > len(b) == 1
        if (len(a) != len(b) and not merged) or any(one.error for one in (*a, *b)):
            return False
        found = [sorted(codec.digest(self._facts(kind, one)) for one in side) for side in (a, b)]
        return found[1][0] in found[0] if merged else found[0] == found[1]

    def _judged(self, kind: Kind, a: Sequence[Noted], b: Sequence[Noted]) -> tuple[str, str]:
        claims = [f"{len(side)} in {side[0].side}: {_ids(side)}" for side in (a, b) if len(side) > 1]
        if claims:
            return "!", f"the same object more than once, {'; '.join(claims)}"
        if not a or not b:
            return ("-", a[0].error) if a else ("+", b[0].error)
        broken = [f"{one.side}: {one.error}" for one in (a[0], b[0]) if one.error]
        if broken:
            return "*", f"cannot be compared, {'; '.join(broken)}"
        (doc, series), (other_doc, other_series) = (self._facts(kind, one) for one in (a[0], b[0]))
        return "*", _cut_short([*_differences("", doc, other_doc), *_in_series(series, other_series)])

    def _facts(self, kind: Kind, one: Noted) -> tuple[Doc, dict[str, Doc]]:
        """Everything of an object that must be equal on the other side: its fields, its series."""
        names = partial(self._inventory.name, one.side)
        series = {name: {**told, "again": told["again"] * self._repeats} for name, told in one.series.items()}
        return kind.comparable(Record(one.ref, one.doc, one.name), names), series


def _ids(claimants: Sequence[Noted]) -> str:
    return ", ".join(one.ref.id for one in claimants)


def _differences(path: str, a: Any, b: Any) -> Iterator[str]:
    """Where two values differ, each as a path and both values."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            below = f"{path}.{key}" if path else key
            if key not in b:
                yield f"{below} only in A"
            elif key not in a:
                yield f"{below} only in B"
            else:
                yield from _differences(below, a[key], b[key])
    elif a != b:
        yield f"{path}: {_both(a, b)}"


def _in_series(a: Mapping[str, Doc], b: Mapping[str, Doc]) -> Iterator[str]:
    """Which series differ, and by how many points."""
    for name in sorted({*a, *b}):
        if name not in b:
            yield f"points of {name} only in A"
        elif name not in a:
            yield f"points of {name} only in B"
        elif a[name] != b[name]:
            yield f"points of {name}: {_count(a[name], b[name])} ≠ {_count(b[name], a[name])}"


def _count(own: Doc, other: Doc) -> str:
    again = f" and {own['again']} again" if own["again"] != other["again"] else ""
    same_number = own["points"] == other["points"] and not again
    return f"{own['points']}{again}" + (f" with digest {own['digest']}" if same_number else "")


def _cut_short(lines: Sequence[str]) -> str:
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "; ".join([*lines[:SHOWN], *more])


def _both(a: Any, b: Any) -> str:
    """Two values, cut to what surrounds their first difference."""
    texts = (str(a), str(b)) if isinstance(a, str) and isinstance(b, str) else (repr(a), repr(b))
    first = next((at for at, (one, two) in enumerate(zip(*texts, strict=False)) if one != two), min(map(len, texts)))
    start = max(0, first - WIDTH // 2)
    return " ≠ ".join(_cut(text, start) for text in texts)


def _cut(text: str, start: int) -> str:
    return ("…" if start else "") + text[start : start + WIDTH] + ("…" if len(text) > start + WIDTH else "")

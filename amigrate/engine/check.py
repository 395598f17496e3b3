"""The comparison of two Sources: what is the same in both, what differs, what only one of them has.

Each side is read once, both at the same time, and noted down in an inventory; then the notes of both are merged by
key. So memory does not grow with the workspace, and references are compared when everything is known: a tag of A that
names a run by id, and the tag of B that names that run's copy by its own id, mean the same.

What is the same object on the other side (`Kind.match`) and what must be equal (`Kind.comparable`) is a matter of the
kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from amigrate.core.model import Doc, Finding, Record
from amigrate.core.ports import Kind, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.inventory import A, B, Inventory, Noted
from amigrate.engine.stats import Stats
from amigrate.engine.survey import Scope, Store, Survey

PAUSE = 500
"""Findings after which others get their turn."""
SHOWN = 8
"""Differences of one object that are told; the others are counted."""
WIDTH = 60
"""Characters of a value that are shown."""


async def check(
    a: Source, b: Source, kinds: Mapping[str, Kind], scope: Scope, stats: Stats, budget: ByteBudget
) -> AsyncIterator[Finding]:
    """Read both sides to their end, then give one finding for each object that either of them has, kind by kind.

    Findings name objects as A knows them, or as B does where A has none. `stats` counts both sides together. Raises
    what ends a session, and `ApiError` where a listing cannot be read to its end: what was never listed could not be
    said to be missing.
    """
    with closing(Inventory()) as inventory:
        async with asyncio.TaskGroup() as both:
            for side, source in ((A, a), (B, b)):
                both.create_task(Survey(side, source, kinds, scope, stats, Store(inventory, budget)).read())
        for number, finding in enumerate(_findings(inventory, kinds)):
            if not number % PAUSE:
                await asyncio.sleep(0)
            yield finding


def _findings(inventory: Inventory, kinds: Mapping[str, Kind]) -> Iterator[Finding]:
    for kind in kinds.values():
        for a, b in inventory.by_key(kind.name):
            one = (a or b)[0]
            sigil, detail = _judged(inventory, kind, a, b)
            yield Finding(sigil, one.ref, detail, one.name)


def _judged(inventory: Inventory, kind: Kind, a: Sequence[Noted], b: Sequence[Noted]) -> tuple[str, str]:
    claims = [f"{len(side)} in {side[0].side}: {_ids(side)}" for side in (a, b) if len(side) > 1]
    if claims:
        return "!", f"the same object more than once, {'; '.join(claims)}"
    if not a or not b:
        return ("-", a[0].error) if a else ("+", b[0].error)
    broken = [f"{one.side}: {one.error}" for one in (a[0], b[0]) if one.error]
    if broken:
        return "*", f"cannot be compared, {'; '.join(broken)}"
    found = [_facts(inventory, kind, one) for one in (a[0], b[0])]
    return ("=", "") if found[0] == found[1] else ("*", _told(_differences("", *found)))


def _ids(claimants: Sequence[Noted]) -> str:
    return ", ".join(one.ref.id for one in claimants)


def _facts(inventory: Inventory, kind: Kind, one: Noted) -> Doc:
    """Everything of an object that must be equal on the other side."""
    names = partial(inventory.name, one.side)
    return {**kind.comparable(Record(one.ref, one.doc, one.name), names), "series": one.series}


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


def _told(differences: Iterator[str]) -> str:
    lines = list(differences)
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "; ".join(lines[:SHOWN] + more)


def _both(a: Any, b: Any) -> str:
    """Two values, cut to what surrounds their first difference."""
    texts = (str(a), str(b)) if isinstance(a, str) and isinstance(b, str) else (repr(a), repr(b))
    first = next((at for at, (one, two) in enumerate(zip(*texts, strict=False)) if one != two), min(map(len, texts)))
    start = max(0, first - WIDTH // 2)
    return " ≠ ".join(_cut(text, start) for text in texts)


def _cut(text: str, start: int) -> str:
    return ("…" if start else "") + text[start : start + WIDTH] + ("…" if len(text) > start + WIDTH else "")

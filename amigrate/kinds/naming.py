"""What experiments, registered models and prompts are called at the target.

Their names are who they are: the source's, what the user's rules make of it, or where the target has another object of
that name and `--on-conflict rename` asks for it, the first of `name (2)`, `name (3)`, … that is free or is theirs from
an earlier time. The journal keeps such a name before anything is made; it counts while the target still shows it.
Without the journal an object is known again by what belongs to it (`Kind.recognises`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from amigrate.core.errors import UsageError
from amigrate.core.model import Found, OnConflict, Record, Ref
from amigrate.core.patterns import RenameMap
from amigrate.core.ports import Children, Ids

if TYPE_CHECKING:
    from amigrate.kinds.base import Kind, Target

SHOWN = 5
"""Names that an error tells."""


@dataclass(slots=True)
class Naming:
    """The names at one target."""

    rules: RenameMap = field(default_factory=RenameMap)
    on_conflict: OnConflict = OnConflict.SKIP
    _given: dict[tuple[str, str], str] = field(default_factory=dict)
    """Names that no rule tells, by kind and id of the source."""
    _first: dict[tuple[str, str], str] = field(default_factory=dict)
    """Of several objects under one name the one whose fields count, by kind and name."""

    def name(self, ref: Ref, name: str = "") -> str:
        """What an object of the source is called; `name` is needed where its id is another."""
        return self._given.get((ref.kind, ref.id)) or self.wanted(ref, name)

    def wanted(self, ref: Ref, name: str = "") -> str:
        """What the user wants it to be called."""
        return self.rules(ref.kind, name or ref.id)

    def renames(self, *kinds: str) -> bool:
        """Whether any object of these kinds may be called otherwise than at the source."""
        return any(self.rules.kinds.get(kind) for kind in kinds) or any(kind in kinds for kind, _ in self._given)

    def of_registry(self, kind: str, name: str) -> str:
        """What a registered model or prompt is called: its id is its name."""
        return self.name(Ref(kind, name))

    def recall(self, record: Record, ids: Ids, shows: Callable[[str], bool]) -> str:
        """Its name, which may be one that an earlier session gave: as long as the target `shows` it."""
        key, wanted = (record.ref.kind, record.ref.id), self.wanted(record.ref, record.name)
        if key not in self._given:
            before, given = ids.called(record.ref) or ("", "")
            if before == wanted and shows(given):
                self._given[key] = given
        name = self._given.get(key, wanted)
        self._first.setdefault((record.ref.kind, name), record.ref.id)
        return name

    def give(self, record: Record, name: str) -> None:
        """An object gets a name that no rule tells."""
        self._given[record.ref.kind, record.ref.id] = name
        self._first.setdefault((record.ref.kind, name), record.ref.id)

    def counts(self, record: Record) -> bool:
        """False for an object that goes into another one, whose fields count."""
        key = (record.ref.kind, self.name(record.ref, record.name))
        return self._first.get(key, record.ref.id) == record.ref.id


async def agree(
    kind: Kind, target: Target, records: Sequence[Record], children: Children, ids: Ids
) -> dict[str, tuple[str, str]]:
    """Settle the names of all objects of one kind before anything is written.

    Returns those that no rule tells, each with the one that it stands for, by `ref.key`. Raises `UsageError` where two
    objects would be one, and where the target has an object that amigrate did not make and the user wants none.
    """
    _check_distinct(kind, target, records)
    found = await kind.find(target, records, ids)
    naming = target.naming
    if naming.on_conflict not in (OnConflict.RENAME, OnConflict.FAIL):
        return {}
    strange = await _strange(kind, target, records, found, children, ids)
    if naming.on_conflict is OnConflict.FAIL:
        if strange:
            raise UsageError(
                f"the target has {_told(kind, strange)} already, not made by amigrate: nothing was written. "
                "Give --on-conflict skip, update or rename, or another name with --rename-…"
            )
        return {}
    taken = {naming.wanted(record.ref, record.name) for record in records}
    given: dict[str, tuple[str, str]] = {}
    for record in strange:
        wanted = naming.wanted(record.ref, record.name)
        given[record.ref.key] = wanted, await _renamed(kind, target, record, taken, children, ids)
    return given


async def _strange(
    kind: Kind, target: Target, records: Sequence[Record], found: Mapping[str, Found], children: Children, ids: Ids
) -> list[Record]:
    """Those that are at the target, not made by amigrate."""

    async def is_ours(record: Record) -> bool:
        return await kind.recognises(target, record, found[record.ref.key], await children(record), ids)

    there = [one for one in records if one.ref.key in found and not kind.everybodys(found[one.ref.key])]
    doubtful = [one for one in there if not ids.made(one.ref)]
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(is_ours(record)) for record in doubtful]
    return [record for record, answer in zip(doubtful, answers, strict=True) if not answer.result()]


def _check_distinct(kind: Kind, target: Target, records: Sequence[Record]) -> None:
    names: dict[str, list[str]] = {}
    for record in records:
        names.setdefault(target.naming.wanted(record.ref, record.name), []).append(record.name)
    for name, several in names.items():
        if len(several) < 2:
            continue
        told = ", ".join(map(repr, several[:SHOWN]))
        if not kind.merges:
            plural = kind.label.replace("-", " ")
            raise UsageError(f"the {plural} {told} would all be called {name!r}: nothing was written")
        target.notes.warn(f"{kind.label} {told} become one, {name!r}: it gets the tags of {several[0]!r}")


async def _renamed(
    kind: Kind, target: Target, record: Record, taken: Collection[str], children: Children, ids: Ids
) -> str:
    """Give an object the first name that is free, or that it has got at an earlier time."""
    wanted = target.naming.wanted(record.ref, record.name)
    for number in count(2):
        name = f"{wanted} ({number})"
        if name in taken:
            continue
        target.naming.give(record, name)
        held = (await kind.find(target, [record], ids)).get(record.ref.key)
        if held is None or await kind.recognises(target, record, held, await children(record), ids, given=True):
            break
    target.notes.warn(f"{kind.name.replace('_', ' ')} {record.name!r} is called {name!r} at the target")
    return name


def _told(kind: Kind, records: Sequence[Record]) -> str:
    names = [repr(record.name) for record in records]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    word = kind.name.replace("_", " ") if len(names) == 1 else kind.label.replace("-", " ")
    return f"the {word} {', '.join(names[:SHOWN])}{more}"


def recognised(evidence: bool | None, given: bool) -> bool:
    """Whether the target's object is the source's: as the evidence says. Where both are empty there is none, and only a
    name that amigrate gives is taken for its own."""
    return given if evidence is None else evidence

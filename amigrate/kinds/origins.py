"""Objects of the target by where they were first made, as their provenance tags say.

Several may say the same: copies of something that the source does not hold beside them. Which of them is whose, they
tell by what never changes in them (`look`), and then by all that their listing shows (`facts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from amigrate.core import codec
from amigrate.core.model import Found
from amigrate.kinds.base import Index


def note(index: Index, place: str, tag: str, found: Found, look: str, facts: str) -> None:
    """An object of the target, below some place, whose tag says where it was first made."""
    key = next(key for key in _keys(tag) if index.get(place, key) is None)
    index.add(place, [key], found, codec.dumps([look, facts]).decode())


def held(
    index: Index, place: str, origin: str, look: str, facts: str, is_free: Callable[[str], bool]
) -> tuple[Found, str] | None:
    """The object that was first made there and looks the same, with its facts; of several, one of the same facts.

    `is_free` tells, by the id at the target, whether it stands for nothing else.
    """
    alike: list[tuple[Found, str]] = []
    for key in _keys(origin):
        there = index.get(place, key)
        if there is None:
            break
        found, (own_look, own_facts) = there[0], codec.loads(there[1])
        if own_look == look and is_free(found.new_id):
            alike.append((found, own_facts))
    return min(alike, key=lambda one: (one[1] != facts, one[0].deleted), default=None)


def _keys(origin: str) -> Iterator[str]:
    return (f"of {origin} {number}" for number in count())

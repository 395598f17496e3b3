"""How much of a text each release takes, and which names every release takes.

As the servers validate it: param values 500 characters, 6000 since 2.8; run tags 5000, 8000 since 2.17; experiment tags
5000 (3.15.0), 20 000 (3.17.2). Up to 2.9 a longer value is refused, from 2.12 on it is cut with status 200.
`runs/create` and `experiments/create` check no tag at a SQL store; a file store checks the keys. Keys may hold a colon
since 2.16.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from amigrate.client.api import Abilities
from amigrate.core.model import Doc, Outcome, Ref, Status

CUT = " … [cut by amigrate]"
KEY = re.compile(r"[/\w.\- ]{1,250}")


@dataclass(frozen=True, slots=True)
class Limits:
    """Characters of a value that a server takes."""

    param: int = 6000
    tag: int = 8000
    experiment_tag: int = 20_000


def limits_of(server: Abilities) -> Limits:
    """What this server takes."""
    return Limits(
        param=500 if server.older_than(2, 8) else 6000,
        tag=5000 if server.older_than(2, 17) else 8000,
        experiment_tag=5000 if server.older_than(3, 17) else 20_000,
    )


def is_plain(key: str) -> bool:
    """True for the key of a metric, param or tag that every release and every store takes."""
    return KEY.fullmatch(key) is not None and posixpath.normpath(key) == key and not key.startswith(("/", "."))


def refused_key(server: Abilities, key: str) -> bool:
    """True for the key of a metric, param or tag that this release does not take."""
    return not is_plain(key if server.older_than(2, 16) else key.replace(":", "-"))


def lost(what: str, key: str, owner: Ref, reason: str) -> Outcome:
    """A part of an object that the target does not take."""
    return Outcome(Ref(what, key, owner), Status.LEFT_BEHIND, reason=reason)


def fitting(what: str, item: Doc, limit: int, owner: Ref, losses: list[Outcome]) -> Doc:
    """The server would cut a longer value without a word, or refuse it; we cut it visibly and say so."""
    value = str(item.get("value", ""))
    if len(value) <= limit:
        return {"key": item["key"], "value": value}
    reason = f"{what} '{item['key']}' has {len(value)} characters, the target takes {limit}: cut"
    losses.append(lost(what, item["key"], owner, reason))
    return {"key": item["key"], "value": value[: limit - len(CUT)] + CUT}

"""Which kinds are asked for, by the names that `--objects` and `--skip-objects` take."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from amigrate.kinds import REGISTRY
from amigrate.kinds.base import Kind

ALL = "all"
EXPERIMENT = "experiment"
NOT_ASKED = "not asked for"
BY_NAME = "moves only when asked for by name"
WHOLE_ONLY = "belongs to no experiment: comes with a whole workspace only"
NAMES = tuple(dict.fromkeys(kind.group or kind.label for kind in REGISTRY.values()))
"""The names of what amigrate carries, in the order of the registry."""
OPT_IN = tuple(dict.fromkeys(kind.group or kind.label for kind in REGISTRY.values() if kind.opt_in))
"""Those of them that `all` does not mean."""
WORKSPACES = "workspaces"
"""What only `--workspaces` means."""


def chosen(
    objects: Collection[str], skipped: Collection[str], *, whole: bool = True
) -> tuple[Mapping[str, Kind], Mapping[str, str]]:
    """The kinds to move, and the names of those that stay, each with its reason.

    A kind brings the one it belongs to, and those it is about, along; where one of these is skipped, so is the kind.
    `whole` is false where single experiments are moved: what belongs to no experiment stays then, and is named where
    somebody asked for it.
    """
    wanted = {name for name, kind in REGISTRY.items() if _asked(kind, objects)}
    kept = {name for name in wanted if not any(_named(one) in skipped for one in _line(name))}
    names = {one.name for name in kept for one in _line(name)}
    kinds = {name: kind for name, kind in REGISTRY.items() if name in names}
    carried = {_named(kind) for kind in kinds.values()}
    by_name = {*OPT_IN} - {*skipped}
    stay = {name: BY_NAME if name in by_name else NOT_ASKED for name in NAMES if name not in carried}
    if whole:
        return kinds, stay
    single = {name: kind for name, kind in kinds.items() if _line(name)[-1].name == EXPERIMENT}
    named = {_named(kind) for name, kind in kinds.items() if name not in single and _named(kind) in objects}
    return single, {name: reason for name, reason in stay.items() if name not in OPT_IN} | dict.fromkeys(
        sorted(named), WHOLE_ONLY
    )


def _asked(kind: Kind, objects: Collection[str]) -> bool:
    return _named(kind) in objects or (ALL in objects and not kind.opt_in)


def not_compared(kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    """The names of everything that a server may have besides these kinds."""
    known = {_named(kind) for kind in kinds.values()}
    return tuple(name for name in (*NAMES, WORKSPACES) if name not in known)


def _named(kind: Kind) -> str:
    """What `--objects` calls a kind."""
    return kind.group or kind.label


def _line(name: str) -> list[Kind]:
    """A kind, those it is about, the one it belongs to, and so on: what it belongs to in the end comes last."""
    kind = REGISTRY[name]
    others = [*kind.about, *([kind.parent] if kind.parent else [])]
    return [kind, *(one for other in others for one in _line(other))]

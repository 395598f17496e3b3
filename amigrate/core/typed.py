"""Values of a document that somebody else wrote, taken as what they have to be or refused with a `ValueError`.

A server answers 200 to a value of the wrong type and drops what comes after it, so none may be passed on unseen; and
to make a text of whatever lies there would invent what nobody wrote.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from amigrate.core.model import Doc

SHOWN = 60
"""Characters of a wrong value that its error shows."""
_WHOLE = re.compile(r"-?[0-9]{1,19}")
LEAST, MOST = -(2**63), 2**63 - 1


def whole(value: Any, what: str) -> int:
    """A whole number of 64 bits. As text or with `.0` it is one too: servers and tools have written both."""
    if type(value) is int and LEAST <= value <= MOST:
        return value
    is_text = isinstance(value, str) and _WHOLE.fullmatch(value)
    number = int(value) if is_text or (isinstance(value, float) and value.is_integer()) else value
    if type(number) is not int:  # A truth value is an int to `isinstance`.
        raise ValueError(f"{what} is no whole number but {shown(value)}")
    if not LEAST <= number <= MOST:
        raise ValueError(f"{what} needs more than 64 bits: {shown(value)}")
    return number


def real(value: Any, what: str) -> float:
    """A number; NaN and the infinities also as text."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"{what} is no number but {shown(value)}")
    try:
        return float(value)
    except (ValueError, OverflowError):
        raise ValueError(f"{what} is no number but {shown(value)}") from None


def text(value: Any, what: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{what} is no text but {shown(value)}")
    return value


def word(value: Any, what: str, known: Collection[str]) -> str:
    """One of the words that have a meaning."""
    if value not in known:
        raise ValueError(f"{what} is none of {', '.join(known)} but {shown(value)}")
    return str(value)


def identity(value: Any, what: str) -> str:
    """An id; empty where there is none. Numbers were ids once."""
    return str(value) if type(value) is int else "" if value is None else text(value, what)


def mapping(value: Any, what: str) -> Doc:
    """An object; empty where there is none."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object but {shown(value)}")
    return value


def items(value: Any, what: str) -> list[Any]:
    """A list; empty where there is none."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list but {shown(value)}")
    return value


def texts(value: Any, what: str) -> dict[str, str]:
    """Texts by key, from an object or from a list of {key, value}, where an empty value may be left out."""
    if not isinstance(value, list):
        return {key: text(one, f"{what}.{key}") for key, one in mapping(value, what).items()}
    pairs = [mapping(one, f"an item of {what}") for one in value]
    keys = [text(one.get("key"), f"a key of {what}") for one in pairs]
    return {key: text(one.get("value", ""), f"{what}.{key}") for key, one in zip(keys, pairs, strict=True)}


def shown(value: Any) -> str:
    """A wrong value for people, cut where it is long."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if value is None:
        return "missing"
    words = ascii(value) if isinstance(value, str) else str(value)
    return words if len(words) <= SHOWN else words[:SHOWN] + "…"

"""The only JSON in amigrate.

orjson is fast but strict: it rejects the bare `NaN` that MLflow's bulk history endpoint emits and silently writes
NaN as `null`. So reading falls back to the standard library, and writing takes floats that were made safe first:
MLflow's own protobuf-JSON form is the strings "NaN", "Infinity" and "-Infinity" (a bare NaN in a log-batch body is
answered with 200 and drops the rest of the body; seen on 1.30 to 3.17).
"""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import Any

import orjson

JSONDecodeError = ValueError
"""What `loads` raises on anything that is not JSON (both parsers' errors are kinds of ValueError)."""


def loads(data: bytes | str) -> Any:
    """Parse JSON; bare NaN and infinities, and raw control characters inside strings, are accepted."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data, strict=False)


def dumps(value: Any) -> bytes:
    """Compact JSON. Non-finite floats must have gone through `number` before."""
    return orjson.dumps(value)


def exact_loads(text: str | bytes) -> Any:
    """Parse JSON as Python's own parser does: bare NaN, whole numbers of any length, half characters."""
    return json.loads(text)


def exact_dumps(value: Any, *, ordered: bool = False) -> str:
    """JSON that `exact_loads` makes the same value of, in ASCII on one line; with the keys `ordered` by name or not."""
    return json.dumps(value, sort_keys=ordered)


def pretty(value: Any, *, bare_nan: bool = False) -> bytes:
    """Indented JSON for people, every non-finite float as a string, or bare where asked for."""
    if bare_nan:
        return json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return _finite_dumps(value, orjson.OPT_INDENT_2)


def number(value: float) -> float | str:
    """A float as MLflow's JSON wants it: itself, or "NaN", "Infinity", "-Infinity"."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def finite(value: Any) -> Any:
    """The same document with every non-finite float replaced by its string; what holds none is not made anew."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        changed = {key: new for key, item in value.items() if (new := _changed(item)) is not item}
        return {**value, **changed} if changed else value
    if isinstance(value, list):
        items = [_changed(item) for item in value]
        return items if any(new is not item for new, item in zip(items, value, strict=True)) else value
    return value


def _changed(item: Any) -> Any:
    """Most of a document is text."""
    return item if type(item) is str or type(item) is int else finite(item)


def _finite_dumps(value: Any, option: int) -> bytes:
    """What orjson makes of a document without non-finite floats: it would write them as null, so only that is looked
    into."""
    data = orjson.dumps(value, option=option)
    return orjson.dumps(finite(value), option=option) if b"null" in data else data


def digest(value: Any) -> str:
    """A short fingerprint of a JSON value, independent of the order of keys."""
    return blake2b(_finite_dumps(value, orjson.OPT_SORT_KEYS), digest_size=12).hexdigest()

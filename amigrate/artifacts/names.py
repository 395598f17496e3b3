"""Names of files that a tracking server cannot be asked for.

MLflow 3.17.2 decodes a path until it no longer changes, on reads and on writes: asked for a file whose name is really
`a%20b`, it answers 404, or with another file's bytes where `a b` exists too. A trailing `?` or `;` is dropped, `#` is
refused, control characters are not routed. Such a file is named and left alone rather than mixed up with another.
"""

from __future__ import annotations

import re

_REWRITTEN = re.compile(r"%[0-9A-Fa-f]{2}|#|[\x00-\x1f\x7f]|[?;]$|(^|/)\.{1,2}(/|$)|//")


def refusal(path: str) -> str:
    """Why a server cannot hand out or take in a file of this name; empty where it can."""
    found = _REWRITTEN.search(path)
    if found is None:
        return ""
    return f"MLflow servers cannot transfer a file whose name has {found[0]!r} in it: they would take another name"

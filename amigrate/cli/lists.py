"""Lists that people give: separated by commas, in a file (`@FILE`), as a map from old to new names."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from amigrate.core import codec
from amigrate.core.errors import UsageError
from amigrate.core.patterns import REGEX, Patterns, Rename, Renames, checked, rename
from amigrate.options import Workspaces

FILE = "@"
ALL = "all"
WORKSPACE = re.compile(r"(?=.{2,63}$)[a-z0-9]([a-z0-9-]*[a-z0-9])?")
"""What MLflow takes as the name of a workspace."""


def split(text: str, option: str) -> list[str]:
    """What one value names. A regular expression may hold commas, so it reaches to the end; `@FILE` has one a line."""
    found: list[str] = []
    rest = text.strip()
    while rest:
        if rest.startswith(REGEX):
            return [*found, rest]
        part, _, rest = rest.partition(",")
        part, rest = part.strip(), rest.strip()
        found += _lines(Path(part.removeprefix(FILE)), option) if part.startswith(FILE) else [part] if part else []
    return found


def names(texts: Sequence[str], option: str) -> tuple[str, ...]:
    """Everything that the values of one option name; nothing at all is a mistake."""
    found = tuple(dict.fromkeys(part for text in texts for part in split(text, option)))
    if not found:
        raise UsageError(f"{option} is empty")
    return found


def patterns(texts: Sequence[str] | None, option: str) -> Patterns:
    """What a selection asks for; empty for all of it."""
    return Patterns() if not texts or list(texts) == [ALL] else checked(names(texts, option))


def workspaces(text: str) -> Workspaces | None:
    """`all`, or names with the names they get; None where none are asked for."""
    if not text:
        return None
    given = names([text], "--workspaces")
    named = [part.partition(":") for part in given if part != ALL]
    pairs = [(name.strip(), new.strip() if colon else name.strip()) for name, colon, new in named]
    wrong = [new for name, new in pairs if name != new and not WORKSPACE.fullmatch(new)]
    if wrong or not all(name for name, _ in pairs):
        raise UsageError(
            f"--workspaces {text!r}: write NAME or NAME:NEW, where NEW has 2 to 63 lower-case letters, digits and "
            "hyphens within"
        )
    if len({name for name, _ in pairs}) != len(pairs):
        raise UsageError(f"--workspaces {text!r} names a workspace twice")
    return Workspaces(ALL in given, dict(pairs))


def renames(texts: Sequence[str] | None, option: str) -> Renames:
    """Rules `old=new`, `prefix*=new*`, `re:…=…`, or those in a file: a JSON object, or CSV with two columns."""
    rules: list[Rename] = []
    for text in texts or ():
        if text.startswith(FILE):
            rules += _rules_in(Path(text.removeprefix(FILE)), option)
        else:
            # A regular expression may hold a =, what it is replaced with hardly does; a plain name does not in either.
            old, equals, new = text.rpartition("=") if text.startswith(REGEX) else text.partition("=")
            if not equals:
                raise UsageError(f"{option} {text!r} has no =: write old=new, or @FILE")
            rules.append(rename(old, new))
    return Renames(tuple(rules))


def _rules_in(path: Path, option: str) -> list[Rename]:
    text = _read(path, option)
    pairs = _of_csv(text) if path.suffix.lower() == ".csv" else _of_json(text, path)
    wrong = [pair for pair in pairs if len(pair) != 2 or not all(isinstance(one, str) for one in pair)]
    if wrong:
        raise UsageError(f"{option} {path}: {wrong[0]!r} is no pair of an old and a new name")
    return [rename(old, new) for old, new in pairs]


def _of_csv(text: str) -> list[list[str]]:
    """Two columns; a first line that says so is no rule."""
    rows = [row for row in csv.reader(text.splitlines()) if row]
    return rows[1:] if rows and [one.strip().lower() for one in rows[0]] == ["old", "new"] else rows


def _of_json(text: str, path: Path) -> list[Any]:
    try:
        given = codec.loads(text)
    except codec.JSONDecodeError as error:
        raise UsageError(f"{path} is no JSON: {error}") from error
    if not isinstance(given, dict):
        raise UsageError(f'{path} holds no JSON object {{"old": "new", …}}')
    return [[old, new] for old, new in given.items()]


def _lines(path: Path, option: str) -> Iterable[str]:
    """Every line that is not empty, as it is."""
    return [line for line in _read(path, option).splitlines() if line.strip()]


def _read(path: Path, option: str) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error

"""Names as people ask for them, and the other names that they give: exactly, by `*`, by regular expression."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from amigrate.core.errors import UsageError

REGEX = "re:"
"""What a regular expression begins with; it has to match the whole name."""
STAR = "*"


@dataclass(frozen=True, slots=True)
class Patterns:
    """What is asked for, by name: names, `prefix*` (`*` stands for any characters), `re:…`, and ids. Empty is all."""

    texts: tuple[str, ...] = ()
    exact: bool = False
    """One name or id; a `*` in it means itself."""

    def __bool__(self) -> bool:
        return bool(self.texts)

    def which(self, name: str, own: str = "") -> str | None:
        """The first pattern that asks for an object of this name, or of this id; None where none does."""
        if not self.texts:
            return ""
        return next((text for text in self.texts if text in (name, own) or self._matches(text, name)), None)

    def _matches(self, text: str, name: str) -> bool:
        if self.exact:
            return False
        expression = expression_of(text)
        return expression is not None and expression.fullmatch(name) is not None


def expression_of(text: str) -> re.Pattern[str] | None:
    """A pattern as a regular expression; None for a plain name. Raises `UsageError`."""
    if text.startswith(REGEX):
        try:
            return re.compile(text.removeprefix(REGEX), re.DOTALL)
        except re.error as error:
            raise UsageError(f"{text!r} is no regular expression: {error}") from error
    if STAR not in text:
        return None
    return re.compile("(.*)".join(map(re.escape, text.split(STAR))), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Rename:
    """One rule: what is renamed, and to what. A `*` of the new name is what the `*` of the old one stood for."""

    old: str
    new: str

    def __call__(self, name: str) -> str | None:
        """The new name; None where the rule does not mean this one."""
        expression = None if self.old == name else expression_of(self.old)
        if expression is None:
            return self.new if self.old == name else None
        match = expression.fullmatch(name)
        if match is None:
            return None
        if not self.old.startswith(REGEX):
            return self.new.replace(STAR, match[1])
        try:
            return match.expand(self.new)
        except (re.error, IndexError) as error:
            raise UsageError(f"{self.new!r} cannot be filled in from {self.old!r}: {error}") from error


def rename(old: str, new: str) -> Rename:
    """A rule that makes sense. Raises `UsageError`."""
    rule = f"{old}={new}"
    if not old or not new:
        raise UsageError(f"{rule!r} renames nothing: write old=new")
    expression_of(old)
    if not old.startswith(REGEX) and old.count(STAR) > 1:
        raise UsageError(f"{rule!r}: one * at most, or a regular expression (re:…)")
    return Rename(old, new)


@dataclass(frozen=True, slots=True)
class Renames:
    """The rules for the names of one kind; the first one that means a name counts."""

    rules: tuple[Rename, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules)

    def __call__(self, name: str) -> str:
        for rule in self.rules:
            new = rule(name)
            if new is not None:
                if not new:
                    raise UsageError(f"{rule.old}={rule.new} leaves nothing of the name {name!r}")
                return new
        return name


@dataclass(frozen=True, slots=True)
class RenameMap:
    """The rules for every kind that has some, by kind."""

    kinds: Mapping[str, Renames] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return any(self.kinds.values())

    def __call__(self, kind: str, name: str) -> str:
        """What an object of the source is called at the target, as far as the user says."""
        rules = self.kinds.get(kind)
        return rules(name) if rules else name


def all_to(name: str) -> Renames:
    """Whatever it is called, it gets this name."""
    return Renames((Rename(f"{REGEX}.*", name.replace("\\", r"\\")),))


def exactly(name: str) -> Patterns:
    """The one object of this name or id."""
    return Patterns((name,), exact=True)


def checked(texts: Iterable[str]) -> Patterns:
    """Patterns of which every one can be used. Raises `UsageError`."""
    patterns = Patterns(tuple(texts))
    for text in patterns.texts:
        expression_of(text)
    return patterns

"""MLflow's search syntax for runs, for archives, which no server searches: comparisons joined by AND.

As MLflow 3.17.2 takes it: metrics (their latest value), params, tags, attributes and datasets; a key that a run does
not have matches nothing, not even `!=`; a NaN is only `!=`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from amigrate.core.errors import UsageError
from amigrate.core.model import Doc
from amigrate.kinds.base import pairs
from amigrate.kinds.run_document import dataset_inputs, tags_of

CLAUSE = re.compile(
    r"""\s* (?: (?P<type> [A-Za-z]+ ) \s* \. \s* )?
    (?: ` (?P<ticked> [^`]* ) ` | " (?P<quoted> [^"]* ) " | (?P<key> [^\s=<>!`"'(),]+ ) ) \s*
    (?P<operator> >= | <= | != | = | < | > | \b (?: I?LIKE | (?: NOT \s+ )? IN | IS \s+ (?: NOT \s+ )? NULL ) \b ) \s*
    (?P<value> '[^']*' | "[^"]*" | [-+]?[0-9.]+ (?: e[-+]?[0-9]+ )? | \( [^)]* \) )?
    \s* (?P<next> $ | \b AND \b )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
TYPES = {
    **dict.fromkeys(("metric", "metrics"), "metric"),
    **dict.fromkeys(("param", "params", "parameter", "parameters"), "param"),
    **dict.fromkeys(("tag", "tags"), "tag"),
    **dict.fromkeys(("attribute", "attributes", "attr", "run"), "attribute"),
    **dict.fromkeys(("dataset", "datasets"), "dataset"),
}
NUMBERS = ("start_time", "end_time")
TEXTS = ("run_id", "run_name", "user_id", "status", "artifact_uri")
ALIASES = {
    **dict.fromkeys(("created", "Created"), "start_time"),
    **dict.fromkeys(("run name", "Run name", "Run Name"), "run_name"),
}
OF_DATASETS = ("name", "digest", "context")
CONTEXT = "mlflow.data.context"
COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "LIKE": lambda text, pattern: _like(text, pattern, re.DOTALL),
    "ILIKE": lambda text, pattern: _like(text, pattern, re.DOTALL | re.IGNORECASE),
    "IN": lambda text, several: text in several,
    "NOT IN": lambda text, several: text not in several,
}
NUMERIC = ("=", "!=", "<", "<=", ">", ">=")
TEXTUAL = ("=", "!=", "LIKE", "ILIKE")
LISTS = ("IN", "NOT IN")
NULLS = ("IS NULL", "IS NOT NULL")


@dataclass(frozen=True, slots=True)
class Clause:
    """One comparison."""

    type: str
    key: str
    operator: str
    value: Any

    def matches(self, run: Doc) -> bool:
        held = self._held(run)
        if self.operator in NULLS:
            return bool(held) is (self.operator == "IS NOT NULL")
        return any(COMPARE[self.operator](one, self.value) for one in held)

    def _held(self, run: Doc) -> list[Any]:
        """What the run has there: nothing, or one value; of datasets, one each."""
        if self.type == "dataset":
            return [one for item in dataset_inputs(run) if (one := _of_dataset(item, self.key)) is not None]
        value = self._value(run)
        return [] if value is None else [value]

    def _value(self, run: Doc) -> Any:
        if self.type == "metric":
            latest = {one["key"]: one.get("value") for one in run["data"].get("metrics") or []}
            return latest.get(self.key)
        if self.type == "param":
            return pairs(run["data"].get("params")).get(self.key)
        if self.type == "tag":
            return tags_of(run).get(self.key)
        if self.key == "run_name":
            return tags_of(run).get("mlflow.runName") or run["info"].get("run_name")
        return run["info"].get(self.key)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """A whole filter."""

    clauses: tuple[Clause, ...]

    @property
    def metrics(self) -> frozenset[str]:
        """The metrics whose latest values it needs."""
        return frozenset(one.key for one in self.clauses if one.type == "metric")

    def matches(self, run: Doc) -> bool:
        """Whether a run is one that it asks for; `data.metrics` have their latest `value` then."""
        return all(clause.matches(run) for clause in self.clauses)


def parse(text: str) -> RunFilter:
    """A filter as MLflow's search takes it. Raises `UsageError`."""
    clauses, place, more = [], 0, bool(text.strip())
    while more:
        match = CLAUSE.match(text, place)
        if match is None:
            raise UsageError(
                f"--filter cannot be understood from {text[place:].strip()!r} on: write comparisons as MLflow's search "
                "takes them, such as \"metrics.acc > 0.9 AND params.model = 'tree'\""
            )
        clauses.append(_clause(match))
        place, more = match.end(), bool(match["next"])
    return RunFilter(tuple(clauses))


def _clause(match: re.Match[str]) -> Clause:
    type_ = TYPES.get((match["type"] or "attribute").lower())
    if type_ is None:
        raise UsageError(f"--filter: there is no {match['type']!r}: metrics, params, tags, attributes, datasets")
    key = next(one for one in (match["ticked"], match["quoted"], match["key"]) if one is not None)
    key = ALIASES.get(key, key) if type_ == "attribute" else key
    known = {"attribute": (*NUMBERS, *TEXTS), "dataset": OF_DATASETS}.get(type_)
    if known is not None and key not in known:
        raise UsageError(f"--filter: {type_}s have no {key!r}: {', '.join(known)}")
    how = " ".join(match["operator"].upper().split())
    is_number = type_ == "metric" or (type_ == "attribute" and key in NUMBERS)
    if how not in _operators(type_, key, is_number):
        raise UsageError(f"--filter: {how} does not go with {type_} {key!r}")
    return Clause(type_, key, how, None if how in NULLS else _value(match["value"], how, is_number))


def _operators(type_: str, key: str, is_number: bool) -> tuple[str, ...]:
    if is_number:
        return NUMERIC
    if type_ in ("param", "tag"):
        return (*TEXTUAL, *NULLS)
    return (*TEXTUAL, *LISTS) if type_ == "dataset" or key == "run_id" else TEXTUAL


def _value(text: str | None, how: str, is_number: bool) -> Any:
    try:
        if is_number:
            return float(text or "")
        if how in LISTS:
            parts = re.findall(r"'([^']*)'|\"([^\"]*)\"", text or "")
            if not parts or not (text or "").startswith("("):
                raise ValueError
            return [one or other for one, other in parts]
        if not text or text[0] not in "'\"":
            raise ValueError
        return text[1:-1]
    except ValueError:
        wanted = "a number" if is_number else "a list of quoted texts" if how in LISTS else "a quoted text"
        raise UsageError(f"--filter: {text or 'nothing'} stands where {wanted} should") from None


def _of_dataset(item: Doc, key: str) -> str | None:
    value = pairs(item.get("tags")).get(CONTEXT) if key == "context" else item["dataset"].get(key)
    return None if value is None else str(value)


def _like(text: str, pattern: str, flags: int) -> bool:
    """`%` stands for any characters, `_` for one."""
    told = {"%": ".*", "_": "."}
    return re.fullmatch("".join(told.get(one, re.escape(one)) for one in pattern), text, flags) is not None

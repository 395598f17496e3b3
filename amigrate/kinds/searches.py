"""What a user chose of runs and traces, in the words of the servers' own searches."""

from __future__ import annotations

from collections.abc import Sequence

from amigrate.core.choice import RunChoice

IDS_PER_SEARCH = 100


def searches_of(runs: RunChoice, *, one_by_one: bool = False) -> list[str]:
    """The choice of runs as `runs/search` takes it: the filters that together give all of them.

    1.x and 2.0 know no `IN` for ids: there it is `one_by_one`.
    """
    others = [*([runs.filter] if runs.filter else []), *_window("attributes.start_time", runs)]
    if not runs.ids:
        return [" AND ".join(others)]
    return [" AND ".join([of_ids, *others]) for of_ids in searches_of_ids(runs.ids, one_by_one=one_by_one)]


def searches_of_ids(ids: Sequence[str], *, one_by_one: bool = False) -> list[str]:
    """The filters that together give these runs."""
    if one_by_one:
        return [f"attributes.run_id = '{one}'" for one in ids]
    some = (ids[start : start + IDS_PER_SEARCH] for start in range(0, len(ids), IDS_PER_SEARCH))
    return [f"attributes.run_id IN ({', '.join(map(_quoted, few))})" for few in some]


def _quoted(run_id: str) -> str:
    return f"'{run_id}'"


def trace_search_of(runs: RunChoice) -> str:
    """The time window as `traces/search` takes it."""
    return " AND ".join(_window("timestamp_ms", runs))


def _window(key: str, runs: RunChoice) -> list[str]:
    since = [] if runs.since is None else [f"{key} >= {runs.since}"]
    return since + ([] if runs.until is None else [f"{key} < {runs.until}"])

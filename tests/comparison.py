"""The tests' own judgement whether two servers hold the same, made over REST without a line of amigrate.

Every call is the plain one: one key of one run, one folder, one file at a time. What amigrate reads by the hundred is
read here one by one, so a mistake in a clever call shows up as a difference.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from pathlib import PurePosixPath
from typing import Any, TypeVar

from tests.rest import Rest

SOURCE_TAG = "amigrate.source_run_id"
FOREIGN_TAGS = "mlflow_exim."
ID_TAGS = ("mlflow.parentRunId", "mlflow.rootRunId", "mlflow.log-model.history")
ID_FILE = "MLmodel"
RUN_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])")
RUN_FIELDS = ("name", "user_id", "status", "start_time", "end_time", "lifecycle")

Point = tuple[float, int, int]
"""Value, timestamp, step."""

Ids = Mapping[str, str]
"""Source run id to target run id."""

T = TypeVar("T")


@dataclass(slots=True)
class DatasetInput:
    """A dataset and the tags of its use in one run."""

    name: str
    digest: str
    source_type: str | None
    source: str | None
    schema: str | None
    profile: str | None
    tags: dict[str, str]


@dataclass(slots=True)
class Artifact:
    """A file: its bytes by number and sha256, and the bytes themselves where they may name run ids."""

    size: int
    sha256: str
    content: bytes | None = None


@dataclass(slots=True)
class Run:
    """Everything that a run holds. Metric points are in the server's order, all else has none."""

    run_id: str
    name: str
    user_id: str
    status: str
    start_time: int | None
    end_time: int | None
    lifecycle: str
    params: dict[str, str]
    tags: dict[str, str]
    metrics: dict[str, list[Point]]
    inputs: dict[str, DatasetInput]
    artifacts: dict[str, Artifact]

    @property
    def origin(self) -> str:
        """The id of the run that this one descends from, or its own."""
        return self.tags.get(SOURCE_TAG, self.run_id)


@dataclass(slots=True)
class Experiment:
    """An experiment and its runs."""

    experiment_id: str
    name: str
    lifecycle: str
    tags: dict[str, str]
    runs: list[Run]


@dataclass(slots=True)
class Workspace:
    """A server's experiments by name."""

    experiments: dict[str, Experiment]


# Reading --------------------------------------------------------------------------------------------------------------


def snapshot(uri: str, deleted: bool = True, workspace: str = "") -> Workspace:
    """Read everything, or only what is active; of a server with workspaces, one of them."""
    with Rest(uri, workspace=workspace) as rest, ThreadPoolExecutor(4) as pool:
        return _Reader(rest, pool, "ALL" if deleted else "ACTIVE_ONLY").workspace()


class _Reader:
    def __init__(self, rest: Rest, pool: ThreadPoolExecutor, view: str) -> None:
        self._rest = rest
        self._pool = pool
        self._view = view

    def workspace(self) -> Workspace:
        found = self._rest.pages("experiments/search", "experiments", {"view_type": self._view})
        return Workspace(_unique((row["name"], self._experiment(row)) for row in found))

    def _experiment(self, row: Mapping[str, Any]) -> Experiment:
        query = {"experiment_ids": [row["experiment_id"]], "run_view_type": self._view}
        runs = list(self._pool.map(self._run, self._rest.pages("runs/search", "runs", query)))
        return Experiment(row["experiment_id"], row["name"], row["lifecycle_stage"], _texts(row.get("tags", [])), runs)

    def _run(self, row: Mapping[str, Any]) -> Run:
        info, data = row["info"], row.get("data", {})
        run_id = info["run_id"]
        keys = [metric["key"] for metric in data.get("metrics", [])]
        inputs = [_input(item) for item in row.get("inputs", {}).get("dataset_inputs", [])]
        return Run(
            run_id=run_id,
            name=info.get("run_name", ""),
            user_id=info.get("user_id", ""),
            status=info["status"],
            start_time=info.get("start_time"),
            end_time=info.get("end_time"),
            lifecycle=info["lifecycle_stage"],
            params=_texts(data.get("params", [])),
            tags=_texts(data.get("tags", [])),
            metrics=_unique((key, self._history(run_id, key)) for key in keys),
            inputs=_unique((f"{item.name} {item.digest}", item) for item in inputs),
            artifacts=_unique((path, self._artifact(run_id, path)) for path in self._files(run_id, "")),
        )

    def _history(self, run_id: str, key: str) -> list[Point]:
        query = {"run_id": run_id, "metric_key": key, "max_results": 10_000}
        points = self._rest.pages("metrics/get-history", "metrics", query, method="GET")
        found = [(float(point["value"]), point["timestamp"], point.get("step", 0)) for point in points]
        return _settled(found)

    def _files(self, run_id: str, folder: str) -> Iterator[str]:
        query = {"run_id": run_id} | ({"path": folder} if folder else {})
        for file in self._rest.get("artifacts/list", query).get("files", []):
            if file.get("is_dir"):
                yield from self._files(run_id, file["path"])
            else:
                yield file["path"]

    def _artifact(self, run_id: str, path: str) -> Artifact:
        query = {"run_id": run_id, "path": path}
        size, sha256 = self._rest.digest("/get-artifact", query)
        names_ids = PurePosixPath(path).name == ID_FILE
        return Artifact(size, sha256, self._rest.fetch("/get-artifact", query) if names_ids else None)


def _settled(points: Sequence[Point]) -> list[Point]:
    """The server's order, but for one tie it leaves open: NaN is stored as 0 and may come before or after a real 0."""
    settled: list[Point] = []
    for _, tied in groupby(points, key=lambda point: (point[1], point[2], math.isnan(point[0]) or point[0] == 0)):
        settled += sorted(tied, key=lambda point: math.isnan(point[0]))
    return settled


def _unique(pairs: Iterable[tuple[str, T]]) -> dict[str, T]:
    """A dict that refuses to lose anything: an answer that holds a key twice is an error, not a detail."""
    result: dict[str, T] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"the server answered {key!r} twice")
        result[key] = value
    return result


def _texts(rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    return _unique((row["key"], row.get("value", "")) for row in rows)


def _input(row: Mapping[str, Any]) -> DatasetInput:
    data = row["dataset"]
    return DatasetInput(
        name=data["name"],
        digest=data["digest"],
        source_type=data.get("source_type"),
        source=data.get("source"),
        schema=data.get("schema"),
        profile=data.get("profile"),
        tags=_texts(row.get("tags", [])),
    )


# Comparing ------------------------------------------------------------------------------------------------------------


def differences(source: Workspace, target: Workspace, *, deleted: bool = True) -> list[str]:
    """What the target lacks, has too much or has otherwise, a line each. `deleted=False`: what is deleted at the
    source must not be on the target at all."""
    wanted = source if deleted else _active(source)
    lines: list[str] = []
    pairs: list[tuple[Experiment, Experiment]] = []
    for name in sorted(wanted.experiments.keys() | target.experiments.keys()):
        old, new = wanted.experiments.get(name), target.experiments.get(name)
        if old and new:
            pairs.append((old, new))
        else:
            lines.append(f"experiment {name!r}: {'missing' if old else 'extra'}")
    matches = [_Match(old, new) for old, new in pairs]
    ids = {old.run_id: new.run_id for match in matches for old, new in match.runs}
    return lines + [line for match in matches for line in match.differences(ids)]


def _active(workspace: Workspace) -> Workspace:
    return Workspace(
        {
            name: replace(experiment, runs=[run for run in experiment.runs if run.lifecycle == "active"])
            for name, experiment in workspace.experiments.items()
            if experiment.lifecycle == "active"
        }
    )


class _Match:
    """Two experiments of one name, their runs paired."""

    def __init__(self, source: Experiment, target: Experiment) -> None:
        self.source = source
        self.target = target
        self.runs: list[tuple[Run, Run]] = []
        self._where = f"experiment {source.name!r}"
        self._unmatched: list[str] = []
        self._pair()

    def _pair(self) -> None:
        claims: dict[str, list[Run]] = defaultdict(list)
        for run in self.target.runs:
            for key in {run.run_id, run.origin}:
                claims[key].append(run)
        used: set[str] = set()
        for run in self.source.runs:
            found = claims[run.origin]
            if any(claimant.run_id in used for claimant in found):
                self._unmatched.append(f"{self._name(run)}: shares its origin with another source run")
            elif found:
                self.runs.append((run, found[0]))
            self._unmatched += _count_line(self._name(run), found)
            used.update(claimant.run_id for claimant in found)
        self._unmatched += [f"{self._name(run)}: extra" for run in self.target.runs if run.run_id not in used]

    def _name(self, run: Run) -> str:
        return f"{self._where} run {run.name!r} {run.run_id}"

    def differences(self, ids: Ids) -> list[str]:
        lines = [*self._unmatched]
        lines += _field_lines(self._where, self.source, self.target, ("lifecycle",))
        lines += _dict_lines(self._where, "tag", self.source.tags, self.target.tags)
        for old, new in self.runs:
            lines += _run_lines(self._name(old), old, new, ids)
        return lines


def _count_line(name: str, claimants: Sequence[Run]) -> list[str]:
    if not claimants:
        return [f"{name}: missing"]
    if len(claimants) > 1:
        return [f"{name}: duplicated as {', '.join(run.run_id for run in claimants)}"]
    return []


def _run_lines(name: str, source: Run, target: Run, ids: Ids) -> list[str]:
    return [
        *_field_lines(name, source, target, RUN_FIELDS),
        *_dict_lines(name, "param", source.params, target.params),
        *_dict_lines(name, "tag", _tags(source, ids), _tags(target, {})),
        *_dict_lines(name, "metric", source.metrics, target.metrics, _point_difference),
        *_dict_lines(name, "input", source.inputs, target.inputs),
        *_dict_lines(
            name, "artifact", source.artifacts, target.artifacts, lambda a, b: _artifact_difference(a, b, ids)
        ),
    ]


def _tags(run: Run, ids: Ids) -> dict[str, str]:
    """The tags that have to arrive, in the target's terms: provenance is nobody's content."""
    return {
        key: _mapped(value, ids) if key in ID_TAGS else value
        for key, value in run.tags.items()
        if key != SOURCE_TAG and not key.startswith(FOREIGN_TAGS)
    }


def _mapped(text: str, ids: Ids) -> str:
    return RUN_ID.sub(lambda match: ids.get(match[0], match[0]), text)


def _unequal(source: object, target: object) -> str | None:
    return None if source == target else _both(source, target)


def _field_lines(name: str, source: object, target: object, fields: Iterable[str]) -> list[str]:
    return _dict_lines(
        name,
        "field",
        {field: getattr(source, field) for field in fields},
        {field: getattr(target, field) for field in fields},
    )


def _dict_lines(
    name: str,
    what: str,
    source: Mapping[str, T],
    target: Mapping[str, T],
    difference: Callable[[T, T], str | None] = _unequal,
) -> list[str]:
    lines = []
    for key in sorted(source.keys() | target.keys()):
        if key not in target:
            detail: str | None = "missing"
        elif key not in source:
            detail = "extra"
        else:
            detail = difference(source[key], target[key])
        if detail:
            lines.append(f"{name} {what} {key!r}: {detail}")
    return lines


def _point_difference(source: Sequence[Point], target: Sequence[Point]) -> str | None:
    """By the text of the value: NaN equals itself and -0.0 is not 0.0."""
    if len(source) != len(target):
        return f"{len(source)} points != {len(target)} points"
    for number, (old, new) in enumerate(zip(source, target, strict=True)):
        if repr(old) != repr(new):
            return f"point {number}: {old!r} != {new!r}"
    return None


def _artifact_difference(source: Artifact, target: Artifact, ids: Ids) -> str | None:
    if source.content is None or target.content is None:
        return _unequal(source, target)
    # Latin-1 gives every byte a character and back, whatever the file's encoding is.
    expected = _mapped(source.content.decode("latin-1"), ids).encode("latin-1")
    return _unequal(expected, target.content)


def _both(source: object, target: object) -> str:
    """Both values, cut to what surrounds their first difference."""
    texts = (repr(source), repr(target))
    common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    return " != ".join(_cut(text, max(0, common - 30)) for text in texts)


def _cut(text: str, start: int, width: int = 120) -> str:
    return ("..." if start else "") + text[start : start + width] + ("..." if len(text) > start + width else "")

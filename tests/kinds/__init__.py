"""One sample per kind: a module of the kind's name that can make an object of it, and can change it.

`tests/contract/test_kinds.py` asks of every kind that its sample survives the way through an archive, and that a
comparison notices the change. A kind without a sample fails `tests/test_architecture.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any, Protocol, cast

from amigrate.kinds import REGISTRY
from amigrate.kinds.selection import OPT_IN
from tests.rest import Rest


class Sample(Protocol):
    """What such a module holds."""

    def seed(self, rest: Rest, name: str) -> None:
        """Make an object with everything that the kind can carry, in an experiment of this name."""
        ...

    def mutate(self, rest: Rest, name: str) -> None:
        """Change one thing of that object, or of its copy on another server."""
        ...

    def held(self, rest: Rest, name: str) -> Any:
        """All that a server holds of the sample, ids replaced by names: equal where nothing was lost.

        Only for kinds that `tests.comparison` does not read.
        """
        ...

    def roots(self, rest: Rest, name: str) -> set[str]:
        """Ids at the source of what belongs to nothing else, where that is neither the experiment nor its name."""
        ...

    def prepare(self, rest: Rest, name: str) -> None:
        """What an operator has to do at the target, because no server tells it."""
        ...

    server: str
    """What kind of server can hold it, where not every one with a database can."""


def sample(kind: str) -> Sample:
    """The sample of a kind."""
    return cast(Sample, import_module(f"tests.kinds.{kind}"))


def plain_kinds() -> list[str]:
    """The kinds that a server with a database can hold, whatever else it runs with."""
    return [kind for kind in REGISTRY if not hasattr(sample(kind), "server")]


def objects() -> str:
    """All of them, as `--objects` asks for them."""
    asked = {REGISTRY[kind].group or REGISTRY[kind].label for kind in plain_kinds()}
    return ",".join(["all", *(name for name in OPT_IN if name in asked)])


def prepare(rest: Rest, names: Iterable[tuple[str, str]]) -> None:
    """Do at a target what an operator has to do there for samples of these kinds and names."""
    for kind, name in names:
        if hasattr(sample(kind), "prepare"):
            sample(kind).prepare(rest, name)


def new_experiment(rest: Rest, name: str) -> str:
    """An experiment for objects that need one; returns its id."""
    return str(rest.post("experiments/create", {"name": name})["experiment_id"])


def experiment_of(rest: Rest, name: str) -> str:
    """The id of an experiment."""
    return str(rest.get("experiments/get-by-name", {"experiment_name": name})["experiment"]["experiment_id"])


def run_of(rest: Rest, name: str) -> dict[str, Any]:
    """The `info` of the only run in an experiment."""
    (run,) = rest.post("runs/search", {"experiment_ids": [experiment_of(rest, name)]})["runs"]
    return dict(run["info"])

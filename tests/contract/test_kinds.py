"""What every kind promises: its objects survive the way from a server through an archive into a server, and a
comparison tells a changed copy from its source."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from amigrate.core.model import Finding, Ref
from amigrate.kinds import REGISTRY
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.integration.test_check import compared
from tests.kinds import experiment_of, sample
from tests.rest import Rest
from tests.servers import MlflowServer


@dataclass(frozen=True, slots=True)
class Moved:
    """A server with a sample of every kind, and one that got them from its archive."""

    source: MlflowServer
    target: MlflowServer

    def findings(self, name: str) -> Iterator[Finding]:
        """What a comparison says of the experiment, model or prompt of this name and of everything in it."""
        with Rest(self.source.uri) as rest:
            home = experiment_of(rest, name)
        found = asyncio.run(compared(self.source, self.target))
        return (one for one in found if outermost(one.ref).id in (home, name))


def outermost(ref: Ref) -> Ref:
    return outermost(ref.parent) if ref.parent else ref


def name_of(kind: str) -> str:
    return f"sample of {kind}"


@pytest.fixture(scope="module")
def moved(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    folder = tmp_path_factory.mktemp("kinds")
    source, target, cli = new_module_server(), new_module_server(), Cli(folder / "home")
    with Rest(source.uri) as rest:
        for kind in REGISTRY:
            sample(kind).seed(rest, name_of(kind))
    archive: Path = folder / "archive"
    for args in (
        ("export-all", "--tracking-uri", source.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", target.uri, "--input-dir", archive),
    ):
        done = cli(*args)
        assert done.returncode == 0, done.stderr
    # By eyes that know nothing of amigrate; and before any test changes the target.
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for kind in REGISTRY:
            if hasattr(sample(kind), "held"):
                assert sample(kind).held(old, name_of(kind)) == sample(kind).held(new, name_of(kind))
    return Moved(source, target)


@pytest.mark.parametrize("kind", REGISTRY)
def test_a_sample_survives_and_its_mutated_twin_is_told_apart(moved: Moved, kind: str) -> None:
    before = list(moved.findings(name_of(kind)))
    assert kind in {one.ref.kind for one in before}
    assert {one.sigil for one in before} == {"="}
    with Rest(moved.target.uri) as rest:
        sample(kind).mutate(rest, name_of(kind))
    after = [one for one in moved.findings(name_of(kind)) if one.sigil != "="]
    assert [(one.sigil, one.ref.kind) for one in after] == [("*", kind)]

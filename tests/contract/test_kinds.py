"""What every kind promises: its objects survive the way from a server through an archive into a server, and a
comparison tells a changed copy from its source."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from amigrate.core.model import Finding, Ref
from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.kinds import experiment_of, objects, plain_kinds, prepare, sample
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.verified import compared


@dataclass(frozen=True, slots=True)
class Moved:
    """A server with a sample of every kind, one that got them from its archive, and one that got copies."""

    source: MlflowServer
    imported: MlflowServer
    copied: MlflowServer


def outermost(ref: Ref) -> Ref:
    return outermost(ref.parent) if ref.parent else ref


def name_of(kind: str) -> str:
    return f"sample of {kind}"


@pytest.fixture(scope="module")
def moved(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Moved:
    """Everything moved both ways, and looked at by eyes that know nothing of amigrate."""
    folder = tmp_path_factory.mktemp("kinds")
    moved, cli = Moved(*(new_module_server() for _ in range(3))), Cli(folder / "home")
    with Rest(moved.source.uri) as rest:
        for kind in plain_kinds():
            sample(kind).seed(rest, name_of(kind))
    for target in (moved.imported, moved.copied):
        with Rest(target.uri) as rest:
            prepare(rest, ((kind, name_of(kind)) for kind in plain_kinds()))
    archive: Path = folder / "archive"
    for args in (
        ("export-all", "--tracking-uri", moved.source.uri, "--output-dir", archive),
        ("import-all", "--tracking-uri", moved.imported.uri, "--input-dir", archive),
        ("copy-all", "--source", moved.source.uri, "--target", moved.copied.uri),
    ):
        done = cli(*args, "--objects", objects())
        assert done.returncode == 0, done.stderr
    for target in (moved.imported, moved.copied):
        assert differences(snapshot(moved.source.uri), snapshot(target.uri)) == []
        with Rest(moved.source.uri) as old, Rest(target.uri) as new:
            for kind in plain_kinds():
                if hasattr(sample(kind), "held"):
                    assert sample(kind).held(old, name_of(kind)) == sample(kind).held(new, name_of(kind))
    return moved


@pytest.fixture(scope="module")
def unchanged(moved: Moved) -> list[list[Finding]]:
    """What a comparison says of the source and of each of the others."""
    return [asyncio.run(compared(moved.source, one)) for one in (moved.imported, moved.copied)]


@pytest.fixture(scope="module")
def mutated(moved: Moved, unchanged: list[list[Finding]]) -> list[Finding]:
    """What a comparison says once every sample was changed at the server that got the archive."""
    assert unchanged
    with Rest(moved.imported.uri) as rest:
        for kind in plain_kinds():
            sample(kind).mutate(rest, name_of(kind))
    return asyncio.run(compared(moved.source, moved.imported))


def of(kind: str, moved: Moved, findings: list[Finding]) -> Iterator[Finding]:
    """What was found of a kind's sample and of everything in it."""
    name = name_of(kind)
    with Rest(moved.source.uri) as rest:
        ids = {experiment_of(rest, name), name}
        if hasattr(sample(kind), "roots"):
            ids |= sample(kind).roots(rest, name)
    return (one for one in findings if outermost(one.ref).id in ids)


@pytest.mark.parametrize("kind", plain_kinds())
def test_a_sample_survives(moved: Moved, unchanged: list[list[Finding]], kind: str) -> None:
    for findings in unchanged:
        found = list(of(kind, moved, findings))
        assert kind in {one.ref.kind for one in found}
        assert [one for one in found if one.sigil != "="] == []


@pytest.mark.parametrize("kind", plain_kinds())
def test_a_mutated_twin_is_told_apart(moved: Moved, mutated: list[Finding], kind: str) -> None:
    found = [one for one in of(kind, moved, mutated) if one.sigil != "="]
    assert [(one.sigil, one.ref.kind) for one in found] == [("*", kind)]

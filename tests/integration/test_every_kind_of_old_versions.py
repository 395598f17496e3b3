"""Everything that an older server has arrives on the current one, and what it can take arrives there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.environments import python_of
from tests.kinds import objects, plain_kinds, prepare, sample
from tests.rest import Rest
from tests.servers import MlflowServer

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1800)]

RUNS = ("experiment", "run", "artifact")
NAMES = ("model_version", "prompt", "prompt_version")
HAS = {
    "2.22.5": (*RUNS, *NAMES),
    "3.4.0": (*RUNS, *NAMES, "logged_model", "registered_model", "evaluation_dataset", "dataset_record"),
}
"""The kinds whose samples a version can hold; scorers of 3.4 without what came later are tested beside them."""


@pytest.fixture(params=HAS)
def old(request: pytest.FixtureRequest, new_server: NewServer) -> Iterator[tuple[str, MlflowServer]]:
    yield request.param, new_server(python=python_of(request.param))


def seed(server: MlflowServer, kinds: tuple[str, ...]) -> None:
    with Rest(server.uri) as rest:
        for kind in kinds:
            sample(kind).seed(rest, name_of(kind))


def same(one: MlflowServer, other: MlflowServer, kinds: tuple[str, ...]) -> None:
    """The samples of these kinds are the same on both, to eyes that know nothing of amigrate."""
    with Rest(one.uri) as rest, Rest(other.uri) as new:
        for kind in kinds:
            assert sample(kind).held(rest, name_of(kind)) == sample(kind).held(new, name_of(kind)), kind


def test_everything_arrives(old: tuple[str, MlflowServer], new_server: NewServer, cli: Cli) -> None:
    (version, source), target = old, new_server()
    seed(source, HAS[version])
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--objects", objects(), "--json")
    assert done.returncode == 0, done.stdout
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    same(source, target, (*NAMES, "logged_model") if "logged_model" in HAS[version] else NAMES)
    assert cli("verify", source.uri, target.uri).returncode == 0


def test_what_it_can_take_arrives_and_the_rest_is_named(
    old: tuple[str, MlflowServer], new_server: NewServer, cli: Cli
) -> None:
    (version, target), source = old, new_server()
    seed(source, tuple(plain_kinds()))
    with Rest(target.uri) as rest:
        prepare(rest, ((kind, name_of(kind)) for kind in HAS[version]))
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--objects", objects(), "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert not told["error"]
    # Without a key of its own to encrypt their secrets with, 3.4.0 answers 500 to every webhook.
    assert {loss["kind"] for loss in told["losses"] if loss["status"] != "left behind"} <= {"webhook"}
    lost = {loss["kind"] for loss in told["losses"]}
    assert lost.isdisjoint(HAS[version])
    assert all(len(loss["reason"]) > len("404: 404 Not Found") for loss in told["losses"])
    same(source, target, NAMES)

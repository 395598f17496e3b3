"""`--objects` and `--skip-objects`: what is left out is named, and comes with the next command that asks for it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.comparison import differences, snapshot
from tests.conftest import Cli, NewServer
from tests.contract.test_kinds import name_of
from tests.kinds import sample
from tests.rest import Rest
from tests.servers import MlflowServer

KINDS = ("artifact", "logged_model", "registered_model", "prompt")


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    server = new_module_server()
    with Rest(server.uri) as rest:
        for kind in KINDS:
            sample(kind).seed(rest, name_of(kind))
    return server


def copied(cli: Cli, source: MlflowServer, target: MlflowServer, *args: str) -> Any:
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--json", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    return {kind: set(counts) for kind, counts in json.loads(done.stdout)["objects"].items()}


@pytest.mark.parametrize(
    "first",
    [
        ("--skip-objects", "artifacts"),
        ("--skip-objects", "logged-models,models"),
        ("--objects", "prompts"),
        ("--objects", "runs"),
    ],
    ids=" ".join,
)
def test_what_was_left_out_comes_later(
    first: tuple[str, str], source: MlflowServer, new_server: NewServer, cli: Cli
) -> None:
    target = new_server()
    told = copied(cli, source, target, *first)
    named = first[1].split(",")
    for name in named:
        assert (told[name] == {"excluded"}) == (first[0] == "--skip-objects"), told
    copied(cli, source, target)
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for kind in KINDS[1:]:
            assert sample(kind).held(old, name_of(kind)) == sample(kind).held(new, name_of(kind))


def test_unknown_kinds_are_refused(cli: Cli) -> None:
    done = cli("copy-all", "--source", "http://127.0.0.1:1", "--target", "http://127.0.0.1:2", "--objects", "modells")
    assert done.returncode == 2
    assert "modells" in done.stderr
    assert "logged-models" in done.stderr


@pytest.mark.parametrize("option", ["--objects", "--skip-objects"])
def test_experiments_are_what_runs_belong_to(
    option: str, source: MlflowServer, new_server: NewServer, cli: Cli
) -> None:
    """Without them, nothing that belongs to them; with them alone, nothing of it either."""
    target = new_server()
    told = copied(cli, source, target, option, "experiments", "--accept-loss", "sources")
    assert told.get("runs", set()) == {"excluded"}
    assert ("created" in told["experiments"]) == (option == "--objects")
    assert ("created" in told.get("model-versions", set())) == (option == "--skip-objects")
    assert ("created" in told.get("prompts", set())) == (option == "--skip-objects")


def test_no_kind_at_all_is_a_mistake(cli: Cli) -> None:
    done = cli("copy-all", "--source", "http://127.0.0.1:1", "--target", "http://127.0.0.1:2", "--objects", "")
    assert done.returncode == 2
    assert "--objects is empty" in done.stderr

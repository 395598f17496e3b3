"""A plan tells what the move then does, and nothing is written while it is made: not a byte, at neither end."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Cli, NewServer
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import objects, plain_kinds, prepare, sample
from tests.rest import Rest
from tests.servers import MlflowServer
from tests.workspace import PLAIN, seed

READING = re.compile(r"/(search|batchGetInfos|graphql)$")
"""What a request by another method than GET may end with."""
EVERYTHING = ("--deleted", "--objects", objects())
TAKEN = "sample of registered_model"


@dataclass(frozen=True, slots=True)
class Ends:
    """A server with something of everything, and one that has a little of it, each behind a proxy that counts."""

    source: MlflowServer
    target: MlflowServer
    reading: FaultProxy
    writing: FaultProxy

    @property
    def held(self) -> list[str]:
        """Everything that both hold, as fingerprints."""
        return [fingerprint(server) for server in (self.source, self.target)]

    @property
    def writes(self) -> set[tuple[str, str]]:
        """The requests so far that may have written."""
        seen = {*self.reading.requests, *self.writing.requests}
        return {(method, path) for method, path in seen if method != "GET" and not READING.search(path)}


def fingerprint(server: MlflowServer) -> str:
    """The rows of the database, and the names and bytes of the files."""
    digest = hashlib.sha256()
    with closing(sqlite3.connect(f"file:{server.database}?mode=ro", uri=True, timeout=60)) as db:
        for line in db.iterdump():
            digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest() + tree(server.artifacts)


def tree(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path} {path.is_file() and path.read_bytes()!r}".encode())
    return digest.hexdigest()


@pytest.fixture(scope="module")
def ends(new_module_server: NewServer) -> Any:
    source, target = new_module_server(), new_module_server()
    seed(source.uri, leave_out=PLAIN)
    with Rest(source.uri) as rest:
        for kind in plain_kinds():
            sample(kind).seed(rest, f"sample of {kind}")
    with Rest(target.uri) as rest:
        rest.post("experiments/create", {"name": "texts"})
        rest.post("registered-models/create", {"name": TAKEN})
        prepare(rest, ((kind, f"sample of {kind}") for kind in plain_kinds()))
    quiet = {"lost_answers": 0.0, "resets": 0.0, "unavailable": 0.0, "cut_bodies": 0.0}
    with (
        FaultProxy(source.uri, seed=1, **quiet) as reading,  # type: ignore[arg-type]
        FaultProxy(target.uri, seed=1, **quiet) as writing,  # type: ignore[arg-type]
    ):
        yield Ends(source, target, reading, writing)


def told(cli: Cli, *args: object) -> tuple[int, dict[str, Any]]:
    done = cli(*map(str, args), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def counted(said: dict[str, Any]) -> dict[str, Any]:
    """Objects by kind and what became of them, but for files.

    Of what a server makes by itself once other objects are there, a plan cannot know that it will find it.
    """
    told = {kind: dict(counts) for kind, counts in said["objects"].items() if kind != "artifacts"}
    for kind in ("label-schemas", "gateway-bindings"):
        told[kind]["created"] += told[kind].pop("present", 0)
    return told


def test_a_plan_tells_what_the_move_does_and_writes_nothing(ends: Ends, cli: Cli) -> None:
    before, files = ends.held, tree(cli.home)
    code, plan = told(cli, "plan", ends.reading.uri, ends.writing.uri, *EVERYTHING)
    assert ends.held == before
    assert ends.writes == set()
    assert tree(cli.home) == files, "no journal, no report"
    assert ("experiment", "texts") in {(one["kind"], one["name"]) for one in plan["plan"]["already_there"]}
    assert ("registered_model", TAKEN) in {(one["kind"], one["name"]) for one in plan["plan"]["already_there"]}

    sent = ends.reading.requests.total(), ends.writing.requests.total()
    done, copied = told(
        cli, "copy-all", "--source", ends.reading.uri, "--target", ends.writing.uri, *EVERYTHING, "--state", cli.home
    )
    assert code == done
    assert counted(plan) == counted(copied)
    assert {(one["kind"], one["key"]) for one in plan["losses"]} == {
        (one["kind"], one["key"]) for one in copied["losses"]
    }
    expected = plan["plan"]
    assert expected["files"]["exact"]
    assert expected["files"]["number"] == copied["objects"]["artifacts"]["created"]
    assert expected["files"]["bytes"] == copied["bytes"]
    assert 0.3 < expected["metric_points"]["number"] / copied["metric_points"] < 3
    for end, proxy, already in (("source", ends.reading, sent[0]), ("target", ends.writing, sent[1])):
        assert 0.5 < expected["requests"][end] / (proxy.requests.total() - already) < 2, end

    code, again = told(cli, "plan", ends.reading.uri, ends.writing.uri, *EVERYTHING, "--state", cli.home)
    assert not {"created", "failed"} & {status for counts in again["objects"].values() for status in counts}


@pytest.mark.campaign
def test_every_move_can_be_tried(ends: Ends, cli: Cli, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    export = ("export-all", "--tracking-uri", ends.reading.uri, "--output-dir", archive, "--deleted")
    assert told(cli, *export, "--dry-run")[0] == 0
    assert not archive.exists()
    assert cli(*map(str, export)).returncode == 0
    before, files, written = ends.held, tree(archive), ends.writes
    for args in (
        export,
        ("import-all", "--tracking-uri", ends.writing.uri, "--input-dir", archive),
        ("import-experiments", "--tracking-uri", ends.writing.uri, "--input-dir", archive, "--experiments", "texts"),
        ("import-models", "--tracking-uri", ends.writing.uri, "--input-dir", archive),
        ("export-models", "--tracking-uri", ends.reading.uri, "--output-dir", tmp_path / "no", "--models", TAKEN),
        ("copy-all", "--source", ends.reading.uri, "--target", ends.writing.uri),
    ):
        code, plan = told(cli, *args, "--dry-run")
        assert code in (0, 1), plan
        assert plan["plan"]
    code, plan = told(cli, "plan", archive)
    assert plan["plan"]["metric_points"]["exact"]
    assert (code, tree(archive), ends.held, ends.writes) == (0, files, before, written)
    assert not (tmp_path / "no").exists()

"""A small server and a user who wants too much of it: the guard finds what it can carry, and nothing is lost."""

from __future__ import annotations

import json

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer


def test_64_at_once_on_one_worker(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """SQLite, one worker, 15 database connections: 64 requests at once would let every one of them time out."""
    target = new_server()
    done = cli(
        "copy-all", "--source", source_server.uri, "--target", target.uri, "--deleted", "--concurrency", "64", "--json"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert not any("failed" in statuses for statuses in told["objects"].values())
    assert told["requests"]["target"]["concurrency"]["write"] < 15
    assert differences(source_snapshot, snapshot(target.uri)) == []

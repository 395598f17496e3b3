"""A network and a server that fail: answers lost after the effect, resets, 503, cut bodies. The result stays exact."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.fakes.fault_proxy import FaultProxy

pytestmark = pytest.mark.timeout(900)


def summary(done: object) -> dict[str, object]:
    stdout, stderr = done.stdout, done.stderr  # type: ignore[attr-defined]
    assert done.returncode == 0, stdout[-3000:] + stderr[-3000:]  # type: ignore[attr-defined]
    told: dict[str, object] = json.loads(stdout)
    return told


def test_a_copy_between_two_bad_networks(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """5 % of each fault at both ends: everything arrives once. A lost answer of a create is looked up, not repeated."""
    target = new_server()
    with FaultProxy(source_server.uri, seed=1) as reading, FaultProxy(target.uri, seed=2) as writing:
        summary(cli("copy-all", "--source", reading.uri, "--target", writing.uri, "--deleted", "--json", timeout=600))
        assert {"lost_answers", "resets", "unavailable", "cut_bodies"} <= set(writing.faults)
        assert sum(reading.faults.values()) > 10
        read = {path for method, path in reading.requests if method != "GET"}
    assert all(path.endswith(("/search", "/list", "/graphql")) for path in read), read
    assert differences(source_snapshot, snapshot(target.uri)) == []


@pytest.mark.campaign
def test_an_archive_over_a_bad_network(
    source_server: SourceServer, source_snapshot: Workspace, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    target, folder = new_server(), tmp_path / "all"
    with FaultProxy(source_server.uri, seed=3) as reading, FaultProxy(target.uri, seed=4) as writing:
        summary(cli("export-all", "--tracking-uri", reading.uri, "--output-dir", folder, "--deleted", "--json"))
        summary(cli("import-all", "--tracking-uri", writing.uri, "--input-dir", folder, "--deleted", "--json"))
        assert writing.faults["lost_answers"] > 5
    assert differences(source_snapshot, snapshot(target.uri)) == []

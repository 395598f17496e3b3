"""Addresses of local stores, folders on the disk, what a release takes, points that are there already."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amigrate.artifacts.disk import DiskFolder, disk_folder
from amigrate.artifacts.folder import Entry
from amigrate.client.api import Abilities
from amigrate.core.errors import AmigrateError, Uncarriable, UsageError
from amigrate.core.model import Body, Outcome, Ref, Stream
from amigrate.kinds.limits import fitting, is_plain, limits_of
from amigrate.kinds.log_batch import Held, batches, hash_of
from amigrate.kinds.references import body_of
from amigrate.kinds.series import CHUNK, _from_file
from amigrate.options import Given, redacted, same_server, server_options
from amigrate.serving import served
from amigrate.stores import Store, holds_runs, local_store


def store(address: str, artifacts: str | None = None) -> Store:
    found = local_store(address, artifacts)
    assert found is not None
    return found


# ---- addresses --------------------------------------------------------------------------------------------------


def test_one_store_has_one_address_however_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {store(one).shown for one in ("mlruns", "./mlruns", f"{tmp_path}/mlruns", f"file://{tmp_path}/mlruns")} == {
        f"{tmp_path}/mlruns"
    }
    assert store("sqlite:///mlflow.db").shown == store(f"sqlite:///{tmp_path}/mlflow.db").shown
    assert store("file:///with%20space").folder == Path("/with space")
    assert same_server(store("mlruns").shown, store("./mlruns").shown)
    assert not same_server(store("mlruns").shown, "http://127.0.0.1:5000")


def test_artifacts_lie_beside_the_store_unless_told_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert store("sqlite:////data/mlflow.db").artifacts == "/data/mlartifacts"
    assert store("/data/mlruns").artifacts == "/data/mlartifacts"
    assert store("postgresql://host/mlflow").artifacts == f"{tmp_path}/mlartifacts"
    assert store("/data/mlruns", "kept").artifacts == f"{tmp_path}/kept"
    assert store("/data/mlruns", "file:///kept").artifacts == "/kept"
    assert store("/data/mlruns", "s3://bucket/kept").artifacts == "s3://bucket/kept"


@pytest.mark.parametrize("address", ["http://host", "https://host/x", "localhost:5000", "databricks", "databricks://x"])
def test_what_names_no_local_store(address: str) -> None:
    assert local_store(address) is None


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:///file:x?mode=ro"])
def test_a_database_in_memory_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="no database file"):
        local_store(address)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:secret@host:5432/mlflow",
        "postgresql+psycopg2://host/mlflow?user=me&password=secret",
        "mysql+pymysql:///mlflow?password=secret",
    ],
)
def test_no_password_is_shown(address: str) -> None:
    found = store(address)
    assert "secret" not in found.shown + repr(found) + redacted(address)
    assert "secret" in found.uri
    options = server_options(Given(address), {"MLFLOW_TRACKING_PASSWORD": "other"})
    assert (options.uri, options.login) == (found.shown, None)


def test_artifacts_lie_beside_the_store_unless_a_place_is_given(tmp_path: Path) -> None:
    """By option, by variable, or not at all; an empty variable is an unset one."""
    address = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for variables, asked, expected in (
        ({}, "", tmp_path / "mlartifacts"),
        ({"AMIGRATE_ARTIFACTS_DESTINATION": ""}, "", tmp_path / "mlartifacts"),
        ({"AMIGRATE_ARTIFACTS_DESTINATION": "/there"}, "", Path("/there")),
        ({"AMIGRATE_ARTIFACTS_DESTINATION": "/there"}, "/here", Path("/here")),
    ):
        options = server_options(Given(address, artifacts_destination=asked), variables)
        assert options.store is not None
        assert options.store.artifacts == str(expected)


def test_artifacts_destination_is_for_local_stores() -> None:
    with pytest.raises(UsageError, match="local stores"):
        server_options(Given("http://host", artifacts_destination="x"), {})


def test_without_mlflow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    async def start() -> None:
        async with served(store(str(tmp_path)), writable=True, workspaces=False):
            raise AssertionError("it cannot have started")

    with pytest.raises(UsageError, match=r"pip install 'amigrate\[local\]'"):
        asyncio.run(start())


# ---- artifacts on the disk --------------------------------------------------------------------------------------


def test_what_is_written_is_read(tmp_path: Path) -> None:
    folder = DiskFolder(tmp_path / "new")

    async def there_and_back() -> tuple[list[Entry], bytes]:
        assert await folder.entries("") == []
        await folder.put("deep/é #%20.txt", body_of(b"old, and longer"))
        await folder.put("deep/é #%20.txt", body_of(b"content"))
        async with folder.body("deep/é #%20.txt", None).open() as stream:
            return await folder.entries("deep"), b"".join([chunk async for chunk in stream.chunks])

    entries, content = asyncio.run(there_and_back())
    assert entries == [Entry("deep/é #%20.txt", False, 7)]
    assert content == b"content"
    assert (tmp_path / "new/deep/é #%20.txt").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a//b", ".", "", "link", "linked/x", "a\0b"])
def test_nothing_outside_is_read_or_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("not yours")
    (tmp_path / "run" / "a").mkdir(parents=True)
    (tmp_path / "run" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "run" / "linked").symlink_to(tmp_path)
    folder = DiskFolder(tmp_path / "run")

    async def read() -> None:
        async with folder.body(name, None).open():
            raise AssertionError("it was opened")

    for work in (read(), folder.put(name, body_of(b"mine"))):
        with pytest.raises(Uncarriable):
            asyncio.run(work)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "secret"]
    assert (tmp_path / "secret").read_text() == "not yours"


def test_a_body_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"half"
        raise AmigrateError("cut")

    @asynccontextmanager
    async def opened() -> AsyncIterator[Stream]:
        yield Stream(chunks(), 8)

    with pytest.raises(AmigrateError, match="cut"):
        asyncio.run(DiskFolder(tmp_path).put("file", Body(opened, 8)))
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_was_moved_finds_its_files_or_says_that_they_are_missing(tmp_path: Path) -> None:
    runs = store(str(tmp_path / "mlruns"))
    location = "file:///home/elsewhere/mlruns/1/abc/artifacts"
    missing = disk_folder(location, runs)
    assert missing is not None
    with pytest.raises(Uncarriable, match="is not on this machine"):
        asyncio.run(missing.entries(""))
    (tmp_path / "mlruns/1/abc/artifacts").mkdir(parents=True)
    (tmp_path / "mlruns/1/abc/artifacts/file").write_text("x")
    found = disk_folder(location, runs)
    assert found is not None
    assert asyncio.run(found.entries("")) == [Entry("file", False, 1)]
    relative = disk_folder("./mlruns/1/abc/artifacts", store(f"sqlite:///{tmp_path}/mlflow.db"))
    assert relative is not None
    assert asyncio.run(relative.entries("")) == [Entry("file", False, 1)]
    assert disk_folder("s3://bucket/1/abc/artifacts", runs) is None
    assert disk_folder("file://host/1/abc/artifacts", runs) is None
    assert not holds_runs(tmp_path)


# ---- what releases take -----------------------------------------------------------------------------------------


def test_releases_are_ordered() -> None:
    assert Abilities("").older_than(2, 1)
    assert Abilities("2.9.2").older_than(2, 10)
    assert not Abilities("2.10.0").older_than(2, 9)
    assert not Abilities("3.17.2").older_than(3, 17)
    assert Abilities("3.5.0rc1").older_than(3, 6)
    assert limits_of(Abilities("")).param == 500
    assert (limits_of(Abilities("2.9.2")).param, limits_of(Abilities("2.9.2")).tag) == (6000, 5000)


def test_keys_that_every_release_takes() -> None:
    assert all(map(is_plain, ("loss", "val/loss é", "a.b-c d", "k" * 250, "mlflow.runName")))
    assert not any(map(is_plain, ("a:b", "k" * 251, "a//b", "../a", "/a", "a/", "a!", "", ".")))


def test_what_is_cut_is_told() -> None:
    losses: list[Outcome] = []
    owner = Ref("run", "r")
    assert fitting("param", {"key": "k", "value": "x" * 500}, 500, owner, losses)["value"] == "x" * 500
    assert losses == []
    assert len(fitting("param", {"key": "k", "value": "x" * 501}, 500, owner, losses)["value"]) == 500
    assert [(loss.ref.kind, loss.ref.id) for loss in losses] == [("param", "k")]


# ---- batches ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 3500), st.integers(0, 350), st.integers(0, 350))
def test_batches_hold_everything_once_and_keep_the_limits(metrics: int, params: int, tags: int) -> None:
    items = [[{"key": f"{kind}{number}"} for number in range(count)] for kind, count in
             (("m", metrics), ("p", params), ("t", tags))]  # fmt: skip
    sent = list(batches(items[0], list(items[1]), list(items[2])))
    for batch in sent:
        assert 0 < sum(map(len, batch.values())) <= 1000
        assert max(len(batch.get("params", ())), len(batch.get("tags", ()))) <= 100
    for what, wanted in zip(("metrics", "params", "tags"), items, strict=True):
        assert [item for batch in sent for item in batch.get(what, ())] == wanted


POINTS = st.lists(
    st.tuples(st.sampled_from([0.0, -0.0, 1.5, math.nan, math.inf, -2e-300]), st.integers(0, 2), st.integers(-1, 1)),
    max_size=30,
)


@given(POINTS, st.integers(0, 30))
def test_what_is_held_stands_for_as_many_equal_points(points: list[tuple[float, int, int]], number: int) -> None:
    """Whatever part of a series is there, in whatever order: the rest makes it whole."""
    there = sorted(points[:number], key=repr)
    held = Held(map(hash_of, there))
    lacking = [point for point in points if not held.meets(point)]
    assert len(held) == len(there)
    assert sorted(map(equal, there + lacking)) == sorted(map(equal, points))


def equal(point: tuple[float, int, int]) -> str:
    return repr((point[0] + 0.0, *point[1:]))


@pytest.mark.parametrize("number", [0, 1, 60_000])
def test_an_answer_on_disk_is_read_in_chunks_with_its_token(number: int) -> None:
    rows = ",".join(
        f'{{"key": "k", "value": {value}, "timestamp": 5, "step": {step}}}' for step, value in numbers(number)
    )
    file = io.BytesIO(f'{{"metrics": [{rows}], "next_page_token": "more"}}'.encode())
    answer = _from_file(file)
    chunks = list(iter(answer.chunk, []))
    assert all(len(chunk) <= CHUNK for chunk in chunks)
    found = [point for chunk in chunks for point in chunk]
    assert [repr(point) for point in found] == [
        repr((float(value.strip('"')), 5, step)) for step, value in numbers(number)
    ]
    assert answer.token == "more"


def numbers(number: int) -> list[tuple[int, str]]:
    return [(step, '"NaN"' if step % 7 == 0 else repr(step / 3)) for step in range(number)]

"""Evaluation datasets in bulk, with lost answers, from other tools' archives, damaged, and while they are written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.campaign import IS_FULL
from tests.conftest import Cli, NewServer
from tests.environments import python_of
from tests.fakes.fault_proxy import FaultProxy
from tests.kinds import new_experiment
from tests.kinds.evaluation_dataset import V3, datasets_of, held, new_dataset, records_of
from tests.rest import Rest
from tests.servers import MlflowServer

pytestmark = pytest.mark.timeout(1800)

QUIET: dict[str, Any] = {"lost_answers": 0, "resets": 0, "unavailable": 0, "cut_bodies": 0}
LARGE, TWINS = "large", "twins"
RECORDS = 3000
PLACE = f"{V3}datasets/*/records"


def rows(count: int) -> list[dict[str, Any]]:
    """Records of 2 kB, whose outputs are objects now and then only."""
    return [
        {"inputs": {"at": at, "text": "x" * 1500}, "outputs": {"score": at} if at % 7 == 3 else f"answer {at}"}
        for at in range(count)
    ]


@pytest.fixture(scope="module")
def source(new_module_server: NewServer) -> MlflowServer:
    """A server with a large dataset, and two of one name."""
    server = new_module_server()
    with Rest(server.uri) as rest:
        own = new_dataset(rest, LARGE, [new_experiment(rest, "home")], {"team": "x"}, rows(4)[3:])
        for start in range(0, RECORDS, 1000):
            rest.post(f"{V3}datasets/{own}/records", {"records": json.dumps(rows(RECORDS)[start : start + 1000])})
        for number in range(2):
            new_dataset(rest, TWINS, [], {}, [{"inputs": {"of": number}}])
    return server


@pytest.fixture(scope="module")
def archive(source: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("datasets")
    cli = Cli(folder / "home")
    done = cli("export-all", "--tracking-uri", source.uri, "--output-dir", folder / "archive")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "archive"


def told(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout)


def same(source: MlflowServer, target: MlflowServer, *names: str) -> None:
    with Rest(source.uri) as old, Rest(target.uri) as new:
        for name in names:
            assert held(old, name) == held(new, name)


def test_many_records_in_few_requests(source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Every answer to a create call is lost; moved again without a journal, nothing is made twice."""
    target = new_server()
    lossy = {**QUIET, "lost_answers": 1.0, "only": lambda method, path: path.endswith("/datasets/create")}
    with FaultProxy(source.uri, seed=1, **QUIET) as reading, FaultProxy(target.uri, seed=1, **lossy) as writing:
        ends = ("--source", reading.uri, "--target", writing.uri, "--json")
        first = told(cli("copy-all", *ends, "--state", tmp_path / "one"))
        assert first["objects"]["evaluation-datasets"] == {"created": 3}
        assert first["objects"]["dataset-records"] == {"created": RECORDS + 2}
        assert writing.faults["lost_answers"] == 3
        assert reading.requests["GET", PLACE] <= 3 + 5
        assert writing.requests["POST", PLACE] <= 2 + 5
        again = told(cli("copy-all", *ends, "--state", tmp_path / "two"))
        assert again["objects"]["evaluation-datasets"] == {"present": 3}
        assert again["objects"]["dataset-records"] == {"present": RECORDS + 2}
    same(source, target, LARGE, TWINS)


@pytest.mark.campaign
def test_records_deleted_at_the_source_leave_a_repeated_export(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """The folder then holds what the source does, its checksums included, and that is what a new server gets."""
    source, target, folder = new_server(), new_server(), tmp_path / "archive"
    export = ("export-all", "--tracking-uri", source.uri, "--output-dir", folder, "--json")
    with Rest(source.uri) as rest:
        own = new_dataset(rest, "shrinks", [new_experiment(rest, "home")], {}, [{"inputs": {"n": n}} for n in range(5)])
        told(cli(*export))
        ids = [one["dataset_record_id"] for one in json.loads(rest.get(f"{V3}datasets/{own}/records")["records"])]
        rest.delete(f"{V3}datasets/{own}/records", {"dataset_record_ids": ids[1:3]})
        assert len(records_of(rest, own)) == 3
    told(cli(*export))
    told(cli("verify", folder, "--json"))
    told(cli("import-all", "--tracking-uri", target.uri, "--input-dir", folder, "--json"))
    same(source, target, "shrinks")


def test_what_is_damaged_is_named(archive: Path, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """A line that is no record, one that comes twice, a file that is gone: the others arrive."""
    damaged, target = tmp_path / "archive", new_server()
    shutil.copytree(archive, damaged)
    folders = sorted(damaged.glob("evaluation_datasets/*"), key=lambda one: (one / "records.jsonl").stat().st_size)
    (folders[0] / "records.jsonl").unlink()
    lines = (folders[2] / "records.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == RECORDS
    (folders[2] / "records.jsonl").write_bytes(b"".join([b"[1]\n", lines[1], *lines[1:]]))
    args = ("--tracking-uri", target.uri, "--input-dir", damaged, "--json")
    losses = told(cli("import-all", *args), 1)["losses"]
    assert {(loss["kind"], loss["id"], loss["key"].split("/")[0] == folders[0].name) for loss in losses} == {
        ("dataset_record", "*", True),
        ("dataset_record", "records[1]", False),
        ("dataset_record", "records[3]", False),
        ("dataset_record", "*", False),
    }
    with Rest(target.uri) as rest:
        (large,) = datasets_of(rest, LARGE)
        assert len(records_of(rest, large["dataset_id"])) == RECORDS - 1


def test_archives_of_mlflow_export_import(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Records inside of the document; also as its samples have it, with targets and tables as schema."""
    target = new_server()
    real: dict[str, Any] = {
        "name": "real", "dataset_id": f"d-{1:032x}", "digest": "aaaa", "source": "{}", "schema": '{"inputs": {}}',
        "tags": {"mlflow.user": "ada"}, "created_time": 1, "last_update_time": 2, "experiment_ids": ["77"],
        "records": [{"dataset_record_id": "dr-1", "inputs": {"q": 1}, "outputs": "x", "tags": {"k": "v"},
                     "source": {"source_type": "HUMAN", "source_data": {}}, "source_type": "HUMAN"}],
    }  # fmt: skip
    old: dict[str, Any] = {
        "name": "sample", "dataset_id": "abc", "schema": {"inputs": []}, "source": {"uri": "x"}, "create_time": 1,
        "records": [{"inputs": {"n": 1}, "targets": {"quality": 5}}, {"targets": 7}],
    }  # fmt: skip
    for one in (real, old):
        folder = tmp_path / "archive" / "evaluation_datasets" / f"{one['name']}_{one['dataset_id']}"
        folder.mkdir(parents=True)
        document = {"system": {}, "mlflow": {"evaluation_dataset": one}}
        (folder / "evaluation_dataset.json").write_text(json.dumps(document), "utf-8")
    losses = told(cli("import-all", "--tracking-uri", target.uri, "--input-dir", tmp_path / "archive", "--json"), 1)
    assert [(loss["kind"], loss["id"]) for loss in losses["losses"]] == [("dataset_record", "records[2]")]
    assert losses["objects"]["experiment-links"] == {"excluded": 1}
    with Rest(target.uri) as rest:
        ((one,), (other,)) = (datasets_of(rest, name) for name in ("real", "sample"))
        assert one["created_by"] == "ada"
        (record,) = records_of(rest, one["dataset_id"])
        assert (record["inputs"], record["outputs"], record["tags"]) == ({"q": 1}, "x", {"k": "v"})
        (record,) = records_of(rest, other["dataset_id"])
        assert record["expectations"] == {"quality": 5}
        assert "outputs" not in record


def test_the_source_is_in_use(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """Records that come and change while they are read, and a dataset that comes: all of it, once."""
    source, copied, imported = new_server(), new_server(), new_server()
    records: list[dict[str, Any]] = [{"inputs": {"n": 1}, "outputs": "old"}, {"inputs": {"n": 2}}]
    with Rest(source.uri) as rest:
        first = new_dataset(rest, "first", ["0"], {}, records)
        asked = iter(range(1000))

        def change(method: str, path: str) -> None:
            if path.endswith("/records") and (number := next(asked)) in (0, 3):
                outputs = f"new {number}"
                changed: list[dict[str, Any]]
                changed = [{"inputs": {"n": 1}, "outputs": outputs}, {"inputs": {"n": f"late {number}"}}]
                rest.post(f"{V3}datasets/{first}/records", {"records": json.dumps(changed)})
                new_dataset(rest, "late", [], {}, changed)

        with FaultProxy(source.uri, seed=1, **QUIET, on_answer=change) as reading:
            told(cli("copy-all", "--source", reading.uri, "--target", copied.uri, "--json"))
            same(source, copied, "first", "late")
            next_one = ("--tracking-uri", reading.uri, "--output-dir", tmp_path / "archive", "--json")
            told(cli("export-all", *next_one))
        told(cli("import-all", "--tracking-uri", imported.uri, "--input-dir", tmp_path / "archive", "--json"))
        same(source, imported, "first", "late")


@pytest.fixture(params=["2.22.5", "3.4.0"] if IS_FULL else ["2.9.2"])
def old(request: pytest.FixtureRequest, new_server: NewServer) -> Iterator[tuple[str, MlflowServer]]:
    """A server of an older version."""
    yield request.param, new_server(python=python_of(request.param))


def test_older_servers(
    old: tuple[str, MlflowServer], source: MlflowServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """What lacks them leaves them behind, counted; 3.4 keeps no outputs, and what it has comes out of it."""
    version, server = old
    done = told(cli("copy-all", "--source", source.uri, "--target", server.uri, "--json"), 1)
    if version.startswith("2."):
        assert done["objects"]["evaluation-datasets"] == {"left behind": 3}
        assert {loss["status"] for loss in done["losses"]} == {"left behind"}
        return
    assert done["objects"]["dataset-records"] == {"created": RECORDS + 2}
    assert done["objects"]["outputs"] == {"left behind": RECORDS}
    target = new_server()
    told(cli("copy-all", "--source", server.uri, "--target", target.uri, "--json"))
    with Rest(server.uri) as one, Rest(target.uri) as other:
        for name in (LARGE, TWINS):
            found = [[records_of(rest, row["dataset_id"]) for row in datasets_of(rest, name)] for rest in (one, other)]
            assert sorted(found[0], key=str) == sorted(found[1], key=str)

"""The main job on real servers, by way of an archive and directly, seen by an independent comparison."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.comparison import Workspace, differences, snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.rest import API, Rest
from tests.servers import MlflowServer, PostgresServer
from tests.workspace import PLAIN, ScaleName, seed

pytestmark = pytest.mark.timeout(3600)


def read(path: Path) -> Any:
    """A document, strictly: NaN has to be a string."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds a bare {word}")

    return json.loads(path.read_text("utf-8"), parse_constant=refuse)


def summary(done: Any) -> Any:
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def archive(sized_server: SourceServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seeded workspace, exported with everything in it."""
    folder = tmp_path_factory.mktemp("export")
    cli = Cli(folder / "home")
    done = cli("export-all", "--tracking-uri", sized_server.uri, "--output-dir", folder / "all", "--deleted")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "all"


@pytest.fixture
def target(new_server: NewServer) -> Iterator[MlflowServer]:
    yield new_server()


def test_archive_to_server(
    archive: Path, target: MlflowServer, sized_snapshot: Workspace, sized_server: SourceServer, cli: Cli
) -> None:
    """Everything arrives; a second import, and a copy without any journal, make nothing that is there already."""
    first = summary(cli("import-all", "--tracking-uri", target.uri, "--input-dir", archive, "--deleted", "--json"))
    assert first["lost"] == 0
    assert differences(sized_snapshot, snapshot(target.uri)) == []
    assert first["objects"]["runs"] == {"created": len(sized_server.seeded.run_ids)}
    again = summary(cli("import-all", "--tracking-uri", target.uri, "--input-dir", archive, "--deleted", "--json"))
    assert again["objects"]["runs"] == {"present": len(sized_server.seeded.run_ids)}
    copied = summary(cli("copy-all", "--source", sized_server.uri, "--target", target.uri, "--deleted", "--json"))
    assert "created" not in copied["objects"]["runs"]
    assert differences(sized_snapshot, snapshot(target.uri)) == []


def test_server_to_server_and_back(
    sized_server: SourceServer, target: MlflowServer, sized_snapshot: Workspace, new_server: NewServer, cli: Cli
) -> None:
    """A to B is exact; B to C and C to A find every run again by where it was first made."""
    first = summary(cli("copy-all", "--source", sized_server.uri, "--target", target.uri, "--deleted", "--json"))
    assert first["exit_code"] == 0
    assert differences(sized_snapshot, snapshot(target.uri)) == []
    ids = json.loads(Path(first["id_map"]).read_text("utf-8"))
    assert set(ids["run"]) == set(sized_server.seeded.run_ids.values())
    assert ids["experiment"]["0"] == "0"
    third = new_server()
    assert cli("copy-all", "--source", target.uri, "--target", third.uri, "--deleted").returncode == 0
    back = summary(cli("copy-all", "--source", third.uri, "--target", sized_server.uri, "--deleted", "--json"))
    assert "created" not in back["objects"]["runs"]
    assert differences(sized_snapshot, snapshot(third.uri)) == []


def test_without_deleted_objects(
    source_server: SourceServer, target: MlflowServer, source_snapshot: Workspace, cli: Cli
) -> None:
    done = summary(cli("copy-all", "--source", source_server.uri, "--target", target.uri, "--json"))
    assert done["exit_code"] == 0
    assert done["objects"]["experiments"]["excluded"] > 0
    assert done["objects"]["runs"]["excluded"] > 0
    assert differences(source_snapshot, snapshot(target.uri), deleted=False) == []


def test_what_the_archive_says(archive: Path, sized_server: SourceServer) -> None:
    """Valid JSON everywhere, true counts in the index files, checksums of files, points on lines."""
    documents = [path for path in archive.rglob("*.json") if "artifacts" not in path.parts]
    assert len(documents) > len(sized_server.seeded.run_ids)
    parsed = {path: read(path) for path in documents}
    runs = [document for path, document in parsed.items() if path.name == "run.json"]
    assert len(runs) == len(sized_server.seeded.run_ids)
    index = parsed[archive / "experiments" / "experiments.json"]
    assert index["info"]["status"]["ok_runs"] == len(runs)
    assert index["info"]["status"]["experiments"] == len(sized_server.seeded.experiment_ids) + 1 * (
        "Default" not in sized_server.seeded.experiment_ids
    )
    for document in runs:
        for key, points in document["mlflow"]["metrics"].items():
            assert document["info"]["series"][key]["points"] == len(points)
        assert all(len(one["sha256"]) == 64 and one["size"] >= 0 for one in document["info"]["artifacts"])
        assert document["system"]["mlflow_tracking_uri"] == sized_server.uri
    assert any(
        point["value"] == "NaN"
        for document in runs
        for points in document["mlflow"]["metrics"].values()
        for point in points
    )
    assert not list(archive.rglob("*.part"))


def test_bare_nan_is_written_on_request(source_server: SourceServer, cli: Cli, tmp_path: Path) -> None:
    """mlflow-export-import can only read it so; we read both."""
    done = cli(
        "export-experiments", "--experiments", "numbers", "--bare-nan",
        "--tracking-uri", source_server.uri, "--output-dir", tmp_path / "bare",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    runs = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "bare").rglob("run.json")]
    values = [point["value"] for run in runs for points in run["mlflow"]["metrics"].values() for point in points]
    assert any(isinstance(value, float) and math.isnan(value) for value in values)
    assert not any(isinstance(value, str) for value in values)


def test_some_experiments(source_server: SourceServer, target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """By name, id and prefix; what is asked for and does not exist is named and makes the exit code 1."""
    seeded = source_server.seeded
    done = cli(
        "export-experiments", "--experiments", f"fam*,{seeded.experiment_ids['numbers']},no such one",
        "--tracking-uri", source_server.uri, "--output-dir", tmp_path / "some", "--json",
    )  # fmt: skip
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert [loss["id"] for loss in told["losses"]] == ["no such one"]
    assert {path.parent.name for path in (tmp_path / "some").glob("*/experiment.json")} == {
        seeded.experiment_ids["families"],
        seeded.experiment_ids["numbers"],
    }
    imported = summary(
        cli("import-experiments", "--tracking-uri", target.uri, "--input-dir", tmp_path / "some", "--json")
    )
    assert imported["exit_code"] == 0
    assert set(snapshot(target.uri).experiments) == {"Default", "families", "numbers"}


def test_one_experiment_under_another_name(
    source_server: SourceServer, target: MlflowServer, source_snapshot: Workspace, cli: Cli, tmp_path: Path
) -> None:
    folder = tmp_path / "one"
    done = cli(
        "export-experiment", "--experiment", "numbers", "--tracking-uri", source_server.uri, "--output-dir", folder
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "experiment.json").is_file()
    done = cli("import-experiment", "--experiment-name", "figures", "--tracking-uri", target.uri, "--input-dir", folder)
    assert done.returncode == 0, done.stderr
    arrived = snapshot(target.uri).experiments
    assert set(arrived) == {"Default", "figures"}
    wanted = source_snapshot.experiments["numbers"]
    assert len(arrived["figures"].runs) == len(wanted.runs)


def test_a_folder_of_one_experiment_takes_no_other(source_server: SourceServer, cli: Cli, tmp_path: Path) -> None:
    """The runs of both would lie in it, under the name of the last one."""
    folder = tmp_path / "one"
    args = ("export-experiment", "--tracking-uri", source_server.uri, "--output-dir", folder, "--experiment")
    assert cli(*args, "numbers").returncode == 0
    before = {path: path.read_bytes() for path in folder.rglob("*.json")}
    done = cli(*args, "families")
    assert done.returncode == 4, done.stdout
    assert f"export of experiment {source_server.seeded.experiment_ids['numbers']} of" in done.stderr
    assert {path: path.read_bytes() for path in folder.rglob("*.json")} == before


def test_source_tags(source_server: SourceServer, target: MlflowServer, cli: Cli) -> None:
    """`--import-source-tags` says where an object came from, in the words of mlflow-export-import."""
    args = ("--source", source_server.uri, "--target", target.uri, "--import-source-tags")
    assert cli("copy-all", *args).returncode == 0
    arrived = snapshot(target.uri).experiments["numbers"]
    experiment_id = source_server.seeded.experiment_ids["numbers"]
    assert arrived.tags["mlflow_exim.field.experiment_id"] == experiment_id
    for run in arrived.runs:
        assert run.tags["mlflow_exim.run_info.run_id"] == run.tags["amigrate.source_run_id"]
        assert run.tags["mlflow_exim.run_info.experiment_id"] == experiment_id
        assert run.tags["mlflow_exim.mlflow_tag.runName"] == run.tags["mlflow.runName"]


def test_two_runs_that_claim_one_origin(new_server: NewServer, target: MlflowServer, cli: Cli, tmp_path: Path) -> None:
    """Another tool copied a run together with its provenance tag: both are runs of their own and both arrive, once."""
    source = new_server()
    with Rest(source.uri) as rest:
        made = {"experiment_id": "0", "start_time": 1}
        original = rest.post(f"{API}/runs/create", made)["run"]["info"]["run_id"]
        tag = {"key": "amigrate.source_run_id", "value": original}
        rest.post(f"{API}/runs/create", {**made, "tags": [tag]})
        rest.post(f"{API}/runs/create", {**made, "tags": [tag]})
    for state in ("first", "second"):
        done = summary(
            cli("copy-all", "--source", source.uri, "--target", target.uri, "--state", tmp_path / state, "--json")
        )
        assert done["exit_code"] == 0
        assert len(snapshot(target.uri).experiments["Default"].runs) == 3


@pytest.mark.debian
def test_postgres_at_both_ends(postgres: PostgresServer, new_server: NewServer, cli: Cli, campaign: ScaleName) -> None:
    workers = 2 if campaign == "full" else 1
    source = new_server(backend=postgres.create_database(), workers=workers)
    target = new_server(backend=postgres.create_database(), workers=workers)
    seed(source.uri, scale=campaign, long_tag=8000, leave_out=() if campaign == "full" else PLAIN)
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--deleted")
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(snapshot(source.uri), snapshot(target.uri)) == []

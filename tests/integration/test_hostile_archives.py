"""Archives that somebody broke, or made to break us: what is damaged is named and stays, all else arrives, and nothing
from outside of the archive ever does.

All damages lie in one archive, and one import meets them.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from amigrate.core.model import Notes
from amigrate.kinds import REGISTRY
from amigrate.kinds.source_tags import run_source_tags
from tests.comparison import Run, Workspace, snapshot
from tests.conftest import Cli, NewServer
from tests.servers import MlflowServer

Doc = dict[str, Any]

SECRET = "what-lies-outside"
"""In every name and every byte beside the archive: it must not reach the target."""
START = 1_670_203_501_966
LARGE = 9 * 1024 * 1024
"""More than what is parsed as a whole."""
FINISHED = ("FINISHED", START, START + 5)


class Confined(Cli):
    """Without root's right to read what it is not allowed to."""

    def _command(self, args: tuple[str | Path, ...]) -> list[str]:
        bounds = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
        return [*bounds, *super()._command(args)]


# Documents ------------------------------------------------------------------------------------------------------------


def run(run_id: str) -> Doc:
    """A run with something of everything."""
    info: Doc = {"run_id": run_id, "experiment_id": "1", "user_id": "ada", "status": "FINISHED", "run_name": "a run"}
    info |= {"start_time": START, "end_time": START + 5, "lifecycle_stage": "active"}
    dataset = {"name": "iris", "digest": "aaaa1111", "source_type": "local", "source": "{}"}
    used = {"dataset": dataset, "tags": [{"key": "context", "value": "training"}]}
    return {
        "system": {"export_file_version": "2"},
        "info": {"artifacts": [], "series": {"loss": {"points": 1, "timestamp": START, "step": 3}}},
        "mlflow": {
            "info": info,
            "params": {"depth": "4"},
            "metrics": {"loss": [{"value": 0.5, "timestamp": START, "step": 3}]},
            "tags": {"mlflow.runName": "a run", "team": "red"},
            "inputs": {"dataset_inputs": [used]},
        },
    }


def experiment(experiment_id: str, name: str, runs: Sequence[str] = ()) -> Doc:
    own: Doc = {"experiment_id": experiment_id, "name": name, "lifecycle_stage": "active", "tags": {"owner": "ada"}}
    own |= {"creation_time": START, "last_update_time": START}
    return {"system": {}, "info": {"failed_runs": []}, "mlflow": {"experiment": own, "runs": list(runs)}}


def write(path: Path, content: object) -> None:
    """A document; bytes as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content, indent=2).encode())


def changed(document: Doc, path: str, value: object) -> Doc:
    """The same document with another value at one place."""
    document = copy.deepcopy(document)
    *way, last = path.split(".")
    place: Any = document
    for key in way:
        place = place[int(key) if isinstance(place, list) else key]
    place[int(last) if isinstance(place, list) else last] = value
    return document


WORDS, NUMBER, TRUTH, LIST, OBJECT, BROKEN = "words", 1.5, True, ["words"], {"words": "words"}, "half \ud800 a pair"
TEXT_IS_NOT = (NUMBER, TRUTH, LIST, OBJECT, BROKEN)
NUMBER_IS_NOT = (WORDS, TRUTH, LIST, OBJECT)
WHOLE_IS_NOT = (*NUMBER_IS_NOT, NUMBER, 2**63, -(10**30), 10**400)
OBJECT_IS_NOT = (WORDS, NUMBER, TRUTH, LIST)
LIST_IS_NOT = (WORDS, NUMBER, TRUTH, OBJECT)
USED = "mlflow.inputs.dataset_inputs"

WRONG_RUNS: dict[str, Sequence[object]] = {
    "mlflow": (None, *OBJECT_IS_NOT),
    "mlflow.info": (None, *OBJECT_IS_NOT),
    "mlflow.info.run_id": TEXT_IS_NOT,
    "mlflow.info.user_id": TEXT_IS_NOT,
    "mlflow.info.run_name": TEXT_IS_NOT,
    "mlflow.info.status": (None, "DONE", 3, *TEXT_IS_NOT),
    "mlflow.info.lifecycle_stage": ("dead", *TEXT_IS_NOT),
    "mlflow.info.start_time": WHOLE_IS_NOT,
    "mlflow.info.end_time": WHOLE_IS_NOT,
    "mlflow.params": OBJECT_IS_NOT,
    "mlflow.params.depth": (None, *TEXT_IS_NOT),
    "mlflow.tags": OBJECT_IS_NOT,
    "mlflow.tags.team": (None, *TEXT_IS_NOT),
    "mlflow.metrics": OBJECT_IS_NOT,
    "mlflow.metrics.loss": LIST_IS_NOT,
    "mlflow.metrics.loss.0": (None, *OBJECT_IS_NOT),
    "mlflow.metrics.loss.0.value": (None, *NUMBER_IS_NOT, 10**400),
    "mlflow.metrics.loss.0.timestamp": (None, *WHOLE_IS_NOT),
    "mlflow.metrics.loss.0.step": (None, *WHOLE_IS_NOT),
    "mlflow.inputs": OBJECT_IS_NOT,
    USED: LIST_IS_NOT,
    f"{USED}.0": (*OBJECT_IS_NOT,),
    f"{USED}.0.dataset": (None, *OBJECT_IS_NOT),
    f"{USED}.0.dataset.name": (None, *TEXT_IS_NOT),
    f"{USED}.0.dataset.digest": (None, *TEXT_IS_NOT),
    f"{USED}.0.dataset.source": TEXT_IS_NOT,
    f"{USED}.0.tags": OBJECT_IS_NOT,
    "info": OBJECT_IS_NOT,
    "info.artifacts": LIST_IS_NOT,
    "info.series": OBJECT_IS_NOT,
    "info.series.loss": OBJECT_IS_NOT,
    "info.series.loss.points": (None, 2, *WHOLE_IS_NOT),
    "info.series.loss.step": WHOLE_IS_NOT,
}
WRONG_EXPERIMENTS: dict[str, Sequence[object]] = {
    "info": OBJECT_IS_NOT,
    "info.failed_runs": (WORDS, OBJECT, [[]], [None]),
    "mlflow": (None, *OBJECT_IS_NOT),
    "mlflow.runs": (WORDS, OBJECT, [{}]),
    "mlflow.experiment": (None, *OBJECT_IS_NOT),
    "mlflow.experiment.experiment_id": TEXT_IS_NOT,
    "mlflow.experiment.name": (None, "", *TEXT_IS_NOT),
    "mlflow.experiment.tags": OBJECT_IS_NOT,
    "mlflow.experiment.lifecycle_stage": ("dead", *LIST_IS_NOT),
    "mlflow.experiment.creation_time": WHOLE_IS_NOT,
}
NO_DOCUMENTS: dict[str, bytes] = {
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "empty": b"",
    "blank": b"  \n",
    "binary": bytes(range(256)),
    "utf-16": json.dumps({"mlflow": {}}).encode("utf-16"),
    "cut": json.dumps(run("cut")).encode()[:-9],
    "two documents": b"{}\n{}",
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "deep inside": b'{"mlflow": {"info": ' + b"[" * 900 + b"]" * 900 + b"}}",
    "deep and large": b'{"mlflow": ' + b'{"":' * (LARGE // 4),
    "large and binary": b"\0" * LARGE,
    "large and cut": b'{"mlflow": {"metrics": {"loss": [' + b'{"value":1,"timestamp":1,"step":1},' * (LARGE // 34),
}


def wrong(kind: str, table: dict[str, Sequence[object]], whole: Callable[[str], Doc]) -> Iterator[tuple[str, Doc]]:
    """Each wrong value at its place, by a name that tells which."""
    for path, values in table.items():
        for number, value in enumerate(values):
            name = f"{kind} {path} {number}"
            yield name, changed(whole(name), path, value)


# The archive ----------------------------------------------------------------------------------------------------------


class Archive:
    """The archive, what lies outside of it, and what is expected to be lost of it, as (kind, id)."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "archive"
        self.outside = folder / SECRET
        self.homes = self.root / "experiments"
        self.good = self.homes / "1" / "runs"
        self.lost: set[tuple[str, str]] = set()
        self.kept: set[str] = set()
        """Runs that have to arrive."""
        self._locked: list[Path] = []
        self._outside()
        self._healthy()
        self._files()
        self._listed_files()
        self._runs()
        self._experiments()

    def lock(self, path: Path) -> None:
        """Forbid to look into something."""
        path.chmod(0)
        self._locked.append(path)

    def unlock(self) -> None:
        for path in self._locked:
            path.chmod(0o700)

    def _outside(self) -> None:
        secret = changed(run(SECRET), "mlflow.params.depth", SECRET)
        for home in (self.outside, self.outside / "runs"):
            write(home / SECRET / "run.json", secret)
            write(home / SECRET / "artifacts" / "secret.txt", SECRET.encode())
        write(self.outside / "experiment.json", experiment("666", SECRET, [SECRET]))

    def _healthy(self) -> None:
        ids = ["good", "odd"]
        write(self.homes / "1" / "experiment.json", experiment("1", "healthy", ids))
        write(self.good / "good" / "run.json", run("good"))
        write(self.good / "odd" / "run.json", odd())
        text = json.dumps(run("twice")).replace('"depth": "4"', '"depth": "3", "depth": "4"')
        write(self.good / "twice" / "run.json", text.encode())
        for name, run_id in (("slash", "a/b/../c"), ("quote", "x' OR '1' = '1"), ("dots", "..")):
            write(self.good / name / "run.json", run(run_id))
            self.kept.add(run_id)
        write(self.good / "elsewhere" / "run.json", changed(run("elsewhere"), "mlflow.info.experiment_id", "666"))
        write(self.good / "README.txt", b"a file among the folders is nobody's run")
        self.kept |= {"good", "odd", "twice", "elsewhere"}

    def _file_run(self, name: str, listed: list[Doc] | None) -> Path:
        document = run(name)
        document["info"]["artifacts"] = listed
        write(self.good / name / "run.json", document)
        write(self.good / name / "artifacts" / "kept.txt", b"kept")
        self.kept.add(name)
        return self.good / name / "artifacts"

    def _lost_files(self, *paths: str) -> None:
        self.lost |= {("artifact", path) for path in paths}

    def _files(self) -> None:
        """No list says what should be there."""
        base = self._file_run("files", None)
        (base / "link.txt").symlink_to(self.outside / "experiment.json")
        (base / "linked folder").symlink_to(self.outside)
        (base / "relative").symlink_to("../../../../../" + SECRET)
        (base / "nowhere").symlink_to(self.outside / "nothing")
        (base / "circle").symlink_to("circle")
        os.mkfifo(base / "pipe")
        write(base / "locked.txt", b"x")
        write(base / "locked" / "inside.txt", b"x")
        self.lock(base / "locked.txt")
        self.lock(base / "locked")
        os.close(os.open(os.fsencode(base) + b"/latin \xe9.txt", os.O_CREAT))
        self._lost_files("link.txt", "linked folder", "relative", "nowhere", "circle", "pipe")
        self._lost_files("locked.txt", "locked/*", "latin \\xe9.txt")

    def _listed_files(self) -> None:
        paths = [f"../../../../../{SECRET}/experiment.json", str(self.outside / "experiment.json")]
        paths += ["link.txt", "linked folder/experiment.json", "..", ".", "", "a/../kept.txt", "x" * 5000, "missing"]
        paths += ["nul \0", "folder"]
        size = (self.outside / "experiment.json").stat().st_size
        listed = [{"path": path, "size": size, "sha256": ""} for path in paths]
        sizes = [("huge", 10**18), ("longer than 64 bits", 10**30), ("negative", -1), ("text", "4"), ("none", None)]
        listed += [{"path": path, "size": absurd} for path, absurd in sizes]
        listed += [{"path": "flipped", "size": 4, "sha256": "0" * 64}, {"path": "kept.txt", "size": 4}]
        base = self._file_run("listed", listed)
        for path, _ in (*sizes, ("flipped", 4)):
            write(base / path, b"four")
        (base / "folder").mkdir()
        (base / "link.txt").symlink_to(self.outside / "experiment.json")
        (base / "linked folder").symlink_to(self.outside)
        self._lost_files(*paths, *(path for path, _ in sizes), "flipped")

    def _lost_run(self, name: str) -> Path:
        self.lost.add(("run", name))
        return self.good / name

    def _runs(self) -> None:
        for name, document in wrong("run", WRONG_RUNS, run):
            write(self._lost_run(name) / "run.json", document)
        for name, text in NO_DOCUMENTS.items():
            write(self._lost_run(name) / "run.json", text)
        for name in ("no path", "wrong sha256"):
            entry = {"path": "kept.txt", "size": 4, "sha256": 7} if name == "wrong sha256" else {"size": 4}
            write(self._lost_run(name) / "run.json", changed(run(name), "info.artifacts", [entry]))
        write(self._lost_run("impostor") / "run.json", run("good"))
        write(self._lost_run("locked run") / "run.json", run("locked run"))
        self.lock(self.good / "locked run")
        write(self._lost_run("locked document") / "run.json", run("locked document"))
        self.lock(self.good / "locked document" / "run.json")
        self._lost_run("linked run").symlink_to(self.outside / SECRET)
        self._lost_run("linked nowhere").symlink_to(self.outside / "nothing")
        self._lost_run("linked document").mkdir()
        (self.good / "linked document" / "run.json").symlink_to(self.outside / SECRET / "run.json")
        self._lost_run("pipe").mkdir()
        os.mkfifo(self.good / "pipe" / "run.json")
        (self._lost_run("folder") / "run.json").mkdir(parents=True)
        self._lost_run("no document").mkdir()
        Path(os.fsdecode(os.fsencode(self.good) + b"/latin \xe9")).mkdir()
        self.lost.add(("run", "latin \\xe9"))
        write(self.good / "linked files" / "run.json", changed(run("linked files"), "info.artifacts", None))
        (self.good / "linked files" / "artifacts").symlink_to(self.outside / SECRET / "artifacts")
        self.kept.add("linked files")
        self._lost_files("*")

    def _lost_home(self, name: str) -> Path:
        self.lost.add(("experiment", name))
        return self.homes / name

    def _experiments(self) -> None:
        for name, document in wrong("experiment", WRONG_EXPERIMENTS, lambda name: experiment(name, name)):
            write(self._lost_home(name) / "experiment.json", document)
        for name, text in NO_DOCUMENTS.items():
            write(self._lost_home(name) / "experiment.json", text)
        write(self._lost_home("same name") / "experiment.json", experiment("same name", "healthy"))
        write(self._lost_home("same id") / "experiment.json", experiment("1", "another one"))
        self._lost_home("linked").symlink_to(self.outside)
        self._lost_home("linked document").mkdir()
        (self.homes / "linked document" / "experiment.json").symlink_to(self.outside / "experiment.json")
        write(self._lost_home("locked") / "experiment.json", experiment("locked", "locked"))
        self.lock(self.homes / "locked")
        write(self._lost_home("without a document") / "runs" / "lonely" / "run.json", run("lonely"))
        write(self._lost_home("flat without a document") / "lonely" / "run.json", run("lonely"))
        # An experiment that can be read, and the runs of which cannot.
        write(self.homes / "2" / "experiment.json", experiment("2", "linked runs", ["one", "two"]))
        (self.homes / "2" / "runs").symlink_to(self.outside / "runs")
        write(self.homes / "3" / "experiment.json", experiment("3", "locked runs"))
        write(self.homes / "3" / "runs" / "one" / "run.json", run("one"))
        self.lock(self.homes / "3" / "runs")
        self.lost |= {("run", "one"), ("run", "two"), ("run", "*")}


def odd() -> Doc:
    """Unusual, and yet it can only mean one thing: numbers as text, whole numbers with a point, an id as a number."""
    document = run("odd")
    document["mlflow"]["info"] |= {"start_time": str(START), "end_time": float(START + 5), "experiment_id": 1}
    point = {"value": "NaN", "timestamp": str(START), "step": 3.0}
    document["mlflow"]["metrics"]["loss"] = [point]
    return document


@dataclass(frozen=True, slots=True)
class Ended:
    """What the one import came to."""

    archive: Archive
    target: MlflowServer
    code: int
    stderr: str
    report: Any
    held: Workspace

    @property
    def lost(self) -> dict[tuple[str, str], str]:
        """Kind and id of everything that did not arrive, with the reason."""
        return {
            (one["kind"], one.get("id", "")): one["reason"]
            for one in self.report["outcomes"]
            if one["status"] in ("failed", "left behind")
        }

    @property
    def runs(self) -> dict[str, Run]:
        return {one.origin: one for held in self.held.experiments.values() for one in held.runs}


@pytest.fixture(scope="module")
def ended(new_module_server: NewServer, tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("hostile")
    target, archive, cli = new_module_server(), Archive(folder), Confined(folder / "home")
    report = folder / "report.json"
    done = cli("import-all", "--tracking-uri", target.uri, "--input-dir", archive.root, "--report", report)
    archive.unlock()
    assert report.exists(), done.stderr
    told = json.loads(report.read_text("utf-8"))
    return Ended(archive, target, done.returncode, done.stderr, told, snapshot(target.uri))


def test_exactly_what_is_damaged_is_named(ended: Ended) -> None:
    assert ended.code == 1
    assert "Traceback" not in ended.stderr
    assert set(ended.lost) - ended.archive.lost == set()
    assert ended.archive.lost - set(ended.lost) == set()
    assert all(ended.lost.values())
    assert not ended.report["error"]


def test_everything_else_arrives(ended: Ended) -> None:
    assert set(ended.held.experiments) == {"Default", "healthy", "linked runs", "locked runs"}
    assert ended.held.experiments["healthy"].tags == {"owner": "ada"}
    for run_id in ended.archive.kept:
        held = ended.runs[run_id]
        assert (held.status, held.start_time, held.end_time) == FINISHED, run_id
        assert (held.params, held.name, held.user_id) == ({"depth": "4"}, "a run", "ada")
        value = math.nan if run_id == "odd" else 0.5
        assert repr(held.metrics) == repr({"loss": [(value, START, 3)]})
        assert held.inputs["iris aaaa1111"].tags == {"context": "training"}
    assert set(ended.runs["files"].artifacts) == set(ended.runs["listed"].artifacts) == {"kept.txt"}
    assert ended.runs["linked files"].artifacts == {}


def test_what_is_damaged_arrives_in_no_part(ended: Ended) -> None:
    """A run whose points turned out to be broken was begun; it stays as it began, and never looks finished."""
    damaged = {name for kind, name in ended.archive.lost if kind == "run"} & set(ended.runs)
    assert all(
        name.startswith(("run mlflow.metrics.", "run info.series.")) or name == "large and cut" for name in damaged
    )
    for name in damaged:
        assert (ended.runs[name].status, ended.runs[name].metrics) == ("RUNNING", {})


def test_nothing_from_outside_reached_the_target(ended: Ended) -> None:
    written = [path for path in ended.target.folder.rglob("*") if path.is_file() and path != ended.target.log]
    assert any(path.name == "kept.txt" for path in written)
    for path in written:
        assert SECRET not in path.name
        assert SECRET.encode() not in path.read_bytes()


def test_reasons_say_what_is_wrong(ended: Ended) -> None:
    def reason(kind: str, name: str) -> str:
        return ended.lost[kind, name]

    assert "info.start_time is no whole number but 'words'" in reason("run", "run mlflow.info.start_time 0")
    assert "info.status is none of RUNNING" in reason("run", "run mlflow.info.status 1")
    assert "experiment.name is no text but missing" in reason("experiment", "experiment mlflow.experiment.name 0")
    assert "experiment 1 of this archive has the same name" in reason("experiment", "same name")
    assert "another folder holds the same id good" in reason("run", "impostor")
    assert "symbolic link" in reason("experiment", "linked")
    assert "symbolic link" in reason("artifact", "linked folder/experiment.json")
    assert "4 bytes in the archive instead of -1" in reason("artifact", "negative")
    assert "Permission denied" in reason("run", "locked run")
    assert "its runs (1) stay too" in reason("experiment", "without a document")
    assert all(len(one) < 1000 for (_, name), one in ended.lost.items() if len(name) < 1000)


# No archive at all ----------------------------------------------------------------------------------------------------


def nothing(folder: Path, outside: Path) -> None:
    """An empty folder."""


def a_file(folder: Path, outside: Path) -> None:
    folder.rmdir()
    folder.write_text("I am a file")


def linked_experiments(folder: Path, outside: Path) -> None:
    (folder / "experiments").symlink_to(outside)


def linked_document(folder: Path, outside: Path) -> None:
    (folder / "1").mkdir()
    (folder / "1" / "runs").symlink_to(outside / "1")


def empty_experiments(folder: Path, outside: Path) -> None:
    (folder / "experiments").mkdir()


def locked(folder: Path, outside: Path) -> None:
    write(folder / "experiments" / "1" / "experiment.json", experiment("1", "locked"))
    (folder / "experiments").chmod(0)


@pytest.mark.parametrize(
    "make",
    [nothing, a_file, linked_experiments, linked_document, empty_experiments, locked],
    ids=lambda one: one.__name__,
)
def test_what_is_no_archive_is_told_in_one_line(
    make: Callable[[Path, Path], None], ended: Ended, tmp_path: Path
) -> None:
    folder, outside = tmp_path / "archive", tmp_path / SECRET
    write(outside / "1" / "experiment.json", experiment("1", SECRET))
    folder.mkdir()
    make(folder, outside)
    done = Confined(tmp_path / "home")("import-all", "--tracking-uri", ended.target.uri, "--input-dir", folder)
    for path in folder.glob("experiments"):
        path.chmod(0o700)
    assert done.returncode in (2, 4), done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert str(folder) in done.stderr


def test_a_journal_that_is_a_link_is_not_written_through(ended: Ended, tmp_path: Path) -> None:
    """The archive's own place for journals leads elsewhere: they are kept in the user's folder then.

    The folder that the user names may be a link itself.
    """
    folder, outside = tmp_path / "archive", tmp_path / "outside"
    write(folder / "1" / "experiment.json", experiment("1", "with a linked journal"))
    outside.mkdir()
    (folder / ".amigrate").symlink_to(outside)
    (tmp_path / "link").symlink_to(folder)
    cli = Confined(tmp_path / "home")
    done = cli("import-all", "--tracking-uri", ended.target.uri, "--input-dir", tmp_path / "link")
    assert done.returncode == 0, done.stderr
    assert list(outside.iterdir()) == []
    assert list((cli.home / "state").rglob("journal.db"))


def test_a_time_beyond_the_calendar_has_no_readable_form() -> None:
    record = REGISTRY["run"].decode(changed(run("x"), "mlflow.info.start_time", 2**62), "x", None)
    tags = run_source_tags(record, Notes())
    assert tags["mlflow_exim.run_info.start_time"] == str(2**62)
    assert "mlflow_exim.run_info._start_time" not in tags
    assert tags["mlflow_exim.run_info._end_time"] == "2022-12-05 01:25:01"

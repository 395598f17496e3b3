"""Exit codes, messages, secrets: what a person and a script are told, whatever happens."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.comparison import snapshot
from tests.conftest import Cli, NewServer, SourceServer
from tests.rest import API, Rest
from tests.servers import free_port

SECRET = "correct-horse-battery"


@contextmanager
def web_server(status: int, body: bytes, kind: str) -> Iterator[str]:
    """Something on the web that is no MLflow."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def refused(done: object, code: int, *words: str) -> None:
    """One line on standard error, no traceback, nothing on standard output."""
    assert done.returncode == code, (done.stdout, done.stderr)  # type: ignore[attr-defined]
    stderr: str = done.stderr  # type: ignore[attr-defined]
    assert "Traceback" not in stderr
    assert done.stdout == ""  # type: ignore[attr-defined]
    for word in words:
        assert word in stderr, stderr


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (200, b"<html><body>Please log in</body></html>", "text/html", "this is a login page, not MLflow"),
        (200, b"<html><body>It works!</body></html>", "text/html", "not an MLflow server"),
        (404, b"<html>not here</html>", "text/html", "not an MLflow server"),
        (401, b"who are you", "text/plain", "does not accept the credentials"),
    ],
)
def test_what_is_not_a_server_of_ours(
    cli: Cli, tmp_path: Path, status: int, body: bytes, kind: str, words: str
) -> None:
    with web_server(status, body, kind) as uri:
        done = cli("export-all", "--tracking-uri", uri, "--output-dir", tmp_path / "x")
        refused(done, 4, words)


def test_nobody_there(cli: Cli, tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    refused(cli("export-all", "--tracking-uri", uri, "--output-dir", tmp_path / "x", timeout=120), 4, uri)


def test_usage(cli: Cli, tmp_path: Path, source_server: SourceServer) -> None:
    """Nothing is read or written where the request makes no sense."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    out = ("--output-dir", tmp_path / "new")
    uri = ("--tracking-uri", source_server.uri)
    refused(cli("export-all", *out), 2, "--tracking-uri", "MLFLOW_TRACKING_URI")
    refused(cli("export-all", *out, MLFLOW_TRACKING_URI=""), 2, "MLFLOW_TRACKING_URI")
    refused(cli("export-all", *out, "--tracking-uri", "databricks"), 2, "http://")
    refused(cli("export-all", *out, *uri, "--memory", "lots"), 2, "--memory")
    refused(cli("export-all", *out, *uri, "--accept-loss", "weather"), 2, "weather")
    refused(cli("export-all", *uri, "--output-dir", tmp_path / "full"), 2, "not empty")
    refused(cli("copy-all", "--source", source_server.uri, "--target", source_server.uri + "/"), 2, "same server")
    refused(cli("import-all", *uri, "--input-dir", tmp_path / "nothing"), 4, "no archive")
    assert not (tmp_path / "new").exists()


def test_a_file_that_no_server_hands_out_is_left_behind_and_its_run_arrives(new_server: NewServer, cli: Cli) -> None:
    """It is named, exit code 1; the run with its other file is there.

    The server decodes `a%20b` to `a b` and does not find it, or finds another file.
    """
    source, target = new_server(), new_server()
    with Rest(source.uri) as rest:
        info = rest.post(f"{API}runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        rest.upload(info["artifact_uri"], "kept.txt", b"kept")
        rest.upload(info["artifact_uri"], "lost.txt", b"lost")
    lost = next(source.artifacts.rglob("lost.txt"))
    lost.rename(lost.with_name("lost%20.txt"))
    done = cli("copy-all", "--source", source.uri, "--target", target.uri, "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert [loss["id"] for loss in told["losses"]] == ["lost%20.txt"]
    assert set(snapshot(target.uri).experiments["Default"].runs[0].artifacts) == {"kept.txt"}
    report = json.loads(Path(told["report"]).read_text("utf-8"))
    assert {one["status"] for one in report["outcomes"] if one["kind"] == "artifact"} == {"created", "left behind"}


def test_losses_that_were_accepted_are_counted(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    source = new_server()
    with Rest(source.uri) as rest:
        info = rest.post(f"{API}runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]
        for name in ("one.txt", "two.txt"):
            rest.upload(info["artifact_uri"], name, b"lost")
    for lost in [*source.artifacts.rglob("*.txt")]:
        lost.rename(lost.with_name(f"{lost.stem}%20.txt"))
    args = ("export-all", "--tracking-uri", source.uri, "--json", "--output-dir")
    done = cli(*args, tmp_path / "one")
    assert done.returncode == 1
    assert [loss["kind"] for loss in json.loads(done.stdout)["losses"]] == ["artifact", "artifact"]
    done = cli(*args, tmp_path / "two", "--accept-loss", "artifacts")
    assert done.returncode == 0
    assert json.loads(done.stdout)["accepted_losses"] == 2


def test_secrets_are_never_written(
    source_server: SourceServer, new_server: NewServer, cli: Cli, tmp_path: Path
) -> None:
    """Given in the address, by option and by variable: not a byte of them is in any file or output."""
    target = new_server()
    host = source_server.uri.removeprefix("http://")
    done = [
        cli(
            "copy-all", "--source", f"http://user:{SECRET}@{host}", "--target", target.uri,
            "--target-token", SECRET, "--debug", "--state", tmp_path / "state",
        ),
        cli(
            "export-all", "--output-dir", tmp_path / "all", "--debug", MLFLOW_TRACKING_URI=source_server.uri,
            MLFLOW_TRACKING_USERNAME="user", MLFLOW_TRACKING_PASSWORD=SECRET,
        ),
        cli("export-all", "--output-dir", tmp_path / "no", "--tracking-uri", f"http://u:{SECRET}@127.0.0.1:{free_port()}"),
    ]  # fmt: skip
    assert [one.returncode for one in done] == [0, 0, 4]
    for one in done:
        assert SECRET not in one.stdout + one.stderr
    written = [path for folder in (tmp_path, cli.home) for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert not [path for path in written if SECRET.encode() in path.read_bytes()]


def test_the_sources_password_stays_with_the_source(source_server: SourceServer, cli: Cli, tmp_path: Path) -> None:
    """`MLFLOW_TRACKING_*` credentials go to the server that `MLFLOW_TRACKING_URI` names, and to no other."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        done = cli(
            "copy-all", "--source", source_server.uri, "--target", f"http://127.0.0.1:{other.server_port}",
            "--state", tmp_path / "state", MLFLOW_TRACKING_URI=source_server.uri,
            MLFLOW_TRACKING_USERNAME="user", MLFLOW_TRACKING_PASSWORD=SECRET,
        )  # fmt: skip
        other.shutdown()
        thread.join()
    assert done.returncode == 4
    assert seen
    assert set(seen) == {None}


def test_damage_on_disk_is_found(source_server: SourceServer, new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    """A flipped byte in a file, a cut document, a vanished run: each is named, none arrives, all else does."""
    target, folder = new_server(), tmp_path / "all"
    assert cli("export-all", "--tracking-uri", source_server.uri, "--output-dir", folder).returncode == 0
    runs = sorted(path.parent for path in folder.rglob("run.json"))
    large = max(folder.rglob("artifacts/**/*.*"), key=lambda path: path.stat().st_size)
    data = bytearray(large.read_bytes())
    data[len(data) // 2] ^= 1
    large.write_bytes(data)
    spared = [run for run in runs if run not in large.parents]
    document = spared[0] / "run.json"
    document.write_bytes(document.read_bytes()[:-40])
    shutil.rmtree(spared[1])
    done = cli("import-all", "--tracking-uri", target.uri, "--input-dir", folder, "--json")
    assert done.returncode == 1, done.stderr
    lost = {(loss["kind"], loss["id"]) for loss in json.loads(done.stdout)["losses"]}
    name = large.relative_to(next(run for run in runs if run in large.parents) / "artifacts")
    assert lost == {("artifact", str(name)), ("run", spared[0].name), ("run", spared[1].name)}
    arrived = [run for one in snapshot(target.uri).experiments.values() for run in one.runs]
    assert len(arrived) == len(runs) - 2
    assert not [run for run in arrived if str(name) in run.artifacts]


def test_a_file_named_like_half_of_another_one(new_server: NewServer, cli: Cli, tmp_path: Path) -> None:
    source = new_server()
    with Rest(source.uri) as rest:
        for number in range(8):
            info = rest.post(f"{API}runs/create", {"experiment_id": "0", "start_time": number})["run"]["info"]
            for name in ("ckpt.part", "ckpt", "ckpt.part.part"):
                rest.upload(info["artifact_uri"], name, name.encode())
    done = cli("export-all", "--tracking-uri", source.uri, "--output-dir", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    for name in ("ckpt.part", "ckpt", "ckpt.part.part"):
        assert [one.read_bytes() for one in (tmp_path / "all").rglob(name)] == [name.encode()] * 8

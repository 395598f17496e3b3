"""Files with secrets of an operator: what is taken from them, and that nothing of it is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from amigrate.core.errors import UsageError
from amigrate.options import secrets_in
from tests.secrets import PASSWORD


def written(folder: Path, text: str) -> Path:
    path = folder / "secrets"
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_lines_and_json_mean_the_same(tmp_path: Path) -> None:
    lines = written(tmp_path, f"# for the move\n\nada: {PASSWORD}:x \n  bob:y z\n")
    found = secrets_in(lines, "--passwords")
    assert [found["ada"], found["bob"], found["eve"]] == [f"{PASSWORD}:x", "y z", None]
    assert not found.exposed
    found = secrets_in(written(tmp_path, '{"a:b": " with spaces "}'), "--passwords")
    assert found["a:b"] == " with spaces "
    assert PASSWORD not in repr(found)


def test_names_that_nobody_asked_for_are_known(tmp_path: Path) -> None:
    found = secrets_in(written(tmp_path, "ada: 1\nbob: 2"), "--passwords")
    assert found["ada"]
    assert found.unasked() == ["bob"]
    assert secrets_in(None, "--passwords").unasked() == []


def test_a_file_that_others_may_read_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path, "ada: 1")
    path.chmod(0o644)
    assert secrets_in(path, "--passwords").exposed


@pytest.mark.parametrize(
    "text",
    [
        f"ada {PASSWORD}",
        f": {PASSWORD}",
        "ada:",
        f"ada: {PASSWORD}\nada: {PASSWORD}",
        f'{{"ada": "{PASSWORD}"',
        f'{{"ada": ["{PASSWORD}"]}}',
        '{"ada": ""}',
        "\udc80",
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "secrets"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError) as refused:
        secrets_in(path, "--passwords")
    assert "--passwords" in str(refused.value)
    assert PASSWORD not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        secrets_in(tmp_path / "none", "--passwords")

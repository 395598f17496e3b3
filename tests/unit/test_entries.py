"""Objects within the document of their parent, when an archive is written to again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from amigrate.archive.entries import Entries
from amigrate.core import codec
from amigrate.core.model import Record, Ref
from amigrate.kinds import REGISTRY

MODEL = Ref("registered_model", "churn")


def version(number: int) -> Record:
    doc = {"name": "churn", "version": str(number), "source": "s3://somewhere"}
    return Record(Ref("model_version", f"churn/{number}", MODEL), doc)


def held(path: Path, seen: Sequence[int], put: Sequence[int], removed: Sequence[int] = ()) -> list[int]:
    """The versions in a document after a session that lists some of them and writes some."""
    entries = Entries(path, MODEL, REGISTRY)
    for number in seen:
        entries.see(version(number).ref)
    for number in put:
        entries.put(version(number), version(number).doc)
    for number in removed:
        entries.remove(version(number).ref)
    return [int(doc["version"]) for doc in entries.docs("model_version")]


@pytest.fixture
def document(tmp_path: Path) -> Path:
    """What an earlier export has written."""
    path = tmp_path / "model.json"
    model = {"name": "churn", "versions": [version(number).doc for number in (1, 3, 2, 10)]}
    path.write_bytes(codec.pretty({"system": {}, "info": {}, "mlflow": {"registered_model": model}}))
    return path


def test_the_order_is_that_of_the_listing(document: Path, tmp_path: Path) -> None:
    """An import makes them in this order: not in that of their ids, whatever is written anew."""
    assert held(tmp_path / "none.json", (1, 3, 2), (1, 3, 2)) == [1, 3, 2]
    assert held(document, (1, 3, 2, 10), ()) == [1, 3, 2, 10]
    assert held(document, (1, 3, 2, 10, 7), (7,)) == [1, 3, 2, 10, 7]
    assert held(document, (1, 4, 3, 2, 10), (4, 3)) == [1, 4, 3, 2, 10]


def test_what_is_not_listed_any_more_stays_in_its_place(document: Path) -> None:
    assert held(document, (1, 2, 10, 11), (11,)) == [1, 3, 2, 10, 11]
    assert held(document, (3, 2, 10), ()) == [1, 3, 2, 10]
    assert held(document, (1, 2, 10), (), removed=(3,)) == [1, 2, 10]
    assert held(document, (), ()) == [1, 3, 2, 10]

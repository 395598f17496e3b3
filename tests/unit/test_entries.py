"""Objects within the document of their parent, when an archive is written to again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from amigrate.archive import checksum
from amigrate.archive.entries import Entries
from amigrate.archive.envelope import Origin
from amigrate.archive.layout import Layout
from amigrate.archive.sink import ArchiveSink
from amigrate.core import codec
from amigrate.core.model import Record, Ref
from amigrate.engine.journal import Journal
from amigrate.kinds import REGISTRY

MODEL = Ref("registered_model", "churn")


def version(number: int) -> Record:
    doc = {"name": "churn", "version": str(number), "source": "s3://somewhere"}
    return Record(Ref("model_version", f"churn/{number}", MODEL), doc)


def held(path: Path, seen: Sequence[int], put: Sequence[int], removed: Sequence[int] = ()) -> list[int]:
    """The versions in a document after a session that lists some of them and writes some."""
    entries = Entries(path, MODEL, REGISTRY)
    for number in seen:
        entries.see(version(number).ref, version(number).doc)
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


# ---- exports that are killed before the document of the parent is written ---------------------------------------


class Export:
    """One export of a model into a folder, up to where it is killed."""

    def __init__(self, root: Path) -> None:
        self.layout = Layout(root, "experiments", False, REGISTRY)
        self.sink = ArchiveSink(self.layout, REGISTRY, Origin("0", "export-all", "http://nowhere", "3", 0))
        self.ids = Journal(root / ".amigrate" / "journal", "test")

    def write(self, *records: Record) -> None:
        """Whatever the journal says of them: it says that they are whole as soon as they are committed."""
        for record in records:
            asyncio.run(self.sink.find([record], self.ids))
            asyncio.run(self.sink.begin(record, self.ids))
            asyncio.run(self.sink.commit(record, self.ids))

    def look(self, *records: Record) -> None:
        """These are whole already, as the journal has it."""
        asyncio.run(self.sink.find(records, self.ids))

    def held(self) -> list[str]:
        """The descriptions in the document on the disk."""
        path = self.layout.document(MODEL)
        checksum.check(path)
        return [doc["description"] for doc in codec.loads(path.read_bytes())["mlflow"]["registered_model"]["versions"]]


def described(number: int, description: str) -> Record:
    return replace(version(number), doc={**version(number).doc, "description": description})


def exported(root: Path, *killed: Record) -> Export:
    """A whole export, and one behind it that has moved some versions when it is killed."""
    root.mkdir()
    whole = Export(root)
    whole.write(described(1, "one"), described(2, "two"), Record(MODEL, {"name": MODEL.id}, MODEL.id))
    whole.ids.close()
    cut = Export(root)
    cut.write(*killed)
    cut.ids.close()
    return Export(root)


def test_what_a_killed_export_has_updated_is_in_the_next_one(tmp_path: Path) -> None:
    last = exported(tmp_path / "out", described(1, "one"), described(2, "newer"))
    assert last.held() == ["one", "two"]
    last.look(described(1, "one"), described(2, "newer"))
    last.write(Record(MODEL, {"name": MODEL.id}, MODEL.id))
    assert last.held() == ["one", "newer"]
    last.ids.close()


def test_what_an_export_has_removed_is_gone_even_if_it_is_killed(tmp_path: Path) -> None:
    last = exported(tmp_path / "out")
    asyncio.run(last.sink.remove(version(2).ref, version(2).ref.id, last.ids))
    assert last.held() == ["one"]
    last.ids.close()

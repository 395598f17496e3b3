"""What the journal is asked for each object must not cost more the more objects there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from amigrate.core.errors import JournalError
from amigrate.core.model import Entry, Outcome, Progress, Record, Ref, Status
from amigrate.engine import power
from amigrate.engine.journal import Journal

HOME, EMPTY = Ref("experiment", "home"), Ref("experiment", "empty")
ONE = Ref("run", "one", HOME)
ASKED: dict[str, Callable[[Journal], Any]] = {
    "the new id": lambda journal: journal.new_id("run", "nobody"),
    "the old id": lambda journal: journal.old_id("run", "nobody"),
    "whether it is shared": lambda journal: journal.shared("run", "nobody"),
    "what is known of it": lambda journal: journal.entry("run", "nobody"),
    "what became of it": lambda journal: journal.fate("run", "nobody"),
    "whether it was made": lambda journal: journal.made(ONE),
    "whether it was intended": lambda journal: journal.was_intended(ONE),
    "whether it is due": lambda journal: journal.is_due(ONE),
    "whether it was met": lambda journal: journal.seen([Record(ONE, {})]),
    "its children": lambda journal: [*journal.children("run", EMPTY)],
    "those not met": lambda journal: journal.unmet("run", EMPTY),
    "the number of its children": lambda journal: journal.number("run", [EMPTY]),
    "to keep its losses": lambda journal: journal.renew([ONE], ["run"]),
}


def filled(folder: Path, others: int) -> Journal:
    """A journal of one run that is asked for, and of others."""
    journal = Journal(folder, "test")
    records = [Record(ONE, {}), *(Record(Ref("run", f"other {number}", HOME), {}) for number in range(others))]
    for record in records:
        journal.begun(record, f"new {record.ref.id}")
    journal.outcomes([Outcome(record.ref, Status.CREATED) for record in records])
    journal.forget_cache()
    return journal


def steps(journal: Journal, ask: Callable[[Journal], Any]) -> int:
    """What SQLite does for an answer, in steps of its virtual machine."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    journal._db.set_progress_handler(count, 1)
    ask(journal)
    journal._db.set_progress_handler(None, 1)
    return counted


@pytest.fixture(scope="module")
def journals(tmp_path_factory: pytest.TempPathFactory) -> Sequence[Journal]:
    return [filled(tmp_path_factory.mktemp("journal"), others) for others in (10, 2000)]


@pytest.mark.parametrize("what", ASKED)
def test_a_question_about_one_object_looks_at_no_others(journals: Sequence[Journal], what: str) -> None:
    few, many = (steps(journal, ASKED[what]) for journal in journals)
    assert 0 < many < few + 50


class Killed(Exception):
    """In the middle of something."""


class Dying(Journal):
    """Is killed before it has doubted anything."""

    def doubt(self, session: int) -> bool:
        raise Killed


def test_a_power_cut_is_not_forgotten_by_a_session_that_is_killed(tmp_path: Path) -> None:
    first = filled(tmp_path, 2)
    first.note(power.START, "an earlier start of the system")
    first.close()
    second = Dying(tmp_path, "test")
    with pytest.raises(Killed):
        power.forget_unsafe(second)
    second.close()
    third = Journal(tmp_path, "test")
    third.reached(Record(ONE, {}), Entry(Progress.WHOLE, "new one", "", made=True))
    third.note(power.SAFE, -1)  # What `filled` has met, it has met in no session.
    assert power.forget_unsafe(third)
    assert not power.forget_unsafe(third)


def test_what_waits_and_cannot_be_written_is_not_forgotten_when_there_is_room_again(tmp_path: Path) -> None:
    """The disk is full at the moment when somebody notes how far the move is, who only makes a note of it."""
    journal = filled(tmp_path, 2)
    journal.keep()
    journal.outcomes([Outcome(Ref("artifact", "lost", ONE), Status.FAILED, reason="it broke")])
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        journal.note("pulse", "x" * 100_000)
    journal._db.execute("PRAGMA max_page_count = 1000000")
    with pytest.raises(JournalError, match="full"):
        journal.keep()
    with pytest.raises(JournalError, match="full"):
        journal.outcomes([Outcome(ONE, Status.CREATED)])
    journal.close()


def test_a_note_that_cannot_be_written_costs_nothing_else(tmp_path: Path) -> None:
    journal = filled(tmp_path, 2)
    journal.keep()
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(JournalError, match="full"):
        journal.note("pulse", "x" * 100_000)
    journal._db.execute("PRAGMA max_page_count = 1000000")
    journal.outcomes([Outcome(ONE, Status.FAILED, reason="it broke")])
    journal.keep()
    journal.close()
    assert Journal(tmp_path, "test").failed(["run"]) == {("run", ONE.key)}

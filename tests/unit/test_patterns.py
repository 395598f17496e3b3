"""Names as people ask for them and rename them."""

from __future__ import annotations

from pathlib import Path

import pytest

from amigrate.cli import lists
from amigrate.core.errors import UsageError
from amigrate.core.patterns import Patterns, all_to, exactly


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a", {"a"}),
        ("a,b c", {"a", "b c"}),
        ("team-*", {"team-", "team-a", "team-a/b"}),
        ("*/b", {"team-a/b"}),
        ("re:te.m-[a-z]+", {"team-a"}),
        ("a,re:b( c){1,2}", {"a", "b c"}),
        ("re:team-.*|a", {"team-", "team-a", "team-a/b", "a"}),
        ("[ab]", set()),
        ("17", {"by id"}),
    ],
)
def test_patterns(text: str, names: set[str]) -> None:
    asked = lists.patterns([text], "--experiments")
    known = ["a", "b c", "team-", "team-a", "team-a/b", "xteam-a"]
    found = {name for name in known if asked.which(name, "1") is not None}
    assert found | ({"by id"} if asked.which("any", "17") else set()) == names


def test_what_is_asked_for_may_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("one, two\n\nteam-*\r\nre:x{1,3}\n", "utf-8")
    asked = lists.patterns(["a", f"@{tmp_path / 'list.txt'},b"], "--experiments")
    assert asked.texts == ("a", "one, two", "team-*", "re:x{1,3}", "b")
    assert asked.which("xx") == "re:x{1,3}"
    assert lists.patterns(None, "--experiments") == lists.patterns(["all"], "--experiments") == Patterns()


def test_one_exact_name_is_no_pattern() -> None:
    asked = exactly("a*")
    assert asked.which("a*") == "a*"
    assert asked.which("ab") is None


@pytest.mark.parametrize(
    ("rule", "old", "new"),
    [
        ("a=b", "a", "b"),
        ("a=b", "ab", "ab"),
        ("team-*=all/*-x", "team-a", "all/a-x"),
        ("*=new *", "a", "new a"),
        ("team-*=all", "team-a", "all"),
        (r"re:(.*)-(\d+)=\2/\1", "a-17", "17/a"),
        (r"re:(?P<who>.*)=team-\g<who>", "a", "team-a"),
        ("re:a(?=b)b=c", "ab", "c"),
        ("re:a.*=b", "xa", "xa"),
    ],
)
def test_renames(rule: str, old: str, new: str) -> None:
    assert lists.renames([rule], "--rename-models")(old) == new


def test_the_first_rule_counts_and_files_hold_rules(tmp_path: Path) -> None:
    (tmp_path / "map.json").write_text('{"a": "from json", "x=y": "equals", "re:q(.)": "\\\\1"}', "utf-8")
    (tmp_path / "map.csv").write_text('old,new\nb,from csv\n"c, d","e, f"\n', "utf-8")
    rules = lists.renames(["a=first", f"@{tmp_path / 'map.json'}", f"@{tmp_path / 'map.csv'}"], "--rename-models")
    told = {old: rules(old) for old in ("a", "x=y", "qz", "b", "c, d", "other")}
    assert told == {"a": "first", "x=y": "equals", "qz": "z", "b": "from csv", "c, d": "e, f", "other": "other"}
    assert all_to(r"a*b\1")("whatever") == r"a*b\1"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("a", "has no ="),
        ("=b", "renames nothing"),
        ("a=", "renames nothing"),
        ("re:(=b", "no regular expression"),
        ("a*b*=c", "one * at most"),
        ("@nowhere.json", "cannot be read"),
    ],
)
def test_rules_that_make_no_sense(rule: str, words: str) -> None:
    with pytest.raises(UsageError, match=words.replace("*", r"\*")):
        lists.renames([rule], "--rename-models")


@pytest.mark.parametrize(("rule", "name"), [(r"re:(.*)=\2", "a"), (r"re:a(.*)=\1", "a")])
def test_rules_that_cannot_be_filled_in(rule: str, name: str) -> None:
    with pytest.raises(UsageError):
        lists.renames([rule], "--rename-models")(name)


def test_patterns_that_make_no_sense(tmp_path: Path) -> None:
    for text in ("re:(", "", ",", f"@{tmp_path / 'nowhere'}"):
        with pytest.raises(UsageError):
            lists.patterns([text], "--experiments")

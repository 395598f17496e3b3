"""What a comparison makes of points and of names, whatever stores they come from."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from contextlib import closing

import pytest

from amigrate.core.model import Point, Ref, Rows
from amigrate.engine.digests import Digests, placed
from amigrate.engine.inventory import A, B, Inventory, Noted

RUN = Ref("run", "r", Ref("experiment", "1"))
POINTS: list[Point] = [(step / 3, 1000 + step // 4, step % 4 - 2) for step in range(40)]


def told(*chunks: Sequence[Point], on_disk: bool = False) -> dict[str, object]:
    """What is told of a series that came in these chunks."""
    with closing(Inventory((), ())) as inventory:
        digests = Digests({RUN.key: ["loss"]}, inventory.db if on_disk else None)
        for chunk in chunks:
            digests.add(Rows(RUN, "loss", [*chunk]))
        digests.add(Rows(RUN, "loss", [], total=sum(map(len, chunks))))
        series, error = digests.of(RUN)
        assert not error
        return series["loss"] | {"in order": digests.in_order(RUN)}


def test_neither_order_nor_chunks_matter() -> None:
    shuffled = random.Random(1).sample(POINTS, len(POINTS))
    expected = told(POINTS)
    assert told(POINTS[:7], POINTS[7:]) == expected
    assert told(shuffled) == expected
    assert not told(shuffled[:20], shuffled[20:])["in order"]
    assert told(shuffled[:20], shuffled[20:], on_disk=True) == expected


@pytest.mark.parametrize(
    "change",
    [(0, 0.5), (0, math.nan), (1, 1), (2, 7), (2, -1)],
    ids=["value", "NaN", "timestamp", "step", "another step"],
)
@pytest.mark.parametrize("on_disk", [False, True])
def test_every_change_of_a_point_is_seen(change: tuple[int, float], on_disk: bool) -> None:
    point = [*POINTS[-1]]
    point[change[0]] = change[1]
    changed = (float(point[0]), int(point[1]), int(point[2]))
    assert told([*POINTS[:-1], changed], on_disk=on_disk)["digest"] != told(POINTS)["digest"]
    assert told(POINTS[:-1], on_disk=on_disk)["digest"] != told(POINTS)["digest"]


def test_points_that_come_again_are_counted() -> None:
    for again in (told([*POINTS, *POINTS[:3]]), told(POINTS, POINTS[:3], on_disk=True)):
        assert again == told(POINTS) | {"again": 3}


def test_what_stores_make_of_numbers_is_no_difference() -> None:
    assert placed((math.inf, 1, 2)) == placed((1.7976931348623157e308, 1, 2))
    assert told([(-0.0, 1, 1)]) == told([(0.0, 1, 1)])
    assert told([(math.nan, 1, 1), (0.0, 1, 1)]) == told([(0.0, 1, 1), (-math.nan, 1, 1)])
    assert told([(math.nan, 1, 1)]) != told([(0.0, 1, 1)])
    # The tie of a NaN and a zero may lie where one answer ends and the next begins.
    tie: list[Point] = [(math.nan, 1, 1), (0.0, 1, 1)]
    assert not told(tie[:1], tie[1:])["in order"]
    assert told(tie[:1], tie[1:], on_disk=True) == told(tie)


def noted(side: str, own: str, match: str, parent: str = "1") -> Noted:
    return Noted(side, Ref("run", own, Ref("experiment", parent)), match, "", {})


def settled(*runs: Noted, complete: Sequence[str] = ("experiment", "run")) -> Inventory:
    """An inventory of one experiment, which both sides have under different ids."""
    inventory = Inventory({"run"}, complete)
    for side, own in ((A, "1"), (B, "5")):
        inventory.note(Noted(side, Ref("experiment", own), "home", "home", {}))
        inventory.call(side, "experiment", own, "home")
    for one in runs:
        inventory.note(one)
        inventory.call(one.side, "run", one.ref.id, one.match)
    inventory.settle(["experiment", "run"])
    return inventory


def pairs(inventory: Inventory) -> list[tuple[list[str], list[str]]]:
    return [([one.ref.id for one in a], [one.ref.id for one in b]) for a, b in inventory.by_key("run")]


def test_a_copy_is_found_by_its_origin() -> None:
    with closing(settled(noted(A, "a", "a"), noted(B, "b", "a", "5"), noted(B, "new", "new", "5"))) as inventory:
        assert pairs(inventory) == [(["a"], ["b"]), ([], ["new"])]
        assert inventory.name(A, "run", "a") == inventory.name(B, "run", "b") == "a"


def test_a_copy_beside_its_original_is_an_object_of_its_own() -> None:
    runs = (noted(A, "a", "a"), noted(A, "copy", "a"), noted(B, "b", "a", "5"), noted(B, "c", "copy", "5"))
    with closing(settled(*runs)) as inventory:
        assert pairs(inventory) == [(["a"], ["b"]), (["copy"], ["c"])]
        assert inventory.name(A, "run", "copy") == inventory.name(B, "run", "c")


def test_an_old_id_stands_for_what_has_not_arrived_only() -> None:
    with closing(settled(noted(A, "a", "a"), noted(A, "here", "origin"), noted(B, "b", "a", "5"))) as inventory:
        assert inventory.name(B, "run", "a") != inventory.name(A, "run", "a")
        assert inventory.name(B, "run", "here") == inventory.name(A, "run", "here") == "origin"
        assert inventory.name(A, "run", "nobody") == inventory.name(B, "run", "nobody") == "nobody"


def test_what_is_left_out_has_no_name() -> None:
    with closing(settled(noted(A, "a", "a"), complete=())) as inventory:
        inventory.call(A, "run", "excluded", "")
        assert inventory.name(A, "run", "excluded") == inventory.name(B, "run", "excluded") == ""
        assert inventory.name(B, "run", "nobody") == ""

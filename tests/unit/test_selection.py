"""Which kinds move, by what `--objects` and `--skip-objects` say."""

from __future__ import annotations

from amigrate.kinds.selection import ALL, BY_NAME, NOT_ASKED, OPT_IN, WHOLE_ONLY, chosen


def test_all_means_what_is_safe_to_write() -> None:
    kinds, stay = chosen((ALL,), ())
    assert {"run", "prompt"} <= {*kinds}
    assert not any(kind.opt_in for kind in kinds.values())
    assert stay == dict.fromkeys(OPT_IN, BY_NAME)


def test_what_is_named_moves_besides() -> None:
    kinds, stay = chosen((ALL, "webhooks"), ())
    assert {"run", "webhook"} <= {*kinds}
    assert "webhooks" not in stay
    kinds, stay = chosen(("webhooks",), ())
    assert [*kinds] == ["webhook"]
    assert stay["runs"] == NOT_ASKED


def test_what_is_skipped_stays_although_it_was_named() -> None:
    kinds, stay = chosen((ALL, "webhooks"), ("webhooks",))
    assert "webhook" not in kinds
    assert stay["webhooks"] == NOT_ASKED


def test_single_experiments_bring_nothing_of_the_workspace() -> None:
    kinds, stay = chosen((ALL,), (), whole=False)
    assert {"run", "trace"} <= {*kinds}
    assert not {"prompt", "webhook"} & {*kinds}
    assert not stay
    assert chosen((ALL, "webhooks"), (), whole=False)[1] == {"webhooks": WHOLE_ONLY}

"""How long the campaigns are, from the variable AMIGRATE_CAMPAIGN: `small` in CI, `full` by hand."""

from __future__ import annotations

import os

import pytest

from tests.workspace import ScaleName


def size() -> ScaleName:
    """What the variable says; a word that it does not have ends the session."""
    match os.environ.get("AMIGRATE_CAMPAIGN", ""):
        case "" | "small":
            return "small"
        case "full":
            return "full"
        case other:
            raise pytest.UsageError(f"AMIGRATE_CAMPAIGN is small or full, not {other!r}")


IS_FULL = size() == "full"

"""Runs that a create call has made although its answer was lost: found again, so that none is made twice.

The provenance tag of the call tells them. With `--no-provenance` there is none: then it is a run that has just begun,
that stands for no other one, and that has the same start time, user and name. Calls for runs that look alike come one
after the other, so that none takes what another one has made.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

from amigrate.core.model import Doc
from amigrate.core.ports import Ids
from amigrate.kinds.base import Target
from amigrate.kinds.deleted_runs import DELETE
from amigrate.kinds.run_document import SOURCE_RUN
from amigrate.kinds.run_scan import SEARCH


@dataclass(frozen=True, slots=True)
class Sought:
    """What tells the run of a create call."""

    experiment: str
    filter: str
    """As `runs/search` takes it."""
    alike: str = ""
    """What the run looks like, where the filter does not tell it from others."""

    def doc(self) -> Doc:
        """As a deferred step keeps it."""
        return asdict(self)


def sought(target: Target, body: Doc, origin: str) -> Sought:
    """What tells the run that a create call with this body makes."""
    experiment = str(body["experiment_id"])
    if target.provenance:
        return Sought(experiment, f"tags.`{SOURCE_RUN}` = '{origin}'")
    return Sought(experiment, f"attributes.start_time = {body['start_time']}", likeness(body))


def likeness(info: Doc) -> str:
    """What two runs have in common that may be the same one."""
    return f"like {info.get('start_time') or 0} {info.get('user_id') or ''} {info.get('run_name') or ''}"


@asynccontextmanager
async def alone(target: Target, one: Sought) -> AsyncIterator[None]:
    """While nobody else makes a run that looks the same."""
    if not one.alike:
        yield
        return
    lock = target.in_line.setdefault(f"{one.experiment} {one.alike}", asyncio.Lock())
    async with lock:
        yield


async def made_already(target: Target, one: Sought, ids: Ids) -> list[Doc]:
    """The active runs that an unanswered create call may have made: whole ones of the same origin are others."""
    body = {
        "experiment_ids": [one.experiment],
        "filter": one.filter,
        "run_view_type": "ACTIVE_ONLY",
        "max_results": 100,
        "order_by": ["attributes.run_id ASC"],
    }
    runs: list[Doc] = (await target.api.call(SEARCH, body)).get("runs") or []
    return [run for run in runs if _is_nobodys(run, ids) and one.alike in ("", likeness(run["info"]))]


def _is_nobodys(run: Doc, ids: Ids) -> bool:
    """True for a run that was made and nothing else yet, and that stands for none of the source."""
    is_empty = run["info"].get("status") == "RUNNING" and not (run.get("data") or {}).get("metrics")
    return is_empty and ids.old_id("run", str(run["info"]["run_id"])) is None


async def remove_twins(target: Target, origin: str, kept: str, one: Sought, ids: Ids) -> None:
    """An unanswered create call took effect after it was repeated: delete the empty run that nobody stands for.

    Where it has no tag that says whose it is, only one that was not there when this session began.
    """
    for run in await made_already(target, one, ids):
        twin = str(run["info"]["run_id"])
        was_there = bool(one.alike) and target.index.get(one.experiment, twin) is not None
        if twin not in (kept, origin) and not was_there:
            await target.api.call(DELETE, {"run_id": twin})

"""Dataset inputs of runs (2.4+), written with POST `/api/2.0/mlflow/runs/log-inputs`.

A dataset that the experiment has already keeps its first source and tags. So an input that names an evaluation dataset
waits until that has come to the target, or nothing more comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from amigrate.core import codec
from amigrate.core.errors import Rejected, Unsupported
from amigrate.core.model import Doc, Outcome, Record
from amigrate.core.ports import Ids
from amigrate.kinds import model_links
from amigrate.kinds import run_document as document
from amigrate.kinds.base import Target, pairs, tag_list
from amigrate.kinds.limits import lost


class Writing(Protocol):
    """The run at the target that gets the inputs."""

    new_id: str
    experiment: str

    @property
    def losses(self) -> list[Outcome]: ...


def mapped(inputs: Sequence[Doc], ids: Ids) -> list[Doc]:
    """Inputs that name the target's evaluation datasets, as far as those are there."""
    return [document.mapped_input(item, ids)[0] for item in inputs]


async def write(target: Target, record: Record, run: Writing, ids: Ids) -> list[Doc]:
    """Write the inputs of a run; returns those that have to wait.

    Calls that bring the same new dataset at once race in the server, so the first one goes alone.
    """
    inputs = document.dataset_inputs(record.doc)
    waiting = [] if target.api.abilities.older_than(3, 4) else [one for one in inputs if _waits(one, ids)]
    inputs = mapped([one for one in inputs if one not in waiting], ids)
    keys = {(run.experiment, item["dataset"]["name"], item["dataset"]["digest"]) for item in inputs}
    if keys <= target.datasets:
        await _send(target, record, run, inputs)
    else:
        async with target.dataset_lock:
            await _send(target, record, run, inputs)
            target.datasets |= keys
    return waiting


async def link(target: Target, run_id: str, inputs: Sequence[Doc]) -> None:
    """Write what had to wait."""
    if inputs:
        async with target.dataset_lock:
            await target.api.call(model_links.INPUTS, {"run_id": run_id, "datasets": _as_sent(inputs)})


def _waits(item: Doc, ids: Ids) -> bool:
    return not document.mapped_input(item, ids)[1]


def _as_sent(inputs: Sequence[Doc]) -> list[Doc]:
    return [{**item, "tags": tag_list(pairs(item.get("tags")))} for item in inputs]


async def _send(target: Target, record: Record, run: Writing, inputs: Sequence[Doc]) -> None:
    """All in one call; where the server refuses one of them, each by itself."""
    if not inputs:
        return
    try:
        if target.keeps_inputs:
            await target.api.call(model_links.INPUTS, {"run_id": run.new_id, "datasets": _as_sent(inputs)})
            await _note_merged(target, record, run, inputs)
            return
    except Unsupported:
        target.keeps_inputs = False
    except Rejected as error:
        if len(inputs) == 1:
            run.losses.append(_lost(record, inputs[0], f"the target refuses it: {error}"))
            return
    for item in inputs:
        if target.keeps_inputs:
            await _send(target, record, run, [item])
        else:
            run.losses.append(_lost(record, item, "the target is an MLflow without dataset inputs (2.4 has them)"))


async def note_held(target: Target, experiment: str, doc: Doc) -> None:
    """A run of the target, as a listing shows it: the datasets that its experiment holds already."""
    for item in document.dataset_inputs(doc):
        target.dataset_details.setdefault(await _place(target, experiment, item), _details(item))


async def _note_merged(target: Target, record: Record, run: Writing, inputs: Sequence[Doc]) -> None:
    """What the server makes of a second dataset of one name and digest is a loss, as far as this session sees it."""
    for item in inputs:
        place, details = await _place(target, run.experiment, item), _details(item)
        if target.dataset_details.setdefault(place, details) != details:
            reason = "the target keeps the source, schema and profile of the first dataset of this name and digest"
            run.losses.append(_lost(record, item, reason))


async def _place(target: Target, experiment: str, item: Doc) -> tuple[str, str, str]:
    """Where a server keeps one dataset only.

    An experiment has one for each name and digest; before 3.10 a SQL store has one for all experiments (3.6.0 does,
    3.10.0 does not).
    """
    for_all = target.api.abilities.older_than(3, 10) and await target.is_sql()
    dataset = item["dataset"]
    return "" if for_all else experiment, str(dataset["name"]), str(dataset["digest"])


def _details(item: Doc) -> str:
    return codec.digest([item["dataset"].get(name) or "" for name in ("source_type", "source", "schema", "profile")])


def _lost(record: Record, item: Doc, reason: str) -> Outcome:
    return lost("dataset-input", f"{item['dataset']['name']} {item['dataset']['digest']}", record.ref, reason)

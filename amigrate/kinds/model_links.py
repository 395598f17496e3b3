"""Which logged models runs took in and brought forth (3.0+): read in few requests, written once both are there.

A run's `inputs.model_inputs` come only with `runs/get` and with GraphQL, which serves ten runs a request: they are
asked for when a run is carried, not when it is listed. Its `outputs.model_outputs` come with every listing of 3.17.2,
but with none of 3.0 and 3.4, so they are asked for as well. Where a server has no logged model there is nothing to ask
for.

POST `runs/log-inputs` may be repeated; `runs/outputs` answers 400 to a link that is there already, and stores nothing
of the call then (MLflow 3.17.2).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from amigrate.client.api import SEARCH_EXPERIMENTS, V2, Api, Endpoint, Work
from amigrate.core.errors import ApiError, AuthError, NotFound, Rejected, Transient, Unsupported
from amigrate.core.model import Doc
from amigrate.kinds.base import Target
from amigrate.kinds.deleted_runs import GET as GET_RUN

GRAPHQL = Endpoint("POST", "/graphql")
INPUTS = Endpoint("POST", f"{V2}/runs/log-inputs", Work.WRITE)
OUTPUTS = Endpoint("POST", f"{V2}/runs/outputs", Work.WRITE)
SEARCH_MODELS = Endpoint("POST", f"{V2}/logged-models/search")
RUNS_PER_QUERY = 10
"""MLflow allows so many root fields and aliases of one query."""
EXPERIMENTS_PER_SEARCH = 1000


@dataclass(frozen=True, slots=True)
class Links:
    """The logged models that a run took in, and those that it brought forth, each with its step."""

    inputs: Sequence[str] = ()
    outputs: Sequence[tuple[str, int]] = ()


def inputs_of(doc: Doc) -> list[str]:
    """The ids of the logged models that a run took in."""
    return [str(one["model_id"]) for one in (doc.get("inputs") or {}).get("model_inputs") or []]


def outputs_of(doc: Doc) -> list[tuple[str, int]]:
    """The ids of the logged models that a run brought forth, each with its step."""
    listed = (doc.get("outputs") or {}).get("model_outputs") or []
    return [(str(one["model_id"]), int(one.get("step") or 0)) for one in listed]


# ---- read -------------------------------------------------------------------------------------------------------


async def add(api: Api, docs: Sequence[Doc]) -> None:
    """Put `inputs.model_inputs` and `outputs.model_outputs` into runs as a listing gave them."""
    if not docs or not await _may_have_models(api, len(docs)):
        return
    async with asyncio.TaskGroup() as group:
        for start in range(0, len(docs), RUNS_PER_QUERY):
            group.create_task(_add_to(api, docs[start : start + RUNS_PER_QUERY]))
    note(api, docs)


def note(api: Api, docs: Iterable[Doc]) -> None:
    """Remember every logged model that runs name: a deleted one is in no listing."""
    for doc in docs:
        api.named_models.update(inputs_of(doc), (model_id for model_id, _ in outputs_of(doc)))


async def _may_have_models(api: Api, runs: int) -> bool:
    """Whether there may be logged models; asked once of a server. Deleted ones are in no listing.

    For a few runs it is not worth asking.
    """
    if api.abilities.older_than(3, 0):
        return False
    if api.has_models is None and runs <= RUNS_PER_QUERY:
        return True
    if api.has_models is None:
        api.has_models = api.with_deleted or await _any_model(api)
    return api.has_models


async def _any_model(api: Api) -> bool:
    answer = await api.call(SEARCH_EXPERIMENTS, {"max_results": 50_000, "view_type": "ALL"})
    ids = [str(one["experiment_id"]) for one in answer.get("experiments") or []]
    if answer.get("next_page_token"):
        return True
    for start in range(0, len(ids), EXPERIMENTS_PER_SEARCH):
        some = {"experiment_ids": ids[start : start + EXPERIMENTS_PER_SEARCH], "max_results": 1}
        try:
            if (await api.call(SEARCH_MODELS, some)).get("models"):
                return True
        except Unsupported:
            return False
    return False


async def _add_to(api: Api, docs: Sequence[Doc]) -> None:
    """Ten runs by one query; where that does not answer, each by itself."""
    found = await _queried(api, [str(doc["info"]["run_id"]) for doc in docs])
    for doc in docs:
        run_id = str(doc["info"]["run_id"])
        links = found.get(run_id) or await _asked(api, run_id)
        if links.inputs:
            doc.setdefault("inputs", {})["model_inputs"] = [{"model_id": one} for one in links.inputs]
        if links.outputs:
            doc["outputs"] = {"model_outputs": [{"model_id": one, "step": step} for one, step in links.outputs]}


async def _queried(api: Api, run_ids: Sequence[str]) -> dict[str, Links]:
    """The models of those runs that the query told of; nothing where GraphQL cannot be used."""
    links = "inputs { modelInputs { modelId } } outputs { modelOutputs { modelId step } }"
    parts = [
        f'r{number}: mlflowGetRun(input: {{runId: "{run_id}"}}) {{ run {{ {links} }} }}'
        for number, run_id in enumerate(run_ids)
    ]
    try:
        answer = await api.call(GRAPHQL, {"query": f"query {{ {' '.join(parts)} }}"})
    except AuthError:
        raise
    except ApiError as error:
        if isinstance(error, Transient) and error.unreachable:
            raise
        return {}
    data = answer.get("data") or {}
    runs = {run_id: (data.get(f"r{number}") or {}).get("run") for number, run_id in enumerate(run_ids)}
    return {run_id: _told(run) for run_id, run in runs.items() if run is not None}


def _told(run: Doc) -> Links:
    """As GraphQL calls them."""
    inputs = (run.get("inputs") or {}).get("modelInputs") or []
    outputs = (run.get("outputs") or {}).get("modelOutputs") or []
    return Links(
        [str(one["modelId"]) for one in inputs], [(str(one["modelId"]), int(one.get("step") or 0)) for one in outputs]
    )


async def _asked(api: Api, run_id: str) -> Links:
    try:
        answer = await api.call(GET_RUN, params=[("run_id", run_id)])
    except NotFound:  # Gone since it was listed; reading its points will say so.
        return Links()
    return Links(inputs_of(answer["run"]), outputs_of(answer["run"]))


# ---- write ------------------------------------------------------------------------------------------------------


async def write(target: Target, run_id: str, inputs: Sequence[str], outputs: Sequence[tuple[str, int]]) -> None:
    """Link a run that can be written to with models, all ids the target's own."""
    if inputs:
        await target.api.call(INPUTS, {"run_id": run_id, "models": [{"model_id": one} for one in inputs]})
    if outputs:
        try:
            await _send_outputs(target, run_id, outputs)
        except Rejected:
            run = (await target.api.call(GET_RUN, params=[("run_id", run_id)]))["run"]
            lacking = [one for one in outputs if one not in outputs_of(run)]
            if lacking == [*outputs]:
                raise
            await _send_outputs(target, run_id, lacking)


async def _send_outputs(target: Target, run_id: str, outputs: Sequence[tuple[str, int]]) -> None:
    if outputs:
        models = [{"model_id": model_id, "step": step} for model_id, step in outputs]
        await target.api.call(OUTPUTS, {"run_id": run_id, "models": models})

"""Spans of many traces in few requests.

GET `/api/3.0/mlflow/traces/batchGet` (3.6+) gives traces with their spans; the whole call fails where one of them has
none, and traces that are not complete are left out of the answer without a word. POST `/v1/traces` (OTLP as JSON,
3.13+) takes the spans of many traces of one experiment, all of a call or nothing; the same span again replaces itself.
GET `/ajax-api/2.0/mlflow/get-trace-artifact` gives the spans of one trace wherever they lie.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from amigrate.client.api import AJAX, V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, ApiError, AuthError, Rejected, TooLarge, Transient, Uncarriable
from amigrate.core.model import Doc, Record
from amigrate.kinds import trace_document as document
from amigrate.kinds.listing import ANSWER_LIMIT, next_size
from amigrate.kinds.trace_scan import INFOS

BATCH_GET = Endpoint("GET", f"{V3}/traces/batchGet")
ARTIFACT = Endpoint("GET", f"{AJAX}/get-trace-artifact")
OTLP = Endpoint("POST", "/v1/traces", Work.WRITE)
TRACES_PER_CALL = 80
"""Ids in one address: under 4 kB, where gunicorn's request line ends."""
CALL_BYTES = 4 * 1024 * 1024
"""Spans of one writing call."""
OTLP_ID = re.compile(r"tr-[0-9a-f]{32}")


def takes_spans(api: Api, trace_id: str) -> bool:
    """Whether the spans of this trace can be written as OTLP: the server makes the trace's id of theirs."""
    return (
        not api.abilities.older_than(3, 13) and api.abilities.store != "FileStore" and bool(OTLP_ID.fullmatch(trace_id))
    )


# ---- read -------------------------------------------------------------------------------------------------------


async def loaded(api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
    """The traces with their spans, where those lie in the tracking store; a few at a time."""
    yield [record for record in batch if not document.is_in_store(record)]
    waiting = [record for record in batch if document.is_in_store(record)]
    size = api.ceiling(BATCH_GET, TRACES_PER_CALL)
    while waiting:
        some, waiting = waiting[:size], waiting[size:]
        try:
            answer, weight = await api.weighed(
                BATCH_GET,
                params=[("trace_ids", one.ref.id) for one in some],
                at_most=ANSWER_LIMIT if len(some) > 1 else None,
            )
        except AuthError:
            raise
        except ApiError as error:
            if isinstance(error, Transient) and error.status != 500:
                raise
            if len(some) > 1:
                size, waiting = max(1, len(some) // 4), [*some, *waiting]
                if isinstance(error, TooLarge):
                    api.note_slow(BATCH_GET, error, size)
            else:
                yield [await _alone(api, some[0])]
            continue
        found = {str(one["trace_info"]["trace_id"]): one.get("spans") or [] for one in answer.get("traces") or []}
        size = next_size(size, len(some), weight, api.ceiling(BATCH_GET, TRACES_PER_CALL))
        yield [
            _with_spans(record, found[record.ref.id]) if found.get(record.ref.id) else await _alone(api, record)
            for record in some
        ]


async def _alone(api: Api, record: Record) -> Record:
    """A trace that no batch gives; where it cannot be read at all, with the reason."""
    try:
        answer = await api.call(ARTIFACT, params=[("request_id", record.ref.id)])
        return _with_spans(record, document.from_artifact(answer.get("spans") or [], record.ref.id))
    except AuthError:
        raise
    except (ApiError, KeyError, ValueError, TypeError) as error:
        return replace(record, error=AmigrateError(f"its spans cannot be read: {error}"))


def _with_spans(record: Record, spans: list[Doc]) -> Record:
    return replace(record, doc={**record.doc, "spans": spans})


# ---- write ------------------------------------------------------------------------------------------------------


async def write(api: Api, experiment: str, records: Sequence[Record]) -> dict[str, AmigrateError]:
    """Write the spans of some traces of one experiment. Returns why, for each trace that could not be written."""
    refused: dict[str, AmigrateError] = {}
    batch: list[Record] = []
    weight = 0
    for record in records:
        size = len(codec.dumps(document.spans_of(record)))
        if batch and weight + size > CALL_BYTES:
            refused |= await _sent(api, experiment, batch)
            batch, weight = [], 0
        batch.append(record)
        weight += size
    return refused | (await _sent(api, experiment, batch) if batch else {})


async def _sent(api: Api, experiment: str, batch: Sequence[Record]) -> dict[str, AmigrateError]:
    """One call; where it is refused, halves of it, until what is refused stands alone."""
    spans = [span for record in batch for span in document.mapped_spans(record, experiment)]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    try:
        await api.call(OTLP, body, headers={"x-mlflow-experiment-id": experiment}, divisible=len(batch) > 1)
    except AuthError:
        raise
    except (Rejected, TooLarge, Transient) as error:
        if isinstance(error, Transient) and error.status != 500:
            raise
        if len(batch) == 1:
            return {batch[0].ref.key: AmigrateError(f"its spans are refused: {error}")}
        return await _in_halves(api, experiment, batch)
    return await _dropped(api, experiment, batch) if api.abilities.workspaces else {}


async def _in_halves(api: Api, experiment: str, batch: Sequence[Record]) -> dict[str, AmigrateError]:
    half = len(batch) // 2
    return await _sent(api, experiment, batch[:half]) | await _sent(api, experiment, batch[half:])


async def _dropped(api: Api, experiment: str, batch: Sequence[Record]) -> dict[str, AmigrateError]:
    """Where another workspace has a trace of one of these ids, the server answers 200 and drops every new trace of the
    call (MLflow 3.17.2): they are sent again, fewer at once, until that one stands alone."""
    held = await infos_of(api, [record.ref.id for record in batch])
    missing = [record for record in batch if record.ref.id not in held]
    if len(batch) == 1 and missing:
        return {batch[0].ref.key: Uncarriable("another workspace of the target has a trace of this id")}
    if len(missing) < len(batch):
        return await _sent(api, experiment, missing) if missing else {}
    return await _in_halves(api, experiment, batch)


async def infos_of(api: Api, ids: Sequence[str]) -> dict[str, Doc]:
    """What a server has of these traces, without their spans."""
    answer = await api.call(INFOS, {"trace_ids": [*ids]})
    return {str(one["trace_id"]): one for one in answer.get("trace_infos") or []}

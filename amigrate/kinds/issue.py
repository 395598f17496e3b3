"""Issues: what people and judges have found to be wrong with traces (MLflow 3.11, databases).

Endpoints (`/api/3.0/mlflow/issues…`): POST search (of one experiment or, with basic authentication for administrators
only, of all; deleted ones too), POST create, PATCH `/{id}` (name, description, status, severity). Id and times cannot
be set, and nothing deletes an issue. A source run that the server does not have is refused, and cannot be added later,
so an issue waits until its run is there.

An issue has no name of its own and no tags: it is found again by the journal, or by all of its fields. Of issues that
are equal as many arrive as there are. They are made one after the other, oldest first, so that an issue whose create
call was not answered can be told from its equals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, Forbidden, Uncarriable, Unsupported
from amigrate.core.model import Deferred, Doc, Foreseen, Found, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, text, whole
from amigrate.kinds.base import Kind, Target, home_of, lacking
from amigrate.kinds.claims import Claims
from amigrate.kinds.experiment_scan import experiment_ids
from amigrate.kinds.listing import pages

SEARCH = Endpoint("POST", f"{V3}/issues/search")
CREATE = Endpoint("POST", f"{V3}/issues", Work.WRITE, resend=False)
SINCE = (3, 11)
FIRST_PAGE, LARGEST_PAGE = 100, 1000
RECORDS = 200
"""Issues moved at once."""
CHANGEABLE = ("name", "description", "status", "severity")
TEXTS = (*CHANGEABLE, "created_by")
LISTS = ("root_causes", "categories")
TIMES = ("created_timestamp", "last_updated_timestamp")


@dataclass(slots=True)
class Open:
    """An issue being written."""

    doubtful: Doc = field(default_factory=dict)
    """What it looks like, where its create call had to be repeated: the first call may still take effect."""


class Issue(Kind):
    """See the module."""

    name = "issue"
    label = "issues"
    parent = "experiment"
    needs = ("experiment", "run")
    sequential = True
    folder = "issues"
    document = "issue.json"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_content(record.doc, _run_of(record.doc)))

    def match(self, record: Record) -> str:
        return f"{record.name} {record.doc.get('namesake') or 0}"

    def comparable(self, record: Record, names: Names) -> Doc:
        run = _run_of(record.doc)
        return _content(record.doc, names("run", run) if run else "")

    def rank(self, record: Record) -> tuple[int, str]:
        return _rank(record.doc)

    def encode(self, record: Record) -> Doc:
        return {"issue": {key: value for key, value in record.doc.items() if key != "archive"}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("issue"), "issue")
        doc: Doc = {field: text(given[field], field) for field in TEXTS if given.get(field) is not None}
        doc |= {field: [text(one, field) for one in items(given.get(field), field)] for field in LISTS}
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        doc["source_run_id"] = identity(given.get("source_run_id"), "source_run_id")
        doc["namesake"] = whole(given.get("namesake") or 0, "namesake")
        own = identity(given.get("issue_id"), "issue_id") or ref_id
        return Record(Ref(self.name, own, parent), doc, doc.get("name", ""))

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return IssueScan(api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """From one listing of the target's issues."""
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Unsupported(f"the target {reason}")
        claims = await _claims(target)
        found = claims.pair(records, ids, lambda record: _wanted(record, ids))
        return {key: Found(new_id, False) for key, new_id in found.items()}

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Uncarriable(f"the target {reason}")
        if made is None:
            _check_run(record, ids)
        return Foreseen(1)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        _check_run(record, ids)
        told = _wanted(record, ids)
        await target.wake(told["experiment"])
        body = {key: value for key, value in told.items() if value and key != "experiment"}
        asked_again = False

        async def recover() -> Doc | None:
            nonlocal asked_again
            asked_again = True
            unseen = await _unseen(target, told)
            return {"issue": unseen[0]} if unseen else None

        answer = await target.api.call(CREATE, {"experiment_id": told["experiment"], **body}, recover=recover)
        new_id = str(answer["issue"]["issue_id"])
        (await _claims(target)).take(new_id, record)
        return new_id, Open(told if asked_again else {})

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What can change of an issue that is known is brought up to date."""
        shown = (await _claims(target)).told(new_id)
        changed = {key: record.doc[key] for key in CHANGEABLE if record.doc.get(key) not in (None, "", shown.get(key))}
        if changed:
            path = f"{V3}/issues/{new_id}"
            await target.api.call(Endpoint("PATCH", path, Work.WRITE), {"issue_id": new_id, **changed})
        return Open()

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        doubtful = state.doubtful if state else {}
        return [Deferred(Stage.REFERENCES, {"doubtful": doubtful})] if doubtful else []

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """A create call without an answer was repeated: has the first one been heard after all?"""
        twins = [str(one["issue_id"]) for one in await _unseen(target, what.doc["doubtful"])]
        if twins:
            raise AmigrateError(f"the target has made it twice, as {new_id} and {twins[0]}: nothing deletes an issue")
        return True


class IssueScan:
    """The issues of some experiments, oldest first. They are few: what a listing shows is held until its end.

    A comparison knows an issue by its name and by how many of that name came before it in its experiment.
    """

    def __init__(self, api: Api, experiments: Sequence[Record]) -> None:
        self._api = api
        self._parents = {record.ref.id: record.ref for record in experiments}

    async def pages(self) -> AsyncIterator[list[Record]]:
        found = [doc async for doc in _of(self._api, [*self._parents]) if str(doc["experiment_id"]) in self._parents]
        found.sort(key=_rank)
        namesakes: Counter[tuple[str, str]] = Counter()
        records = []
        for doc in found:
            home, name = str(doc["experiment_id"]), str(doc.get("name") or "")
            told = {**doc, "namesake": namesakes[home, name]}
            namesakes[home, name] += 1
            records.append(Record(Ref("issue", str(doc["issue_id"]), self._parents[home]), told, name))
        for start in range(0, len(records), RECORDS):
            yield records[start : start + RECORDS]

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page


async def _of(api: Api, experiments: Sequence[str]) -> AsyncIterator[Doc]:
    """The issues of these experiments, and more: many are listed with all others in one go, where that is permitted."""
    if len(experiments) > 1:
        try:
            async for doc in _listed(api, ""):
                yield doc
            return
        except Forbidden:  # As the first answer, so nothing was listed yet.
            pass
    for one in experiments:
        async for doc in _listed(api, one):
            yield doc


async def _everywhere(api: Api) -> AsyncIterator[Doc]:
    """All issues that these credentials may see."""
    try:
        async for doc in _listed(api, ""):
            yield doc
    except Forbidden:
        for one in await experiment_ids(api):
            async for doc in _listed(api, one):
                yield doc


async def _listed(api: Api, experiment: str) -> AsyncIterator[Doc]:
    """The issues of an experiment, or of all."""
    body = {"experiment_id": experiment} if experiment else {}
    async for page in pages(api, SEARCH, "issues", body, first=FIRST_PAGE, largest=LARGEST_PAGE):
        for doc in page:
            yield doc


def _run_of(doc: Doc) -> str:
    return str(doc.get("source_run_id") or "")


def _content(doc: Doc, run: str) -> Doc:
    """Everything of an issue that a create call takes."""
    told: Doc = {field: str(doc.get(field) or "") for field in TEXTS}
    return told | {field: [str(one) for one in doc.get(field) or []] for field in LISTS} | {"source_run_id": run}


def _rank(doc: Doc) -> tuple[int, str]:
    """Oldest first."""
    return int(doc.get("created_timestamp") or 0), codec.digest(_content(doc, ""))


# ---- what the target has ----------------------------------------------------------------------------------------


def _told(doc: Doc, experiment: str, run: str) -> Doc:
    """An issue in the target's terms."""
    return {"experiment": experiment, **_content(doc, run)}


def _of_target(doc: Doc) -> Doc:
    return _told(doc, str(doc["experiment_id"]), _run_of(doc))


def _wanted(record: Record, ids: Ids) -> Doc:
    run = _run_of(record.doc)
    return _told(record.doc, home_of(record, ids), (ids.new_id("run", run) or run) if run else "")


def _check_run(record: Record, ids: Ids) -> None:
    run = _run_of(record.doc)
    if run and ids.new_id("run", run) is None:
        raise Uncarriable(f"its source run {run} is not at the target: it comes when that does")


async def _claims(target: Target) -> Claims:
    """From one listing of the target."""
    if Issue.name not in target.claims:
        claims = Claims()
        async for doc in _everywhere(target.api):
            claims.hold(Record(Ref(Issue.name, str(doc["issue_id"])), {}), _of_target(doc))
        target.claims[Issue.name] = claims
    return target.claims[Issue.name]


async def _unseen(target: Target, told: Doc) -> list[Doc]:
    """Issues of the target that look like this one, were not there before, and are none of those made since."""
    claims = await _claims(target)
    return [
        doc
        async for doc in _listed(target.api, told["experiment"])
        if claims.is_new(str(doc["issue_id"])) and _of_target(doc) == told
    ]

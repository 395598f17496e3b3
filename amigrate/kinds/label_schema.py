"""Label schemas: the questions that reviewers of traces are asked (MLflow 3.14, databases only).

Endpoints (`/api/3.0/mlflow/label-schemas/…`): GET get, get-by-name, list (of one experiment), POST create, PATCH
update (not the type; neither the input's own kind). Ids and times cannot be set; a name is unique in its experiment.

**Listing writes**: it creates the default schema "Feedback" where there is none, so a source is listed only where
get-by-name finds it already; elsewhere the schemas that review queues name are read one by one. "Feedback" can be
neither created nor changed: the target's own one stands for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import ApiError, AuthError, Conflict, NotFound, Rejected, Uncarriable, Unsupported
from amigrate.core.model import Doc, Foreseen, Found, Outcome, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, real, text, whole, word
from amigrate.kinds.base import Kind, Target, home_of, lacking
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages
from amigrate.kinds.review_listing import queues_of
from amigrate.kinds.traced import each, overlook, searched

SCHEMAS = f"{V3}/label-schemas"
GET = Endpoint("GET", f"{SCHEMAS}/get")
BY_NAME = Endpoint("GET", f"{SCHEMAS}/get-by-name")
LIST = Endpoint("GET", f"{SCHEMAS}/list")
CREATE = Endpoint("POST", f"{SCHEMAS}/create", Work.WRITE)
UPDATE = Endpoint("PATCH", f"{SCHEMAS}/update", Work.WRITE)
SINCE = (3, 14)
FIRST_PAGE, LARGEST_PAGE = 100, 1000
DEFAULT = "Feedback"
TYPES = ("FEEDBACK", "EXPECTATION")
CHANGEABLE = ("name", "instruction", "enable_comment", "input")
TIMES = ("created_at", "last_updated_at")


@dataclass(slots=True)
class Open:
    """A label schema being written."""

    losses: list[Outcome] = field(default_factory=list)


class LabelSchema(Kind):
    """See the module."""

    name = "label_schema"
    label = "label-schemas"
    parent = "experiment"
    needs = ("experiment", "trace")
    """Not the traces themselves: their listing tells where to look."""
    sequential = True
    """Reviewers see them in the order of their creation."""
    folder = "label_schemas"
    document = "label_schema.json"
    overlooks = "they have no traces, are deleted, or to look would write to them"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_content(record.doc))

    def match(self, record: Record) -> str:
        return record.name

    def comparable(self, record: Record, names: Names) -> Doc:
        return _content(record.doc)

    def rank(self, record: Record) -> tuple[int, str]:
        return _rank(record.doc)

    def encode(self, record: Record) -> Doc:
        return {"label_schema": {key: value for key, value in record.doc.items() if key != "archive"}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("label_schema"), "label_schema")
        doc: Doc = {
            "name": text(given.get("name") or None, "name"),
            "type": word(given.get("type"), "type", TYPES),
            "instruction": text(given.get("instruction") or "", "instruction"),
            "enable_comment": given.get("enable_comment") is True,
            "input": _input(mapping(given.get("input"), "input")),
            "is_default": given.get("is_default") is True,
        }
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        own = identity(given.get("schema_id"), "schema_id") or ref_id
        return Record(Ref(self.name, own, parent), doc, doc["name"])

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return SchemaScan(self, api, parents)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By name, or by the journal where it was renamed, from one listing of each of the target's experiments."""
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Unsupported(f"the target {reason}")
        defaults = {home_of(record, ids) for record in records if record.doc.get("is_default")}
        found = {}
        for record in records:
            home = home_of(record, ids)
            if home in defaults or home not in target.fresh:
                await (_look(target, home, record) if target.dry else _load(target, home))
            known = ids.new_id(self.name, record.ref.id) or ""
            held = target.index.get(_place(home), known) or target.index.get(_place(home), _key(record.doc))
            if held is not None:
                found[record.ref.key] = Found(held[0].new_id, held[1] == _facts(record.doc))
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        reason = lacking(target.api, *SINCE)
        if reason:
            raise Uncarriable(f"the target {reason}")
        held = target.index.get(_place(home_of(record, ids)), new_id)
        changed, losses = _changed(record, held, made=bool(made)) if held else ([], [])
        return Foreseen(0 if _is_default(record.doc) else int(made is None or bool(changed)), losses)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        home = home_of(record, ids)
        body = {key: value for key, value in _content(record.doc).items() if key != "is_default"}
        try:
            answer = await target.api.call(CREATE, {"experiment_id": home, **body})
        except Conflict:  # An earlier answer of ours got lost, or somebody was faster.
            answer = await target.api.call(BY_NAME, params=[("experiment_id", home), ("name", record.doc["name"])])
            _note(target, home, answer["label_schema"])
            new_id = str(answer["label_schema"]["schema_id"])
            return new_id, await self.resume(target, record, new_id, False, ids)
        _note(target, home, answer["label_schema"])
        return str(answer["label_schema"]["schema_id"]), Open()

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """One that amigrate made is brought up to date; of any other it is said that it differs."""
        held = target.index.get(_place(home_of(record, ids)), new_id)
        changed, losses = _changed(record, held, made=made)
        if changed and not _is_default(record.doc):
            wanted = _content(record.doc)
            await target.api.call(UPDATE, {"schema_id": new_id, **{key: wanted[key] for key in changed}})
        return Open(losses)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses
        return losses


class SchemaScan:
    """The label schemas of some experiments, each one's in the order of their creation."""

    def __init__(self, kind: LabelSchema, api: Api, experiments: Sequence[Record]) -> None:
        self._kind = kind
        self._api = api
        self._experiments = experiments
        self._may_write = kind.label in api.asked and api.store is None and not api.read_only

    async def pages(self) -> AsyncIterator[list[Record]]:
        if lacking(self._api, *SINCE):
            return
        places = await searched(self._api, self._kind, self._experiments)
        async for page in each(self._of, places):
            if page:
                yield page

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    async def _of(self, experiment: Record) -> list[Record]:
        """Those of one experiment; where they cannot be read, one record that says why."""
        try:
            found = await self._found(experiment)
        except (AuthError, Unsupported):
            raise
        except ApiError as error:
            return [Record(Ref(self._kind.name, "*", experiment.ref), {}, error=error)]
        return [
            Record(Ref(self._kind.name, str(doc["schema_id"]), experiment.ref), doc, str(doc["name"]))
            for doc in sorted(found, key=_rank)
        ]

    async def _found(self, experiment: Record) -> list[Doc]:
        place = ("experiment_id", experiment.ref.id)
        if not self._may_write:
            try:
                await self._api.call(BY_NAME, params=[place, ("name", DEFAULT)])
            except NotFound:
                overlook(self._api, self._kind, {experiment.ref.id})
                return await self._named_by_queues(experiment)
        return await _listed(self._api, experiment.ref.id)

    async def _named_by_queues(self, experiment: Record) -> list[Doc]:
        queues = self._api.review_queues[experiment.ref.id] = await queues_of(self._api, experiment.ref.id)
        named = sorted({str(own) for queue in queues for own in queue.get("schema_ids") or []})
        found = []
        for own in named:
            with suppress(NotFound):  # Deleted: queues go on naming it.
                found.append((await self._api.call(GET, params=[("schema_id", own)]))["label_schema"])
        return found


async def _listed(api: Api, experiment: str) -> list[Doc]:
    params = [("experiment_id", experiment)]
    listing = pages(api, LIST, "label_schemas", {}, first=FIRST_PAGE, largest=LARGEST_PAGE, params=params)
    return [doc async for page in listing for doc in page]


def _rank(doc: Doc) -> tuple[int, str]:
    """Oldest first."""
    return int(doc.get("created_at") or 0), str(doc.get("name") or "")


def _content(doc: Doc) -> Doc:
    """Everything that a create call takes, and whether it is the experiment's default one."""
    given = doc.get("input") or {}
    return {
        "name": doc.get("name") or "",
        "type": doc.get("type") or "",
        "instruction": doc.get("instruction") or "",
        "enable_comment": bool(doc.get("enable_comment")),
        "input": {kind: _bounds(kind, bounds or {}) for kind, bounds in given.items()},
        "is_default": bool(doc.get("is_default")),
    }


def _bounds(kind: str, given: Doc) -> Doc:
    unset: Doc = {"multi_select": False} if kind == "categorical" else {}
    return dict(sorted((unset | given).items()))


def _input(given: Doc) -> Doc:
    """What kind of answer is asked for, and within which bounds. Raises `ValueError`."""
    kinds = {kind: mapping(value, kind) for kind, value in given.items()}
    if len(kinds) != 1:
        raise ValueError(f"input has {len(kinds)} kinds instead of one")
    ((kind, bounds),) = kinds.items()
    if kind == "pass_fail":
        return {kind: {key: text(bounds.get(key), key) for key in ("positive_label", "negative_label")}}
    if kind == "categorical":
        options = [text(one, "an option") for one in items(bounds.get("options"), "options")]
        return {kind: {"options": options, "multi_select": bounds.get("multi_select") is True}}
    if kind == "numeric":
        given_bounds = {key: bounds[key] for key in ("min_value", "max_value") if bounds.get(key) is not None}
        return {kind: {key: real(value, key) for key, value in given_bounds.items()}}
    if kind == "text":
        given_length = bounds.get("max_length")
        return {kind: {} if given_length is None else {"max_length": whole(given_length, "max_length")}}
    raise ValueError(f"input is of a kind that nobody knows: {kind}")


# ---- what the target has ----------------------------------------------------------------------------------------


def _place(experiment: str) -> str:
    return f"label schemas of {experiment}"


def _key(doc: Doc) -> str:
    """By what a schema is found in its experiment: the default one as such, others by their name."""
    return "default" if doc.get("is_default") else f"named {doc.get('name')}"


def _facts(doc: Doc) -> str:
    return codec.dumps(_content(doc)).decode()


def _note(target: Target, experiment: str, doc: Doc) -> None:
    own = str(doc["schema_id"])
    target.index.add(_place(experiment), [own, _key(doc)], Found(own, False), _facts(doc))


def _is_default(doc: Doc) -> bool:
    return bool(doc.get("is_default"))


def _changed(record: Record, held: tuple[Found, str] | None, *, made: bool) -> tuple[list[str], list[Outcome]]:
    """What differs at the target, and what of that is lost. Raises `Rejected` where it is not ours to change."""
    shown: Doc = codec.loads(held[1]) if held else {}
    wanted = _content(record.doc)
    changed = [key for key in wanted if wanted[key] != shown.get(key)]
    said = f"the target has a label schema of this name with another {' and '.join(changed)}"
    if changed and _is_default(record.doc):
        return changed, [lost("question", DEFAULT, record.ref, f"{said}: nothing changes the default one")]
    if changed and not (made and {*changed} <= {*CHANGEABLE}):
        raise Rejected(f"{said}: rename one of the two")
    return changed, []


async def _look(target: Target, experiment: str, record: Record) -> None:
    """The same for one label schema, without a listing that would make the default one."""
    if experiment in target.dormant:
        return
    with suppress(NotFound):
        params = [("experiment_id", experiment), ("name", str(record.doc["name"]))]
        _note(target, experiment, (await target.api.call(BY_NAME, params=params))["label_schema"])


async def _load(target: Target, experiment: str) -> None:
    """What the target has in an experiment, its default one included: the listing makes it."""
    if target.index.loaded(_place(experiment)):
        return
    await target.wake(experiment)
    for doc in await _listed(target.api, experiment):
        _note(target, experiment, doc)
    target.index.mark(_place(experiment))

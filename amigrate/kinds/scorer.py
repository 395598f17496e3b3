"""Scorers with all their versions, and how they score new traces (3.4+).

Endpoints (`/api/3.0/mlflow/scorers/…`): GET list (the latest version of each; of many active experiments, before 3.17
of one), GET versions (of one scorer), POST register (the next version), DELETE delete (one version, or all), GET
online-configs (of many scorers) and PUT online-config: how much of new traces is scored, and which. None is paged.

The server numbers: one more than the highest number there is. So versions are registered in their order, and a
placeholder takes each number that is missing at the source, or refused by the target, until the next real version is
there. Of a scorer that has only version 1, the list tells everything.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from amigrate.client.api import V3, Api, Endpoint, Params, Work
from amigrate.core import codec
from amigrate.core.errors import (
    AmigrateError,
    ApiError,
    AuthError,
    NotFound,
    Rejected,
    Transient,
    Uncarriable,
    Unsupported,
)
from amigrate.core.model import Deferred, Doc, Forecast, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import identity, items, mapping, real, text, whole
from amigrate.kinds.base import Kind, Target, home_of
from amigrate.kinds.limits import lost
from amigrate.kinds.store import is_sql
from amigrate.kinds.traced import each, overlook

SCORERS = f"{V3}/scorers"
LIST = Endpoint("GET", f"{SCORERS}/list")
VERSIONS = Endpoint("GET", f"{SCORERS}/versions")
REGISTER = Endpoint("POST", f"{SCORERS}/register", Work.WRITE, resend=False)
DELETE = Endpoint("DELETE", f"{SCORERS}/delete", Work.WRITE)
CONFIGS = Endpoint("GET", f"{SCORERS}/online-configs")
CONFIGURE = Endpoint("PUT", f"{SCORERS}/online-config", Work.WRITE)
ADDRESS = 3500
"""Characters of ids in one address: gunicorn takes 4094 in all."""
PLACEHOLDER = {"amigrate.placeholder": True}
"""What is registered under a number that has to be taken."""
CODE = '"call_source": "'
OF_CODE = "scorers of Python code: left behind unless the target has MLFLOW_SERVER_ENABLE_CUSTOM_SCORERS"


@dataclass(slots=True)
class Open:
    """A scorer being written."""

    experiment: str
    losses: list[Outcome] = field(default_factory=list)
    doubtful: bool = False
    """True where a call that registers had to be repeated: the first one may still take effect."""


class Scorer(Kind):
    """See the module. Its `doc` holds `name`, `versions` in their order (or only the latest), and `config`."""

    name = "scorer"
    label = "scorers"
    parent = "experiment"
    needs = ("experiment", "gateway_endpoint")
    folder = "scorers"
    document = "scorer.json"
    heavy = True
    retried = True
    keeps_edits = True
    overlooks = "deleted, so no request shows their scorers; restore them at the source to have those moved"

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_facts(record.doc))

    def match(self, record: Record) -> str:
        return record.name

    def comparable(self, record: Record, names: Names) -> Doc:
        versions = {str(number): _ordered(told) for number, told in _texts(record.doc["versions"]).items()}
        return {"versions": versions, "config": record.doc.get("config")}

    def encode(self, record: Record) -> Doc:
        return {"scorer": {key: value for key, value in record.doc.items() if key != "archive"}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get("scorer"), "scorer")
        name = text(given.get("name") or None, "name")
        versions = sorted(
            (_version(mapping(one, "a version")) for one in items(given.get("versions"), "versions")),
            key=lambda one: int(one["scorer_version"]),
        )
        if not versions or len(_texts(versions)) < len(versions):
            raise ValueError("it has no versions, or two of one number")
        told = mapping(given.get("config"), "config")
        config = _config({"sample_rate": real(told.get("sample_rate"), "sample_rate"), **told}) if told else None
        own = identity(given.get("scorer_id"), "scorer_id") or ref_id
        doc: Doc = {"scorer_id": own, "name": name, "versions": versions, "config": config}
        return Record(Ref(self.name, own, parent), doc, name)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return ScorerScan(self, api, parents)

    def forecast(self, batch: Sequence[Record]) -> Forecast:
        return Forecast(requests=sum(1 for record in batch if _latest(record.doc) > 1))

    async def load(self, api: Api, batch: Sequence[Record]) -> AsyncIterator[list[Record]]:
        yield [record async for record in each(partial(_with_versions, api), batch)]

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By name, from one listing of those target experiments that were there before us.

        No listing shows those of a deleted one: only what a journal knows is found there without restoring it.
        """
        if target.api.abilities.older_than(3, 4) or not await target.is_sql():
            raise Unsupported("the target has no scorers (MLflow 3.4 has, on a SQL store)")
        homes = {record.ref.key: home_of(record, ids) for record in records}
        await _load(self, target, sorted({*homes.values()} - target.fresh - target.dormant))
        found = {}
        for record in records:
            held = target.index.get(_place(homes[record.ref.key]), record.name)
            known = ids.new_id(self.name, record.ref.id) if homes[record.ref.key] in target.dormant else None
            if held is not None:
                same = codec.loads(held[1])["facts"] == _facts(record.doc)
                found[record.ref.key] = Found(held[0].new_id, same)
            elif known is not None:
                found[record.ref.key] = Found(known, same=True)
        return found

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        doubts = [OF_CODE] if CODE in record.doc["versions"][-1]["serialized_scorer"] else []
        return Foreseen(_latest(record.doc) + bool(record.doc.get("config")), doubts=doubts)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        state = Open(home_of(record, ids))
        unseen = state.experiment in target.dormant
        await target.wake(state.experiment)
        held = await _versions(target.api, state.experiment, record.name) if unseen else []
        writer = Writer(target, record, state, _texts(held))
        await writer.write()
        if not writer.held:
            raise Uncarriable(_all_refused(state.losses))
        await writer.configure(None)
        return writer.new_id, state

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Versions that the target lacks are added; its configuration is replaced only where amigrate made it."""
        state = Open(home_of(record, ids))
        await target.wake(state.experiment)
        index = target.index.get(_place(state.experiment), record.name)
        known: Doc = codec.loads(index[1]) if index else {"latest": {}, "facts": {"config": None}}
        only = known["latest"].get("scorer_version") == 1
        held = [known["latest"]] if only else await _versions(target.api, state.experiment, record.name)
        writer = Writer(target, record, state, _texts(held))
        await writer.write()
        config = known["facts"]["config"]
        if config is None or made:
            await writer.configure(config)
        return state

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        if state is None or not state.doubtful:
            return []
        told = {str(number): _ordered(one) for number, one in _texts(record.doc["versions"]).items()}
        doc = {"experiment": state.experiment, "name": record.name, "versions": told}
        return [Deferred(Stage.REFERENCES, doc)]

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        """A call that was thought lost took effect after it was repeated: delete the version that it made."""
        place, name, told = what.doc["experiment"], what.doc["name"], what.doc["versions"]
        await target.wake(place)
        for number, one in _texts(await _versions(target.api, place, name)).items():
            if str(number) not in told and _ordered(one) in told.values():
                await _delete(target.api, place, name, number)
        return True


class Writer:
    """The versions of one scorer on their way to the target."""

    def __init__(self, target: Target, record: Record, state: Open, held: dict[int, str]) -> None:
        self._api = target.api
        self._name = record.name
        self._record = record
        self._state = state
        self.held = held
        """What the target has under each number."""
        self.new_id = record.name
        """Of a scorer that was made: its id at the target, where that tells one."""

    async def write(self) -> None:
        """Every version that the target lacks. What it does not take is a loss, and the next one is tried."""
        for number in [number for number, told in self.held.items() if _is_placeholder(told)]:
            await self._forget(number)
        placeholders: list[int] = []
        try:
            for version in self._record.doc["versions"]:
                await self._version(int(version["scorer_version"]), version["serialized_scorer"], placeholders)
        finally:
            if len(self.held) == len(placeholders) > 0:
                await _delete(self._api, self._state.experiment, self._name, None)
                self.held = {}
            for number in placeholders if self.held else ():
                await self._forget(number)

    async def _version(self, number: int, told: str, placeholders: list[int]) -> None:
        last = max(self.held, default=0)
        if number in self.held:
            if _ordered(self.held[number]) != _ordered(told):
                self._lose(number, "the target has another version of this number")
        elif number < last:
            self._lose(number, f"the target has version {last} and gives no lower number: it was refused, or deleted")
        else:
            try:
                while max(self.held, default=0) + 1 < number:
                    placeholders.append(await self._register(codec.dumps(PLACEHOLDER).decode()))
                made = await self._register(told)
            except (Rejected, NotFound, Transient) as error:
                if isinstance(error, AuthError) or (isinstance(error, Transient) and error.status != 500):
                    raise
                self._lose(number, f"the target refuses it: {error}")
                return
            if made != number:
                await self._forget(made)
                self._lose(number, "somebody else registers versions of it at the target")

    async def _register(self, told: str) -> int:
        number = max(self.held, default=0) + 1
        place = self._state.experiment

        async def recover() -> Doc | None:
            self._state.doubtful = True
            found = await _versions(self._api, place, self._name)
            there = [one for one in found if one["scorer_version"] == number]
            same = bool(there) and _ordered(there[0]["serialized_scorer"]) == _ordered(told)
            return {**there[0], "version": number} if same else None

        body = {"experiment_id": place, "name": self._name, "serialized_scorer": told}
        answer = await self._api.call(REGISTER, body, recover=recover)
        made = int(answer["version"])
        self.held[made] = told
        self.new_id = str(answer.get("scorer_id") or self._name)
        return made

    async def _forget(self, number: int) -> None:
        await _delete(self._api, self._state.experiment, self._name, number)
        self.held.pop(number, None)

    def _lose(self, number: int, reason: str) -> None:
        self._state.losses.append(lost("scorer_version", str(number), self._record.ref, reason))

    async def configure(self, held: Doc | None) -> None:
        """How it scores new traces, where that is told and the target has it otherwise."""
        wanted = self._record.doc.get("config")
        if wanted is None or wanted == held:
            return
        reason = self._outdated() if wanted["sample_rate"] else ""
        body = {"experiment_id": self._state.experiment, "name": self._name, **wanted}
        try:
            if not reason:
                await self._api.call(CONFIGURE, body)
        except (Rejected, NotFound, Unsupported, Transient) as error:
            if isinstance(error, Transient) and error.status != 500:
                raise
            reason = f"the target refuses it: {error}"
        if reason:
            self._state.losses.append(lost("online_config", "online scoring", self._record.ref, reason))

    def _outdated(self) -> str:
        """Why another version than at the source would score; empty where it would not."""
        latest = _latest(self._record.doc)
        return "" if latest == max(self.held) else f"its latest version, {latest}, is not at the target"


class ScorerScan:
    """The scorers of some experiments, each with its latest version and its configuration."""

    def __init__(self, kind: Kind, api: Api, experiments: Sequence[Record]) -> None:
        self._kind = kind
        self._api = api
        self._deleted = {one.ref.id for one in experiments if one.doc.get("lifecycle_stage") == "deleted"}
        self._parents = {one.ref.id: one.ref for one in experiments if one.ref.id not in self._deleted}

    async def pages(self) -> AsyncIterator[list[Record]]:
        if self._api.abilities.older_than(3, 4) or self._api.abilities.store == "FileStore":
            return
        overlook(self._api, self._kind, self._deleted)
        async for rows in _listed(self._api, [*self._parents]):
            known = [row for row in rows if str(row.get("experiment_id", 0)) in self._parents]
            configs = await _configs(self._api, [str(row["scorer_id"]) for row in known if row.get("scorer_id")])
            yield [self._record(row, configs.get(str(row.get("scorer_id")))) for row in known]

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    def _record(self, row: Doc, config: Doc | None) -> Record:
        name = str(row["scorer_name"])
        own = str(row.get("scorer_id") or name)
        doc: Doc = {"scorer_id": own, "name": name, "versions": [_version(row)], "config": config}
        return Record(Ref("scorer", own, self._parents[str(row.get("experiment_id", 0))]), doc, name)


# ---- what documents say -----------------------------------------------------------------------------------------


def _version(row: Doc) -> Doc:
    """One version, of a server or of an archive."""
    told: Doc = {
        "scorer_version": whole(row.get("scorer_version"), "scorer_version"),
        "serialized_scorer": text(row.get("serialized_scorer"), "serialized_scorer"),
    }
    if row.get("creation_time") is not None:
        told["creation_time"] = whole(row["creation_time"], "creation_time")
    return told


def _config(row: Doc) -> Doc:
    """How a scorer scores new traces, in what a request takes."""
    told: Doc = {"sample_rate": float(row["sample_rate"])}
    if row.get("filter_string"):
        told["filter_string"] = text(row["filter_string"], "filter_string")
    return told


def _texts(versions: Sequence[Doc]) -> dict[int, str]:
    return {int(one["scorer_version"]): str(one["serialized_scorer"]) for one in versions}


def _ordered(told: str) -> str:
    """The same scorer however its JSON is written; servers write it anew where it names a gateway's model."""
    try:
        return codec.exact_dumps(codec.exact_loads(told), ordered=True)
    except ValueError:
        return told


def _is_placeholder(told: str) -> bool:
    return _ordered(told) == codec.exact_dumps(PLACEHOLDER)


def _latest(doc: Doc) -> int:
    return int(doc["versions"][-1]["scorer_version"])


def _facts(doc: Doc) -> Doc:
    """What a listing shows of a scorer and must be equal on another server."""
    latest = doc["versions"][-1]
    return {
        "latest": _latest(doc),
        "digest": codec.digest(_ordered(latest["serialized_scorer"])),
        "config": doc.get("config"),
    }


def _all_refused(losses: Sequence[Outcome]) -> str:
    """Why nothing of a scorer arrived."""
    more = f" (all {len(losses)} versions)" if len(losses) > 1 else ""
    return f"{losses[0].reason}{more}"


def _place(experiment: str) -> str:
    return f"scorers of {experiment}"


# ---- requests ---------------------------------------------------------------------------------------------------


def _addresses(name: str, ids: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Ids as the parameters of as few addresses as possible."""
    params: list[tuple[str, str]] = []
    length = 0
    for one in ids:
        if length + len(name) + len(one) + 2 > ADDRESS:
            yield params
            params, length = [], 0
        params.append((name, one))
        length += len(name) + len(one) + 2
    if params:
        yield params


async def _listed(api: Api, experiments: Sequence[str]) -> AsyncIterator[list[Doc]]:
    """The latest versions in some active experiments. A server that knows no list of experiments gives all, or none."""
    for params in _addresses("experiment_ids", experiments):
        try:
            yield await _rows(api, params)
        except Rejected:
            for _, one in params:
                try:
                    yield await _rows(api, [("experiment_id", one)])
                except NotFound:  # Deleted since it was listed.
                    continue


async def _rows(api: Api, params: Params) -> list[Doc]:
    try:
        rows: list[Doc] = (await api.call(LIST, params=params)).get("scorers") or []
    except Transient as error:
        if error.status == 500 and not await is_sql(api):
            raise Unsupported(f"a file store has no scorers: {error}", status=500) from error
        raise
    return rows


async def _configs(api: Api, scorers: Sequence[str]) -> dict[str, Doc]:
    """The configurations of those scorers that have one."""
    found: dict[str, Doc] = {}
    for params in _addresses("scorer_ids", scorers):
        try:
            rows = (await api.call(CONFIGS, params=params)).get("configs") or []
        except Unsupported:  # 3.4 scores only when asked to.
            return {}
        found |= {str(row["scorer_id"]): _config(row) for row in rows}
    return found


async def _versions(api: Api, experiment: str, name: str) -> list[Doc]:
    """Every version of a scorer in its order; none where there is no such scorer."""
    try:
        answer = await api.call(VERSIONS, params=[("experiment_id", experiment), ("name", name)])
    except NotFound:
        return []
    return sorted(map(_version, answer.get("scorers") or []), key=lambda one: int(one["scorer_version"]))


async def _with_versions(api: Api, record: Record) -> Record:
    assert record.ref.parent is not None, f"{record.ref} belongs to no experiment"
    if _latest(record.doc) == 1:
        return record
    try:
        versions = await _versions(api, record.ref.parent.id, record.name)
    except AuthError:
        raise
    except ApiError as error:
        return replace(record, error=AmigrateError(f"its versions cannot be read: {error}"))
    return replace(record, doc={**record.doc, "versions": versions or record.doc["versions"]})


async def _delete(api: Api, experiment: str, name: str, version: int | None) -> None:
    """Delete one version, or a scorer with all of them."""
    body: Doc = {"experiment_id": experiment, "name": name, **({} if version is None else {"version": version})}
    try:
        await api.call(DELETE, body)
    except NotFound:  # An answer of ours got lost: it is deleted.
        return


async def _load(kind: Kind, target: Target, experiments: Sequence[str]) -> None:
    """List the scorers of target experiments into the index, each experiment once."""
    missing = [one for one in experiments if not target.index.loaded(_place(one))]
    parents = [Record(Ref("experiment", one), {}) for one in missing]
    async for page in ScorerScan(kind, target.api, parents).pages():
        for record in page:
            assert record.ref.parent is not None, f"{record.ref} belongs to no experiment"
            held = {"latest": record.doc["versions"][-1], "facts": _facts(record.doc)}
            place = _place(record.ref.parent.id)
            target.index.add(place, [record.name], Found(record.ref.id, False), codec.dumps(held).decode())
    for one in missing:
        target.index.mark(_place(one))

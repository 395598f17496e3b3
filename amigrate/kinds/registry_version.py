"""What versions of registered models and of prompts have in common.

Endpoints (`/api/2.0/mlflow/model-versions/…`): GET search (at most 200 000 a page; of prompts only where the filter
asks for them), POST create, POST transition-stage, DELETE delete.

The server numbers: one more than the highest number there ever was, deleted ones included, which no listing shows. So
versions are made in the order of their numbers, and a placeholder takes each number that is missing at the source. As
long as the server has not said which number comes next, a placeholder is the wanted version itself, with a tag that
goes where it turns out to have its number. Placeholders are deleted when the next real version is there, those that a
kill left behind when the target is next listed.

Where the target turns out to have given a number away to a version that was deleted there, the number that was lost in
finding that out is noted in a tag of the registered model (`LAST_VERSION`): else each further run would lose one more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import NotFound, Rejected, Uncarriable, Unresolved
from amigrate.core.model import PLANNED, Doc, Foreseen, Found, Outcome, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import text, texts, whole
from amigrate.kinds import references, version_source
from amigrate.kinds.base import NO_STAGE, PROVENANCE, Kind, Target, content_tags, pairs, tag_list
from amigrate.kinds.confirming import confirmed
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages
from amigrate.kinds.recognition import GET_NAME, GET_VERSION
from amigrate.kinds.registry import (
    DELETE_TAG,
    EXPERIMENTS_TAG,
    PROMPTS_ONLY,
    SEARCH_VERSIONS,
    SET_TAG,
    TIMES,
    mapped_tags,
    named_experiments,
)
from amigrate.kinds.source_tags import version_source_tags
from amigrate.kinds.version_source import Origin

VERSIONS = f"{V2}/model-versions"
CREATE = Endpoint("POST", f"{VERSIONS}/create", Work.WRITE, resend=False)
STAGE = Endpoint("POST", f"{VERSIONS}/transition-stage", Work.WRITE)
DELETE = Endpoint("DELETE", f"{VERSIONS}/delete", Work.WRITE)
PATCH = Endpoint("PATCH", f"{VERSIONS}/update", Work.WRITE)
SET_VERSION_TAG = Endpoint("POST", f"{VERSIONS}/set-tag", Work.WRITE)
DELETE_VERSION_TAG = Endpoint("DELETE", f"{VERSIONS}/delete-tag", Work.WRITE)
PAGE = 1000
PLACEHOLDER = f"{PROVENANCE}placeholder"
"""On a version that is to be deleted again, unless it has the number that this tag holds."""
LAST_VERSION = f"{PROVENANCE}last_version"
"""On a registered model: the number that it has given last, to a version that was not wanted. See the module."""
RUNS_TAG = "mlflow.prompt.associatedRunIds"
"""The runs that a prompt was used in; older clients write it."""
FIELDS = ("name", "description", "source", "run_id", "run_link", "current_stage", "status", "user_id", "model_id")
"""Texts of a version."""


@dataclass(slots=True)
class Open:
    """A version being written."""

    number: int
    stage: str = NO_STAGE
    """The stage that it has at the target."""
    losses: list[Outcome] = field(default_factory=list)


class RegistryVersion(Kind):
    """A version of a registered model or of a prompt. Its id is `<name>/<number>`."""

    is_prompt = False
    sequential = True
    inside = "versions"
    tells_parent = True

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        doc = record.doc
        return codec.digest([*(doc.get(field) for field in _CONTENT), sorted(pairs(doc.get("tags")).items())])

    def excluded(self, record: Record, deleted: bool) -> str:
        waits_for = pairs(record.doc.get("tags")).get(PLACEHOLDER, str(_number(record)))
        return "" if waits_for == str(_number(record)) else "a placeholder that a killed amigrate left at the source"

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        run_id = str(record.doc.get("run_id") or "")
        return [*([("run", run_id)] if run_id else []), *version_source.needed(str(record.doc.get("source") or ""))]

    def comes_from(self, record: Record) -> Sequence[tuple[str, str]]:
        return [(kind, own) for kind, own in self.needed(record) if kind in ("run", references.LOGGED_MODEL)]

    def match(self, record: Record) -> str:
        """Its number; the name is the model's or the prompt's."""
        return str(_number(record))

    def comparable(self, record: Record, names: Names) -> Doc:
        doc, tags = record.doc, content_tags(pairs(record.doc.get("tags")))
        if EXPERIMENTS_TAG in tags:
            tags[EXPERIMENTS_TAG] = named_experiments(tags[EXPERIMENTS_TAG], names)
        if RUNS_TAG in tags:
            tags[RUNS_TAG] = references.named(tags[RUNS_TAG], names)
        source = str(doc.get("source") or "")
        return {
            "description": doc.get("description") or "",
            "stage": doc.get("current_stage") or NO_STAGE,
            "run": "" if version_source.is_copy(source) else names("run", str(doc.get("run_id") or "")),
            "run_link": doc.get("run_link") or "",
            "source": version_source.named(source, names),
            "tags": tags,
        }

    def encode(self, record: Record) -> Doc:
        doc = {key: value for key, value in record.doc.items() if key not in ("archive", "aliases")}
        return {**doc, "tags": dict(sorted(pairs(doc.get("tags")).items()))}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = document["mlflow"]
        number = str(whole(given.get("version"), "version"))
        doc: Doc = {field: text(given[field], field) for field in FIELDS if given.get(field) is not None}
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        tags = pairs(given["tags"]) if isinstance(given.get("tags"), list) else given.get("tags")
        doc |= {"version": number, "tags": tag_list(texts(tags, "tags"))}
        return Record(Ref(self.name, f"{parent.id if parent else ref_id}/{number}", parent), doc, f"version {number}")

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return VersionScan(self, api, parents)

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        async def ask(record: Record) -> Record:
            params = [("name", _name(record)), ("version", str(_number(record)))]
            return replace(record, doc=(await api.registry.call(GET_VERSION, params=params))["model_version"])

        return await confirmed(ask, records)

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By number, from one listing of the target's registry."""
        if any(_target_name(target, record) not in target.fresh_names for record in records):
            await self._load(target)
        found = {}
        for record in records:
            held = target.index.get(self.name, _target_id(target, record))
            if held is not None:
                found[record.ref.key] = Found(held[0].new_id, False)
        return found

    async def _load(self, target: Target) -> None:
        """Every version of the target; what a kill left half done is completed."""
        if target.index.loaded(self.name):
            return
        leftovers, highest = list[Record](), dict[str, int]()
        async for page in VersionScan(self, target.api, None).pages():
            for record in page:
                name, number, tags = _name(record), _number(record), pairs(record.doc.get("tags"))
                target.last_version[name] = max(self._last(target, name), number)
                if tags.get(PLACEHOLDER, str(number)) != str(number):
                    leftovers.append(record)
                    continue
                highest[name] = max(highest.get(name, 0), number)
                if PLACEHOLDER in tags and not target.dry:
                    await _take_off(target, name, number)
                facts = codec.dumps(_shown(record.doc)).decode()
                target.index.add(self.name, [record.ref.id], Found(record.ref.id, False), facts)
        target.index.mark(self.name)
        for record in () if target.dry else leftovers:
            await _delete(target, _name(record), _number(record))
        for name, number in () if target.dry else highest.items():
            if 0 < self._noted(target, name) < number:
                await _forget(target, name)

    def _last(self, target: Target, name: str) -> int:
        """The highest number that a name of the target is known to have given."""
        if name not in target.last_version:
            target.last_version[name] = self._noted(target, name)
        return target.last_version[name]

    def _noted(self, target: Target, name: str) -> int:
        """What the target's registered model says of it."""
        held = target.index.get(self.parent or "", name)
        tags = codec.loads(held[1])["tags"] if held else {}
        return int(tags.get(LAST_VERSION) or 0)

    def _check_free(self, target: Target, name: str, wanted: int) -> None:
        if self._last(target, name) >= wanted:
            raise Rejected(f"the target has given number {wanted} of {name} away, to a version that was deleted there")

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        """A number that is missing at the source takes two requests."""
        name, wanted = _target_name(target, record), _number(record)
        if made is not None:
            named = [] if self.is_prompt else self.needed(record)
            if not any((ids.new_id(*one) or "").startswith(PLANNED) for one in named):
                await self._check_same(target, record, self._shown_there(target, new_id), made, ids)
            return Foreseen()
        self._check_free(target, name, wanted)
        missing = wanted - self._last(target, name) - 1
        target.last_version[name] = wanted
        return Foreseen(1 + 2 * missing + (_stage(record) != NO_STAGE), self._origin_lost(record, ids))

    def _origin_lost(self, record: Record, ids: Ids) -> list[Outcome]:
        """What the version comes from and will not be at the target, where its files are looked for there."""
        source = str(record.doc.get("source") or "")
        if self.is_prompt or version_source.is_kept_anywhere(source):
            return []
        named = [one for one in version_source.needed(source) if one[0] != self.parent]
        reason = "is not at the target, so its files cannot be found there"
        return [
            lost("source", "source", record.ref, f"{kind.replace('_', ' ')} {own} {reason}")
            for kind, own in named
            if ids.new_id(kind, own) is None
        ]

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        name, wanted = _target_name(target, record), _number(record)
        origin = await version_source.origin_at(target, record, ids, self.is_prompt)
        body: Doc = {"name": name, **origin.body(), "description": record.doc.get("description") or ""}
        if record.doc.get("run_link"):
            body["run_link"] = record.doc["run_link"]
        self._check_free(target, name, wanted)
        await self._numbered(target, body, self._tags(target, record, ids), wanted)
        state = Open(wanted)
        if origin.lacks:
            reason = f"{origin.lacks} is not at the target, so its files cannot be found there"
            state.losses.append(lost("source", "source", record.ref, reason))
        return f"{name}/{wanted}", state

    async def _numbered(self, target: Target, body: Doc, tags: dict[str, str], wanted: int) -> None:
        """Make the version under its number, with placeholders for those before it that nobody has."""
        name, placeholders = body["name"], list[int]()
        is_noted = self._noted(target, name) == self._last(target, name) > 0
        try:
            while self._last(target, name) + 1 < wanted:
                placeholders.append(await self._placeholder(target, body, tags, wanted))
            if wanted in placeholders:
                placeholders.remove(wanted)
                await _take_off(target, name, wanted)
            elif self._last(target, name) >= wanted or await self._made(target, body | _as_tags(tags)) != wanted:
                await self._give_up(target, name, wanted)
            if is_noted:
                await _forget(target, name)
        finally:
            for number in placeholders:
                await _delete(target, name, number)

    async def _give_up(self, target: Target, name: str, wanted: int) -> None:
        """The target has given this number away. The one that it gave instead is lost, but only once."""
        made = self._last(target, name)
        await target.api.registry.call(SET_TAG, {"name": name, "key": LAST_VERSION, "value": str(made)})
        await _delete(target, name, made)
        raise Rejected(f"the target has given number {wanted} of {name} away: the next one there is {made + 1}")

    def _tags(self, target: Target, record: Record, ids: Ids) -> dict[str, str]:
        tags = mapped_tags(pairs(record.doc.get("tags")), ids)
        if RUNS_TAG in tags:
            tags = tags | {RUNS_TAG: references.mapped(tags[RUNS_TAG], ("", ""), ids)[0]}
        source_tags = version_source_tags(record, target.notes) if target.source_tags else {}
        return tags | source_tags

    async def _placeholder(self, target: Target, body: Doc, tags: dict[str, str], wanted: int) -> int:
        """Take the next number; returns it. It is the wanted version itself where its number may be the wanted one."""
        if body["name"] in target.numbered:
            tags = {key: value for key, value in tags.items() if key.startswith("mlflow.prompt.")}
        return await self._made(target, body | _as_tags({**tags, PLACEHOLDER: str(wanted)}))

    async def _made(self, target: Target, body: Doc) -> int:
        """Make a version; returns the number that it got."""
        name = body["name"]

        async def recover() -> Doc | None:
            """The newest one, where that is newer than all that are known."""
            model = (await target.api.registry.call(GET_NAME, params=[("name", name)]))["registered_model"]
            newest = max(model.get("latest_versions") or [], key=lambda one: int(one["version"]), default=None)
            return {"model_version": newest} if newest and int(newest["version"]) > self._last(target, name) else None

        made = int((await target.api.registry.call(CREATE, body, recover=recover))["model_version"]["version"])
        target.last_version[name] = max(made, self._last(target, name))
        target.numbered.add(name)
        return made

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """A version of this number is there: it must be the one that is meant."""
        shown = self._shown_there(target, new_id)
        await self._check_same(target, record, shown, made, ids)
        replaces = made or target.updates
        await self._complete(target, record, shown, replaces, ids)
        stage = shown.get("current_stage") or NO_STAGE
        keeps = stage != NO_STAGE and not replaces
        return Open(_number(record), _stage(record) if keeps else stage)

    def _shown_there(self, target: Target, new_id: str) -> Doc:
        """What the target's listing told of a version."""
        held = target.index.get(self.name, new_id)
        shown: Doc = codec.loads(held[1]) if held else {}
        return shown

    async def _check_same(self, target: Target, record: Record, shown: Doc, made: bool, ids: Ids) -> None:
        if not made and not await self._is_same(target, record, shown, ids):
            raise Rejected(f"the target has another version of this number: its source is {shown.get('source')!r}")
        if made and not self.is_prompt and await self._is_another(target, record, shown, ids):
            name = _target_name(target, record)
            raise Rejected(
                "the source has made this version anew since it was carried, from something else, and no number is "
                f"given twice: delete '{name}' at the target and run again"
            )

    async def _is_another(self, target: Target, record: Record, shown: Doc, ids: Ids) -> bool:
        """Where a model was deleted at the source and registered anew, its numbers begin again at 1.

        The run tells, but for a copy, whose run is that of its original; else what it comes from.
        """
        run, held_run = str(record.doc.get("run_id") or ""), str(shown.get("run_id") or "")
        if (run or held_run) and not version_source.is_copy(str(record.doc.get("source") or "")):
            old = ids.old_id("run", held_run) if run and held_run else None
            return old is not None and old != run
        try:
            return not await self._is_same(target, record, shown, ids)
        except (Unresolved, Uncarriable):  # What it comes from is not at the target any more.
            return False

    async def _complete(self, target: Target, record: Record, shown: Doc, replaces: bool, ids: Ids) -> None:
        """Description and tags become those of the source; where they are not to be replaced, what is lacking comes."""
        version = {"name": _target_name(target, record), "version": str(_number(record))}
        described, held = record.doc.get("description") or "", shown.get("description") or ""
        if described != held and (replaces or not held):
            await target.api.registry.call(PATCH, {**version, "description": described})
        for tag in tag_list(self._tags(target, record, ids)):
            if shown["tags"].get(tag["key"]) != tag["value"] and (replaces or tag["key"] not in shown["tags"]):
                await target.api.registry.call(SET_VERSION_TAG, {**version, **tag})

    async def _is_same(self, target: Target, record: Record, shown: Doc, ids: Ids) -> bool:
        """Because it has the same text, or comes from the same place: as that is called at the target, or was before
        what it comes from arrived there."""
        if self.is_prompt:
            key = "mlflow.prompt.text"
            return bool(shown["tags"].get(key) == pairs(record.doc.get("tags")).get(key))
        origin: Origin = await version_source.origin_at(target, record, ids, self.is_prompt)
        held = version_source.place(shown.get("source") or "")
        return held in (version_source.place(one) for one in (origin.source, str(record.doc.get("source") or "")))

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """Where it is the newest one, its number is noted first: no listing tells of it any more."""
        await self._load(target)
        name, _, number = new_id.rpartition("/")
        if int(number) == self._last(target, name):
            tag = {"name": name, "key": LAST_VERSION, "value": number}
            await target.api.registry.call(SET_TAG, tag)
        await _delete(target, name, int(number))
        target.index.drop(self.name, new_id)

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        stage = _stage(record)
        if stage != state.stage:
            body = {
                "name": _target_name(target, record),
                "version": str(state.number),
                "stage": stage,
                "archive_existing_versions": False,
            }
            await target.api.registry.call(STAGE, body)
        losses: list[Outcome] = state.losses
        return losses


_CONTENT = ("description", "current_stage", "run_id", "run_link", "source")


class VersionScan:
    """The versions of some registered models or prompts, each one's in the order of their numbers."""

    def __init__(self, kind: RegistryVersion, api: Api, parents: Sequence[Record] | None) -> None:
        self._kind = kind
        self._api = api.registry
        self._parents = None if parents is None else {record.name: record.ref for record in parents}

    async def pages(self) -> AsyncIterator[list[Record]]:
        params = [("filter", PROMPTS_ONLY)] if self._kind.is_prompt else []
        if not self._api.abilities.older_than(2, 0):
            params += [("order_by", "name ASC"), ("order_by", "version_number ASC")]
        listing = pages(self._api, SEARCH_VERSIONS, "model_versions", {}, first=200, largest=PAGE, params=params)
        async for page in listing:
            records = [self._record(doc) for doc in page if self._parents is None or doc["name"] in self._parents]
            if records:
                yield records

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        async for page in self.pages():
            yield page

    def _record(self, doc: Doc) -> Record:
        name, number = doc["name"], str(doc["version"])
        parent = Ref(self._kind.parent or "", name) if self._parents is None else self._parents[name]
        return Record(Ref(self._kind.name, f"{name}/{number}", parent), doc, f"version {number}")


def _name(record: Record) -> str:
    return record.ref.id.rpartition("/")[0]


def _target_name(target: Target, record: Record) -> str:
    """What its model or prompt is called at the target."""
    assert record.ref.parent is not None, f"{record.ref} belongs to nothing"
    return target.naming.name(record.ref.parent)


def _target_id(target: Target, record: Record) -> str:
    return f"{_target_name(target, record)}/{_number(record)}"


def _stage(record: Record) -> str:
    return str(record.doc.get("current_stage") or NO_STAGE)


def _number(record: Record) -> int:
    return int(record.ref.id.rpartition("/")[2])


def _shown(doc: Doc) -> Doc:
    return {**{field: doc.get(field) for field in _CONTENT}, "tags": pairs(doc.get("tags"))}


def _as_tags(tags: dict[str, str]) -> Doc:
    return {"tags": tag_list(tags)}


async def _delete(target: Target, name: str, number: int) -> None:
    with suppress(NotFound):  # An answer of ours got lost: it is deleted.
        await target.api.registry.call(DELETE, {"name": name, "version": str(number)})


async def _take_off(target: Target, name: str, number: int) -> None:
    """A placeholder that has the right number is one no more."""
    await target.api.registry.call(DELETE_VERSION_TAG, {"name": name, "version": str(number), "key": PLACEHOLDER})


async def _forget(target: Target, name: str) -> None:
    """The number that a registered model has given last is in the listing again."""
    await target.api.registry.call(DELETE_TAG, {"name": name, "key": LAST_VERSION})

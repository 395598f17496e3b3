"""What versions of registered models and of prompts have in common.

Endpoints (`/api/2.0/mlflow/model-versions/…`): GET search (at most 200 000 a page; of prompts only where the filter
asks for them), POST create, POST transition-stage, DELETE delete.

The server numbers: one more than the highest number there ever was, deleted ones included. So versions are made in the
order of their numbers, and a placeholder takes each number that is missing at the source. It is deleted when the next
real version is there: no listing shows deleted ones, and without the highest number nobody could go on after a kill.
Where no real version follows (it was refused, we were killed), a tag of the model keeps the number.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from amigrate.client.api import V2, Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import NotFound, Rejected
from amigrate.core.model import Doc, Found, Outcome, Record, Ref
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import text, texts, whole
from amigrate.kinds import references, version_source
from amigrate.kinds.base import PROVENANCE, Kind, Target, content_tags, pairs, tag_list
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages
from amigrate.kinds.registry import EXPERIMENTS_TAG, PROMPTS_ONLY, SET_TAG, TIMES, experiments_of, mapped_tags
from amigrate.kinds.source_tags import version_source_tags
from amigrate.kinds.version_source import Origin

VERSIONS = f"{V2}/model-versions"
SEARCH = Endpoint("GET", f"{VERSIONS}/search")
GET = Endpoint("GET", f"{VERSIONS}/get")
CREATE = Endpoint("POST", f"{VERSIONS}/create", Work.WRITE, resend=False)
STAGE = Endpoint("POST", f"{VERSIONS}/transition-stage", Work.WRITE)
DELETE = Endpoint("DELETE", f"{VERSIONS}/delete", Work.WRITE)
PAGE = 1000
SOURCE_VERSION = f"{PROVENANCE}source_version"
PLACEHOLDER = f"{PROVENANCE}placeholder"
LAST_VERSION = f"{PROVENANCE}last_version"
"""The highest number that a registered model has given, where that one is deleted."""
RUNS_TAG = "mlflow.prompt.associatedRunIds"
"""The runs that a prompt was used in; older clients write it."""
NO_STAGE = "None"
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

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        doc = record.doc
        return codec.digest([*(doc.get(field) for field in _CONTENT), sorted(pairs(doc.get("tags")).items())])

    def needed(self, record: Record) -> Sequence[tuple[str, str]]:
        run_id = str(record.doc.get("run_id") or "")
        return [*([("run", run_id)] if run_id else []), *version_source.needed(str(record.doc.get("source") or ""))]

    def match(self, record: Record) -> str:
        return record.ref.id

    def comparable(self, record: Record, names: Names) -> Doc:
        doc, tags = record.doc, content_tags(pairs(record.doc.get("tags")))
        if EXPERIMENTS_TAG in tags:
            known = sorted(names("experiment", one) for one in experiments_of(tags[EXPERIMENTS_TAG]))
            tags[EXPERIMENTS_TAG] = codec.dumps(known).decode()
        if RUNS_TAG in tags:
            tags[RUNS_TAG] = references.named(tags[RUNS_TAG], names)
        return {
            "description": doc.get("description") or "",
            "stage": doc.get("current_stage") or NO_STAGE,
            "run": names("run", str(doc.get("run_id") or "")),
            "run_link": doc.get("run_link") or "",
            "source": version_source.named(str(doc.get("source") or ""), names),
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

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By number, from one listing of the target's registry."""
        if any(target.model_name(_name(record)) not in target.fresh_names for record in records):
            await self._load(target)
        found = {}
        for record in records:
            held = target.index.get(self.name, _target_id(target, record))
            if held is not None:
                found[record.ref.key] = Found(held[0].new_id, False)
        return found

    async def _load(self, target: Target) -> None:
        """Every version of the target; placeholders that a kill left behind are deleted."""
        if target.index.loaded(self.name):
            return
        placeholders: dict[str, list[int]] = {}
        async for page in VersionScan(self, target.api, None).pages():
            for record in page:
                name, number = _name(record), _number(record)
                target.last_version[name] = max(self._last(target, name), number)
                if PLACEHOLDER in pairs(record.doc.get("tags")):
                    placeholders.setdefault(name, []).append(number)
                else:
                    facts = codec.dumps(_shown(record.doc)).decode()
                    target.index.add(self.name, [record.ref.id], Found(record.ref.id, False), facts)
        target.index.mark(self.name)
        for name, numbers in placeholders.items():
            await self._remove(target, name, numbers)

    def _last(self, target: Target, name: str) -> int:
        """The highest number that a name of the target is known to have given."""
        if name not in target.last_version:
            held = target.index.get(self.parent or "", name)
            tags = codec.loads(held[1])["tags"] if held else {}
            target.last_version[name] = int(tags.get(LAST_VERSION) or 0)
        return target.last_version[name]

    async def _remove(self, target: Target, name: str, placeholders: Sequence[int]) -> None:
        """Delete placeholders; where none that is real comes after them, the number is noted first."""
        if placeholders and max(placeholders) == self._last(target, name):
            tag = {"name": name, "key": LAST_VERSION, "value": str(max(placeholders))}
            await target.api.registry.call(SET_TAG, tag)
        for number in placeholders:
            await _delete(target, name, number)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        name, wanted = target.model_name(_name(record)), _number(record)
        origin = await version_source.origin_at(target, record, ids, self.is_prompt)
        body: Doc = {"name": name, **origin.body(), "description": record.doc.get("description") or ""}
        if record.doc.get("run_link"):
            body["run_link"] = record.doc["run_link"]
        tags = self._tags(target, record, ids)
        if self._last(target, name) >= wanted:
            raise Rejected(f"the target has given number {wanted} of {name} away, to a version that was deleted there")
        placeholders: list[int] = []
        try:
            while self._last(target, name) + 1 < wanted:
                placeholders.append(await self._placeholder(target, body, tags))
            made = await self._made(target, {**body, "tags": tag_list(tags)}, wanted)
        finally:
            await self._remove(target, name, placeholders)
        if made != wanted:
            await self._remove(target, name, [made])
            raise Rejected(f"the target has given number {wanted} of {name} away: the next one there is {made + 1}")
        state = Open(wanted)
        if origin.lacks:
            reason = f"{origin.lacks} is not at the target, so its files cannot be found there"
            state.losses.append(lost("source", "source", record.ref, reason))
        return f"{name}/{wanted}", state

    def _tags(self, target: Target, record: Record, ids: Ids) -> dict[str, str]:
        tags = mapped_tags(pairs(record.doc.get("tags")), ids)
        if RUNS_TAG in tags:
            tags = tags | {RUNS_TAG: references.mapped(tags[RUNS_TAG], ("", ""), ids)[0]}
        source_tags = version_source_tags(record, target.notes) if target.source_tags else {}
        return {SOURCE_VERSION: record.ref.id} | tags | source_tags

    async def _placeholder(self, target: Target, body: Doc, tags: dict[str, str]) -> int:
        """Take the next number, which the source has no version of; returns it."""
        kept = {key: value for key, value in tags.items() if key.startswith("mlflow.prompt.")}
        number = self._last(target, body["name"]) + 1
        return await self._made(target, {**body, "tags": tag_list({**kept, PLACEHOLDER: "true"})}, number)

    async def _made(self, target: Target, body: Doc, number: int) -> int:
        """Make a version that should get this number; returns the number that it got."""

        async def recover() -> Doc | None:
            with suppress(NotFound):
                answer = await target.api.registry.call(GET, params=[("name", body["name"]), ("version", str(number))])
                if answer["model_version"].get("current_stage") != "Deleted_Internal":
                    return answer
            return None

        answer = await target.api.registry.call(CREATE, body, recover=recover)
        made = int(answer["model_version"]["version"])
        target.last_version[body["name"]] = max(made, self._last(target, body["name"]))
        return made

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """A version of this number is there: it must be the one that is meant."""
        held = target.index.get(self.name, new_id)
        shown: Doc = codec.loads(held[1]) if held else {}
        if not made and not await self._is_same(target, record, shown, ids):
            raise Rejected(f"the target has another version of this number: its source is {shown.get('source')!r}")
        name, number = target.model_name(_name(record)), str(_number(record))
        described = record.doc.get("description") or ""
        if described and described != shown.get("description"):
            body = {"name": name, "version": number, "description": described}
            await target.api.registry.call(Endpoint("PATCH", f"{VERSIONS}/update", Work.WRITE), body)
        wanted = self._tags(target, record, ids) if made else mapped_tags(pairs(record.doc.get("tags")), ids)
        for tag in tag_list(wanted):
            if shown["tags"].get(tag["key"]) != tag["value"]:
                body = {"name": name, "version": number, **tag}
                await target.api.registry.call(Endpoint("POST", f"{VERSIONS}/set-tag", Work.WRITE), body)
        return Open(int(number), shown.get("current_stage") or NO_STAGE)

    async def _is_same(self, target: Target, record: Record, shown: Doc, ids: Ids) -> bool:
        """By the tag of where either came from, or because it has the same text, or source and run."""
        mine = pairs(record.doc.get("tags")).get(SOURCE_VERSION) or record.ref.id
        tagged = shown["tags"].get(SOURCE_VERSION)
        if tagged is not None or SOURCE_VERSION in pairs(record.doc.get("tags")):
            return (tagged or record.ref.id) == mine
        if self.is_prompt:
            key = "mlflow.prompt.text"
            return bool(shown["tags"].get(key) == pairs(record.doc.get("tags")).get(key))
        origin: Origin = await version_source.origin_at(target, record, ids, self.is_prompt)
        return origin.source == shown.get("source")

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        stage = record.doc.get("current_stage") or NO_STAGE
        if stage != state.stage:
            body = {
                "name": target.model_name(_name(record)),
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
        listing = pages(self._api, SEARCH, "model_versions", {}, first=200, largest=PAGE, params=params)
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


def _target_id(target: Target, record: Record) -> str:
    return f"{target.model_name(_name(record))}/{_number(record)}"


def _number(record: Record) -> int:
    return int(record.ref.id.rpartition("/")[2])


def _shown(doc: Doc) -> Doc:
    return {**{field: doc.get(field) for field in _CONTENT}, "tags": pairs(doc.get("tags"))}


async def _delete(target: Target, name: str, number: int) -> None:
    with suppress(NotFound):  # An answer of ours got lost: it is deleted.
        await target.api.registry.call(DELETE, {"name": name, "version": str(number)})

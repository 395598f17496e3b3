"""What registered models and prompts have in common: to MLflow, a prompt is a registered model with a tag.

Endpoints (`/api/2.0/mlflow/registered-models/…`): GET search (at most 1000 a page; prompts only where the filter asks
for them), POST create, PATCH update (description), POST set-tag, POST alias (2.3+). Times cannot be set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from amigrate.client.api import V2, Api, Endpoint, Params, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, NotFound, Rejected, Uncarriable, Unsupported
from amigrate.core.model import Deferred, Doc, Foreseen, Found, Outcome, Record, Ref, Stage
from amigrate.core.ports import Ids, Names, Scan
from amigrate.core.typed import items, mapping, text, whole
from amigrate.kinds import recognition
from amigrate.kinds.base import PROVENANCE, Kind, Target, content_tags, pairs, tag_list
from amigrate.kinds.confirming import confirmed
from amigrate.kinds.limits import lost
from amigrate.kinds.listing import pages
from amigrate.kinds.naming import recognised
from amigrate.kinds.recognition import GET_NAME

REGISTERED = f"{V2}/registered-models"
SEARCH = Endpoint("GET", f"{REGISTERED}/search")
CREATE = Endpoint("POST", f"{REGISTERED}/create", Work.WRITE)
UPDATE = Endpoint("PATCH", f"{REGISTERED}/update", Work.WRITE)
SET_TAG = Endpoint("POST", f"{REGISTERED}/set-tag", Work.WRITE)
DELETE_TAG = Endpoint("DELETE", f"{REGISTERED}/delete-tag", Work.WRITE)
DELETE = Endpoint("DELETE", f"{REGISTERED}/delete", Work.WRITE)
SEARCH_VERSIONS = Endpoint("GET", f"{V2}/model-versions/search")
SET_ALIAS = Endpoint("POST", f"{REGISTERED}/alias", Work.WRITE)
PAGE = 1000
SHOWN = 5
"""Versions that an error names."""
PROMPT = "mlflow.prompt.is_prompt"
PROMPTS_ONLY = f"tags.`{PROMPT}` = 'true'"
EXPERIMENTS_TAG = "_mlflow_experiment_ids"
"""The experiments that a prompt belongs to: their ids, each between commas."""
TIMES = ("creation_timestamp", "last_updated_timestamp")


@dataclass(slots=True)
class Open:
    """A name in the registry that is being written."""

    aliases: dict[str, str] = field(default_factory=dict)
    """Those that the target lacks, each with its version."""
    losses: list[Outcome] = field(default_factory=list)


class RegistryName(Kind):
    """A registered model or a prompt, without its versions."""

    named = True
    is_prompt = False
    versions_kind = ""
    """The kind of its versions."""
    documented = ""
    """What its document calls it."""

    # ---- pure -------------------------------------------------------------------------------------------------

    def digest(self, record: Record) -> str:
        return codec.digest(_facts(record.doc))

    def match(self, record: Record) -> str:
        return record.name

    def comparable(self, record: Record, names: Names) -> Doc:
        told = _facts(record.doc)
        tags = content_tags(told["tags"])
        if EXPERIMENTS_TAG in tags:
            tags[EXPERIMENTS_TAG] = named_experiments(tags[EXPERIMENTS_TAG], names)
        return {**told, "tags": tags}

    def encode(self, record: Record) -> Doc:
        doc = record.doc
        tags = tag_list(dict(sorted(pairs(doc.get("tags")).items())))
        kept = {key: value for key, value in doc.items() if key not in ("latest_versions", "archive")}
        return {self.documented: {**kept, "tags": tags, "aliases": doc.get("aliases") or []}}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get(self.documented), self.documented)
        name = text(given.get("name") or None, "name")
        aliases = [mapping(one, "an alias") for one in items(given.get("aliases"), "aliases")]
        doc: Doc = {
            "name": name,
            "tags": tag_list(pairs(given.get("tags"))),
            "aliases": [
                {"alias": text(one.get("alias"), "alias"), "version": str(whole(one.get("version"), "version"))}
                for one in aliases
            ],
            "versions": items(given.get("versions"), "versions"),
        }
        if given.get("description"):
            doc["description"] = text(given["description"], "description")
        doc |= {time: whole(given[time], time) for time in TIMES if given.get(time) is not None}
        return Record(Ref(self.name, name), doc, name)

    # ---- read -------------------------------------------------------------------------------------------------

    def scan(self, api: Api, parents: Sequence[Record]) -> Scan:
        return RegistryScan(self, api)

    async def missed(self, api: Api, records: Sequence[Record]) -> list[Record]:
        async def ask(record: Record) -> Record:
            params = [("name", record.name)]
            return replace(record, doc=(await api.registry.call(GET_NAME, params=params))["registered_model"])

        found = await confirmed(ask, records)
        return [one for one in found if (PROMPT in pairs(one.doc.get("tags"))) == self.is_prompt]

    def wanted(self) -> Params:
        """What a listing of the registry is asked for."""
        return [("filter", PROMPTS_ONLY)] if self.is_prompt else []

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        """By name, from one listing of the target's registry."""
        await self._load(target)
        found = {}
        for record in records:
            name = target.naming.recall(record, ids, lambda name: target.index.get(self.name, name) is not None)
            held = target.index.get(self.name, name)
            if held is not None:
                same = codec.loads(held[1]) == self._as_sent(record, ids)
                found[record.ref.key] = Found(held[0].new_id, same)
        return found

    async def recognises(
        self, target: Target, record: Record, held: Found, children: Sequence[Record], ids: Ids, given: bool = False
    ) -> bool:
        return recognised(await recognition.of_versions(target, held.new_id, children), given)

    async def _load(self, target: Target) -> None:
        if target.index.loaded(self.name):
            return
        async for page in RegistryScan(self, target.api).pages():
            for record in page:
                facts = codec.dumps(_facts(record.doc)).decode()
                target.index.add(self.name, [record.name], Found(record.name, False), facts)
        target.index.mark(self.name)

    def _as_sent(self, record: Record, ids: Ids) -> Doc:
        """Description, tags and aliases in the target's terms."""
        told = _facts(record.doc)
        return {**told, "tags": mapped_tags(told["tags"], ids)}

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        aliases = _facts(record.doc)["aliases"]
        if made is None:
            target.fresh_names.add(target.naming.name(record.ref))
        losses = list[Outcome]()
        if target.api.registry.abilities.older_than(2, 3):
            reason = "the target is an MLflow without aliases (2.3 has them)"
            losses = [lost("alias", alias, record.ref, reason) for alias in aliases]
        return Foreseen(1 + len(aliases), losses)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        told = self._as_sent(record, ids)
        name = target.naming.name(record.ref)
        body = {"name": name, "description": told["description"], "tags": tag_list(told["tags"])}
        try:
            await target.api.registry.call(CREATE, body)
        except Conflict:  # An earlier answer of ours got lost, or somebody was faster.
            await self._check_kind(target, name)
            return name, await self.resume(target, record, name, False, ids)
        target.fresh_names.add(name)
        target.numbered.add(name)
        return name, Open(told["aliases"])

    async def _check_kind(self, target: Target, name: str) -> None:
        """Models and prompts share their names, and neither listing shows the others."""
        answer = await target.api.registry.call(GET_NAME, params=[("name", name)])
        is_prompt = pairs(answer["registered_model"].get("tags")).get(PROMPT) == "true"
        if is_prompt != self.is_prompt:
            raise Rejected(f"the target has a {'prompt' if is_prompt else 'registered model'} of this name")

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Brought up to date where amigrate made it, or where the user wants that; else it gets aliases it lacks."""
        held = target.index.get(self.name, new_id)
        old: Doc = codec.loads(held[1]) if held else {"description": "", "tags": {}, "aliases": {}}
        new, replaces = self._as_sent(record, ids), made or target.updates
        state = Open(
            {
                alias: version
                for alias, version in new["aliases"].items()
                if old["aliases"].get(alias) != version and (replaces or alias not in old["aliases"])
            }
        )
        if replaces and new["description"] != old["description"]:
            await target.api.registry.call(UPDATE, {"name": new_id, "description": new["description"]})
        for tag in tag_list(new["tags"]) if replaces else ():
            if old["tags"].get(tag["key"]) != tag["value"]:
                await self._set_tag(target, record, new_id, tag, state)
        return state

    async def _set_tag(self, target: Target, record: Record, new_id: str, tag: Doc, state: Open) -> None:
        try:
            await target.api.registry.call(SET_TAG, {"name": new_id, **tag})
        except Rejected as error:
            state.losses.append(lost("tag", tag["key"], record.ref, f"the target refuses it: {error}"))

    async def commit(self, target: Target, record: Record, ids: Ids, state: Any) -> list[Outcome]:
        losses: list[Outcome] = state.losses if state else []
        return losses

    def deferred(self, target: Target, record: Record, state: Any) -> list[Deferred]:
        return [Deferred(Stage.REFERENCES, {"aliases": state.aliases})] if state and state.aliases else []

    async def remove(self, target: Target, ref: Ref, new_id: str, ids: Ids) -> None:
        """With all its versions, and only where all of them are ours."""
        rows = pages(
            target.api.registry, SEARCH_VERSIONS, "model_versions", {}, first=200, largest=PAGE, params=self.wanted()
        )
        held = [f"{new_id}/{one['version']}" async for page in rows for one in page if one["name"] == new_id]
        strange = [one for one in held if ids.old_id(self.versions_kind, one) is None]
        if strange:
            raise Uncarriable(f"amigrate did not make {', '.join(strange[:SHOWN])}")
        with suppress(NotFound):
            await target.api.registry.call(DELETE, {"name": new_id})
        for one in held:
            target.index.drop(self.versions_kind, one)
        target.index.drop(self.name, new_id)
        target.last_version.pop(new_id, None)

    async def link(self, target: Target, record: Record, new_id: str, what: Deferred, ids: Ids) -> bool:
        waiting = {}
        for alias, version in what.doc["aliases"].items():
            if ids.new_id(self.versions_kind, f"{record.ref.id}/{version}") is None:
                waiting[alias] = version
                continue
            body = {"name": new_id, "alias": alias, "version": version}
            try:
                await target.api.registry.call(SET_ALIAS, body)
            except Unsupported as error:
                raise Unsupported(f"the target is an MLflow without aliases (2.3 has them): {error}") from error
        what.doc["aliases"] = waiting
        return not waiting


class RegistryScan:
    """Every name of one kind in the registry."""

    def __init__(self, kind: RegistryName, api: Api) -> None:
        self._kind = kind
        self._api = api.registry
        self._seen: set[str] = set()

    async def pages(self) -> AsyncIterator[list[Record]]:
        listing = pages(self._api, SEARCH, "registered_models", {}, first=100, largest=PAGE, params=self._kind.wanted())
        async for page in listing:
            self._seen.update(doc["name"] for doc in page)
            yield [Record(Ref(self._kind.name, doc["name"]), doc, doc["name"]) for doc in page]

    async def size(self) -> int | None:
        return None

    async def again(self) -> AsyncIterator[list[Record]]:
        before = set(self._seen)
        async for page in self.pages():
            new = [record for record in page if record.name not in before]
            if new:
                yield new


def experiments_of(tag: str) -> list[str]:
    """The experiment ids in a tag that holds them between commas."""
    return [one.strip() for one in tag.split(",") if one.strip()]


def named_experiments(tag: str, names: Names) -> str:
    """Such a tag as both sides of a comparison have it: an id that is no experiment's says nothing."""
    known = {names("experiment", one) for one in experiments_of(tag)} - {"", *experiments_of(tag)}
    return codec.dumps(sorted(known)).decode()


def mapped_tags(tags: dict[str, str], ids: Ids) -> dict[str, str]:
    """Tags with the ids of experiments replaced; those that did not come along are left out of the list.

    What amigrate itself noted at the source stays there.
    """
    tags = {key: value for key, value in tags.items() if not key.startswith(PROVENANCE)}
    if EXPERIMENTS_TAG not in tags:
        return tags
    known = dict.fromkeys(ids.new_id("experiment", one) for one in experiments_of(tags[EXPERIMENTS_TAG]))
    return tags | {EXPERIMENTS_TAG: f",{','.join(one for one in known if one)},"}


def _facts(doc: Doc) -> Doc:
    aliases = {str(one["alias"]): str(one["version"]) for one in doc.get("aliases") or []}
    return {"description": doc.get("description") or "", "tags": pairs(doc.get("tags")), "aliases": aliases}

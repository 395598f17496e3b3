"""Where a version of a registered model comes from, at the source and at the target.

A source is `runs:/<run>/<path>`, `models:/<logged model>`, `models:/<name>/<number>`, or the place of the files on any
scheme: below the artifacts of a run (`…/<run>/artifacts/<path>`) or of a logged model (`…/models/<model>/artifacts`).
The server (3.17.2) checks that what it serves itself lies in the run or the logged model that the call names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from amigrate.client.api import V2, Endpoint
from amigrate.core.errors import NotFound, Uncarriable, Unresolved
from amigrate.core.model import Doc, Record
from amigrate.core.ports import Ids, Names
from amigrate.kinds import references
from amigrate.kinds.base import Target
from amigrate.kinds.deleted_runs import GET as GET_RUN

PLACE = re.compile(r".*/(?P<owner>(?:m-)?[0-9a-f]{32})/artifacts(?P<rest>/.*)?$")
OF_RUN = re.compile(r"runs:/+(?P<owner>[0-9a-f]{32})(?P<rest>/.*)?$")
OF_VERSION = re.compile(r"models:/+(?P<name>[^/@]+)/(?P<number>\d+)$")
OF_NAME = re.compile(r"models:/+(?P<name>(?!m-[0-9a-f]{32})[^/@]+)(?P<rest>[/@].*)$")
OF_MODEL = re.compile(r"models:/+(?P<model>m-[0-9a-f]{32})(?P<rest>/.*)?$")


KEPT_ANYWHERE = ("s3", "gs", "dbfs", "wasb", "wasbs", "abfs", "abfss")
"""Schemes that the server takes without looking for a run: whoever reads the version goes to the store itself."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a create call says of where a version comes from."""

    source: str
    run_id: str = ""
    model_id: str = ""
    lacks: str = ""
    """What it needs that is not at the target, where something is not."""

    def body(self) -> Doc:
        """As the endpoint takes it: what is empty is not sent."""
        given = {"source": self.source, "run_id": self.run_id, "model_id": self.model_id}
        return {key: value for key, value in given.items() if value}


async def origin_at(target: Target, record: Record, ids: Ids, is_prompt: bool) -> Origin:
    """The origin of a version in the target's terms.

    Raises `Unresolved` where it is a copy of another version that is not at the target yet, `Uncarriable` where the
    target would take no origin at all.
    """
    source, old_run = str(record.doc.get("source") or ""), str(record.doc.get("run_id") or "")
    run_id = (ids.new_id("run", old_run) or old_run) if old_run else ""
    if is_prompt:
        return Origin(source, run_id)
    if copied := OF_VERSION.match(source):
        other = f"{copied['name']}/{copied['number']}"
        new = ids.new_id("model_version", other)
        if new is None:
            raise Unresolved(f"it is a copy of version {other}, which is not at the target")
        # Newer servers give it the run of that version themselves, and refuse any other.
        return Origin(f"models:/{new}", run_id if target.api.registry.abilities.older_than(3, 17) else "")
    if logged := OF_MODEL.match(source):
        model_id = ids.new_id(references.LOGGED_MODEL, logged["model"])
        if model_id is None:
            return _orphan(logged["model"], run_id, logged["model"])
        return Origin(f"models:/{model_id}{logged['rest'] or ''}", run_id, model_id)
    if placed := PLACE.match(source):
        return await _placed(target, source, placed["owner"], placed["rest"] or "", run_id, ids)
    if other_name := OF_NAME.match(source):
        name = target.naming.of_registry("registered_model", other_name["name"])
        return Origin(f"models:/{name}{other_name['rest']}", run_id)
    text, complete = references.mapped(source, ("", ""), ids)
    return Origin(text, run_id, lacks="" if complete else "the run that its source names")


async def _placed(target: Target, source: str, owner: str, rest: str, run_id: str, ids: Ids) -> Origin:
    """A version whose files lie below the artifacts of a run or a logged model."""
    root = await _root(target, owner, ids)
    if root is not None:
        return Origin(f"{root}{rest}", run_id, ids.new_id(references.LOGGED_MODEL, owner) or "")
    if is_kept_anywhere(source):
        return Origin(source, run_id)
    return _orphan(owner, run_id, rest.strip("/") or owner)


def is_kept_anywhere(source: str) -> bool:
    """True for a source that the target takes as it is: whoever reads the version goes to the store itself."""
    return source.partition(":")[0] in KEPT_ANYWHERE


def _orphan(owner: str, run_id: str, path: str) -> Origin:
    """A version whose run or logged model is gone: `runs:/` is what the server takes of a run that it does not have."""
    run_id = run_id if references.kind_of(owner) == references.LOGGED_MODEL else owner
    if not run_id:
        raise Uncarriable(f"its logged model {owner} is not at the target, and it names no run")
    return Origin(f"runs:/{run_id}/{path}", run_id, lacks=f"{references.kind_of(owner).replace('_', ' ')} {owner}")


async def _root(target: Target, old: str, ids: Ids) -> str | None:
    """Where the target keeps the artifacts of a run or logged model of the source; None where it has none of it."""
    kind = references.kind_of(old)
    new_id = ids.new_id(kind, old)
    if new_id is None:
        return None
    if new_id not in target.artifact_roots:
        try:
            if kind == references.RUN:
                run = (await target.api.call(GET_RUN, params=[("run_id", new_id)]))["run"]
                root = run["info"]["artifact_uri"]
            else:
                model = await target.api.call(Endpoint("GET", f"{V2}/logged-models/{new_id}"))
                root = model["model"]["info"]["artifact_uri"]
        except NotFound:
            return None
        target.note_root(new_id, str(root))
        return str(root)
    return target.artifact_roots[new_id]


def place(source: str) -> str:
    """A source without what may differ between two that mean the same files: how their root is addressed."""
    placed = PLACE.match(source) or OF_RUN.match(source)
    return f"{placed['owner']}/artifacts{placed['rest'] or ''}" if placed else source


def is_copy(source: str) -> bool:
    """Of another version: its run is the run of that one, which servers before 3.17 did not tell."""
    return OF_VERSION.match(source) is not None


def named(source: str, names: Names) -> str:
    """A source with ids replaced by what both sides of a comparison call them; roots of stores differ by nature."""
    if placed := PLACE.match(source):
        owner = placed["owner"]
        return f"{names(references.kind_of(owner), owner)}/artifacts{placed['rest'] or ''}"
    if other := OF_NAME.match(source):
        return f"models:/{names('registered_model', other['name'])}{other['rest']}"
    return references.named(source, names)


def needed(source: str) -> list[tuple[str, str]]:
    """Kind and id of the run, the logged model or the version that a source names."""
    if copied := OF_VERSION.match(source):
        return [("registered_model", copied["name"])]
    return [(references.kind_of(found), found) for found in references.ID.findall(source)]

"""Several workspaces of one server: which of them move, under which names, and what became of each.

A workspace is moved by the same walk as a whole server, with its own header on both ends, its own folder of the archive
and its own journal: ids and names mean something within one workspace only. What is moved here are the workspaces
themselves: they are made where the target lacks them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from amigrate.client import workspaces as client
from amigrate.client.api import Api
from amigrate.core.errors import AmigrateError, CannotContinue, UsageError
from amigrate.core.model import Doc, Notes, Outcome, Ref, Status
from amigrate.options import DEFAULT_WORKSPACE, Workspaces

KIND = "workspace"
NOT_ASKED = "not asked for: --workspaces takes workspaces along"


@dataclass(frozen=True, slots=True)
class Space:
    """One workspace to move."""

    name: str
    new: str
    """What it is called at the target."""
    doc: Doc
    """Its settings, as its server (or archive) says them."""
    error: AmigrateError | None = None
    """Why it cannot be read."""

    @property
    def label(self) -> str:
        return self.name if self.name == self.new else f"{self.name}:{self.new}"


def chosen(wanted: Workspaces, there: Mapping[str, Space], where: str) -> list[Space]:
    """The workspaces that are asked for, by name. Raises `UsageError` for one that is not there."""
    unknown = sorted(set(wanted.names) - set(there))
    if unknown:
        has = f"it has {', '.join(sorted(there))}" if there else "it has none that this user may see"
        raise UsageError(f"{where} has no workspace {', '.join(unknown)}: {has}")
    names = sorted(there) if wanted.everything else wanted.names
    spaces = [
        Space(name, wanted.names.get(name, name), there[name].doc, there[name].error) for name in dict.fromkeys(names)
    ]
    taken: dict[str, str] = {}
    for space in spaces:
        if taken.setdefault(space.new, space.name) != space.name:
            raise UsageError(f"the workspaces {taken[space.new]} and {space.name} cannot both become {space.new}")
    return spaces


async def of_server(api: Api) -> dict[str, Space]:
    """The workspaces of a server by name. Raises `UsageError` where it has none."""
    return {name: Space(name, name, doc) for name, doc in (await client.listed(api)).items()}


def left_alone(there: Mapping[str, Space], spaces: Sequence[Space]) -> list[Outcome]:
    """The workspaces that nobody asked for."""
    return [excluded(name) for name in sorted(set(there) - {space.name for space in spaces})]


async def unseen(api: Api) -> list[Outcome]:
    """The workspaces of a server besides the one that is moved."""
    if not api.abilities.workspaces:
        return []
    names, error = await client.others(api)
    if error:
        return [Outcome(Ref(KIND, "(all)"), Status.EXCLUDED, reason=f"cannot be listed: {error}", name="(all)")]
    return [excluded(name) for name in names]


def excluded(name: str) -> Outcome:
    return Outcome(Ref(KIND, name), Status.EXCLUDED, reason=NOT_ASKED, name=name)


async def make(api: Api, spaces: Sequence[Space], held: Mapping[str, Doc], notes: Notes) -> dict[str, Outcome]:
    """Make what the target, which has those `held`, lacks; what became of each, by its name at the source."""
    made = {}
    for space in spaces:
        status, reason = Status.PRESENT, ""
        try:
            status = await _made(api, space, held)
        except CannotContinue:
            raise
        except AmigrateError as error:
            status, reason = Status.FAILED, f"it cannot be made at the target: {error}"
        for setting in client.left_out(space.doc) if status is Status.CREATED else ():
            notes.warn(
                f"workspace {space.label}: {setting} was not taken over, because it is a place of the source: set it "
                "at the target where it is meant for that too"
            )
        made[space.name] = met(space, status, reason)
    return made


async def _made(api: Api, space: Space, held: Mapping[str, Doc]) -> Status:
    if space.error is not None:
        raise space.error
    if space.new == DEFAULT_WORKSPACE and space.new in held:
        return await client.complete(api, held[space.new], space.doc)
    if space.new in held:
        return Status.PRESENT
    await client.create(api, space.new, space.doc)
    return Status.CREATED


def there(asked: Sequence[Space], made: Mapping[str, Outcome]) -> list[Space]:
    """Those that the target has by now."""
    return [space for space in asked if made[space.name].status is not Status.FAILED]


def met(space: Space, status: Status, reason: str = "") -> Outcome:
    """What became of a workspace."""
    return Outcome(Ref(KIND, space.name), status, space.new, reason, space.label)

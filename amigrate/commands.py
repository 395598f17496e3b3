"""Composition: ends become a Source and a Sink, the engine moves between them, the summary says what became of it.

Each command opens its ends, runs one `Transfer`, and always ends in a `Summary`: also when it was interrupted or could
not continue, as long as a journal was open.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from amigrate import __version__
from amigrate import workspaces as spaces
from amigrate.archive import spaces as archive
from amigrate.archive.audit import audit
from amigrate.archive.envelope import Origin
from amigrate.archive.layout import EXPERIMENTS, PRIVATE, REPORT, WORKSPACES, Layout
from amigrate.archive.sink import ArchiveSink
from amigrate.archive.source import ArchiveSource
from amigrate.client import ping as client_ping
from amigrate.client.api import Api
from amigrate.client.workspaces import listed
from amigrate.core.errors import NotAnArchive, UsageError
from amigrate.core.model import Record, Ref, Status
from amigrate.core.ports import Source
from amigrate.ends import both, check_output, probed, server_at, sink_of
from amigrate.engine.budget import ByteBudget
from amigrate.engine.check import Side, check, examine
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.plan import EXPERIMENT
from amigrate.engine.stats import Requests
from amigrate.engine.survey import Scope
from amigrate.engine.transfer import Wants
from amigrate.jobs import state_home
from amigrate.kinds import REGISTRY
from amigrate.kinds.selection import chosen, not_compared
from amigrate.local import private_server
from amigrate.options import ServerOptions, Verification, Workspaces, redacted, same_server, same_workspace
from amigrate.report import progress
from amigrate.report.comparison import Comparison
from amigrate.report.demo import Demo, step
from amigrate.report.ping import Ping
from amigrate.report.summary import EXIT_DONE, EXIT_LOSS, Summary
from amigrate.sample import fill
from amigrate.server.source import ServerSource
from amigrate.session import (
    STOPPED,
    Session,
    beside_journal,
    ended,
    import_state,
    journal_of,
    move,
    note_unasked,
    note_unseen,
    noted,
    run,
    slug,
)
from amigrate.stores import holds_runs
from amigrate.workspaces import Space

NOBODY = Ref("experiment", "")
"""Stands in for an id that says nothing."""


async def export(session: Session, server: ServerOptions, output: Path, base: str, single: bool) -> Summary:
    """Everything asked for, from a server into a folder. `base` is the experiments' folder in it."""
    check_output(output)
    session.ends = {"--tracking-uri": server.uri}
    async with server_at(session, server, session.stats.source, writable=False) as api:
        await probed(session, api)
        if session.options.workspaces is not None:
            _check_one_workspace(session)
            return await _export_workspaces(session, api, output, session.options.workspaces)
        layout = Layout(output, base, single, REGISTRY)
        shape = await _experiment_for(session, api) if single else base or "experiments"
        return await _export(session, api, layout, shape)


async def _experiment_for(session: Session, api: Api) -> str:
    """The experiment that a folder of its own is for, as the folder's journal calls it: another one would mix with it.

    Raises `UsageError` where two are meant.
    """
    wants = Wants(session.options.selection.experiments)
    found = [one for one in await _experiments(ServerSource(api, REGISTRY)) if wants(one)]
    if len(found) > 1:
        meant = " and ".join(f"'{one.name}' (id {one.ref.id})" for one in found)
        raise UsageError(f"--experiment means {meant}: use export-experiments")
    return f"experiment {found[0].ref.id}" if found else "one experiment"


async def _export(session: Session, api: Api, layout: Layout, shape: str) -> Summary:
    """From one server, or one of its workspaces, into a folder."""
    place, output = api.place, layout.root
    session.journal = journal_of(session, output / PRIVATE / "export", f"export of {shape} of {place}", here=True)
    session.report = None if session.options.dry_run else session.options.report or output / REPORT
    sink = ArchiveSink(layout, REGISTRY, _origin(session, api), bare_nan=session.options.bare_nan)

    async def work() -> None:
        await move(session, ServerSource(api, REGISTRY), sink)
        await note_unseen(session, api)
        if not session.options.dry_run:
            sink.finish(noted(session.options), session.stats.seconds, whole=True)

    return await run(session, place, str(output), work)


def _origin(session: Session, api: Api) -> Origin:
    command, version = f"amigrate {session.options.command}", api.abilities.version or "unknown"
    return Origin(__version__, command, api.shown, version, time.time())


async def import_archive(session: Session, server: ServerOptions, folder: Path) -> Summary:
    """Everything asked for, from a folder into a server."""
    session.ends = {"--tracking-uri": server.uri}
    if holds_runs(folder):
        raise UsageError(f"{folder} is no archive but MLflow's own folder of runs: use copy-all --source {folder}")
    spaces = _asked_in_archive(session, server, folder)
    source = None if spaces else ArchiveSource(folder, REGISTRY, session.stats.notes)
    if source and session.options.imports.experiment_name and len(source.homes) != 1:
        raise UsageError(f"{folder} holds {len(source.homes)} experiments: use import-experiments or import-all")
    async with server_at(session, server, session.stats.sink, writable=True) as api:
        await probed(session, api)
        if source is None:
            _check_one_workspace(session)
            return await _import_workspaces(session, api, folder, spaces)
        return await _import(session, api, folder, source)


async def _import(session: Session, api: Api, folder: Path, source: ArchiveSource) -> Summary:
    """From a folder into one server, or one of its workspaces."""
    place = api.place
    state = session.options.state or import_state(folder, place)
    session.journal = journal_of(session, state, f"import into {place}", here=api.store is not None)
    beside_journal(session, state)
    sink = sink_of(session, api)
    return await run(session, str(folder), place, lambda: move(session, source, sink))


async def copy(session: Session, source: ServerOptions, target: ServerOptions) -> Summary:
    """Everything asked for, from one server to another; nothing touches the disk but the journal."""
    session.ends = {"--source": source.uri, "--target": target.uri}
    wanted = session.options.workspaces
    if same_server(source.uri, target.uri) and (wanted is None and same_workspace(source, target)):
        raise UsageError("source and target are the same server")
    if session.options.dry_run and target.store and not target.store.exists():
        session.stats.notes.warn(f"{target.uri} is not there yet: it would be made")
        return await _plan_into_nothing(session, source, target.uri)
    async with AsyncExitStack() as stack:
        reading, writing = await both(session, stack, source, target)
        await probed(session, writing)
        if wanted is not None:
            _check_one_workspace(session)
            return await _copy_workspaces(session, reading, writing, wanted)
        return await _copy(session, reading, writing)


async def _copy(session: Session, reading: Api, writing: Api) -> Summary:
    """From one server, or one of its workspaces, to another."""
    old, new = reading.place, writing.place
    state = session.options.state or state_home() / f"{slug(old)}--{slug(new)}"
    session.journal = journal_of(session, state, f"copy of {old} to {new}", here=writing.store is not None)
    beside_journal(session, state)
    reading.named_users = session.options.imports.passwords.names()
    sink = sink_of(session, writing)

    async def work() -> None:
        await move(session, ServerSource(reading, REGISTRY), sink)
        await note_unseen(session, reading)

    return await run(session, old, new, work)


async def plan(session: Session, source: ServerOptions, target: ServerOptions | None) -> Summary:
    """What a move of everything asked for would come to, between any two ends; with no target, into a new archive."""
    if target is None:
        return await _plan_into_nothing(session, source, "a new archive")
    archive, output = _archive(source), _archive(target)
    if archive and output:
        raise UsageError(f"{archive} and {output} are both folders of archives: nothing moves between them")
    if archive:
        return await import_archive(session, target, archive)
    if output:
        return await export(session, source, output, EXPERIMENTS, False)
    return await copy(session, source, target)


async def _plan_into_nothing(session: Session, end: ServerOptions, target: str) -> Summary:
    """Where there is nothing yet, nothing is in the way."""
    async with AsyncExitStack() as stack:
        source = await _readable(session, stack, end, session.stats.source)
        session.journal = journal_of(session, state_home() / "none", f"plan of {end.uri}")
        return await run(session, end.uri, target, lambda: move(session, source, None))


async def ping(session: Session, server: ServerOptions) -> Ping:
    """What answers at an address, and what it can do."""
    async with server_at(session, server, session.stats.source, writable=False) as api:
        found = await probed(session, api)
        answers = await client_ping.ask(api)
    session.stats.notes.warnings.extend(client_ping.advice(answers))
    return Ping(
        server.uri,
        found.said_version,
        found.store,
        found.workspaces,
        answers.workspaces,
        server.workspace,
        redacted(server.registry_uri),
        api.registry.abilities.said_version if server.registry_uri else "",
        answers.proxied,
        found.administrator,
        answers.experiments,
        answers.more,
        answers.features,
        1000 * answers.seconds,
        None if answers.login_seconds is None else 1000 * answers.login_seconds,
        tuple(session.stats.notes.warnings),
    )


async def demo(session: Session, folder: Path | None) -> Demo:
    """A sample workspace from one private server through an archive into another one, and what both hold then."""
    _check_new(folder)
    with TemporaryDirectory(prefix="amigrate-servers-", ignore_cleanup_errors=True) as home:
        async with AsyncExitStack() as stack:
            step(session.console, "starting two private MLflow servers")
            old, new = await _private_servers(stack, Path(home))
            step(session.console, "filling the first one with a sample workspace")
            async with server_at(session, old, Requests(), writable=True) as api:
                await fill(api)
            archive = folder or Path(mkdtemp(prefix="amigrate-demo-"))
            step(session.console, f"exporting it into {archive}")
            exported = await export(_part(session, "export-all"), old, archive, EXPERIMENTS, False)
            if exported.exit_code not in (EXIT_DONE, EXIT_LOSS):
                return Demo(archive, [exported])
            step(session.console, "importing that into the second one")
            imported = await import_archive(_part(session, "import-all"), new, archive)
            if imported.exit_code not in (EXIT_DONE, EXIT_LOSS):
                return Demo(archive, [exported, imported])
            step(session.console, "comparing both servers, object by object")
            compared = await verify(_part(session, "verify"), old, new, Verification())
            return Demo(archive, [exported, imported], compared)


async def _private_servers(stack: AsyncExitStack, home: Path) -> tuple[ServerOptions, ServerOptions]:
    """Two empty servers, started at once."""
    async with asyncio.TaskGroup() as group:
        old = group.create_task(stack.enter_async_context(private_server(home / "old")))
        new = group.create_task(stack.enter_async_context(private_server(home / "new")))
    return ServerOptions(old.result().uri), ServerOptions(new.result().uri)


async def verify(session: Session, one: ServerOptions, other: ServerOptions, how: Verification) -> Comparison:
    """Everything that two servers or archives hold, object by object."""
    stats, selection = session.stats, session.options.selection
    kinds, _ = chosen(selection.objects, selection.skip_objects, whole=not selection.experiments)
    comparison = Comparison(one.uri, other.uri, stats, how.quick, how.verbose, not_compared(kinds))
    async with AsyncExitStack() as stack, progress.shown(stats, session.console):
        async with asyncio.TaskGroup() as group:
            ends = ((one, stats.source), (other, stats.sink))
            opened = [group.create_task(_readable(session, stack, *end)) for end in ends]
        sides = await _sides(session, opened[0].result(), opened[1].result(), how)
        async for finding in check(*sides, kinds, stats, ByteBudget(session.options.limits.memory)):
            comparison.add(finding)
    stats.ended = time.monotonic()
    return comparison


async def verify_archive(session: Session, end: ServerOptions, how: Verification) -> Comparison:
    """An archive against its own lists, counts and checksums."""
    folder, stats = _archive(end), session.stats
    if folder is None:
        raise UsageError(f"{end.uri} is no archive: give a second address or archive to compare it with")
    source = ArchiveSource(folder, REGISTRY, stats.notes)
    comparison = Comparison(str(folder), "", stats, how.quick, how.verbose)
    side, budget = Side(source, Scope(content=not how.quick)), ByteBudget(session.options.limits.memory)
    async with progress.shown(stats, session.console):
        async for finding in examine(side, REGISTRY, stats, budget):
            comparison.add(finding)
        for finding in audit(folder, REGISTRY):
            comparison.add(finding)
            await asyncio.sleep(0)
    stats.ended = time.monotonic()
    return comparison


async def _sides(session: Session, a: Source, b: Source, how: Verification) -> tuple[Side, Side]:
    """What of each side is compared. Ids choose experiments of A only: the same id is another one at B."""
    selection = session.options.selection
    scope = Scope(selection.deleted, whole=not selection.experiments, content=not how.quick)
    if scope.whole:
        return Side(a, replace(scope, renamed=how.renames)), Side(b, scope)
    at_a, at_b = Wants(selection.experiments), Wants(selection.experiments)
    names = {how.renames(EXPERIMENT, record.name) for record in await _experiments(a) if at_a(record)}
    names |= {record.name for record in await _experiments(b) if not how.renames and at_b(replace(record, ref=NOBODY))}
    in_vain = sorted(at_a.unused & at_b.unused)
    if in_vain:
        raise UsageError(f"neither {a.label} nor {b.label} has an experiment {', '.join(map(repr, in_vain))}")
    chosen_at_b = replace(scope, wants=lambda record: record.name in names)
    return Side(a, replace(scope, wants=at_a, renamed=how.renames)), Side(b, chosen_at_b)


async def _experiments(source: Source) -> list[Record]:
    return [record async for page in source.scan(EXPERIMENT, []).pages() for record in page]


async def _readable(
    session: Session, stack: AsyncExitStack, end: ServerOptions, requests: Requests
) -> ServerSource | ArchiveSource:
    """One side of a comparison: a server, a local store, an archive."""
    folder = _archive(end)
    if folder is not None:
        return ArchiveSource(folder, REGISTRY, session.stats.notes)
    api = await stack.enter_async_context(server_at(session, end, requests, writable=False))
    await probed(session, api)
    return ServerSource(api, REGISTRY)


def _archive(end: ServerOptions) -> Path | None:
    """The folder of the archive that an address names; None where it names a server or a store."""
    folder = end.store.folder if end.store else None
    return None if folder is None or holds_runs(folder) else folder


def _part(session: Session, command: str) -> Session:
    """A session of its own for one command of a demonstration."""
    return Session(replace(session.options, command=command), session.console, "")


def _check_new(folder: Path | None) -> None:
    """A demonstration continues nothing: its archive gets a folder of its own."""
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not an empty folder: give a new one")


def _check_one_workspace(session: Session) -> None:
    """What a workspace would hold cannot be looked at before it is made."""
    if session.options.dry_run:
        raise UsageError("--dry-run looks at one workspace at a time: give --workspace NAME instead of --workspaces")


# ---- workspaces -------------------------------------------------------------------------------------------------


async def _export_workspaces(session: Session, api: Api, output: Path, wanted: Workspaces) -> Summary:
    """From some workspaces of a server into a folder, each into a folder of its own."""
    there = await spaces.of_server(api)
    asked = spaces.chosen(wanted, there, api.shown)
    journal = session.journal = journal_of(session, output / PRIVATE / "export", f"export of workspaces of {api.shown}")
    session.report = session.options.report or output / REPORT
    system = _origin(session, api).system()

    async def one(part: Session, space: Space) -> Summary:
        is_new = archive.write_settings(output, space.new, system, space.doc)
        journal.outcomes([spaces.met(space, Status.CREATED if is_new else Status.PRESENT)])
        layout = Layout(archive.home_of(output, space.new), EXPERIMENTS, False, REGISTRY)
        return await _export(part, _within(api, space.name, part.stats.source), layout, EXPERIMENTS)

    async def work() -> None:
        journal.outcomes(spaces.left_alone(there, asked))
        await _each(session, asked, one)
        if not session.stopped:
            archive.write_manifest(output, system, noted(session.options))

    return await ended(session, api.shown, str(output), work)


async def _import_workspaces(session: Session, api: Api, folder: Path, asked: Sequence[Space]) -> Summary:
    """From the workspaces of an archive into those of a server."""
    instead = f"import one of them with --input-dir {archive.home_of(folder, asked[0].name)}"
    held = await listed(api, instead)
    state = session.options.state or import_state(folder, f"workspaces of {api.shown}")
    journal = session.journal = journal_of(session, state, f"import into workspaces of {api.shown}")
    session.report = session.options.report or state / REPORT

    async def one(part: Session, space: Space) -> Summary:
        home = archive.home_of(folder, space.name)
        source = ArchiveSource(home, REGISTRY, part.stats.notes)
        return await _import(part, _within(api, space.new, part.stats.sink), home, source)

    async def work() -> None:
        made = await spaces.make(api, asked, held, session.stats.notes)
        journal.outcomes([*made.values()])
        await _each(session, spaces.there(asked, made), one)

    return await ended(session, str(folder), api.shown, work)


async def _copy_workspaces(session: Session, reading: Api, writing: Api, wanted: Workspaces) -> Summary:
    """From some workspaces of a server into those of another one."""
    there = await spaces.of_server(reading)
    asked = spaces.chosen(wanted, there, reading.shown)
    if same_server(reading.shown, writing.shown) and (same := [one.name for one in asked if one.name == one.new]):
        raise UsageError(f"source and target are the same server: give {', '.join(same)} another name, as NAME:NEW")
    held = await listed(writing, "copy one workspace into it with --source-workspace NAME")
    old, new = f"workspaces of {reading.shown}", f"workspaces of {writing.shown}"
    state = session.options.state or state_home() / f"{slug(old)}--{slug(new)}"
    journal = session.journal = journal_of(session, state, f"copy of {old} to {new}")
    session.report = session.options.report or state / REPORT

    async def one(part: Session, space: Space) -> Summary:
        source = _within(reading, space.name, part.stats.source)
        return await _copy(part, source, _within(writing, space.new, part.stats.sink))

    async def work() -> None:
        made = await spaces.make(writing, asked, held, session.stats.notes)
        journal.outcomes([*spaces.left_alone(there, asked), *made.values()])
        await _each(session, spaces.there(asked, made), one)

    return await ended(session, reading.shown, writing.shown, work)


def _asked_in_archive(session: Session, server: ServerOptions, folder: Path) -> list[Space]:
    """The workspaces of an archive that are asked for; none where it holds no workspaces."""
    wanted, selection, imports = session.options.workspaces, session.options.selection, session.options.imports
    if not archive.holds_workspaces(folder):
        if wanted is not None:
            raise UsageError(f"{folder} holds no workspaces: import it into one with --workspace NAME")
        return []
    if selection.only or imports.experiment_name or imports.model_name:
        raise UsageError(f"{folder} holds workspaces: use import-all, or give one of them, {folder / WORKSPACES}/NAME")
    if server.workspace:
        raise UsageError(
            f"{folder} holds workspaces: to import one of them into {server.workspace}, unset --workspace and "
            f"MLFLOW_WORKSPACE and give --workspaces NAME:{server.workspace}"
        )
    there = {name: Space(name, name, doc, error) for name, (doc, error) in archive.held(folder).items()}
    return spaces.chosen(wanted or Workspaces(everything=True), there, str(folder))


def _within(api: Api, workspace: str, requests: Requests) -> Api:
    """One workspace of a server, its requests counted apart."""
    assert isinstance(api.guard, AdaptiveGuard), "every server here has one"
    return api.within(workspace, api.guard.counting(requests))


async def _each(session: Session, asked: Sequence[Space], one: Callable[[Session, Space], Awaitable[Summary]]) -> None:
    """Move workspaces one after the other; what ends the session ends it with the workspace that it hit."""
    assert session.journal is not None
    for number, space in enumerate(asked, 1):
        step(session.console, f"workspace {space.label}, {number} of {len(asked)}")
        state = session.options.state and session.options.state / WORKSPACES / slug(space.label)
        options = replace(session.options, report=None, state=state, workspaces=Workspaces(everything=True))
        part = Session(options, session.console, session.resume)
        try:
            ended = await one(part, space)
        except NotAnArchive as error:
            session.journal.outcomes([spaces.met(space, Status.FAILED, str(error))])
            continue
        session.parts[space.label] = ended
        session.stats.add(part.stats)
        session.stats.notes.warnings += [f"workspace {space.label}: {one}" for one in part.stats.notes.warnings]
        if ended.exit_code in STOPPED:
            session.stopped = f"workspace {space.label}: {ended.error}"
            return
        if ended.error:
            session.journal.outcomes([spaces.met(space, Status.FAILED, ended.error)])
    note_unasked(session)

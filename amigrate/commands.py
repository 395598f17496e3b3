"""Composition: ends become a Source and a Sink, the engine moves between them, the summary says what became of it.

Each command opens its ends, runs one `Transfer`, and always ends in a `Summary`: also when it was interrupted or could
not continue, as long as a journal was open.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

from rich.console import Console

from amigrate import __version__
from amigrate.archive.envelope import Origin
from amigrate.archive.layout import EXPERIMENTS, PRIVATE, REPORT, Layout
from amigrate.archive.sink import ArchiveSink
from amigrate.archive.source import ArchiveSource, holds_archive
from amigrate.client import ping as client_ping
from amigrate.client.abilities import caveats, insecure, probe
from amigrate.client.api import Abilities, Api
from amigrate.client.http import Http
from amigrate.core.errors import AmigrateError, CannotContinue, DiskError, UsageError, leaf
from amigrate.core.model import Outcome, Ref, Status
from amigrate.core.ports import Sink, Source
from amigrate.engine.budget import ByteBudget
from amigrate.engine.check import check
from amigrate.engine.closure import closure_of
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.journal import Journal
from amigrate.engine.stats import Requests, Stats
from amigrate.engine.survey import Scope
from amigrate.engine.transfer import Request, Transfer, Wants
from amigrate.kinds import REGISTRY
from amigrate.kinds.base import Target
from amigrate.kinds.selection import chosen
from amigrate.local import private_server
from amigrate.options import Options, ServerOptions, redacted, same_server
from amigrate.report import files, progress
from amigrate.report.comparison import Comparison
from amigrate.report.demo import Demo, step
from amigrate.report.ping import Ping
from amigrate.report.summary import EXIT_DONE, EXIT_INTERRUPTED, EXIT_LOSS, Summary, label, warn
from amigrate.sample import fill
from amigrate.server.index import TargetIndex
from amigrate.server.sink import ServerSink
from amigrate.server.source import ServerSource
from amigrate.serving import served
from amigrate.stores import Store, holds_runs

SHOWN_LOSSES = 100
FOR_MODELS = ("experiment", "run", "artifact", "logged_model", "registered_model", "model_version")
"""What moves where registered models are asked for."""
NEVER_CARRIED = "ids of experiments, runs and logged models, creation and update times, artifact locations"


@dataclass(slots=True)
class Session:
    """What one command holds while it runs."""

    options: Options
    console: Console
    resume: str
    stats: Stats = field(default_factory=Stats)
    journal: Journal | None = None
    report: Path | None = None
    id_map: Path | None = None


async def export(session: Session, server: ServerOptions, output: Path, base: str, single: bool) -> Summary:
    """Everything asked for, from a server into a folder. `base` is the experiments' folder in it."""
    _check_output(output)
    started = time.time()
    shape = "one experiment" if single else base or "experiments"
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(_server(session, server, session.stats.source, writable=False))
        abilities = await _probed(session, api)
        session.journal = _journal(session, output / PRIVATE / "export", f"export of {shape} of {server.uri}")
        session.report = session.options.report or output / REPORT
        origin = Origin(
            __version__, f"amigrate {session.options.command}", server.uri, abilities.version or "unknown", started
        )
        layout = Layout(output, base, single, REGISTRY)
        sink = ArchiveSink(layout, REGISTRY, origin, bare_nan=session.options.bare_nan)

        async def work() -> None:
            await _move(session, ServerSource(api, REGISTRY), sink)
            sink.finish(_noted(session.options), session.stats.seconds, whole=True)

        return await _run(session, server.uri, str(output), work)


async def import_archive(session: Session, server: ServerOptions, folder: Path) -> Summary:
    """Everything asked for, from a folder into a server."""
    if holds_runs(folder):
        raise UsageError(f"{folder} is no archive but MLflow's own folder of runs: use copy-all --source {folder}")
    source = ArchiveSource(folder, REGISTRY, session.stats.notes)
    if session.options.imports.experiment_name and len(source.homes) != 1:
        raise UsageError(f"{folder} holds {len(source.homes)} experiments: use import-experiments or import-all")
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(_server(session, server, session.stats.sink, writable=True))
        await _probed(session, api)
        state = session.options.state or _import_state(folder, server.uri)
        session.journal = _journal(session, state, f"import into {server.uri}")
        _beside_journal(session, state)
        sink = _sink(session, api)
        return await _run(session, str(folder), server.uri, lambda: _move(session, source, sink))


async def copy(session: Session, source: ServerOptions, target: ServerOptions) -> Summary:
    """Everything asked for, from one server to another; nothing touches the disk but the journal."""
    if same_server(source.uri, target.uri):
        raise UsageError("source and target are the same server")
    async with AsyncExitStack() as stack:
        reading, writing = await _both(session, stack, source, target)
        await _probed(session, reading)
        await _probed(session, writing)
        state = session.options.state or state_home() / f"{slug(source.uri)}--{slug(target.uri)}"
        session.journal = _journal(session, state, f"copy of {source.uri} to {target.uri}")
        _beside_journal(session, state)
        sink = _sink(session, writing)
        work = lambda: _move(session, ServerSource(reading, REGISTRY), sink)  # noqa: E731
        return await _run(session, source.uri, target.uri, work)


async def ping(session: Session, server: ServerOptions) -> Ping:
    """What answers at an address, and what it can do."""
    async with _server(session, server, session.stats.source, writable=False) as api:
        found = await _probed(session, api)
        answers = await client_ping.ask(api)
    session.stats.notes.warnings.extend(client_ping.advice(answers))
    return Ping(
        server.uri,
        found.version or f"{found.release[0]}.{'x' if found.release[0] == 1 else '0'}, by its endpoints",
        found.store,
        found.workspaces,
        server.workspace,
        redacted(server.registry_uri),
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
            async with _server(session, old, Requests(), writable=True) as api:
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
            return Demo(archive, [exported, imported], await _compared(session, old, new))


async def _private_servers(stack: AsyncExitStack, home: Path) -> tuple[ServerOptions, ServerOptions]:
    """Two empty servers, started at once."""
    async with asyncio.TaskGroup() as group:
        old = group.create_task(stack.enter_async_context(private_server(home / "old")))
        new = group.create_task(stack.enter_async_context(private_server(home / "new")))
    return ServerOptions(old.result()), ServerOptions(new.result())


async def _compared(session: Session, one: ServerOptions, other: ServerOptions) -> Comparison:
    """Everything that two servers hold, deleted objects included."""
    comparison, stats = Comparison(one.uri, other.uri), session.stats
    scope, budget = Scope(deleted=True, wants=lambda _: True), ByteBudget(session.options.limits.memory)
    async with AsyncExitStack() as stack:
        a = await stack.enter_async_context(_server(session, one, stats.source, writable=False))
        b = await stack.enter_async_context(_server(session, other, stats.sink, writable=False))
        await _probed(session, a)
        await _probed(session, b)
        sides = (ServerSource(a, REGISTRY), ServerSource(b, REGISTRY))
        async for finding in check(*sides, REGISTRY, scope, stats, budget):
            comparison.add(finding)
    return comparison


def _part(session: Session, command: str) -> Session:
    """A session of its own for one command of a demonstration."""
    return Session(replace(session.options, command=command), session.console, "")


def _check_new(folder: Path | None) -> None:
    """A demonstration continues nothing: its archive gets a folder of its own."""
    if folder and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is there already and not an empty folder: give a new one")


# ---- ends -------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _server(session: Session, server: ServerOptions, requests: Requests, *, writable: bool) -> AsyncIterator[Api]:
    """A server and how to ask it; for a local store a private one, which goes away with it."""
    limits = session.options.limits
    guard = AdaptiveGuard(
        requests, ceiling=limits.concurrency, per_second=limits.requests_per_second, retries=server.retries
    )
    async with AsyncExitStack() as stack:
        address = server.uri
        if server.store is not None:
            _check_store(server.store)
            session.console.print(f"starting a private MLflow server for {server.uri}", highlight=False, soft_wrap=True)
            address = await stack.enter_async_context(served(server.store, writable=writable))
        api = Api(await stack.enter_async_context(Http(replace(server, uri=address))), guard)
        api.shown = server.uri
        api.with_deleted = session.options.selection.deleted
        if server.registry_uri and not same_server(server.registry_uri, server.uri):
            if not server.registry_uri.startswith(("http://", "https://")):
                raise UsageError(f"the registry {redacted(server.registry_uri)} is no server: give an http address")
            registry = replace(server, uri=server.registry_uri, registry_uri="", store=None)
            api.registry = Api(await stack.enter_async_context(Http(registry)), guard)
            await probe(api.registry)
        yield api
    requests.concurrency = guard.concurrency()


async def _probed(session: Session, api: Api) -> Abilities:
    """What a server is, and what its user has to know before anything moves."""
    if api.http.server.tls.insecure:
        warn(session.console, insecure(api))
    found = await probe(api)
    for caveat in caveats(api):
        session.stats.notes.warn(caveat)
    return found


async def _both(
    session: Session, stack: AsyncExitStack, source: ServerOptions, target: ServerOptions
) -> tuple[Api, Api]:
    """The two ends of a copy, opened at once: a private server takes seconds to start."""
    async with asyncio.TaskGroup() as group:
        reading = _server(session, source, session.stats.source, writable=False)
        writing = _server(session, target, session.stats.sink, writable=True)
        ends = [group.create_task(stack.enter_async_context(one)) for one in (reading, writing)]
    return ends[0].result(), ends[1].result()


def _check_store(store: Store) -> None:
    """A folder is an archive or a store, whatever its name."""
    if store.folder and not holds_runs(store.folder) and holds_archive(store.folder):
        raise UsageError(f"{store.folder} is an archive, not a store: use import-all --input-dir {store.folder}")


def _sink(session: Session, api: Api) -> ServerSink:
    imports = session.options.imports
    target = Target(
        api,
        TargetIndex(),
        session.stats.notes,
        source_tags=imports.source_tags,
        rename=imports.experiment_name,
        rename_model=imports.model_name,
    )
    return ServerSink(target, REGISTRY)


def _check_output(output: Path) -> None:
    """An export never mixes with what somebody else put into the folder."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: give a folder")
    if output.is_dir() and not (output / PRIVATE).exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no export that could be continued: give a new folder")


# ---- journals ---------------------------------------------------------------------------------------------------


def state_home() -> Path:
    """The user's state folder for amigrate (XDG)."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(base) / "amigrate"


def slug(text: str) -> str:
    """A short folder name for an address or a path, unique by its checksum."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", text.partition("://")[2] or text).strip("-")[-40:]
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _import_state(folder: Path, uri: str) -> Path:
    """In the archive, or in the user's state folder where the archive cannot be written or links lead out of it."""
    state = folder / PRIVATE / f"import-{slug(uri)}"
    linked = any(one.is_symlink() for one in (state.parent, state, *state.glob("*")))
    if os.access(folder, os.W_OK) and not linked:
        return state
    return state_home() / f"{slug(str(folder.resolve()))}--{slug(uri)}"


def _journal(session: Session, folder: Path, ends: str) -> Journal:
    return Journal(folder, ends)


def _beside_journal(session: Session, state: Path) -> None:
    session.report = session.options.report or state / REPORT
    session.id_map = state / "id-map.json"


# ---- the move and its end ---------------------------------------------------------------------------------------


async def _move(session: Session, source: Source, sink: Sink) -> None:
    assert session.journal is not None
    selection = session.options.selection
    kinds, left_out = chosen(selection.objects, selection.skip_objects)
    if selection.models is not None:
        kinds, left_out = {name: REGISTRY[name] for name in FOR_MODELS}, frozenset[str]()
    transfer = Transfer(source, sink, kinds, session.journal, session.stats, ByteBudget(session.options.limits.memory))
    wants = Wants(selection.experiments, selection.wants)
    if selection.models is None:
        await transfer.run(Request(selection.deleted, wants, whole=not selection.experiments, left_out=left_out))
        _missed(session, "experiment", wants)
        return
    models = Wants(selection.models, selection.wants_model)
    closure = await closure_of(source, kinds, "registered_model", "model_version", models)
    _check_rename(session, len(closure.ids["registered_model"]))
    await transfer.run(Request(selection.deleted, wants, whole=True, closure=closure))
    _missed(session, "registered_model", models)


def _missed(session: Session, kind: str, wants: Wants) -> None:
    """What was asked for in vain has failed."""
    assert session.journal is not None
    reason = f"no {kind.replace('_', ' ')} has this name or id"
    in_vain = [
        Outcome(Ref(kind, pattern), Status.FAILED, reason=reason, name=pattern) for pattern in sorted(wants.unused)
    ]
    session.journal.outcomes(in_vain)
    session.stats.listed[kind] += len(in_vain)


def _check_rename(session: Session, models: int) -> None:
    if session.options.imports.model_name and models != 1:
        raise UsageError(f"{models} registered models would be imported under one name: use import-models")


async def _run(session: Session, source: str, target: str, work: Callable[[], Awaitable[None]]) -> Summary:
    """Do the work, and sum up however it ends."""
    code, error = 0, ""
    try:
        async with progress.shown(session.stats, session.console):
            await work()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        code, error = EXIT_INTERRUPTED, "interrupted: what has arrived stays, and the same command continues"
    except (AmigrateError, BaseExceptionGroup) as raised:
        cause = leaf(raised)
        if not isinstance(cause, CannotContinue):
            raise
        code, error = cause.exit_code, f"cannot continue: {cause}"
    return _summed_up(session, source, target, code, error)


def _summed_up(session: Session, source: str, target: str, code: int, error: str) -> Summary:
    journal = session.journal
    assert journal is not None
    session.stats.ended = time.monotonic()
    try:
        summary = _summary(session, journal, source, target, code, error)
        _write_beside(session, journal, summary)
        return summary
    finally:
        journal.close()


def _write_beside(session: Session, journal: Journal, summary: Summary) -> None:
    """The report and the id map. Where the disk refuses them, what was done is summed up all the same."""
    try:
        if session.report:
            files.write_report(session.report, summary.as_json(), journal.report())
        if session.id_map:
            files.write_id_map(session.id_map, journal.id_map())
    except DiskError as error:
        summary.exit_code = error.exit_code
        summary.error = summary.error or f"cannot finish: {error}"
        summary.resume = session.resume
        summary.report = summary.id_map = None


def _summary(session: Session, journal: Journal, source: str, target: str, code: int, error: str) -> Summary:
    options, stats = session.options, session.stats
    losses: list[dict[str, object]] = []
    lost, accepted = 0, 0
    for loss in journal.report(losses_only=True):
        number = int(str(loss.get("count", 1)))
        if label(str(loss["kind"])) in options.accept_loss:
            accepted += number
            continue
        lost += number
        if len(losses) < SHOWN_LOSSES:
            losses.append(loss)
    totals = _ordered(journal.totals())
    if not code and not error:
        error = _unaccounted(stats, totals)
        code = EXIT_LOSS if lost or error else 0
    return Summary(
        options.command,
        source,
        target,
        stats,
        totals,
        losses,
        lost,
        accepted,
        session.report,
        session.id_map,
        code,
        error,
        session.resume if code in (EXIT_INTERRUPTED, CannotContinue.exit_code) else "",
        (NEVER_CARRIED,) if session.id_map else (),
    )


def _ordered(totals: Mapping[str, dict[Status, int]]) -> dict[str, dict[Status, int]]:
    """The kinds in the registry's order, then the others."""
    names = [*REGISTRY, *sorted(set(totals) - set(REGISTRY))]
    return {name: totals[name] for name in names if name in totals}


def _unaccounted(stats: Stats, totals: Mapping[str, dict[Status, int]]) -> str:
    """Every object that was listed has an outcome; if our own books do not balance, that is an error."""
    for kind in (name for name, one in REGISTRY.items() if one.listed):
        ended = sum(totals.get(kind, {}).values())
        if ended != stats.listed[kind]:
            return f"{stats.listed[kind]} {label(kind)} were listed and {ended} have an outcome: please report this bug"
    return ""


def _noted(options: Options) -> dict[str, object]:
    """The options that an archive's index notes."""
    return {
        "experiments": list(options.selection.experiments) or "all",
        "export_deleted_runs": options.selection.deleted,
    }

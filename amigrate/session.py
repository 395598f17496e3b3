"""One command while it runs: its journal, the move itself, and the summary that it always ends in."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from amigrate import workspaces as spaces
from amigrate.archive.layout import PRIVATE, REPORT
from amigrate.archive.source import ArchiveSource
from amigrate.client.api import Api
from amigrate.core.errors import AmigrateError, CannotContinue, DiskError, UsageError, leaf
from amigrate.core.model import Status
from amigrate.core.ports import Sink, Source
from amigrate.engine import power
from amigrate.engine.budget import ByteBudget
from amigrate.engine.journal import COMMAND, JOURNAL, Journal
from amigrate.engine.rehearsal import Expected, Rehearsal
from amigrate.engine.stats import Stats
from amigrate.engine.transfer import Transfer
from amigrate.jobs import state_home
from amigrate.kinds import REGISTRY
from amigrate.kinds.selection import chosen
from amigrate.options import Options
from amigrate.report import files, heartbeat, progress
from amigrate.report.summary import EXIT_INTERRUPTED, EXIT_LOSS, Summary, label
from amigrate.selecting import Asked, choose
from amigrate.server.source import ServerSource

SHOWN_LOSSES = 100
FOR_MODELS = ("experiment", "run", "artifact", "logged_model", "registered_model", "model_version")
"""What moves where registered models are asked for."""
STOPPED = (EXIT_INTERRUPTED, CannotContinue.exit_code)
"""Exit codes after which nothing more is moved."""
NEVER_CARRIED = "ids of experiments, runs and logged models, creation and update times, artifact locations"


@dataclass(slots=True)
class Session:
    """What one command holds while it runs."""

    options: Options
    console: Console
    resume: str
    """The command that continues it, for people."""
    words: Sequence[str] = ()
    """The command line, without secrets; empty where it is another one's part."""
    ends: Mapping[str, str] = field(default_factory=dict)
    """The options that name its servers, for a command line that leaves them to the environment."""
    stats: Stats = field(default_factory=Stats)
    journal: Journal | None = None
    report: Path | None = None
    id_map: Path | None = None
    parts: dict[str, Summary] = field(default_factory=dict)
    """Where workspaces move: what became of each so far."""
    stopped: str = ""
    """Why no more of them are moved, where one of them could not continue."""
    scratch: TemporaryDirectory[str] | None = None
    """Where the journal of a plan lies."""
    expected: Expected | None = None
    """What the move would come to, where it is only planned."""


# ---- journals ---------------------------------------------------------------------------------------------------


def slug(text: str) -> str:
    """A short folder name for an address or a path, unique by its checksum."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", text.partition("://")[2] or text).strip("-")[-40:]
    return f"{words}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def import_state(folder: Path, uri: str) -> Path:
    """In the archive, or in the user's state folder where the archive cannot be written or links lead out of it."""
    state = folder / PRIVATE / f"import-{slug(uri)}"
    linked = any(one.is_symlink() for one in (state.parent, state, *state.glob("*")))
    if os.access(folder, os.W_OK) and not linked:
        return state
    return state_home() / f"{slug(str(folder.resolve()))}--{slug(uri)}"


def journal_of(session: Session, folder: Path, ends: str, *, here: bool = False) -> Journal:
    """The journal of these ends; for a plan a copy of it that nobody keeps. `here` is a sink on this machine's disk."""
    if not session.options.dry_run:
        journal = Journal(folder, ends, alone=not session.options.imports.provenance)
        if here and power.forget_unsafe(journal):
            session.stats.notes.warn("the system went down during the last session: what that had moved is moved again")
        journal.note(COMMAND, {"argv": [*session.words], "cwd": str(Path.cwd()), "ends": dict(session.ends)})
        return journal
    session.scratch = TemporaryDirectory(prefix="amigrate-plan-")
    for one in folder.glob(f"{JOURNAL}*"):
        shutil.copyfile(one, Path(session.scratch.name, one.name))
    return Journal(Path(session.scratch.name), ends)


def beside_journal(session: Session, state: Path) -> None:
    if session.options.dry_run:
        return
    session.report = session.options.report or state / REPORT
    session.id_map = state / "id-map.json"


# ---- the move and its end ---------------------------------------------------------------------------------------


async def move(session: Session, source: ServerSource | ArchiveSource, sink: Sink | None) -> None:
    """Everything asked for. A plan walks the same way and moves nothing: it does without a sink, too."""
    lists_all = await choose(source, session.options.selection)
    if not session.options.dry_run:
        assert sink is not None, "nowhere to move to"
        await _walk(session, source, sink, lists_all)
        return
    rehearsal = Rehearsal(source, sink, REGISTRY)
    await _walk(session, rehearsal.source, rehearsal.sink, lists_all)
    session.expected = await rehearsal.expected(session.stats)


async def _walk(session: Session, source: Source, sink: Sink, lists_all: bool) -> None:
    assert session.journal is not None
    selection, again = session.options.selection, session.options.again
    kinds, left_out = chosen(selection.objects, selection.skip_objects, whole=selection.only != "experiments")
    if selection.only == "models":
        kinds, left_out = {name: kind for name, kind in kinds.items() if name in FOR_MODELS}, {}
    transfer = Transfer(source, sink, kinds, session.journal, session.stats, ByteBudget(session.options.limits.memory))
    asked = Asked(selection, session.journal, session.stats)
    request = await asked.request(source, kinds, session.options.imports, lists_all=lists_all)
    await transfer.run(
        replace(
            request,
            left_out=left_out,
            recheck=again.recheck,
            propagate=again.propagate_deletes,
            only_failed=again.only_failed,
        )
    )
    asked.missed()
    if selection.only != "models" and session.options.workspaces is None:
        note_unasked(session)


async def note_unseen(session: Session, api: Api) -> None:
    """The workspaces of the source that were not asked for, where all of it seems to be."""
    assert session.journal is not None
    selection = session.options.selection
    if session.options.workspaces is None and not selection.only and not selection.narrow:
        session.journal.outcomes(await spaces.unseen(api))


async def run(session: Session, source: str, target: str, work: Callable[[], Awaitable[None]]) -> Summary:
    """Do the work, show how far it is, and sum up however it ends."""

    async def shown() -> None:
        assert session.journal is not None
        async with progress.shown(session.stats, session.console), heartbeat.beating(session.journal, session.stats):
            await work()

    return await ended(session, source, target, shown)


async def ended(session: Session, source: str, target: str, work: Callable[[], Awaitable[None]]) -> Summary:
    """Do the work, and sum up however it ends."""
    assert session.journal is not None
    code, error = 0, ""
    try:
        await work()
        session.journal.keep()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None:
            task.uncancel()
        code, error = EXIT_INTERRUPTED, "interrupted: what has arrived stays, and the same command continues"
    except (AmigrateError, BaseExceptionGroup) as raised:
        cause = leaf(raised)
        if isinstance(cause, UsageError) or not isinstance(cause, AmigrateError):
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
        if not session.options.dry_run:
            power.make_safe(journal)
        heartbeat.ended(journal, session.stats, summary.exit_code, summary.error)
        return summary
    finally:
        journal.close()
        if session.scratch:
            session.scratch.cleanup()


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
    if session.expected:
        journal.outcomes(session.expected.losses)
    for loss in journal.report(losses_only=True):
        number = int(str(loss.get("count", 1)))
        if label(str(loss["kind"])) in options.accept_loss:
            accepted += number
            continue
        lost += number
        if len(losses) < SHOWN_LOSSES:
            losses.append(loss)
    totals = journal.totals()
    for name, part in session.parts.items():
        lost, accepted = lost + part.lost, accepted + part.accepted
        losses += [{"workspace": name, **loss} for loss in part.losses]
        for kind, counts in part.totals.items():
            totals[kind] = Counter(totals.get(kind, {})) + Counter(counts)
    totals = _ordered(totals)
    if session.stopped and not code:
        code, error = max(part.exit_code for part in session.parts.values()), session.stopped
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
        session.resume if code in STOPPED else "",
        (NEVER_CARRIED,) if session.id_map or any(part.caveats for part in session.parts.values()) else (),
        session.parts,
        session.expected,
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


def noted(options: Options) -> dict[str, object]:
    """The options that an archive's index notes."""
    return {
        "experiments": list(options.selection.experiments.texts) or "all",
        "export_deleted_runs": options.selection.deleted,
    }


def note_unasked(session: Session) -> None:
    """Secrets that were given in vain: their names are written otherwise, or their kind was not asked for.

    Where workspaces move, all of them together say which.
    """
    for secrets in (session.options.imports.passwords, session.options.imports.webhook_secrets):
        if names := secrets.unasked():
            session.stats.notes.warn(f"{secrets.place}: nothing that moved is called {', '.join(names)}")

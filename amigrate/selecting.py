"""From what a user asked for to what the engine moves: which objects, and what is said of those that were not found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from amigrate.archive.source import ArchiveSource
from amigrate.core.choice import RunChoice
from amigrate.core.errors import UsageError
from amigrate.core.model import Outcome, Record, Ref, Status
from amigrate.core.ports import Kind, Source
from amigrate.engine.closure import closure_of
from amigrate.engine.journal import Journal
from amigrate.engine.plan import EXPERIMENT
from amigrate.engine.stats import Stats
from amigrate.engine.transfer import Request, Wants
from amigrate.kinds.choosing import Chosen
from amigrate.kinds.run_filter import parse
from amigrate.options import ImportOptions, Selection
from amigrate.server.source import ServerSource

MODEL, VERSION, RUN, TRACE = "registered_model", "model_version", "run", "trace"


async def choose(source: ServerSource | ArchiveSource, selection: Selection) -> bool:
    """Tell a source what is asked for: a server searches for it, an archive has to know what a filter looks at.

    True for a source that lists the rest all the same. Raises `UsageError` for a filter that it does not take.
    """
    if isinstance(source, ServerSource):
        await source.choose(selection.choice)
        return False
    source.latest = parse(selection.choice.runs.filter).metrics
    return True


class Asked:
    """What one command asks for."""

    def __init__(self, selection: Selection, journal: Journal, stats: Stats) -> None:
        self._selection = selection
        self._journal = journal
        self._stats = stats
        self._experiments = Wants(selection.experiments)
        self._models = Wants(selection.models)

    async def request(
        self, source: Source, kinds: Mapping[str, Kind], imports: ImportOptions, *, lists_all: bool
    ) -> Request:
        """For the engine. `lists_all`: see `choose`."""
        selection, runs = self._selection, self._selection.choice.runs
        leaves_out = Chosen(selection.choice, listed_all=lists_all)
        homes = await self._homes(source, runs.ids) if runs.ids else None
        wants: dict[str, Callable[[Record], bool]] = {MODEL: self._models}
        wants[EXPERIMENT] = lambda record: self._wants_experiment(record, homes)
        closure = None
        if selection.only == "models":
            closure = await closure_of(source, kinds, (MODEL, VERSION), self._models, leaves_out)
            _check_single(imports, len(closure.ids[MODEL]))
        return Request(
            selection.deleted,
            wants,
            whole=selection.only != "experiments",
            leaves_out=leaves_out,
            files_choice=repr(selection.choice.files) if selection.choice.files else "",
            hidden=frozenset() if lists_all else _hidden(runs),
            narrow=selection.narrow,
            closure=closure,
            agrees=imports.settles_names or self._journal.gave_names(),
        )

    def _wants_experiment(self, record: Record, homes: Collection[str] | None) -> bool:
        """Those of --experiments, but for --skip-experiments, and those without any of the --run-ids."""
        wanted = self._experiments(record)
        skipped = self._selection.skip_experiments
        is_skipped = bool(skipped) and skipped.which(record.name, record.ref.id) is not None
        return wanted and not is_skipped and (homes is None or record.ref.id in homes)

    async def _homes(self, source: Source, ids: Collection[str]) -> set[str]:
        """The experiments of the runs that are asked for by id; those that are nowhere have failed."""
        found = await source.locate(RUN, [*ids])
        lost = sorted({*ids} - {record.ref.id for record in found})
        self._fail([Outcome(Ref(RUN, one), Status.FAILED, reason="no run has this id") for one in lost])
        return {record.ref.parent.id for record in found if record.ref.parent}

    def missed(self) -> None:
        """What was asked for by name in vain has failed."""
        for kind, wants in ((EXPERIMENT, self._experiments), (MODEL, self._models)):
            reason = f"no {kind.replace('_', ' ')} has this name or id"
            in_vain = [(pattern, Ref(kind, pattern)) for pattern in sorted(wants.unused)]
            self._fail([Outcome(ref, Status.FAILED, reason=reason, name=pattern) for pattern, ref in in_vain])

    def _fail(self, outcomes: Collection[Outcome]) -> None:
        self._journal.outcomes([*outcomes])
        for one in outcomes:
            self._stats.listed[one.ref.kind] += 1


def _hidden(runs: RunChoice) -> frozenset[str]:
    """The kinds of which a server lists only what is asked for."""
    has_window = runs.since is not None or runs.until is not None
    return frozenset({RUN, TRACE} if has_window else {RUN} if runs else ())


def _check_single(imports: ImportOptions, models: int) -> None:
    if imports.model_name and models != 1:
        raise UsageError(f"{models} registered models would be imported under one name: use import-models")

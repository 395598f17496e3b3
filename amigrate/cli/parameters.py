"""The options that commands share, each named once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from amigrate.core.choice import VersionChoice
from amigrate.core.errors import UsageError
from amigrate.core.model import OnConflict as Conflicts
from amigrate.kinds import REGISTRY
from amigrate.kinds.selection import ALL, NAMES, OPT_IN
from amigrate.report.summary import PARTS

SERVER, WHICH, MOVE, OUTPUT = "Server", "Which objects", "How", "Output"


def _login(help: str, metavar: str | None = None) -> Any:
    """An option of `groups.Login`, which names it and says which variable it can come from."""
    return typer.Option(help=help, metavar=metavar, rich_help_panel=SERVER, show_default=False)


TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="The tracking server, or a local store. Default: MLFLOW_TRACKING_URI.",
        rich_help_panel=SERVER,
    ),
]
ArtifactsDestination = Annotated[
    str | None, _login("Of a local store: where its server kept the artifacts; else mlartifacts beside it.", "URI")
]
UpgradeSchema = Annotated[bool, _login("Of a local database: upgrade the schema of an older MLflow, for good.")]
Uri = Annotated[str | None, typer.Argument(metavar="URI", help="The server or store. Default: MLFLOW_TRACKING_URI.")]
Source = Annotated[
    str | None,
    typer.Option(
        "--source", help="The server or local store to read. Default: AMIGRATE_SOURCE_URI.", rich_help_panel=SERVER
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        "--target", help="The server or local store to write. Default: AMIGRATE_TARGET_URI.", rich_help_panel=SERVER
    ),
]

Username = Annotated[str | None, _login("User name for basic authentication.")]
Password = Annotated[str | None, _login("Its password; better in the variable.")]
Token = Annotated[str | None, _login("Bearer token; better in the variable.")]
TokenCommand = Annotated[str | None, _login("Command that prints a token; run again where it expires.", "COMMAND")]
OAuthTokenUrl = Annotated[str | None, _login("Where OAuth 2 client credentials get a token.", "URL")]
OAuthClientId = Annotated[str | None, _login("The client's id there.")]
OAuthClientSecret = Annotated[str | None, _login("Its secret; better in the variable.")]
OAuthScope = Annotated[str | None, _login("The scope to ask for.")]
AwsSigV4 = Annotated[bool, _login("Sign requests with the AWS credentials of this machine.")]
Header = Annotated[list[str] | None, _login("Header for every request; may be given again.", "'NAME: VALUE'")]
ClientCert = Annotated[Path | None, _login("PEM file with a client certificate and its key.")]
CaBundle = Annotated[Path | None, _login("PEM file of the authorities to trust.")]
InsecureTls = Annotated[bool, _login("Do not check the server's TLS certificate.")]
Workspace = Annotated[str | None, _login("The workspace to work in, on a server that has them.")]
RegistryUri = Annotated[str | None, _login("A separate server for registered models.", "URI")]

OutputDir = Annotated[Path, typer.Option("--output-dir", help="The folder to write; made if needed.")]
InputDir = Annotated[Path, typer.Option("--input-dir", help="The folder of an archive.")]

ASKED = "Names, 'prefix*', 're:…' or @FILE, separated by commas; may be given again."


def _asked(name: str, help: str = ASKED, metavar: str = "NAME,…") -> Any:
    """An option that says what is asked for."""
    return typer.Option(f"--{name}", metavar=metavar, help=help, show_default=False, rich_help_panel=WHICH)


_EXPERIMENTS = _asked("experiments", ASKED.replace("Names", "Names, ids"))
Experiments = Annotated[list[str], _EXPERIMENTS]
AnyExperiments = Annotated[list[str] | None, _EXPERIMENTS]
SkipExperiments = Annotated[list[str] | None, _asked("skip-experiments", "The same, for experiments to leave out.")]
Experiment = Annotated[str, typer.Option("--experiment", help="Name or id of the experiment.")]
ExperimentName = Annotated[str, typer.Option("--experiment-name", help="The name it gets at the target.")]

Models = Annotated[list[str], _asked("models")]
AnyModels = Annotated[list[str] | None, _asked("models")]
Model = Annotated[str, typer.Option("--model", help="Name of the registered model.")]
ModelName = Annotated[str, typer.Option("--model-name", help="The name it gets at the target.")]
Stages = Annotated[
    str | None,
    _asked("stages", "Only versions of registered models in these stages: None, Staging, …", "STAGE,…"),
]
Versions = Annotated[
    str | None, _asked("versions", "Only versions of registered models of these numbers: 3, 5-7, 9-.", "NUMBER,…")
]
RunIds = Annotated[list[str] | None, _asked("run-ids", "Only these runs, or @FILE; may be given again.", "ID,…")]
Filter = Annotated[
    str, _asked("filter", 'Only runs that MLflow\'s search finds so, as in "metrics.acc > 0.9".', "FILTER")
]
Since = Annotated[
    str | None, _asked("since", "Only runs and traces begun at this time (UTC) or later, as 2024-06-30T12:00.", "TIME")
]
Until = Annotated[str | None, _asked("until", "Only runs and traces begun before this time (UTC).", "TIME")]
NoArtifacts = Annotated[bool, _asked("no-artifacts", "Leave out the files of runs and logged models.", "")]
MaxArtifactSize = Annotated[str | None, _asked("max-artifact-size", "Leave out larger files, as 100MiB.", "SIZE")]
ArtifactPaths = Annotated[
    list[str] | None,
    _asked("artifact-paths", "Only files of these paths: 'model', '*.png', re:…, @FILE; may be given again.", "PATH,…"),
]
SkipArtifactPaths = Annotated[
    list[str] | None, _asked("skip-artifact-paths", "The same, for files to leave out.", "PATH,…")
]


def _rename(kind: str) -> Any:
    """An option of `groups.Writing`."""
    return typer.Option(
        f"--rename-{kind}",
        metavar="OLD=NEW",
        help=f"Call {kind} otherwise at the target: old=new, 'prefix*=new*', re:REGEX=NEW, @FILE; may be given again.",
        rich_help_panel=MOVE,
        show_default=False,
    )


RenameExperiments = Annotated[list[str] | None, _rename("experiments")]
RenameModels = Annotated[list[str] | None, _rename("models")]
RenamePrompts = Annotated[list[str] | None, _rename("prompts")]
OnConflict = Annotated[
    Conflicts,
    typer.Option(
        "--on-conflict",
        help="What the target has already, not made by amigrate: leave it and add what it lacks; give it the source's"
        " fields; call the source's otherwise; or do nothing at all.",
        rich_help_panel=MOVE,
    ),
]
Workspaces = Annotated[
    str,
    typer.Option(
        metavar="NAME[:NEW],…",
        help="Workspaces to move, each with everything in it, under another name where one is given; or all.",
        rich_help_panel=MOVE,
        show_default=False,
    ),
]

Deleted = Annotated[
    bool, typer.Option("--deleted", help="Take deleted experiments and runs along.", rich_help_panel=MOVE)
]
AcceptLoss = Annotated[
    str,
    typer.Option(
        metavar="KIND,…",
        help="Kinds whose losses do not make the exit code 1: "
        + ", ".join([*(kind.label for kind in REGISTRY.values()), *PARTS.values()]),
        rich_help_panel=MOVE,
        show_default=False,
    ),
]
Objects = Annotated[
    str,
    typer.Option(
        metavar="KIND,…",
        help="Kinds to move: "
        + ", ".join(name for name in NAMES if name not in OPT_IN)
        + "; or all, which means these. Only where named: "
        + ", ".join(OPT_IN)
        + ", as in all,"
        + OPT_IN[0]
        + ". A kind brings the one it belongs to along.",
        rich_help_panel=MOVE,
    ),
]
SkipObjects = Annotated[
    str, typer.Option(metavar="KIND,…", help="Kinds to leave out.", rich_help_panel=MOVE, show_default=False)
]
Recheck = Annotated[
    bool,
    typer.Option(
        "--recheck", help="Look for points and files that were added to runs which had ended.", rich_help_panel=MOVE
    ),
]
OnlyFailed = Annotated[
    bool,
    typer.Option(
        "--only-failed", help="Take up only what failed or is unfinished, as retry does.", rich_help_panel=MOVE
    ),
]
PropagateDeletes = Annotated[
    bool,
    typer.Option(
        "--propagate-deletes",
        help="Delete what was deleted at the source since it was carried, as far as amigrate made it.",
        rich_help_panel=MOVE,
    ),
]
SourceTags = Annotated[
    bool,
    typer.Option(
        "--import-source-tags", help="Write where objects came from as mlflow_exim.* tags.", rich_help_panel=MOVE
    ),
]
Passwords = Annotated[
    Path | None,
    typer.Option(
        "--passwords",
        metavar="FILE",
        help="New passwords for users, a line 'name: password' each; users without one stay behind.",
        rich_help_panel=MOVE,
        show_default=False,
    ),
]
WebhookSecrets = Annotated[
    Path | None,
    typer.Option(
        "--webhook-secrets",
        metavar="FILE",
        help="Secrets of webhooks, a line 'name: secret' each.",
        rich_help_panel=MOVE,
        show_default=False,
    ),
]
NoProvenance = Annotated[
    bool,
    typer.Option(
        "--no-provenance", help="Write no amigrate.source_* tags: the journal alone knows.", rich_help_panel=MOVE
    ),
]
BareNan = Annotated[
    bool,
    typer.Option(
        "--bare-nan", help="Write NaN bare (no valid JSON), as mlflow-export-import needs it.", rich_help_panel=MOVE
    ),
]
Concurrency = Annotated[
    int, typer.Option(min=1, help="Most requests of one class at once to one server.", rich_help_panel=MOVE)
]
RequestsPerSecond = Annotated[
    float | None,
    typer.Option(
        "--max-requests-per-second", min=0.01, help="Most requests per second to one server.", rich_help_panel=MOVE
    ),
]
Memory = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory for what is in flight, such as 128MiB.", rich_help_panel=MOVE)
]
State = Annotated[
    Path | None,
    typer.Option(help="Folder of the journal, where not the usual one.", rich_help_panel=OUTPUT),
]
Report = Annotated[
    Path | None,
    typer.Option(
        help="Where report.json goes, where not beside the journal.", rich_help_panel=OUTPUT, show_default=False
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON summary on standard output, nothing else there.", rich_help_panel=OUTPUT),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks and every retry.", rich_help_panel=OUTPUT)]

SideA = Annotated[
    str | None,
    typer.Argument(metavar="A", help="A server, a local store or an archive. Default: AMIGRATE_SOURCE_URI."),
]
SideB = Annotated[
    str | None,
    typer.Argument(
        metavar="B", help="What A is compared with; an archive may stand alone. Default: AMIGRATE_TARGET_URI."
    ),
]
Quick = Annotated[
    bool, typer.Option("--quick", help="Compare files by their size, without reading them.", rich_help_panel=MOVE)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Name what is equal too, as = lines.", rich_help_panel=OUTPUT)
]

DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Say what would move and what would not, and write nothing.", rich_help_panel=MOVE),
]
PlanSource = Annotated[
    str | None,
    typer.Argument(metavar="SOURCE", help="The server, local store or archive to read. Default: AMIGRATE_SOURCE_URI."),
]
PlanTarget = Annotated[
    str | None,
    typer.Argument(
        metavar="TARGET", help="The server, local store or archive to write; a new archive where there is none."
    ),
]

DEFAULT_MEMORY = "128MiB"
STAGES = ("None", "Staging", "Production", "Archived")
UNITS = {"": 1024**2, "K": 1024, "M": 1024**2, "G": 1024**3}


def bytes_in(text: str, option: str) -> int:
    """`128`, `128M`, `128MiB`, `1GiB`, `0.5GiB`, `100B` as bytes; a bare number counts MiB."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?)(?:(?:iB|B)?)\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"{option} {text!r} is not a size: write 128MiB or 1GiB")
    is_bytes = not match[2] and text.strip().lower().endswith("b")
    return int(float(match[1]) * (1 if is_bytes else UNITS[match[2].upper()]))


def size_in_bytes(text: str) -> int:
    """What `--memory` says: at least 8 MiB."""
    size = bytes_in(text, "--memory")
    if size < 8 * 1024**2:
        raise UsageError(f"--memory {text!r} is too little: 8MiB at least")
    return size


def moment(text: str | None, option: str) -> int | None:
    """An ISO date or time as milliseconds since the epoch; UTC, unless it says otherwise."""
    if text is None:
        return None
    try:
        told = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(f"{option} {text!r} is no time: write 2024-06-30 or 2024-06-30T12:00:00Z") from None
    return round((told if told.tzinfo else told.replace(tzinfo=UTC)).timestamp() * 1000)


def run_ids(ids: Sequence[str]) -> tuple[str, ...]:
    """Ids that can be asked for: nothing that a search would take for something else."""
    wrong = [one for one in ids if not re.fullmatch(r"[\w-]+", one)]
    if wrong:
        raise UsageError(f"--run-ids {wrong[0]!r} is no id of a run")
    return tuple(ids)


def version_choice(stages: str | None, versions: str | None) -> VersionChoice:
    """`--stages` and `--versions`."""
    wanted = frozenset(part.strip().lower() for part in (stages or "").split(",") if part.strip())
    unknown = sorted(wanted - {one.lower() for one in STAGES})
    if unknown or (stages is not None and not wanted):
        raise UsageError(f"--stages does not know {', '.join(unknown) or 'nothing'}; it knows {', '.join(STAGES)}")
    parts = [part.strip() for part in (versions or "").split(",") if part.strip()]
    if versions is not None and not parts:
        raise UsageError("--versions is empty: name numbers, or leave it out")
    return VersionChoice(wanted, tuple(map(_numbers, parts)))


def _numbers(text: str) -> tuple[int, int | None]:
    match = re.fullmatch(r"(\d+)(?:(-)(\d*))?", text)
    if match is None:
        raise UsageError(f"--versions {text!r} is no number and no range: write 3, 5-7 or 9-")
    if not match[2]:
        return int(match[1]), int(match[1])
    return int(match[1]), int(match[3]) if match[3] else None


def kinds_to_lose(text: str) -> frozenset[str]:
    """The kinds of `--accept-loss`; unknown ones are refused."""
    given = {part.strip() for part in text.split(",") if part.strip()}
    known = {kind.label for kind in REGISTRY.values()} | {*PARTS.values()}
    unknown = sorted(given - known)
    if unknown:
        raise UsageError(f"--accept-loss does not know {', '.join(unknown)}; it knows {', '.join(sorted(known))}")
    return frozenset(given)


def kinds(text: str, option: str) -> tuple[str, ...]:
    """The kinds of `--objects` and `--skip-objects`; unknown ones are refused."""
    given = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted({*given} - {*NAMES, ALL})
    if unknown:
        raise UsageError(f"{option} does not know {', '.join(unknown)}; it knows {', '.join((*NAMES, ALL))}")
    return given


def objects(text: str) -> tuple[str, ...]:
    """The kinds of `--objects`; none at all would move nothing."""
    given = kinds(text, "--objects")
    if not given:
        raise UsageError("--objects is empty: name kinds, or leave it out")
    return given

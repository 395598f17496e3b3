"""The options that commands share, each named once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from amigrate.core.errors import UsageError
from amigrate.kinds import REGISTRY
from amigrate.kinds.selection import ALL, KNOWN, NAMES
from amigrate.kinds.uncarried import LABELS
from amigrate.report.summary import PARTS

SERVER, MOVE, OUTPUT = "Server", "What and how", "Output"


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

Experiments = Annotated[
    str, typer.Option("--experiments", metavar="NAME,…", help="Names, ids or 'prefix*', separated by commas; or all.")
]
Experiment = Annotated[str, typer.Option("--experiment", help="Name or id of the experiment.")]
ExperimentName = Annotated[str, typer.Option("--experiment-name", help="The name it gets at the target.")]

Models = Annotated[
    str, typer.Option("--models", metavar="NAME,…", help="Names or 'prefix*', separated by commas; or all.")
]
Model = Annotated[str, typer.Option("--model", help="Name of the registered model.")]
ModelName = Annotated[str, typer.Option("--model-name", help="The name it gets at the target.")]

Deleted = Annotated[
    bool, typer.Option("--deleted", help="Take deleted experiments and runs along.", rich_help_panel=MOVE)
]
AcceptLoss = Annotated[
    str,
    typer.Option(
        metavar="KIND,…",
        help="Kinds whose losses do not make the exit code 1: "
        + ", ".join([*(kind.label for kind in REGISTRY.values()), *PARTS.values(), *LABELS]),
        rich_help_panel=MOVE,
        show_default=False,
    ),
]
Objects = Annotated[
    str,
    typer.Option(
        metavar="KIND,…",
        help="Kinds to move: " + ", ".join(NAMES) + "; or all. A kind brings the one it belongs to along.",
        rich_help_panel=MOVE,
    ),
]
SkipObjects = Annotated[
    str, typer.Option(metavar="KIND,…", help="Kinds to leave out.", rich_help_panel=MOVE, show_default=False)
]
SourceTags = Annotated[
    bool,
    typer.Option(
        "--import-source-tags", help="Write where objects came from as mlflow_exim.* tags.", rich_help_panel=MOVE
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

DEFAULT_MEMORY = "128MiB"
UNITS = {"": 1024**2, "K": 1024, "M": 1024**2, "G": 1024**3}


def size_in_bytes(text: str) -> int:
    """`128`, `128M`, `128MiB`, `1GiB` as bytes; a bare number counts MiB. At least 8 MiB."""
    match = re.fullmatch(r"\s*(\d+)\s*([KMG]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None:
        raise UsageError(f"--memory {text!r} is not a size: write 128MiB or 1GiB")
    size = int(match[1]) * UNITS[match[2].upper()]
    if size < 8 * 1024**2:
        raise UsageError(f"--memory {text!r} is too little: 8MiB at least")
    return size


def names(text: str, option: str) -> tuple[str, ...]:
    """A comma-separated list."""
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    if not found:
        raise UsageError(f"{option} is empty")
    return found


def patterns(text: str, option: str, *, exact: bool) -> tuple[str, ...]:
    """What a selection asks for; empty for all. With `exact`, the one name that was given."""
    return (text,) if exact and text != "all" else () if text == "all" else names(text, option)


def kinds_to_lose(text: str) -> frozenset[str]:
    """The kinds of `--accept-loss`; unknown ones are refused."""
    given = {part.strip() for part in text.split(",") if part.strip()}
    known = {kind.label for kind in REGISTRY.values()} | {*LABELS, *PARTS.values()}
    unknown = sorted(given - known)
    if unknown:
        raise UsageError(f"--accept-loss does not know {', '.join(unknown)}; it knows {', '.join(sorted(known))}")
    return frozenset(given)


def kinds(text: str, option: str) -> tuple[str, ...]:
    """The kinds of `--objects` and `--skip-objects`; unknown ones are refused."""
    given = tuple(part.strip() for part in text.split(",") if part.strip())
    unknown = sorted({*given} - {*KNOWN, ALL})
    if unknown:
        raise UsageError(f"{option} does not know {', '.join(unknown)}; it knows {', '.join((*KNOWN, ALL))}")
    return given


def objects(text: str) -> tuple[str, ...]:
    """The kinds of `--objects`; none at all would move nothing."""
    given = kinds(text, "--objects")
    if not given:
        raise UsageError("--objects is empty: name kinds, or leave it out")
    return given

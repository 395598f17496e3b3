"""Workspaces in an archive: each lies in a folder of its own, which is an archive as `export-all` writes it.

DIR/
  manifest.json                       the workspaces that were exported; written last
  workspaces/<name>/workspace.json    the settings of the workspace; written first
  workspaces/<name>/…                 everything in it
"""

from __future__ import annotations

from pathlib import Path

from amigrate.archive import checksum, document
from amigrate.archive.folders import barred, entries, is_folder, is_there, printable
from amigrate.archive.layout import MANIFEST, PRIVATE, WORKSPACE, WORKSPACES, escape, unescape
from amigrate.archive.writing import write
from amigrate.core import codec
from amigrate.core.errors import AmigrateError, ArchiveError, NotAnArchive
from amigrate.core.model import Doc
from amigrate.core.typed import identity, items, mapping, text

SIGNS = (WORKSPACE, MANIFEST, PRIVATE)
"""One of these lies in the folder of every workspace."""
GONE = ArchiveError(f"listed in {MANIFEST}, but its folder is missing")


def home_of(root: Path, name: str) -> Path:
    """The folder of a workspace."""
    return root / WORKSPACES / escape(name)


def holds_workspaces(root: Path) -> bool:
    """True for an archive of workspaces, whole or not."""
    folder = root / WORKSPACES
    try:
        return is_folder(folder) and any(is_there(one / name) for one in entries(folder) for name in SIGNS)
    except ArchiveError:
        return False


def held(root: Path) -> dict[str, tuple[Doc, AmigrateError | None]]:
    """The workspaces of an archive by name: settings, and why one cannot be had. Raises `NotAnArchive`."""
    root = root.resolve()
    try:
        folders = [one for one in entries(root / WORKSPACES) if is_folder(one)]
        beside = [one.name for one in entries(root) if is_folder(one) and one.name not in (WORKSPACES, PRIVATE)]
        listed = _listed(root)
    except (ArchiveError, ValueError) as error:
        raise NotAnArchive(f"{root} cannot be read: {error}") from error
    if beside:
        raise NotAnArchive(f"{root} holds {', '.join(beside)} beside its {WORKSPACES}: import them one by one")
    found: dict[str, tuple[Doc, AmigrateError | None]] = {name: ({}, GONE) for name in listed}
    return found | {unescape(printable(folder.name)): _settings(root, folder) for folder in folders}


def write_settings(root: Path, name: str, system: Doc, doc: Doc) -> bool:
    """`workspace.json`: the workspace as its server says it. True where there was none before."""
    path = home_of(root, name) / WORKSPACE
    is_new = not path.exists()
    write(path, [codec.pretty({"system": system, "info": checksum.with_blank({}), "mlflow": {"workspace": doc}})])
    return is_new


def write_manifest(root: Path, system: Doc, options: Doc) -> None:
    """`manifest.json` of an archive of workspaces: those that are in it, from whatever session."""
    names = sorted(unescape(one.name) for one in (root / WORKSPACES).iterdir() if (one / WORKSPACE).is_file())
    info = checksum.with_blank({"options": options, "status": {"workspaces": len(names)}})
    write(root / MANIFEST, [codec.pretty({"system": system, "info": info, "mlflow": {"workspaces": names}})])


def _listed(root: Path) -> list[str]:
    path = root / MANIFEST
    if not is_there(path) or barred(root, path):
        return []
    inner = mapping(document.read(path).get("mlflow"), "mlflow")
    return [identity(one, "a workspace") for one in items(inner.get("workspaces"), "workspaces")]


def _settings(root: Path, folder: Path) -> tuple[Doc, AmigrateError | None]:
    path = folder / WORKSPACE
    if not is_there(path):
        return {}, None
    try:
        error = barred(root, path)
        if error is None:
            read = mapping(document.read(path).get("mlflow"), "mlflow")
            return _checked(mapping(read.get("workspace"), "workspace")), None
    except (ArchiveError, ValueError) as damage:
        error = ArchiveError(f"{path} is not as it should be, and what is in the workspace stays too: {damage}")
    return {}, error


def _checked(doc: Doc) -> Doc:
    """Settings whose values are what they have to be. Raises `ValueError`."""
    archival = mapping(doc.get("trace_archival_config"), "trace_archival_config")
    texts = {field: doc.get(field) for field in ("description", "default_artifact_root")}
    texts |= {f"trace_archival_config.{field}": archival.get(field) for field in ("location", "retention")}
    for field, value in texts.items():
        text("" if value is None else value, field)
    return {**doc, "trace_archival_config": archival}

"""The envelope of every document, and the index files that count what the archive holds."""

from __future__ import annotations

import platform
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from amigrate.archive.checksum import with_blank
from amigrate.core.model import Doc

EXPORT_FILE_VERSION = "2"
PACKAGE = "amigrate"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and how an archive came about; the same in all of its documents."""

    version: str
    command: str
    tracking_uri: str
    """Without credentials."""
    mlflow_version: str
    started: float
    """Seconds since the epoch."""

    def system(self) -> Doc:
        """The `system` part of a document."""
        return {
            "package": PACKAGE,
            "package_version": self.version,
            "script": self.command,
            "export_file_version": EXPORT_FILE_VERSION,
            "export_time": int(self.started),
            "_export_time": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self.started)),
            "mlflow_version": self.mlflow_version,
            "mlflow_tracking_uri": self.tracking_uri,
            "platform": {
                "python_version": platform.python_version(),
                "system": platform.system(),
                "processor": platform.processor() or platform.machine(),
            },
        }


@dataclass(slots=True)
class Tally:
    """The runs of one experiment in the archive."""

    id: str
    name: str
    ok: int = 0
    failed: int = 0

    def entry(self) -> Doc:
        return {"id": self.id, "name": self.name, "ok_runs": self.ok, "failed_runs": self.failed}


def children(folder: str, ok: list[str], failed: list[str]) -> Doc:
    """What an experiment's `info` says of its runs, or of its other children, in mlflow-export-import's words."""
    if folder != "runs":
        return {f"ok_{folder}": len(ok), f"failed_{folder}": len(failed)}
    return {
        "num_total_runs": len(ok) + len(failed),
        "num_ok_runs": len(ok),
        "num_failed_runs": len(failed),
        "failed_runs": failed,
    }


def experiments_index(system: Doc, tallies: Iterable[Tally], seconds: float, options: Doc) -> Doc:
    """`experiments.json`: true counts, and where each experiment lies."""
    entries = [tally.entry() for tally in tallies]
    ok = sum(entry["ok_runs"] for entry in entries)
    failed = sum(entry["failed_runs"] for entry in entries)
    info: dict[str, Any] = {
        "experiment_names": [entry["name"] for entry in entries],
        "options": options,
        "status": {
            "duration": round(seconds, 3),
            "experiments": len(entries),
            "total_runs": ok + failed,
            "ok_runs": ok,
            "failed_runs": failed,
        },
    }
    return {"system": system, "info": with_blank(info), "mlflow": {"experiments": entries}}


def manifest(system: Doc, index: Doc, options: Doc, listed: Mapping[str, Collection[str]]) -> Doc:
    """`manifest.json`: the last document of an export; where it is missing, the export did not end.

    `listed` are the ids of what lies in the other folders of the root, by folder.
    """
    status = index["info"]["status"]
    return {
        "system": system,
        "info": with_blank({"options": options, "status": {"duration": status["duration"], "experiments": status}}),
        "mlflow": {folder: sorted(ids) for folder, ids in sorted(listed.items())},
    }

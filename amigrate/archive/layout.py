"""The archive's format: which file holds what. The only code that turns an object into a path.

    DIR/                                    export-all
      manifest.json                         what was exported, with counts; written last
      report.json                           every object and what became of it
      experiments/
        experiments.json                    the experiments in here, with counts
        <experiment id>/                    = DIR of export-experiment
          experiment.json                   name, tags, stage; the ids of its runs; written after its runs
          runs/<run id>/run.json            everything of the run but its files; written after its files
          runs/<run id>/artifacts/<path>    its files
          logged_models/<id>/logged_model.json, artifacts/<path>
          issues/<id>/issue.json
          traces/<id>/trace.json, artifacts/<path>
          trace_links/<run id>/trace_link.json
          label_schemas/<id>/label_schema.json
          review_queues/<id>/review_queue.json
          scorers/<id>/scorer.json          a scorer with its versions
      models/<name>/model.json              a registered model with its versions
      prompts/<name>/prompt.json            a prompt with its versions
      evaluation_datasets/<id>/evaluation_dataset.json, records.jsonl
      webhooks/<id>/webhook.json            a webhook, without its secret
      mcp_servers/<name>/mcp_server.json    an MCP server with its versions
      users/<name>/user.json                a user with his roles and permissions, without a password
      roles/<id>/role.json                  a role with its permissions
      gateway/secrets/<id>/secret.json      what is known of a secret of the AI gateway, never the secret
      gateway/model_definitions/<id>/model_definition.json, gateway/endpoints/<id>/endpoint.json,
      gateway/bindings/<ids>/binding.json, gateway/guardrails/<id>/guardrail.json, gateway/budgets/<id>/budget.json
      .amigrate/                            journals; safe to delete when nothing is to be continued
    DIR/                                    export-all --workspaces: see `archive.spaces`
      workspaces/<name>/                    = DIR of export-all
    DIR/                                    export-experiments: experiments.json and <experiment id>/ lie in DIR itself

Every document is one JSON object, `{"system": …, "info": …, "mlflow": …}`, indented by two, UTF-8, as
mlflow-export-import writes it ("export_file_version" 2). Non-finite numbers are the strings "NaN", "Infinity" and
"-Infinity", unless `--bare-nan` asked for the bare words. A document under its final name is whole: it is written
beside it first (`*.part`) and renamed. `info.sha256` is its checksum of itself: see `archive.checksum`.

`info` of a run lists `artifacts` (path, size in bytes, sha256) and `series` (for each key the number of points and
timestamp and step of the latest). `metrics` comes last in `run.json`, one point on a line, so that a million points
are read and written line by line.

`records.jsonl` holds one record of an evaluation dataset on each line; `info` of the dataset has their number and the
file's sha256. There, and only there, NaN and the infinities are bare: a record may hold the texts too.

Names on disk are the ids and paths themselves. Escaped as `%XX` are only: the names `.` and `..`, control
characters, `/` inside a name, names over 200 bytes (cut into `<part>%+/<part>`), and a `%` that two hexadecimal digits
or a `+` follow; the empty name is `%+`. So every name on disk means exactly one name, and ordinary names look like
themselves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from amigrate.core.model import Ref
from amigrate.core.ports import Shape

PRIVATE = ".amigrate"
PART = ".part"
REPORT = "report.json"
MANIFEST = "manifest.json"
EXPERIMENT = "experiment"
EXPERIMENTS = "experiments"
INDEX = "experiments.json"
DOCUMENT = "experiment.json"
WORKSPACES = "workspaces"
WORKSPACE = "workspace.json"

_SPECIAL = re.compile(r"[\x00-\x1f\x7f/]|%(?=[0-9A-Fa-f]{2}|\+)")
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})")
_LONGEST = 200
GOES_ON = "%+"
"""How a part of a long name ends that goes on in the next folder."""
NOTHING = "%+"
"""The empty name: no other one can look so."""


def escape(name: str) -> str:
    """A name as one path segment or, where it is too long for one, several. See the module for the rules."""
    if name.isalnum() and name.isascii() and len(name) <= _LONGEST:  # Most are ids.
        return name
    if name in ("", ".", ".."):
        return NOTHING if name == "" else name.replace(".", "%2E")
    safe = _SPECIAL.sub(lambda match: quote(match[0], safe=""), name)
    return f"{GOES_ON}/".join(_pieces(safe))


def unescape(path: str) -> str:
    """The name that `escape` made a path of."""
    joined = path.replace(f"{GOES_ON}/", "")
    return "" if joined == NOTHING else _ESCAPED.sub(lambda match: unquote(match[0]), joined)


def _pieces(name: str) -> list[str]:
    """Parts of at most `_LONGEST` bytes, never cutting a character or an escape."""
    pieces, current, size = [], "", 0
    for unit in re.findall(r"%[0-9A-Fa-f]{2}|.", name, re.DOTALL):
        width = len(unit.encode("utf-8", "surrogatepass"))
        if size + width > _LONGEST and current:
            pieces.append(current)
            current, size = "", 0
        current += unit
        size += width
    return [*pieces, current]


class Layout:
    """Paths of one archive."""

    def __init__(self, root: Path, base: str, single: bool, shapes: Mapping[str, Shape]) -> None:
        """`base` is the folder of the experiments below the root, "" for the root; `single` is one experiment's own."""
        self.root = root
        self.base = root / base if base else root
        self.single = single
        self._shapes = shapes

    def folder(self, ref: Ref) -> Path:
        """The folder of an object's document and files."""
        if ref.parent is None and ref.kind != EXPERIMENT:
            return self.root.joinpath(self._shapes[ref.kind].folder, escape(ref.id))
        if ref.parent is None:
            return self.base if self.single else self.base / escape(ref.id)
        return self.folder(ref.parent).joinpath(self._shapes[ref.kind].folder, escape(ref.id))

    def document(self, ref: Ref) -> Path:
        """The file of an object's document."""
        return self.folder(ref) / self._shapes[ref.kind].document

    def lines(self, parent: Ref, kind: str) -> Path:
        """The file that holds those children of an object that have a line each."""
        return self.folder(parent) / self._shapes[kind].lines

    def file(self, owner: Ref, path: str, kind: str = "artifact") -> Path:
        """The file that holds one file of an object; `path` is split at `/`."""
        return self.folder(owner) / self._shapes[kind].folder / "/".join(map(escape, path.split("/")))

"""Prompts: see `registry`.

mlflow-export-import (1.2.1) writes a document for each version, without aliases and without the tags of the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from amigrate.core import codec
from amigrate.core.model import Doc, Record, Ref
from amigrate.core.typed import mapping, text, texts, whole
from amigrate.kinds.base import tag_list
from amigrate.kinds.registry import PROMPT, TIMES, RegistryName

TEXT = "mlflow.prompt.text"
TYPE = "_mlflow_prompt_type"
PART = "part"


class Prompt(RegistryName):
    """Name, description, tags and aliases; its versions are objects of their own."""

    name = "prompt"
    label = "prompts"
    needs = ("experiment",)
    folder = "prompts"
    document = "prompt.json"
    is_prompt = True
    versions_kind = "prompt_version"
    documented = "prompt"

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = mapping(mapping(document.get("mlflow"), "mlflow").get(self.documented), self.documented)
        return _one_version(given) if "template" in given else super().decode(document, ref_id, parent)

    def part(self, record: Record) -> int | None:
        number: int | None = record.doc.get(PART)
        return number

    def joined(self, parts: Sequence[Record]) -> Record:
        versions = [version for part in parts for version in part.doc["versions"]]
        return replace(parts[0], doc={**parts[0].doc, "versions": versions})


def _one_version(given: Doc) -> Record:
    """A prompt with one of its versions, as mlflow-export-import has it."""
    name, number = text(given.get("name") or None, "name"), whole(given.get("version"), "version")
    template, described = given["template"], given.get("commit_message") or given.get("description")
    is_text = isinstance(template, str)
    written = template if is_text else codec.dumps(template).decode()
    tags = {PROMPT: "true", TEXT: written, TYPE: "text" if is_text else "chat"}
    version: Doc = {
        "version": str(number),
        "source": "dummy-source",
        "tags": texts(given.get("tags"), "tags") | tags,
        **{time: given[time] for time in TIMES if given.get(time) is not None},
        **({"description": text(described, "commit_message")} if described else {}),
    }
    doc: Doc = {"name": name, "tags": tag_list({PROMPT: "true"}), "aliases": [], "versions": [version], PART: number}
    return Record(Ref(Prompt.name, name), doc, name)

"""Prompts and registered models that other objects name, in tags: JSON lists of `{"name": …, "version": …}`.

`mlflow.linkedPrompts` is a tag of traces, runs and logged models, and an attribute of spans; `mlflow.modelVersions` is
a tag of logged models. Where the target calls a prompt or a model otherwise, so do they.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from amigrate.core import codec
from amigrate.core.model import Doc
from amigrate.kinds.base import Target

LINKED_PROMPTS = "mlflow.linkedPrompts"
MODEL_VERSIONS = "mlflow.modelVersions"
KINDS = {LINKED_PROMPTS: "prompt", MODEL_VERSIONS: "registered_model"}
Rename = Callable[[str, str], str]
"""From the kind and the name of an object to what it is called on the other side."""


def rename_of(target: Target) -> Rename | None:
    """What the target calls the source's prompts and models; None where it calls them as the source does."""
    return target.naming.of_registry if target.naming.renames(*KINDS.values()) else None


def with_names(tags: dict[str, str], rename: Rename | None) -> dict[str, str]:
    """Tags with the names in them as the other side has them."""
    if rename is None:
        return tags
    return tags | {key: renamed(key, tags[key], rename) for key in KINDS if key in tags}


def renamed(key: str, text: str, rename: Rename) -> str:
    """The value of one such tag. What is no such list, or names nothing that is called otherwise, stays as it is."""
    listed = listed_in(text)
    told = [{**one, "name": rename(KINDS[key], one["name"])} if _is_named(one) else one for one in listed]
    return text if told == listed else codec.dumps(told).decode()


def listed_in(text: str) -> list[Any]:
    """What a tag lists; nothing where it holds no list."""
    try:
        listed = codec.loads(text) if text else []
    except ValueError:
        return []
    return listed if isinstance(listed, list) else []


def _is_named(one: Any) -> bool:
    return isinstance(one, dict) and isinstance(one.get("name"), str)


def comparable(tags: dict[str, str], names: Rename) -> Doc:
    """Tags with those lists as both sides of a comparison have them, however they are written."""
    told: Doc = dict(tags)
    for key in KINDS:
        if key in tags and listed_in(tags[key]):
            told[key] = listed_in(renamed(key, tags[key], names))
    return told

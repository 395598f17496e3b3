"""Versions of prompts: see `registry_version`."""

from __future__ import annotations

from amigrate.kinds.registry_version import RegistryVersion


class PromptVersion(RegistryVersion):
    """Number, text, description (its commit message) and tags."""

    name = "prompt_version"
    group = "prompts"
    label = "prompt-versions"
    parent = "prompt"
    needs = ("prompt", "run")
    is_prompt = True

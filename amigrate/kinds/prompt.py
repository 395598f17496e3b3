"""Prompts: see `registry`."""

from __future__ import annotations

from amigrate.kinds.registry import RegistryName


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

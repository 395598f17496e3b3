"""Registered models: see `registry`."""

from __future__ import annotations

from amigrate.kinds.registry import RegistryName


class RegisteredModel(RegistryName):
    """Name, description, tags and aliases; its versions are objects of their own."""

    name = "registered_model"
    group = "models"
    label = "registered-models"
    folder = "models"
    document = "model.json"
    needs = ("run", "logged_model")
    versions_kind = comes_with = "model_version"
    documented = "registered_model"

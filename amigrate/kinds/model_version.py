"""Versions of registered models: see `registry_version`."""

from __future__ import annotations

from amigrate.kinds.registry_version import RegistryVersion


class ModelVersion(RegistryVersion):
    """Number, source, run, description, tags and stage."""

    name = "model_version"
    group = "models"
    label = "model-versions"
    parent = "registered_model"
    needs = ("registered_model", "run", "logged_model")

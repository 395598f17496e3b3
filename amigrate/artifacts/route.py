"""Which way leads to the artifacts at a stored location. The scheme is per object, not per server."""

from __future__ import annotations

from amigrate.artifacts.disk import disk_folder
from amigrate.artifacts.folder import Folder
from amigrate.artifacts.proxy import ProxyFolder, proxy_path
from amigrate.artifacts.through import ModelFolder, RunFolder, TraceFolder
from amigrate.client.api import Api


def folder_of(api: Api, location: str, run_id: str) -> Folder:
    """The way to the artifacts at `location`, the `artifact_uri` of a run.

    What the server proxies is read and written through its proxy; what a local store keeps on this machine, on the
    disk; for everything else the server itself is asked to reach the store, which works where it has the means.
    """
    path = proxy_path(location, api.uri)
    if path is not None:
        return ProxyFolder(api, path, run_id)
    on_disk = disk_folder(location, api.store) if api.store else None
    return on_disk or RunFolder(api, run_id, location)


def model_folder_of(api: Api, location: str, model_id: str) -> Folder:
    """The same for a logged model, `location` being its `artifact_uri`."""
    path = proxy_path(location, api.uri)
    if path is not None:
        return ProxyFolder(api, path, model_id=model_id)
    on_disk = disk_folder(location, api.store) if api.store else None
    return on_disk or ModelFolder(api, model_id, location)


def trace_folder_of(api: Api, location: str, trace_id: str) -> Folder:
    """The same for a trace, `location` being its tag `mlflow.artifactLocation`."""
    path = proxy_path(location, api.uri)
    if path is not None:
        return ProxyFolder(api, path)
    on_disk = disk_folder(location, api.store) if api.store else None
    return on_disk or TraceFolder(api, trace_id, location)

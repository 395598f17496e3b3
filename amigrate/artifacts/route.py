"""Which way leads to the artifacts at a stored location. The scheme is per object, not per server."""

from __future__ import annotations

from amigrate.artifacts.folder import Folder
from amigrate.artifacts.proxy import ProxyFolder, proxy_path
from amigrate.artifacts.through import RunFolder
from amigrate.client.api import Api


def folder_of(api: Api, location: str, run_id: str) -> Folder:
    """The way to the artifacts at `location`, the `artifact_uri` of a run.

    What the server proxies is read and written through its proxy; for everything else the server itself is asked to
    reach the store, which works where it has the means.
    """
    path = proxy_path(location, api.uri)
    return RunFolder(api, run_id, location) if path is None else ProxyFolder(api, path)

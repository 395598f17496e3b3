"""The ends of a move: servers, and private ones for local stores, opened and known before anything moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

from amigrate.archive.layout import PRIVATE
from amigrate.archive.source import holds_archive
from amigrate.client.abilities import caveats, insecure, probe
from amigrate.client.api import Abilities, Api
from amigrate.client.http import Http
from amigrate.core.errors import UsageError
from amigrate.engine.guard import AdaptiveGuard
from amigrate.engine.stats import Requests
from amigrate.kinds import REGISTRY
from amigrate.kinds.base import Target
from amigrate.kinds.naming import Naming
from amigrate.local import Private
from amigrate.options import ServerOptions, redacted, same_server
from amigrate.report.summary import warn
from amigrate.server.index import TargetIndex
from amigrate.server.sink import ServerSink
from amigrate.serving import served
from amigrate.session import Session
from amigrate.stores import Store, holds_runs


def _gone(private: Private, shown: str) -> Callable[[], str]:
    """Asks why a private server has ended, in words that name its store."""
    return lambda: (why := private.gone()) and f"the private MLflow server for {shown} has ended: {why}"


@asynccontextmanager
async def server_at(
    session: Session,
    server: ServerOptions,
    requests: Requests,
    *,
    writable: bool,
    checked: asyncio.Event | None = None,
) -> AsyncIterator[Api]:
    """A server and how to ask it; for a local store a private one, which goes away with it (see `served`)."""
    limits = session.options.limits
    guard = AdaptiveGuard(
        requests, ceiling=limits.concurrency, per_second=limits.requests_per_second, retries=server.retries
    )
    if session.options.dry_run:
        writable, server = False, replace(server, store=server.store and replace(server.store, upgrade=False))
    async with AsyncExitStack() as stack:
        private: Private | None = None
        if server.store is not None:
            _check_store(server.store)
            with_workspaces = bool(server.workspace) or session.options.workspaces is not None
            session.console.print(f"starting a private MLflow server for {server.uri}", highlight=False, soft_wrap=True)
            private = await stack.enter_async_context(
                served(server.store, writable=writable, workspaces=with_workspaces, checked=checked)
            )
        http = Http(replace(server, uri=private.uri if private else server.uri))
        if private:
            http.gone = _gone(private, server.uri)
        api = Api(await stack.enter_async_context(http), guard)
        api.shown = server.uri
        api.with_deleted = session.options.selection.deleted
        api.asked = frozenset(session.options.selection.objects)
        if server.registry_uri and session.options.workspaces is not None:
            raise UsageError(
                "--workspaces moves the models of the server's own registry: unset --registry-uri and its variable"
            )
        if server.registry_uri and not same_server(server.registry_uri, server.uri):
            if not server.registry_uri.startswith(("http://", "https://")):
                raise UsageError(f"the registry {redacted(server.registry_uri)} is no server: give an http address")
            registry = replace(server, uri=server.registry_uri, registry_uri="", store=None)
            api.registry = Api(await stack.enter_async_context(Http(registry)), guard)
            await probe(api.registry)
        api.read_only = api.registry.read_only = session.options.dry_run
        yield api
    requests.concurrency = guard.concurrency()


async def probed(session: Session, api: Api) -> Abilities:
    """What a server is, and what its user has to know before anything moves."""
    if api.http.server.tls.insecure:
        warn(session.console, insecure(api))
    found = await probe(api)
    for caveat in caveats(api):
        session.stats.notes.warn(caveat)
    return found


async def both(
    session: Session, stack: AsyncExitStack, source: ServerOptions, target: ServerOptions
) -> tuple[Api, Api]:
    """The two ends of a copy, opened at once: a private server takes seconds to start.

    Nothing is made for a target before the source is known to be one.
    """
    checked = asyncio.Event()

    async def read() -> Api:
        end = server_at(session, source, session.stats.source, writable=False, checked=checked)
        api = await stack.enter_async_context(end)
        await probed(session, api)
        checked.set()
        return api

    async with asyncio.TaskGroup() as group:
        reading = group.create_task(read())
        end = server_at(session, target, session.stats.sink, writable=True, checked=checked)
        writing = group.create_task(stack.enter_async_context(end))
    return reading.result(), writing.result()


def _check_store(store: Store) -> None:
    """A folder is an archive or a store, whatever its name."""
    if store.folder and not holds_runs(store.folder) and holds_archive(store.folder):
        raise UsageError(f"{store.folder} is an archive, not a store: use import-all --input-dir {store.folder}")


def sink_of(session: Session, api: Api) -> ServerSink:
    imports = session.options.imports
    target = Target(
        api,
        TargetIndex(),
        session.stats.notes,
        source_tags=imports.source_tags,
        provenance=imports.provenance,
        narrowed=session.options.selection.narrow,
        naming=Naming(imports.rename_map(), imports.on_conflict),
        passwords=imports.passwords,
        webhook_secrets=imports.webhook_secrets,
        dry=session.options.dry_run,
    )
    for secrets in (imports.passwords, imports.webhook_secrets):
        for one in {api, api.registry}:
            one.http.hidden += secrets.values()
        if secrets.exposed:
            session.stats.notes.warn(f"{secrets.place} can be read by others than its owner: chmod 600")
    return ServerSink(target, REGISTRY)


def check_output(output: Path) -> None:
    """An export never mixes with what somebody else put into the folder."""
    if output.exists() and not output.is_dir():
        raise UsageError(f"{output} is a file: give a folder")
    if output.is_dir() and not (output / PRIVATE).exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no export that could be continued: give a new folder")

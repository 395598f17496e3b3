"""Writing to a run that an earlier session has deleted: nothing can be written to it then (400, MLflow 3.17.2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from amigrate.client.api import V2, Endpoint, Work
from amigrate.core.errors import Rejected
from amigrate.kinds.base import Target

GET = Endpoint("GET", f"{V2}/runs/get")
DELETE = Endpoint("POST", f"{V2}/runs/delete", Work.WRITE)
RESTORE = Endpoint("POST", f"{V2}/runs/restore", Work.WRITE)


async def even_if_deleted(target: Target, run_id: str, write: Callable[[], Awaitable[object]]) -> None:
    """Write to a run; one that turns out to be deleted is restored for it, and deleted again.

    Raises what the server said where that was not the reason.
    """
    try:
        await write()
    except Rejected:
        run = (await target.api.call(GET, params=[("run_id", run_id)]))["run"]
        if run["info"].get("lifecycle_stage") != "deleted":
            raise
        await target.wake(str(run["info"]["experiment_id"]))
        await target.api.call(RESTORE, {"run_id": run_id})
        await write()
        await target.api.call(DELETE, {"run_id": run_id})

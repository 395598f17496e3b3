"""Which kind of store is behind a server: SQL drops points that it has already, a file store keeps them twice."""

from __future__ import annotations

from amigrate.client.api import Api
from amigrate.core.errors import ApiError, Transient, Unsupported
from amigrate.kinds.series import ask

NOBODY = "0" * 32


async def without_it(api: Api, error: Transient) -> ApiError:
    """What an error of a listing means, where a file store answers HTML 500 to what it does not have."""
    if error.status == 500 and not await is_sql(api):
        return Unsupported(f"a file store does not have it ({error})", status=500, endpoint=error.endpoint)
    return error


async def is_sql(api: Api) -> bool:
    """Whether a SQL store is behind the server; False where that is not certain.

    Since 3.10 the server says so. Before, the history of a run that does not exist tells: a SQL store finds nothing, a
    file store misses the run (seen on 1.30.1, 2.9.2, 2.22.5 and 3.4.0).
    """
    if api.abilities.store:
        return api.abilities.store == "SqlStore"
    try:
        return not (await ask(api, NOBODY, "none")).chunk()
    except ApiError:
        return False

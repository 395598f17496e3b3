"""What MCP servers and their versions have in common.

Endpoints (`/api/3.0/mlflow/mcp-servers…`, 3.15+, SQL stores only). A name is `<namespace>/<server>` and stands in paths
as it is. The host of an icon has to resolve to a public address, or the whole request is answered with 400.
"""

from __future__ import annotations

from collections.abc import Sequence

from amigrate.client.api import V3, Api, Endpoint, Work, encode_path
from amigrate.core.errors import Rejected
from amigrate.core.model import Doc, Outcome, Ref
from amigrate.kinds.limits import lost

SERVERS = f"{V3}/mcp-servers"
LIST = Endpoint("GET", SERVERS)
CREATE = Endpoint("POST", SERVERS, Work.WRITE)
PAGE = 1000
ICONS = "icons"


def at(method: str, name: str, *below: str) -> Endpoint:
    """An endpoint of one server, or of something below it."""
    path = "/".join([SERVERS, encode_path(name), *(encode_path(one) for one in below)])
    return Endpoint(method, path, Work.READ if method == "GET" else Work.WRITE)


async def send_icons(
    api: Api, endpoint: Endpoint, body: Doc, places: Sequence[Doc], owner: Ref, losses: list[Outcome]
) -> None:
    """Send a body that holds icons in some parts of it; without them where the server refuses them."""
    try:
        await api.call(endpoint, body)
    except Rejected as error:
        removed = [one.pop(ICONS, None) for one in places]
        if "icon" not in str(error).lower() or not any(removed):
            raise
        losses.append(lost(ICONS, ICONS, owner, f"the target refuses them: {error}"))
        await api.call(endpoint, body)


def without_nothing(doc: Doc) -> Doc:
    """A document without the fields that say nothing: a server answers with every field that there is."""
    return {key: one for key, one in doc.items() if one is not None}

"""Secrets of the AI gateway: that they are needed, never what they are. See `gateway`.

A listing shows name, provider, `auth_config` and `masked_values`; the latter hold characters of the secret and go
nowhere. A secret that the target has under the same name is the one that is meant.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from amigrate.client.api import Api
from amigrate.core.errors import Uncarriable
from amigrate.core.model import Doc, Foreseen, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import text, texts
from amigrate.kinds.base import Target
from amigrate.kinds.gateway import NamedGatewayKind, given_in, id_in


class GatewaySecret(NamedGatewayKind):
    """See the module."""

    name = "gateway_secret"
    label = "gateway-secrets"
    folder = "gateway/secrets"
    document = "secret.json"
    collection = "secrets"
    plural = "secrets"
    singular = "secret"
    own = "secret_id"

    def called(self, doc: Doc) -> str:
        return str(doc["secret_name"])

    def told(self, record: Record) -> Doc:
        doc = record.doc
        return {"provider": doc.get("provider") or "", "auth_config": doc.get("auth_config") or {}}

    def comparable(self, record: Record, names: Names) -> Doc:
        return self.told(record)

    async def _docs(self, api: Api) -> AsyncIterator[list[Doc]]:
        async for docs in super()._docs(api):
            yield [{key: value for key, value in doc.items() if key != "masked_values"} for doc in docs]

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        return self.record(
            {
                "secret_id": id_in(given, "secret_id", ref_id),
                "secret_name": text(given.get("secret_name") or None, "secret_name"),
                "provider": text(given.get("provider") or "", "provider"),
                "auth_config": texts(given.get("auth_config"), "auth_config"),
                **self.dated(given),
            }
        )

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            await self.begin(target, record, ids)
        return Foreseen(requests=0)

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        whose = f"secret '{record.name}' of {record.doc.get('provider') or 'no provider'}"
        raise Uncarriable(f"no server tells its value: enter {whose} at the target, then go on")

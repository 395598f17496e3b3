"""Model definitions of the AI gateway: a provider's model and the secret that opens it. See `gateway`."""

from __future__ import annotations

from typing import Any

from amigrate.core.errors import Uncarriable
from amigrate.core.model import Doc, Foreseen, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, text
from amigrate.kinds.base import Target
from amigrate.kinds.gateway import NamedGatewayKind, by, given_in, id_in

SECRET = "gateway_secret"


class GatewayModelDefinition(NamedGatewayKind):
    """See the module."""

    name = "gateway_model_definition"
    label = "gateway-model-definitions"
    needs = (SECRET,)
    folder = "gateway/model_definitions"
    document = "model_definition.json"
    collection = "model-definitions"
    plural = "model_definitions"
    singular = "model_definition"
    own = "model_definition_id"

    def told(self, record: Record) -> Doc:
        doc = record.doc
        return {key: doc.get(key) or "" for key in ("name", "provider", "model_name", "secret_name")}

    def comparable(self, record: Record, names: Names) -> Doc:
        return {**self.told(record), **by(record.doc)}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        return self.record(
            {
                "model_definition_id": id_in(given, self.own, ref_id),
                "name": text(given.get("name") or None, "name"),
                "secret_id": identity(given.get("secret_id"), "secret_id"),
                "secret_name": text(given.get("secret_name") or "", "secret_name"),
                "provider": text(given.get("provider") or None, "provider"),
                "model_name": text(given.get("model_name") or None, "model_name"),
                **self.dated(given),
            }
        )

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            self._body(record, ids)
        return Foreseen()

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        body = {**self._body(record, ids), **by(record.doc)}
        return await self.make_named(target, record.name, body), None

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What amigrate made is brought up to date."""
        held = self.held(target, record)
        if held is not None and self.told(held) == self.told(record):
            return None
        if made:
            await self.change(target, {self.own: new_id, **self._body(record, ids)})
        else:
            self.note_other(target, record)
        return None

    def _body(self, record: Record, ids: Ids) -> Doc:
        """What the server is sent; raises `Uncarriable` while the secret is not there."""
        doc = record.doc
        if not doc.get("secret_id"):
            raise Uncarriable("its secret is deleted at the source, and no server makes a model definition without one")
        secret = ids.new_id(SECRET, doc["secret_id"])
        if secret is None:
            name = doc.get("secret_name") or doc["secret_id"]
            raise Uncarriable(f"it waits for secret '{name}': enter that at the target, then go on")
        told = {key: doc.get(key) or "" for key in ("name", "provider", "model_name")}
        return {**told, "secret_id": secret}

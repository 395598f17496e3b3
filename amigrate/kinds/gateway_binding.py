"""Bindings of the AI gateway: which scorer uses which endpoint. See `gateway`.

A server binds a scorer by itself when it is registered with an endpoint as its model. A second binding of one pair is
answered with 400 BAD_REQUEST.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from amigrate.client.api import Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Rejected, Uncarriable
from amigrate.core.model import Doc, Foreseen, Found, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import text
from amigrate.kinds.base import Target
from amigrate.kinds.gateway import GATEWAY, GatewayKind, by, endpoint_names, given_in
from amigrate.kinds.gateway_scorers import EXPERIMENT, SCORER, decoded, foresee_scorer, scorer_at, scorers

ENDPOINT = "gateway_endpoint"
CREATE = Endpoint("POST", f"{GATEWAY}/endpoints/bindings/create", Work.WRITE)


class GatewayBinding(GatewayKind):
    """See the module. Its id is `<endpoint id>/<scorer id>`."""

    name = "gateway_binding"
    label = "gateway-bindings"
    needs = (ENDPOINT, SCORER)
    folder = "gateway/bindings"
    document = "binding.json"
    collection = "endpoints/bindings"
    plural = "bindings"

    # ---- pure -------------------------------------------------------------------------------------------------

    def record(self, doc: Doc) -> Record:
        ref = Ref(self.name, f"{doc['endpoint_id']}/{doc['resource_id']}")
        scorer = doc.get("scorer")
        if scorer is None:
            gone = Uncarriable(f"{doc['resource_type']} {doc['resource_id']} is not there any more")
            return Record(ref, doc, error=gone)
        return Record(ref, doc, f"{doc['endpoint_name']} for {scorer['scorer_name']} of {scorer['experiment_name']}")

    def told(self, record: Record) -> Doc:
        scorer = record.doc["scorer"]
        return {"endpoint": record.doc["endpoint_name"], "scorer": scorer["scorer_name"]}

    def digest(self, record: Record) -> str:
        return codec.digest(record.ref.id)

    def match(self, record: Record) -> str:
        return record.name

    def comparable(self, record: Record, names: Names) -> Doc:
        experiment = names(EXPERIMENT, record.doc["scorer"]["experiment_id"])
        return {**self.told(record), "experiment": experiment, **by(record.doc)}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        return self.record(
            {
                "endpoint_id": text(given.get("endpoint_id") or None, "endpoint_id"),
                "endpoint_name": text(given.get("endpoint_name") or None, "endpoint_name"),
                "resource_type": text(given.get("resource_type") or None, "resource_type"),
                "resource_id": text(given.get("resource_id") or None, "resource_id"),
                "scorer": decoded(given.get("scorer")),
                **self.dated(given),
            }
        )

    # ---- read -------------------------------------------------------------------------------------------------

    async def _docs(self, api: Api) -> AsyncIterator[list[Doc]]:
        """With the names of endpoints and scorers, which both sides have in common."""
        async for docs in super()._docs(api):
            if not docs:
                continue
            endpoints, known = await endpoint_names(api), await scorers(api)
            yield [
                {
                    **doc,
                    "endpoint_name": endpoints.get(str(doc["endpoint_id"]), ""),
                    "scorer": known.get(str(doc["resource_id"])) if doc["resource_type"] == SCORER else None,
                }
                for doc in docs
            ]

    # ---- write ------------------------------------------------------------------------------------------------

    async def find(self, target: Target, records: Sequence[Record], ids: Ids) -> dict[str, Found]:
        if not target.index.loaded(self.name):
            async for docs in super()._docs(target.api):
                for doc in docs:
                    own = f"{doc['endpoint_id']}/{doc['resource_id']}"
                    target.index.add(self.name, [own], Found(own, False), "")
            target.index.mark(self.name)
        found = {}
        for record in records:
            try:
                own = await self._own_at(target, record, ids)
            except Uncarriable:
                continue
            if target.index.get(self.name, own):
                found[record.ref.key] = Found(own, True)
        return found

    async def _own_at(self, target: Target, record: Record, ids: Ids) -> str:
        """Its id at the target, whether it is there or not; `Uncarriable` while what it binds is not there."""
        return f"{_endpoint_at(record, ids)}/{await scorer_at(target, record.doc['scorer'], ids)}"

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            _endpoint_at(record, ids)
            await foresee_scorer(target, {**record.doc["scorer"], "scorer_id": record.doc["resource_id"]}, ids)
        return Foreseen()

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        own = await self._own_at(target, record, ids)
        endpoint, _, scorer = own.partition("/")
        body = {"endpoint_id": endpoint, "resource_type": SCORER, "resource_id": scorer, **by(record.doc)}
        try:
            await target.api.call(CREATE, body)
        except Rejected as error:  # An answer of ours got lost, or the server has bound the scorer by itself.
            if "UNIQUE" not in str(error).upper():
                raise
        return own, None


def _endpoint_at(record: Record, ids: Ids) -> str:
    endpoint = ids.new_id(ENDPOINT, str(record.doc["endpoint_id"]))
    if endpoint is None:
        raise Uncarriable(f"its endpoint '{record.doc['endpoint_name']}' is not at the target")
    return endpoint

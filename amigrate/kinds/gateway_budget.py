"""Budgets of the AI gateway: how much may be spent in which time, and what happens then. See `gateway`.

A budget has no name and may come twice. One of scope ENDPOINT names an endpoint by id, one of scope USER a user, which
a server without authentication refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from amigrate.client.api import Api
from amigrate.core.errors import Rejected, Uncarriable
from amigrate.core.model import Doc, Foreseen, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import mapping, real, text, whole
from amigrate.kinds.base import Target
from amigrate.kinds.gateway import CountedGatewayKind, by, endpoint_names, given_in, id_in

ENDPOINT = "gateway_endpoint"
WORDS = ("budget_unit", "target_scope", "budget_action")


class GatewayBudget(CountedGatewayKind):
    """See the module."""

    name = "gateway_budget"
    label = "gateway-budgets"
    needs = (ENDPOINT,)
    folder = "gateway/budgets"
    document = "budget.json"
    collection = "budgets"
    plural = "budget_policies"
    singular = "budget_policy"
    own = "budget_policy_id"

    def called(self, doc: Doc) -> str:
        duration = doc.get("duration") or {}
        amount = f"{doc.get('budget_amount') or 0:g} {doc.get('budget_unit')} in {duration.get('value')}"
        return f"{doc.get('budget_action')} at {amount} {duration.get('unit')}, {doc.get('target_scope')}"

    async def _docs(self, api: Api) -> AsyncIterator[list[Doc]]:
        """With the names of endpoints, which both sides of a comparison have in common."""
        names: dict[str, str] | None = None
        async for docs in super()._docs(api):
            if names is None and any(doc.get("target_scope") == "ENDPOINT" for doc in docs):
                names = await endpoint_names(api)
            yield [{**doc, "target_name": (names or {}).get(doc.get("target_value") or "", "")} for doc in docs]

    def told(self, record: Record) -> Doc:
        doc = record.doc
        duration = doc.get("duration") or {}
        return {
            **{word: doc.get(word) or "" for word in WORDS},
            "budget_amount": float(doc.get("budget_amount") or 0.0),
            "duration": {"unit": duration.get("unit") or "", "value": int(duration.get("value") or 0)},
            "target_value": doc.get("target_value") or "",
        }

    def mapped(self, record: Record, ids: Ids) -> Doc:
        told = self.told(record)
        if told["target_scope"] == "ENDPOINT":
            told["target_value"] = ids.new_id(ENDPOINT, told["target_value"]) or told["target_value"]
        return told

    def match(self, record: Record) -> str:
        """By everything but the amount."""
        told = self.told(record)
        target = record.doc.get("target_name") or told["target_value"]
        duration = told["duration"]
        return " ".join([*(told[word] for word in WORDS), target, str(duration["value"]), duration["unit"]])

    def comparable(self, record: Record, names: Names) -> Doc:
        told = self.told(record)
        if told["target_scope"] == "ENDPOINT":
            told["target_value"] = names(ENDPOINT, told["target_value"])
        return told

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        duration = mapping(given.get("duration"), "duration")
        doc: Doc = {
            "budget_policy_id": id_in(given, self.own, ref_id),
            **{word: text(given.get(word) or None, word) for word in WORDS},
            "budget_amount": real(given.get("budget_amount", 0.0), "budget_amount"),
            "duration": {
                "unit": text(duration.get("unit") or None, "duration.unit"),
                "value": whole(duration.get("value"), "duration.value"),
            },
            **self.dated(given),
        }
        doc |= {key: text(given[key], key) for key in ("target_value", "target_name") if given.get(key)}
        return self.record(doc)

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            self._sendable(record, ids)
        return Foreseen()

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        told = self._sendable(record, ids)
        try:
            return await self.make_counted(target, record, told, {**_body(told), **by(record.doc)}), None
        except Rejected as error:
            raise Uncarriable(f"the target does not take it: {error}") from error

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What amigrate made is brought up to date."""
        if made and (told := self._sendable(record, ids)) != (await self.claims(target)).told(new_id):
            await self.change(target, {self.own: new_id, **_body(told)})
        return None

    def _sendable(self, record: Record, ids: Ids) -> Doc:
        """`mapped`; raises `Uncarriable` while the endpoint is not there."""
        endpoint = record.doc.get("target_value") or ""
        if record.doc.get("target_scope") == "ENDPOINT" and ids.new_id(ENDPOINT, endpoint) is None:
            name = record.doc.get("target_name") or endpoint
            raise Uncarriable(f"its endpoint '{name}' is not at the target: see what that waits for")
        return self.mapped(record, ids)


def _body(told: Doc) -> Doc:
    return {key: value for key, value in told.items() if key != "target_value" or value}

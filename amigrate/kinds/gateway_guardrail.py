"""Guardrails of the AI gateway: a scorer that looks at what goes into endpoints or comes out of them. See `gateway`.

Endpoints (`/api/3.0/mlflow/gateway/guardrails/…`, 3.13+): GET list, GET list-for-endpoint, POST create, POST
add-to-endpoint, PATCH update-config (its place in the order). None changes a guardrail itself. An answer calls the
endpoint that sanitizes by its name in `action_endpoint_id`, where a create call takes the id.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from amigrate.client.api import Api, Endpoint, Work
from amigrate.core import codec
from amigrate.core.errors import Conflict, Uncarriable
from amigrate.core.model import Doc, Foreseen, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, items, mapping, text, whole
from amigrate.kinds.base import Target
from amigrate.kinds.gateway import GATEWAY, CountedGatewayKind, endpoint_names, given_in, id_in
from amigrate.kinds.gateway_scorers import EXPERIMENT, decoded, foresee_scorer, scorer_at

ENDPOINT = "gateway_endpoint"
OF_ENDPOINT = Endpoint("GET", f"{GATEWAY}/guardrails/list-for-endpoint")
ADD = Endpoint("POST", f"{GATEWAY}/guardrails/add-to-endpoint", Work.WRITE)
REORDER = Endpoint("PATCH", f"{GATEWAY}/guardrails/update-config", Work.WRITE)
WORDS = ("name", "stage", "action")


class GatewayGuardrail(CountedGatewayKind):
    """See the module."""

    name = "gateway_guardrail"
    label = "gateway-guardrails"
    needs = (ENDPOINT, "scorer")
    folder = "gateway/guardrails"
    document = "guardrail.json"
    collection = "guardrails"
    plural = "guardrails"
    singular = "guardrail"
    own = "guardrail_id"

    # ---- pure -------------------------------------------------------------------------------------------------

    def told(self, record: Record) -> Doc:
        """What no request changes."""
        doc = record.doc
        scorer = doc.get("scorer") or {}
        return {
            **{word: doc.get(word) or "" for word in WORDS},
            "scorer": [str(scorer.get("experiment_id")), scorer.get("scorer_name"), scorer.get("scorer_version")],
            "action_endpoint": str(doc.get("action_endpoint_id") or ""),
        }

    def digest(self, record: Record) -> str:
        return codec.digest([self.told(record), record.doc.get("endpoints")])

    def mapped(self, record: Record, ids: Ids) -> Doc:
        told = self.told(record)
        experiment, *scorer = told["scorer"]
        return {**told, "scorer": [ids.new_id(EXPERIMENT, experiment) or experiment, *scorer]}

    def match(self, record: Record) -> str:
        told = self.told(record)
        return " ".join([*(told[word] for word in WORDS), str(told["scorer"][1]), told["action_endpoint"]])

    def comparable(self, record: Record, names: Names) -> Doc:
        told = self.told(record)
        experiment, *scorer = told["scorer"]
        order = {one["endpoint_name"]: one.get("execution_order") for one in record.doc.get("endpoints") or []}
        return {**told, "scorer": [names(EXPERIMENT, experiment), *scorer], "endpoints": order}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        scorer = mapping(given.get("scorer"), "scorer")
        version = whole(scorer.get("scorer_version"), "scorer_version")
        doc: Doc = {
            "guardrail_id": id_in(given, self.own, ref_id),
            **{word: text(given.get(word) or None, word) for word in WORDS},
            "scorer": {**decoded(scorer), "scorer_version": version},
            "action_endpoint_id": identity(given.get("action_endpoint_id"), "action_endpoint_id"),
            "action_endpoint": identity(given.get("action_endpoint"), "action_endpoint"),
            "endpoints": [_place(one) for one in items(given.get("endpoints"), "endpoints")],
            **self.dated(given),
        }
        return self.record(doc)

    # ---- read -------------------------------------------------------------------------------------------------

    async def _docs(self, api: Api) -> AsyncIterator[list[Doc]]:
        """With the endpoints that each one is added to, which takes one request for each endpoint."""
        places: dict[str, list[Doc]] | None = None
        names: dict[str, str] = {}
        async for docs in super()._docs(api):
            if places is None:
                names = await endpoint_names(api)
                places = await _places(api, names)
            yield [_complete(doc, places, names) for doc in docs]

    # ---- write ------------------------------------------------------------------------------------------------

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            await foresee_scorer(target, record.doc["scorer"], ids)
            return Foreseen(1 + len(_as_here(record.doc, ids)))
        return Foreseen()

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        told, doc = self.mapped(record, ids), record.doc
        body: Doc = {
            **{word: told[word] for word in WORDS},
            "scorer_id": await scorer_at(target, doc["scorer"], ids),
            "scorer_version": doc["scorer"]["scorer_version"],
        }
        if told["action_endpoint"]:
            body["action_endpoint_id"] = _at(ids, doc.get("action_endpoint") or "", told["action_endpoint"])
        places = _as_here(doc, ids)
        new_id = await self.make_counted(target, record, told, body)
        for endpoint, order in places.items():
            await self._add(target, new_id, endpoint, order)
        return new_id, None

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """Of what amigrate made, the endpoints that it is added to, and its place there, are brought up to date."""
        claims = await self.claims(target)
        if not made:
            return None
        if claims.told(new_id) != self.mapped(record, ids):
            raise Uncarriable("it has changed at the source, and no request changes it: delete it at the target first")
        held = {one["endpoint_id"]: one.get("execution_order") for one in claims.doc(new_id).get("endpoints") or []}
        for endpoint, order in _as_here(record.doc, ids).items():
            if endpoint not in held:
                await self._add(target, new_id, endpoint, order)
            elif held[endpoint] != order:
                await target.api.call(REORDER, _config(new_id, endpoint, order))
        return None

    async def _add(self, target: Target, new_id: str, endpoint: str, order: int | None) -> None:
        try:
            await target.api.call(ADD, _config(new_id, endpoint, order))
        except Conflict:  # An earlier answer of ours got lost.
            return


async def _places(api: Api, names: dict[str, str]) -> dict[str, list[Doc]]:
    """For each guardrail the endpoints that it is added to, each with its place in their order."""
    places: dict[str, list[Doc]] = {}
    for endpoint, name in names.items():
        answer = await api.call(OF_ENDPOINT, params=[("endpoint_id", endpoint)])
        for config in answer.get("configs") or []:
            place = {"endpoint_id": endpoint, "endpoint_name": name, "execution_order": config.get("execution_order")}
            places.setdefault(str(config["guardrail_id"]), []).append(place)
    return places


def _complete(doc: Doc, places: dict[str, list[Doc]], names: dict[str, str]) -> Doc:
    """A guardrail with its endpoints, and without the text of its scorer."""
    scorer = {key: value for key, value in (doc.get("scorer") or {}).items() if key != "serialized_scorer"}
    action = str(doc.get("action_endpoint_id") or "")
    by_name = {name: own for own, name in names.items()}
    return {
        **doc,
        "scorer": scorer,
        "endpoints": places.get(str(doc["guardrail_id"]), []),
        "action_endpoint_id": names.get(action, action),
        "action_endpoint": action if action in names else by_name.get(action, ""),
    }


def _place(value: Any) -> Doc:
    """One of the endpoints in a document."""
    given = mapping(value, "an endpoint")
    order = given.get("execution_order")
    return {
        "endpoint_id": text(given.get("endpoint_id") or None, "endpoint_id"),
        "endpoint_name": text(given.get("endpoint_name") or "", "endpoint_name"),
        "execution_order": None if order is None else whole(order, "execution_order"),
    }


def _as_here(doc: Doc, ids: Ids) -> dict[str, int | None]:
    """The target's endpoints that it is added to; `Uncarriable` while one of them is not there."""
    return {
        _at(ids, one["endpoint_id"], one["endpoint_name"]): one.get("execution_order")
        for one in doc.get("endpoints") or []
    }


def _at(ids: Ids, endpoint: str, name: str) -> str:
    new = ids.new_id(ENDPOINT, endpoint)
    if new is None:
        raise Uncarriable(f"its endpoint '{name}' is not at the target: see what that waits for")
    return new


def _config(guardrail: str, endpoint: str, order: int | None) -> Doc:
    return {
        "endpoint_id": endpoint,
        "guardrail_id": guardrail,
        **({} if order is None else {"execution_order": order}),
    }

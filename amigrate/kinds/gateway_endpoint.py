"""Endpoints of the AI gateway: which model definitions answer, in which share or order, and tags. See `gateway`.

Where `usage_tracking` is on, traces go to an experiment; without one, the server makes `gateway/<name>` and tags it
with the endpoint's id (`mlflow.experiment.sourceId`). A tag is set with a request of its own.
"""

from __future__ import annotations

from typing import Any

from amigrate.client.api import V2, Endpoint, Work
from amigrate.core.errors import Uncarriable
from amigrate.core.model import Doc, Foreseen, Record, Ref
from amigrate.core.ports import Ids, Names
from amigrate.core.typed import identity, items, mapping, real, text, texts, whole
from amigrate.kinds.base import Target, pairs, tag_list
from amigrate.kinds.gateway import GATEWAY, NamedGatewayKind, by, given_in, id_in

DEFINITION, EXPERIMENT = "gateway_model_definition", "experiment"
SOURCE_ID = "mlflow.experiment.sourceId"
SET_TAG = Endpoint("POST", f"{GATEWAY}/endpoints/set-tag", Work.WRITE)
GET_EXPERIMENT = Endpoint("GET", f"{V2}/experiments/get")
SET_EXPERIMENT_TAG = Endpoint("POST", f"{V2}/experiments/set-experiment-tag", Work.WRITE)


class GatewayEndpoint(NamedGatewayKind):
    """See the module."""

    name = "gateway_endpoint"
    label = "gateway-endpoints"
    needs = (DEFINITION, EXPERIMENT)
    folder = "gateway/endpoints"
    document = "endpoint.json"
    collection = "endpoints"
    plural = "endpoints"
    singular = "endpoint"
    own = "endpoint_id"

    # ---- pure -------------------------------------------------------------------------------------------------

    def told(self, record: Record) -> Doc:
        doc = record.doc
        fallback = doc.get("fallback_config") or {}
        return {
            "name": record.name,
            "models": sorted((_model(one) for one in doc.get("model_mappings") or []), key=_place),
            "routing_strategy": doc.get("routing_strategy") or "",
            "fallback": {key: fallback[key] for key in ("strategy", "max_attempts") if fallback.get(key)},
            "usage_tracking": bool(doc.get("usage_tracking")),
            "experiment": str(doc.get("experiment_id") or ""),
            "tags": pairs(doc.get("tags")),
        }

    def comparable(self, record: Record, names: Names) -> Doc:
        told = self.told(record)
        experiment = names(EXPERIMENT, told["experiment"]) if told["experiment"] else ""
        return {**told, "experiment": experiment, **by(record.doc)}

    def decode(self, document: Doc, ref_id: str, parent: Ref | None) -> Record:
        given = given_in(document)
        fallback = mapping(given.get("fallback_config"), "fallback_config")
        doc: Doc = {
            "endpoint_id": id_in(given, self.own, ref_id),
            "name": text(given.get("name") or None, "name"),
            "model_mappings": [_mapping(one) for one in items(given.get("model_mappings"), "model_mappings")],
            "usage_tracking": bool(given.get("usage_tracking")),
            "experiment_id": identity(given.get("experiment_id"), "experiment_id"),
            "tags": tag_list(texts(given.get("tags"), "tags")),
            **self.dated(given),
        }
        if given.get("routing_strategy"):
            doc["routing_strategy"] = text(given["routing_strategy"], "routing_strategy")
        if fallback.get("strategy"):
            doc["fallback_config"] = {"strategy": text(fallback["strategy"], "fallback_config.strategy")}
        if fallback.get("max_attempts"):
            attempts = whole(fallback["max_attempts"], "fallback_config.max_attempts")
            doc.setdefault("fallback_config", {})["max_attempts"] = attempts
        return self.record(doc)

    # ---- write ------------------------------------------------------------------------------------------------

    async def rehearse(self, target: Target, record: Record, new_id: str, made: bool | None, ids: Ids) -> Foreseen:
        if made is None:
            self._body(record, ids)
        return Foreseen()

    async def begin(self, target: Target, record: Record, ids: Ids) -> tuple[str, Any]:
        new_id = await self.make_named(target, record.name, {**self._body(record, ids), **by(record.doc)})
        await self._set_tags(target, new_id, pairs(record.doc.get("tags")))
        await self._claim_experiment(target, record, new_id, ids)
        return new_id, None

    async def resume(self, target: Target, record: Record, new_id: str, made: bool, ids: Ids) -> Any:
        """What amigrate made is brought up to date."""
        held = self.held(target, record)
        is_other = held is None or self._as_here(self.told(held), ids) != self._as_here(
            self.told(record), ids, old=True
        )
        if not made:
            if is_other:
                self.note_other(target, record)
            return None
        tags, old = pairs(record.doc.get("tags")), pairs(held.doc.get("tags")) if held else {}
        body = self._body(record, ids)
        if is_other:
            await self.change(target, {self.own: new_id, **body})
        await self._set_tags(target, new_id, {key: value for key, value in tags.items() if old.get(key) != value})
        await self._claim_experiment(target, record, new_id, ids)
        return None

    def _as_here(self, told: Doc, ids: Ids, *, old: bool = False) -> Doc:
        """What an update can change, in the target's ids."""
        experiment = told["experiment"]
        new = ids.new_id(EXPERIMENT, experiment) if old and experiment else experiment
        return {**told, "experiment": new, "tags": {}}

    def _body(self, record: Record, ids: Ids) -> Doc:
        """What the server is sent; raises `Uncarriable` while something that it needs is not there."""
        doc, told = record.doc, self.told(record)
        configs = [_config(one, ids) for one in doc.get("model_mappings") or []]
        body: Doc = {"name": record.name, "model_configs": configs, "usage_tracking": told["usage_tracking"]}
        if told["routing_strategy"]:
            body["routing_strategy"] = told["routing_strategy"]
        if told["fallback"]:
            body["fallback_config"] = told["fallback"]
        if told["experiment"]:
            experiment = ids.new_id(EXPERIMENT, told["experiment"])
            if experiment is None:
                raise Uncarriable(
                    f"experiment {told['experiment']}, which its traces go to, is not at the target: move that too"
                )
            body["experiment_id"] = experiment
        return body

    async def _set_tags(self, target: Target, new_id: str, tags: dict[str, str]) -> None:
        for tag in tag_list(tags):
            await target.api.call(SET_TAG, {self.own: new_id, **tag})

    async def _claim_experiment(self, target: Target, record: Record, new_id: str, ids: Ids) -> None:
        """An experiment that the source's server made for the endpoint names it by id."""
        experiment = ids.new_id(EXPERIMENT, str(record.doc.get("experiment_id") or ""))
        if experiment is None:
            return
        answer = await target.api.call(GET_EXPERIMENT, params=[("experiment_id", experiment)])
        if pairs(answer["experiment"].get("tags")).get(SOURCE_ID) == record.ref.id:
            tag = {"experiment_id": experiment, "key": SOURCE_ID, "value": new_id}
            await target.api.call(SET_EXPERIMENT_TAG, tag)


def _model(one: Doc) -> Doc:
    """A model that answers, by the name of its definition."""
    definition = one.get("model_definition") or {}
    return {
        "definition": str(definition.get("name") or one.get("model_definition_id")),
        "linkage": str(one.get("linkage_type") or ""),
        "weight": float(one.get("weight") or 0.0),
        "order": int(one.get("fallback_order") or 0),
    }


def _place(model: Doc) -> tuple[str, int, str]:
    return model["linkage"], model["order"], model["definition"]


def _mapping(value: Any) -> Doc:
    """One of `model_mappings` in a document."""
    given = mapping(value, "a model mapping")
    definition = mapping(given.get("model_definition"), "model_definition")
    kept: Doc = {
        "model_definition_id": text(given.get("model_definition_id") or None, "model_definition_id"),
        "linkage_type": text(given.get("linkage_type") or None, "linkage_type"),
        "weight": real(given.get("weight", 1.0), "weight"),
        "model_definition": {
            key: text(definition[key], key) for key in ("name", "secret_name") if definition.get(key) is not None
        },
    }
    if given.get("fallback_order") is not None:
        kept["fallback_order"] = whole(given["fallback_order"], "fallback_order")
    return kept


def _config(one: Doc, ids: Ids) -> Doc:
    """One of the models as the server takes it."""
    definition = one.get("model_definition") or {}
    new = ids.new_id(DEFINITION, str(one["model_definition_id"]))
    if new is None:
        secret = f", which waits for secret '{definition['secret_name']}'" if definition.get("secret_name") else ""
        name = definition.get("name") or one["model_definition_id"]
        raise Uncarriable(f"its model definition '{name}' is not at the target{secret}: enter that there, then go on")
    kept = {key: one[key] for key in ("linkage_type", "weight", "fallback_order") if one.get(key) is not None}
    return {"model_definition_id": new, **kept}

"""The items of a review queue: traces with a status, and who brought that about.

Endpoints (`/api/3.0/mlflow/review-queues/items/…`): POST add (many; all of a call or nothing, and every trace must be
in the queue's experiment; what is there already stays), POST set-status (one; a status that is there already stays with
whom it names). A server with logins names its own caller as who completed an item, others take what they are told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from amigrate.client.api import V3, Api, Endpoint, Work
from amigrate.core.errors import NotFound, Rejected
from amigrate.core.model import Doc, Outcome, Ref
from amigrate.core.ports import Ids
from amigrate.kinds.limits import lost
from amigrate.kinds.traced import each

ADD = Endpoint("POST", f"{V3}/review-queues/items/add", Work.WRITE)
SET_STATUS = Endpoint("POST", f"{V3}/review-queues/items/set-status", Work.WRITE)
PER_CALL = 500
PENDING = "PENDING"
STATUSES = (PENDING, "COMPLETE", "DECLINED")


def requests_for(items: Sequence[Doc]) -> int:
    """How many requests bring these into an empty queue."""
    return math.ceil(len(items) / PER_CALL) + len([one for one in items if one.get("status") != PENDING])


class Items:
    """The items of one queue of the target."""

    def __init__(self, api: Api, queue: str, held: dict[str, Doc] | None = None, made: bool = True) -> None:
        """`held` are those that it has, by id. Where amigrate `made` the queue, the source's word counts."""
        self._api = api
        self._queue = queue
        self._held = held or {}
        self._made = made
        self._misnamed = 0

    async def bring(self, owner: Ref, items: Sequence[Doc], ids: Ids) -> tuple[list[Outcome], list[Doc]]:
        """Add what is lacking and set its status. Returns what was lost, and the items whose traces are not there."""
        wanted = {str(one["item_id"]): one for one in items}
        lacking = [own for own in wanted if own not in self._held]
        there = [own for own in lacking if ids.new_id("trace", own) is not None]
        refused: dict[str, str] = {}
        for start in range(0, len(there), PER_CALL):
            refused |= await self._add(there[start : start + PER_CALL])
        missing = [own for own in lacking if own not in there or own in refused]
        changed = [one for own, one in wanted.items() if own not in missing and self._differs(one)]
        reasons = {own: refused.get(own, "its trace is not at the target") for own in missing}
        reasons |= {own: why async for own, why in each(self._set, changed) if why}
        losses = [lost("review", own, owner, why) for own, why in reasons.items()]
        if self._misnamed:
            why = f"the target has logins: it names its own user as who completed {self._misnamed} of its items"
            losses.append(lost("reviewer", "completed_by", owner, why))
        return losses, [wanted[own] for own in missing]

    async def _add(self, wanted: Sequence[str]) -> dict[str, str]:
        """One call; where it is refused, halves of it. Returns why, for each that was refused."""
        try:
            await self._api.call(ADD, {"queue_id": self._queue, "item_type": "TRACE", "item_ids": [*wanted]})
        except (NotFound, Rejected) as error:
            if len(wanted) == 1:
                return {wanted[0]: f"the target refuses it: {error}"}
            half = len(wanted) // 2
            return await self._add(wanted[:half]) | await self._add(wanted[half:])
        return {}

    def _differs(self, item: Doc) -> bool:
        """Whether the target's item has to change. What somebody has reviewed there is not undone."""
        held = self._held.get(str(item["item_id"]), {})
        old, new = held.get("status") or PENDING, item.get("status") or PENDING
        if new == PENDING:
            return False
        if old == PENDING:
            return True
        return self._made and (old, held.get("completed_by")) != (new, item.get("completed_by"))

    async def _set(self, item: Doc) -> tuple[str, str]:
        """Give an item its status. Returns its id, and why it could not be done."""
        own = str(item["item_id"])
        place = {"queue_id": self._queue, "item_id": own}
        try:
            if self._held.get(own, {}).get("status") == item["status"]:  # Another reviewer: only reopening forgets him.
                await self._api.call(SET_STATUS, {**place, "status": PENDING})
            body = {**place, "status": item["status"], "completed_by": item.get("completed_by") or ""}
            answer = await self._api.call(SET_STATUS, body)
        except (NotFound, Rejected) as error:
            return own, f"its status cannot be set: {error}"
        self._misnamed += answer["item"].get("completed_by") != item.get("completed_by")
        return own, ""

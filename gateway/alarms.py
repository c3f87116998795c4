"""Tells an organization's webhook of what goes wrong with its audit log."""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from gateway.clock import Clock
from gateway.webhooks import GONE, DeliveryError, Webhooks, message
from tenants.ids import OrgId

log = logging.getLogger("orgate.webhooks")


class Alarms:
    """One attempt at a time: whoever has something to tell asks again until it was told."""

    def __init__(self, webhooks: Webhooks, clock: Clock) -> None:
        self._webhooks = webhooks
        self._clock = clock

    async def tell(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool:
        """Whether nothing more is to be done: it was told, or nobody wants to know. A message of type `kind`, with
        the same `webhook-id` for the same `key` however often it is sent. Errors: `tenants.store.StoreError`."""
        hook = await self._webhooks.get(org)
        if hook is None:
            return True
        made = hashlib.sha256(f"{org}\0{kind}\0{key}".encode()).hexdigest()[:24]
        body = message(kind, int(self._clock.now()), {"org": org, **data})
        try:
            await self._webhooks.send(hook, f"msg_{made}", body)
        except DeliveryError as error:
            log.warning("%s: the webhook was not told of '%s': %s", org, kind, error)
            return error.status == GONE
        return True

"""A worker's hashes of prompts, for the organizations that want them in their audit log.

The key of an organization comes over the bus when it is first needed, and stays in memory. While it cannot be had
an entry has no hash: a completion is not refused for it, and does not wait for it more than once a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.audit.prompt import prompt_hmac
from gateway.errors import UnavailableError
from gateway.exchange import Call
from gateway.secret import Secret
from tenants.ids import OrgId

log = logging.getLogger("orgate.audit")

RETRY_S: Final = 1.0
MOST: Final = 4_096
"""Organizations whose keys are kept."""


class PromptHashes:
    """One worker's. `fetch` asks for an organization's key and raises `UnavailableError`."""

    def __init__(self, fetch: Callable[[OrgId], Awaitable[Secret]]) -> None:
        self._fetch = fetch
        self._keys: dict[OrgId, Secret] = {}
        self._asking: dict[OrgId, asyncio.Task[Secret | None]] = {}
        self._again: dict[OrgId, float] = {}

    async def of(self, org: OrgId, call: Call) -> str:
        """As `gateway.audit.prompt` describes it; '' without text or without the key."""
        key = self._keys.get(org) or await self._key(org)
        return "" if key is None else prompt_hmac(key, call.task, call.fields)

    async def _key(self, org: OrgId) -> Secret | None:
        loop = asyncio.get_running_loop()
        asking = self._asking.get(org)
        if asking is None:
            if loop.time() < self._again.get(org, 0.0):
                return None
            asking = self._asking[org] = loop.create_task(self._ask(org))
            asking.add_done_callback(lambda _: self._asking.pop(org, None))
        return await asyncio.shield(asking)  # a request that is given up takes nobody's key along

    async def _ask(self, org: OrgId) -> Secret | None:
        try:
            key = await self._fetch(org)
        except UnavailableError as error:
            if org not in self._again:
                log.warning("prompts of '%s' have no hash in the audit log for now: %s", org, error.message)
            self._again[org] = asyncio.get_running_loop().time() + RETRY_S
            return None
        self._again.pop(org, None)
        if len(self._keys) >= MOST:
            self._keys.clear()
        self._keys[org] = key
        return key

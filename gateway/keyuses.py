"""When personal tokens were last used: kept in workers, said over the bus in batches, written down by the control
process. No request writes anything for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.authn.statickeys import StaticKeys
from gateway.bus.client import BusClient
from gateway.bus.messages import KeyUsesUp
from gateway.errors import UnavailableError
from tenants.ids import OrgId
from tenants.store import ControlStore, StoreError

EVERY_S: Final = 10.0


async def report_key_uses(bus: BusClient, worker: str, keys: StaticKeys) -> None:
    """Say what is new until cancelled, and then once more. A worker that is killed takes the last seconds of it
    along."""
    try:
        while True:
            await asyncio.sleep(EVERY_S)
            await say_key_uses(bus, worker, keys)
    finally:
        await say_key_uses(bus, worker, keys)


async def say_key_uses(bus: BusClient, worker: str, keys: StaticKeys) -> None:
    """Say what is new, now; what could not be said is said the next time."""
    taken = keys.take()
    if not taken:
        return
    try:
        await bus.send_key_uses(KeyUsesUp(worker, tuple((org, key, at) for (org, key), at in taken.items())))
    except UnavailableError:
        keys.give_back(taken)


def key_uses_into(store: ControlStore) -> Callable[[KeyUsesUp], Awaitable[None]]:
    """Writes down what a worker says. Raises `UnavailableError` while the store cannot be written: it says it
    again."""

    async def write(message: KeyUsesUp) -> None:
        by_org: dict[OrgId, dict[str, int]] = {}
        for org, key, at in message.uses:
            by_org.setdefault(org, {})[key] = at
        for org, times in by_org.items():
            try:
                await store.for_org(org).static_keys.used(times)
            except StoreError:
                raise UnavailableError("the control store cannot be written now", retry_after_s=1) from None

    return write

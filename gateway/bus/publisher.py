"""Carries what the control store says to the hub: at once on a commit here, within a second otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.bus.hub import Hub
from gateway.clock import Clock
from tenants.ids import OrgId
from tenants.models import Revocation
from tenants.snapshot import Delta, TenantRecord
from tenants.store import NotFoundError

log = logging.getLogger("orgate.bus")

POLL_S = 1.0


class _Org(Protocol):
    async def record(self) -> TenantRecord: ...


class PublishedStore(Protocol):
    """The part of `tenants.store.ControlStore` that is published."""

    def for_org(self, org: OrgId) -> _Org: ...
    async def version(self) -> int: ...
    async def changed_since(self, version: int) -> tuple[int, Sequence[OrgId], Sequence[OrgId]]: ...
    async def revocations(self, now: int) -> Sequence[Revocation]: ...


class Publisher:
    """`Publisher(store, hub, clock, jwks)`; `await sync()` once, then `run()` beside the servers.

    `wake` is what the store calls when it has committed (`store.subscribe(publisher.wake)`). Somebody else's
    commits (another node, a command run beside the server) are found by asking the version each second.
    If the process dies between a commit and its publication, workers find out by themselves: they poll the
    store as soon as they are out of touch.
    """

    def __init__(self, store: PublishedStore, hub: Hub, clock: Clock, jwks: Callable[[], str]) -> None:
        self._store = store
        self._hub = hub
        self._clock = clock
        self._jwks = jwks
        self._version = -1
        self._sent_jwks = ""
        self._due = asyncio.Event()
        self._turn = asyncio.Lock()
        self.failing = False

    def wake(self, *_: object) -> None:
        """Something was committed: publish soon. From the loop's own thread; arguments are not looked at."""
        self._due.set()

    async def run(self) -> None:
        """Publish until cancelled. A store that cannot be read is tried again; workers keep what they have."""
        while True:
            try:
                await self.sync()
                self.failing = False
            except Exception as error:  # noqa: BLE001 - whatever the store's driver raises, the next try may do
                if not self.failing:
                    log.warning("the control store cannot be read, changes wait: %s", type(error).__name__)
                self.failing = True
            try:
                async with asyncio.timeout(POLL_S):
                    await self._due.wait()
            except TimeoutError:
                continue

    async def sync(self) -> int:
        """Publish what has changed since the last time, if anything; returns the version now published."""
        async with self._turn:
            self._due.clear()  # before reading: a commit during the reads asks for another round
            jwks = self._jwks()
            if self._version >= 0 and jwks == self._sent_jwks and await self._store.version() == self._version:
                return self._version
            return await self._publish(jwks)

    async def _publish(self, jwks: str) -> int:
        # The version is read before the records: a write in between is published twice rather than missed.
        version, changed, removed = await self._store.changed_since(max(self._version, 0))
        full = self._version < 0 or version < self._version
        if version < self._version:  # a backup was put back: what is known here no longer means anything
            version, changed, removed = await self._store.changed_since(0)
        records, gone = [], list(removed)
        for org in changed:
            try:
                records.append(await self._store.for_org(org).record())
            except NotFoundError:  # deleted since
                gone.append(org)
        revocations = tuple(await self._store.revocations(int(self._clock.now())))
        self._hub.publish(
            Delta(
                version=version,
                full=full,
                orgs=tuple(records),
                removed=tuple(gone),
                revocations=revocations,
                jwks=jwks if full or jwks != self._sent_jwks else "",
            )
        )
        self._version, self._sent_jwks = version, jwks
        return version

"""The control process that has its store to itself: what `tenants.sql.nodes` is where several share one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from tenants.store import Change


class Outbox(Protocol):
    """The part of `ControlStore` that one process empties."""

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]: ...
    async def outbox_done(self, upto: int) -> None: ...


class Turn(Outbox, Protocol):
    """What several do in turn: `Alone`, or `Nodes`."""

    @property
    def leads(self) -> bool: ...
    async def run(self) -> None:
        """Until cancelled."""

    async def while_leading(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None: ...


class Alone:
    """An embedded store has one control process: `gateway.serve` lets no second one begin."""

    leads = True

    def __init__(self, store: Outbox) -> None:
        self._store = store

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]:
        return await self._store.outbox(limit)

    async def outbox_done(self, upto: int) -> None:
        await self._store.outbox_done(upto)

    async def while_leading(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await work()

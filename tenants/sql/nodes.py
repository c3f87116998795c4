"""Control processes that share one PostgreSQL: each hears at once what another commits, and one has the turn.

Hearing is NOTIFY, which PostgreSQL sends when a transaction commits; what is missed while there is no connection
is looked for when there is one again, and whoever is told asks once a second anyway (`gateway.bus.publisher`).

The turn is an advisory lock of one session: its holder alone empties the outbox and does what must be done once
and leaves the machine (webhooks, keys made on a schedule). It passes on when that session ends: at once when the
process dies, in half a minute when its machine is gone. A process that loses the turn in the middle, because the
server went away under it, may have written entries into its log that are in the outbox still. The next holder
writes them again: into a log of its own if logs are files of each machine, and not at all if the log is the same
one, which knows them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

import psycopg
from psycopg.conninfo import make_conninfo

from tenants.sql.alone import Outbox
from tenants.sql.connecting import connect_parameters
from tenants.sql.database import CHANNEL
from tenants.store import Change, StoreError

log = logging.getLogger("orgate.store")

TURN_LOCK: Final = 0x6F72_6761_7465_0002
LOOK_S: Final = 1.0
RETRY_S: Final = 1.0


class Nodes:
    """`tell` is called on another node's commits, on the loop: it is quick and never raises."""

    def __init__(
        self,
        url: str,
        password: Callable[[], str] | None,
        store: Outbox,
        tell: Callable[[], None],
        *,
        timeout_ms: int = 5_000,
        pause: Callable[[float], Coroutine[Any, Any, None]] = asyncio.sleep,
    ) -> None:
        self._told = make_conninfo(
            "", **connect_parameters(url, timeout_ms=timeout_ms, application="orgate control turn")
        )
        self._password = password
        self._store = store
        self._tell = tell
        self._pause = pause
        self._leading = asyncio.Event()
        self._following = asyncio.Event()
        self._following.set()

    @property
    def leads(self) -> bool:
        return self._leading.is_set()

    async def run(self) -> None:
        """Hear and stand in line until cancelled."""
        failing = False
        while True:
            try:
                async with await self._connect() as connection:
                    failing = False
                    await self._attend(connection)
            except (psycopg.Error, StoreError) as error:
                if not failing:
                    log.warning("other nodes are not heard: %s", str(error).partition("\n")[0])
                failing = True
            finally:
                self._lose()
            await self._pause(RETRY_S)

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]:
        """As `ControlStore.outbox`; nothing while another has the turn."""
        return await self._store.outbox(limit) if self.leads else ()

    async def outbox_done(self, upto: int) -> None:
        await self._store.outbox_done(upto)

    async def while_leading(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` while this process has the turn, from the start each time; it is cancelled when that goes."""
        while True:
            await self._leading.wait()
            task = asyncio.create_task(work())
            lost = asyncio.create_task(self._following.wait())
            try:
                await asyncio.wait({task, lost}, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
            finally:
                for one in (task, lost):
                    one.cancel()
                await asyncio.gather(task, lost, return_exceptions=True)

    async def _connect(self) -> psycopg.AsyncConnection:
        secret = self._password() if self._password is not None else ""
        return await psycopg.AsyncConnection.connect(self._told, password=secret or None, autocommit=True)

    async def _attend(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}".encode())
        self._tell()  # of what was missed before
        while True:
            if not self.leads:
                row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (TURN_LOCK,))).fetchone()
                if row == (True,):
                    self._following.clear()
                    self._leading.set()
                    self._tell()  # changes that another left are in the outbox
            async for _ in connection.notifies(timeout=LOOK_S, stop_after=1):
                self._tell()

    def _lose(self) -> None:
        self._leading.clear()
        self._following.set()

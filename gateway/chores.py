"""What runs beside the servers of the control process, for ever or until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from msgspec import ValidationError

from gateway.audit.recover import recover
from gateway.audit.sequencer import Outbox, Sequencer
from gateway.bus.hub import Hub
from gateway.errors import UnavailableError
from gateway.limits.keeper import BudgetKeeper
from gateway.limits.store import SliceAdmin
from gateway.secrets.last_used import LastUsed
from gateway.settings import Settings
from gateway.workerparts import leave_store, spool_folder
from tenants.sql.store import SqlControlStore
from tenants.store import StoreError

log = logging.getLogger("orgate")

LAST_USED_S = 60.0
RECOVER_S = 5.0


async def save_last_used(store: SqlControlStore, last_used: LastUsed) -> None:
    """A crash loses a minute of it at most."""
    while True:
        await asyncio.sleep(LAST_USED_S)
        with contextlib.suppress(StoreError):  # what is not written now is used again, or was used long ago
            await store.keys.used(last_used.take())


async def recover_spools(settings: Settings, sequencer: Sequencer, hub: Hub) -> None:
    """Take up what dead workers left: at the start, when one has gone, and every few seconds besides, because a
    worker that has left the bus may hold its spool a little longer."""
    left = asyncio.Event()
    hub.on_leave(lambda _: left.set())
    while True:
        left.clear()
        try:
            await recover(spool_folder(settings), sequencer.append_receipts)
        except (OSError, UnavailableError, ValidationError) as error:
            # Nothing is removed that is not durable; a record this version cannot read waits for one that can.
            log.warning("audit: spools of dead workers wait: %s", type(error).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVER_S):
                await left.wait()


async def write_down(keeper: BudgetKeeper, buckets: SliceAdmin, sequencer: Sequencer, outbox: Outbox) -> None:
    """The last round, when workers have given back what they were lent, and the entries it may have made."""
    await keeper.round(last=True)
    await leave_store(buckets)
    await sequencer.drain_once(outbox)

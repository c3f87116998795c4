"""What runs beside the servers of a process, for ever or until it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from msgspec import ValidationError, structs

from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.backends import leave_store, spool_folder
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import MetricsUp, RefusedUp
from gateway.errors import UnavailableError
from gateway.inflight import InFlight
from gateway.limits.keeper import BudgetKeeper
from gateway.limits.slices import SlicedLimits
from gateway.limits.store import SliceAdmin
from gateway.secrets.last_used import LastUsed
from gateway.settings import Settings
from gateway.upstream_metrics import WorkerCounters
from tenants.ids import OrgId
from tenants.sql.store import SqlControlStore
from tenants.store import StoreError

log = logging.getLogger("orgate")

METRICS_S = 1.0
LAST_USED_S = 60.0
RECOVER_S = 5.0


async def report_metrics(bus: BusClient, counted: Callable[[], MetricsUp]) -> None:
    while True:
        await asyncio.sleep(METRICS_S)
        with contextlib.suppress(UnavailableError):  # counters are cumulative: the next report has all
            await bus.send_metrics(counted())


def counted(
    boot: str, counters: WorkerCounters, limits: SlicedLimits, in_flight: InFlight, spool: Spool
) -> MetricsUp:
    for name, labels, more in limits.counted():
        counters.add(name, labels, more)
    waiting = ("orgate_audit_waiting_receipts", (), spool.pending)
    return counters.message(boot, boot, (*in_flight.gauges(), *limits.gauges(), waiting))


async def end_reporting(
    tasks: Sequence[asyncio.Task[object]], bus: BusClient, counted: Callable[[], MetricsUp], in_flight: InFlight
) -> None:
    """End `tasks`, then say what this worker has counted: its last word, if nothing is to be settled still."""
    await end(tasks)
    with contextlib.suppress(UnavailableError):  # it counts as lost, and what it counted since its last report
        await bus.send_metrics(structs.replace(counted(), last=not in_flight.count))


def telling_refusals(bus: BusClient, boot: str) -> Callable[[OrgId, str, int], None]:
    """Say over the bus that an upstream refused a version of its key; no request waits for it."""
    under_way: set[asyncio.Task[None]] = set()

    async def send(message: RefusedUp) -> None:
        with contextlib.suppress(UnavailableError):  # the next refusal, a second later, says it again
            await bus.send_refused(message)

    def tell(org: OrgId, upstream: str, version: int) -> None:
        task = asyncio.create_task(send(RefusedUp(boot, org, upstream, version)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)

    return tell


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


async def write_down(
    keeper: BudgetKeeper, buckets: SliceAdmin, sequencer: Sequencer, store: SqlControlStore
) -> None:
    """The last round, when workers have given back what they were lent, and the entries it may have made."""
    await keeper.round(last=True)
    await leave_store(buckets)
    await sequencer.drain_once(store)


async def end(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

"""What runs beside a worker's requests, for ever or until it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence

from msgspec import structs

from gateway.audit.spool import Spool
from gateway.bus.client import BusClient
from gateway.bus.messages import MetricsUp, RefusedUp
from gateway.errors import UnavailableError
from gateway.inflight import InFlight
from gateway.limits.slices import SlicedLimits
from gateway.upstream_metrics import WorkerCounters
from tenants.ids import OrgId

METRICS_S = 1.0


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


async def end(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

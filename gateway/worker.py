"""The composition root of a worker: the data plane. Read it from top to bottom; the parts that settings choose are
made in `gateway.workerparts`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from litestar import Litestar
from litestar.exceptions import HTTPException

from gateway.api.bus import slices_over
from gateway.api.data.app import PublicApp
from gateway.api.data.health import health_routes, refuse_http
from gateway.api.data.routes import DataPlane
from gateway.api.relay_control import control_routes
from gateway.audit.spool import Spool
from gateway.authn.statickeys import StaticKeys
from gateway.authn.verify import Authenticator
from gateway.begin import begin
from gateway.bus.client import BusClient
from gateway.bus.messages import MetricsUp
from gateway.clock import SystemClock
from gateway.connections import keep_house
from gateway.drain import Drain
from gateway.exchange import SpoolUp
from gateway.fallback import Fallback
from gateway.inflight import InFlight
from gateway.keyuses import report_key_uses
from gateway.limits import tokenizer
from gateway.limits.claims import counts_tokens
from gateway.limits.slices import SlicedLimits
from gateway.pipeline import Pipeline
from gateway.process import batch_scheduling, settle_heap
from gateway.prompts import PromptHashes
from gateway.secrets.lease import KeyLeases
from gateway.secrets.sources import SourceLeases
from gateway.secrets.store import ReadOnlyKeys, StoreUnavailableError
from gateway.serve import HOPELESS
from gateway.settings import Settings
from gateway.tree import tell_ready
from gateway.upstream.relay import Relay
from gateway.upstream.transport import TransportPool
from gateway.upstream_metrics import WorkerCounters
from gateway.workerchores import (
    counted,
    end_reporting,
    report_metrics,
    telling_refusals,
)
from gateway.workerparts import (
    client_tokens,
    data_audience,
    key_leases,
    leave_store,
    limit_books,
    slices_in_redis,
    spool_folder,
    transport_pool,
    upstream_keys,
    warm_store,
)
from tenants.ids import OrgId
from tenants.snapshot import Snapshot
from tenants.store import StoreError

log = logging.getLogger("orgate")

FIRST_SNAPSHOT_S = 10.0
FIRST_KEYS_S = 5.0
"""Together less than the tree waits for a worker (`gateway.tree.READY_S`)."""

ADMIN_CONNECTIONS = 1_024
ADMIN_IDLE_S = 300.0
"""Longer than any admin request waits for something to happen."""


def worker() -> Litestar:
    """The ASGI application of one worker. Granian calls this once in each process of the public tree.

    Exits with `HOPELESS` for what an operator has to mend, after a line that says it.
    """
    settings = begin()
    try:
        return _worker(settings)
    except (StoreError, StoreUnavailableError) as error:
        log.critical("%s", error)
    except OSError as error:  # of a folder or a socket
        log.critical("a worker cannot start: %s: %s", error.filename or "the system", error.strerror)
    sys.exit(HOPELESS)


def _worker(settings: Settings) -> Litestar:
    if settings.server.scheduling == "batch":
        batch_scheduling()
    clock = SystemClock()
    boot = secrets.token_hex(16)
    in_flight = InFlight()
    transports = transport_pool(settings, clock)

    def reset(org: OrgId, member: str) -> None:
        count = in_flight.reset(org, member)
        log.info("access was taken back: %d streams of %s are reset", count, org)

    bus = BusClient(
        settings.bus_socket,
        boot,
        on_snapshot=lambda snapshot: _keep(snapshot, transports, leases, static_keys),
        on_reset=reset,
        clock=clock,
        reader=Fallback(settings, clock.now),
        max_staleness_s=settings.server.max_staleness_s,
    )
    buckets = slices_in_redis(settings) or slices_over(bus)
    limits = SlicedLimits(
        boot, buckets, workers=settings.server.workers, clock=clock, folder=limit_books(settings)
    )
    spool = Spool(spool_folder(settings), boot, settings.audit.spool_bytes, settings.audit.fsync_ms)
    counters = WorkerCounters(transports.gauges)
    keys = upstream_keys(settings, clock)
    leases = key_leases(keys, clock, telling_refusals(bus, boot))
    tokens = client_tokens(settings, clock)
    static_keys = StaticKeys(data_audience(settings), clock.now)
    pipeline = Pipeline(
        world=bus,
        authn=Authenticator(settings.server.url, data_audience(settings), clock.now, static_keys=static_keys),
        limits=limits,
        keys=leases,
        keys_announced=not isinstance(keys, ReadOnlyKeys),
        relay=Relay(transports, tokens, clock.now),
        receipts=spool,
        in_flight=in_flight,
        observe=counters.observe,
        clock=clock,
        max_in_flight=settings.server.max_in_flight,
        hash_prompt=PromptHashes(bus.prompt_key).of,
    )
    data = DataPlane(
        pipeline,
        max_body=settings.server.max_body_bytes,
        timeout_s=settings.server.request_timeout_s,
        body_timeout_s=settings.server.body_timeout_s,
    )
    drain = Drain(
        in_flight,
        port=settings.public.port,
        folder=settings.bus_socket.parent,
        delay_s=settings.server.drain_delay_s,
        drain_s=settings.server.drain_s,
    )

    def unready() -> Sequence[str]:
        return [
            reason
            for reason, holds in (
                ("the control process and its store are out of reach", not bus.accepting),
                ("the keys that verify access tokens are not known yet", not bus.snapshot.jwks),
                ("the audit log cannot be written", not spool.healthy),
                ("the store of limits cannot be asked, and a limit of the platform denies then", limits.denying),
                ("the gateway is stopping", drain.stopping),
            )
            if holds
        ]

    def count() -> MetricsUp:
        return counted(boot, counters, limits, in_flight, spool)

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async def forward(up: SpoolUp) -> int:
            return (await bus.send_spool(up)).upto

        bus.start()
        await _begun(bus)
        await warm_store(buckets)
        settle_heap()
        forwarding = asyncio.create_task(spool.run(forward))
        others = [
            asyncio.create_task(work)
            for work in (
                report_metrics(bus, count),
                report_key_uses(bus, boot, static_keys),
                limits.run(),
                keep_house(
                    settings.public.port,
                    in_flight.peers,
                    idle_s=settings.server.idle_timeout_s,
                    most=settings.server.max_connections,
                ),
            )
        ]
        drain.install()
        tell_ready()
        try:
            yield
        finally:
            await drain.aclose()
            await limits.close()
            await leave_store(buckets)
            spool.stop()
            with contextlib.suppress(TimeoutError):  # what is left on disk is recovered by the control process
                async with asyncio.timeout(5):
                    await forwarding
            await end_reporting(others, bus, count, in_flight)
            await tokens.aclose()
            await transports.aclose()
            await keys.aclose()
            await bus.close()

    return PublicApp(
        direct=data.handlers(),
        route_handlers=[*control_routes(bus), *health_routes(unready, lambda: _degraded(limits))],
        lifespan=[lifespan],
        exception_handlers={HTTPException: refuse_http},
        openapi_config=None,
        logging_config=None,
    )


async def _begun(bus: BusClient) -> None:
    """Wait until this worker can serve. `/readyz` is one worker's answer, and the next connection may be
    another's: so none listens before it can check a token. Without the control process there are no keys; then it
    listens, and says so. Raises `TimeoutError` when there is not even a snapshot."""
    async with asyncio.timeout(FIRST_SNAPSHOT_S):
        await bus.known()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FIRST_KEYS_S):
            await bus.keyed()


def _keep(
    snapshot: Snapshot, transports: TransportPool, leases: KeyLeases | SourceLeases, static_keys: StaticKeys
) -> None:
    """Connections and keys of upstreams that are gone go too; and a tokenizer is there before it is asked."""
    static_keys.keep(snapshot)
    if counts_tokens(snapshot.tenants.values()):
        tokenizer.ours.begin()
    transports.keep(snapshot.upstreams)
    leases.keep(snapshot.upstreams)


def _degraded(limits: SlicedLimits) -> Sequence[str]:
    return ["the store of limits cannot be asked: each limit's on_outage holds"] if limits.away else []

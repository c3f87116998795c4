"""The composition root. Read it from top to bottom; the parts that settings choose are made in `gateway.backends`.

`python -m gateway.app control|public <parent pid>` are the two children of `gateway.serve`; `worker` is what
each process of the public tree runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop
from litestar import Litestar
from litestar.exceptions import HTTPException

from gateway.api.admin.app import admin_app
from gateway.api.admin.caller import WRITES, WRITES_PER_MINUTE
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.waiting import waiting_app
from gateway.api.bus import bus_routes, slices_over
from gateway.api.data.app import PublicApp
from gateway.api.data.health import health_routes, refuse_http
from gateway.api.data.routes import DataPlane
from gateway.api.oauth.routes import oauth_routes
from gateway.api.relay_control import control_routes
from gateway.audit.erase import Erasure
from gateway.audit.log_store import DamagedError, InUseError, StoreAwayError
from gateway.audit.reader import LogReader
from gateway.audit.spool import Spool
from gateway.audit.waiting import Waiting
from gateway.authn.verify import Authenticator
from gateway.backends import (
    admin_audience,
    audit_log,
    budgets,
    client_tokens,
    data_audience,
    key_leases,
    leave_store,
    limit_books,
    limit_stores,
    limits_state,
    open_oauth,
    retention,
    sealed_file,
    slices_in_redis,
    spool_folder,
    transport_pool,
    undertaker,
    upstream_keys,
    warm_store,
    web_sessions,
    webhooks_of,
)
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import MetricsUp
from gateway.bus.publisher import Publisher
from gateway.bus.streams import LiveStreams
from gateway.chores import (
    counted,
    end,
    end_reporting,
    recover_spools,
    report_metrics,
    save_last_used,
    telling_refusals,
    write_down,
)
from gateway.clock import SystemClock
from gateway.connections import keep_house
from gateway.control_metrics import control_metrics
from gateway.dayparts import day_parts
from gateway.drain import Drain
from gateway.exchange import SpoolUp
from gateway.fallback import Fallback
from gateway.hardening import keep_memory_private
from gateway.inflight import InFlight
from gateway.limits import tokenizer
from gateway.limits.claims import counts_tokens
from gateway.limits.slices import SlicedLimits
from gateway.limits_settings import LimitsSettingsError
from gateway.listeners import admin_server, bus_server, public_tree
from gateway.oauth.throttle import throttles
from gateway.ownkeys import OwnKeys, Unlocked
from gateway.pipeline import Pipeline
from gateway.process import batch_scheduling, raise_open_files, settle_heap
from gateway.secrets.lease import KeyLeases
from gateway.secrets.mint import Commands
from gateway.secrets.sealed import SealedCerts
from gateway.secrets.sources import SourceLeases
from gateway.secrets.store import ReadOnlyKeys, StoreUnavailableError
from gateway.serve import HOPELESS, SETTINGS_VARIABLE, configure_logging, die_with_parent
from gateway.settings import Settings, load
from gateway.tree import tell_ready
from gateway.upstream.probe import UpstreamProbe
from gateway.upstream.relay import Relay
from gateway.upstream.transport import TransportPool
from gateway.upstream.urls import url_fault
from gateway.upstream_metrics import WorkerCounters
from gateway.witness_files import WitnessSettingsError
from gateway.witnessparts import witness_parts
from tenants.ids import OrgId
from tenants.snapshot import Snapshot
from tenants.sql.store import open_store, sqlite_url
from tenants.store import StoreError

log = logging.getLogger("orgate")

FIRST_SNAPSHOT_S = 10.0
ADMIN_CONNECTIONS = 1_024
ADMIN_IDLE_S = 300.0
"""Longer than any admin request waits for something to happen."""


# -- the data plane: one of N workers ---------------------------------------------------------------------


def worker() -> Litestar:
    """The ASGI application of one worker. Granian calls this once in each process of the public tree.

    Exits with `HOPELESS` for what an operator has to mend, after a line that says it.
    """
    settings = _begin()
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
        on_snapshot=lambda snapshot: _keep(snapshot, transports, leases),
        on_reset=reset,
        clock=clock,
        reader=Fallback(settings.database, clock.now),
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
    pipeline = Pipeline(
        world=bus,
        authn=Authenticator(settings.server.url, data_audience(settings), clock.now),
        limits=limits,
        keys=leases,
        keys_announced=not isinstance(keys, ReadOnlyKeys),
        relay=Relay(transports, tokens, clock.now),
        receipts=spool,
        in_flight=in_flight,
        observe=counters.observe,
        clock=clock,
        max_in_flight=settings.server.max_in_flight,
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
        async with asyncio.timeout(FIRST_SNAPSHOT_S):
            await bus.known()
        await warm_store(buckets)
        settle_heap()
        forwarding = asyncio.create_task(spool.run(forward))
        house = keep_house(
            settings.public.port,
            in_flight.peers,
            idle_s=settings.server.idle_timeout_s,
            most=settings.server.max_connections,
        )
        others = [asyncio.create_task(work) for work in (report_metrics(bus, count), limits.run(), house)]
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


def _keep(snapshot: Snapshot, transports: TransportPool, leases: KeyLeases | SourceLeases) -> None:
    """Connections and keys of upstreams that are gone go too; and a tokenizer is there before it is asked."""
    if counts_tokens(snapshot.tenants.values()):
        tokenizer.ours.begin()
    transports.keep(snapshot.upstreams)
    leases.keep(snapshot.upstreams)


def _degraded(limits: SlicedLimits) -> Sequence[str]:
    return ["the store of limits cannot be asked: each limit's on_outage holds"] if limits.away else []


# -- the control plane: one process -----------------------------------------------------------------------


async def control(settings: Settings) -> None:
    """Serve the admin listener and the bus until SIGTERM. Raises what makes a start impossible."""
    clock = SystemClock()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    store = await open_store(sqlite_url(settings.database), clock=clock.now)
    sealed = sealed_file(settings)
    keys = upstream_keys(settings, clock)
    own = OwnKeys(settings, sealed, clock)
    unlocked = await _unlock(settings, own, stop)
    if unlocked is None:  # told to stop while it waited
        await own.aclose()
        await store.close()
        return
    owner, buckets, counter = limit_stores(settings, clock)
    oauth = await open_oauth(settings, store, own.secrets, unlocked.signing, clock, counter=counter)

    sequencer, people = await audit_log(settings, store, unlocked, clock)

    hub = Hub(clock)
    publisher = Publisher(store, hub, clock, oauth.jwks_json)
    store.subscribe(publisher.wake)
    store.subscribe(sequencer.nudge)
    await publisher.sync()
    metrics = control_metrics(hub, clock)
    transports = transport_pool(settings, clock)
    webhooks = webhooks_of(settings, store, sealed, clock)
    keeper, deliveries = await budgets(store, hub, owner=buckets, metrics=metrics, webhooks=webhooks, clock=clock)
    days, seen = (
        day_parts(settings, store, sequencer, sealed=sealed, metrics=metrics, webhooks=webhooks, clock=clock),
        witness_parts(settings, sequencer, metrics=metrics, webhooks=webhooks, clock=clock),
    )

    def unready() -> Sequence[str]:
        reasons = [] if sequencer.healthy else [f"the audit log cannot be written: {sequencer.reason}"]
        return [*reasons, *(["the control store cannot be read"] if publisher.failing else [])]

    deps = AdminDependencies(
        store=store,
        keys=keys,
        certs=SealedCerts(sealed),
        sessions=oauth,
        verifier=Authenticator(settings.server.url, admin_audience(settings), clock.now),
        audit=LogReader(sequencer, people),
        people=people,
        erasure=Erasure(
            book=store.persons,
            people=people,
            queue=sequencer,
            store=store,
            accounts=oauth,
            buckets=keeper,
            clock=clock.now,
        ),
        streams=LiveStreams(hub, publisher),
        probe=UpstreamProbe(transports, clock.monotonic_us, client_tokens(settings, clock), clock.now),
        webhooks=webhooks,
        limits=keeper,
        web=web_sessions(settings, oauth, clock),
        limits_state=lambda: limits_state(buckets),
        reconciler=days.reconciler,
        streaming=days.streams,
        stream_secrets=days.stream_secrets,
        check_url=lambda url: url_fault(url, settings.upstreams.networks()),
        metrics=metrics.exposition,
        unready=unready,
        witnesses=seen.witnesses,
        audit_store=settings.audit,
        degraded=seen.degraded,
        clock=clock.now,
        writes=throttles(clock.now, counter)(WRITES, WRITES_PER_MINUTE, 60.0),
        commands=Commands(settings.secrets.mint_commands, settings.secrets.mint_timeout_s),
        count_rotation=metrics.count_rotation,
        key_used_at=metrics.last_used.at,
    )
    bus = Litestar(
        route_handlers=[
            *bus_routes(
                hub,
                owner,
                sequencer.append_receipts,
                days.absorb,
                lambda said: deps.rotations.refused(said.org, said.upstream, said.version),
            ),
            *oauth_routes(oauth),
        ],
        openapi_config=None,
        logging_config=None,
    )
    settings.bus_socket.unlink(missing_ok=True)
    admin_listener = admin_server(settings, admin_app(deps))
    servers = [admin_listener, bus_server(settings.bus_socket, bus)]
    # Its files are read anew: the supervisor has looked at them, and passes the signal on.
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, admin_listener.reload)
    tasks = [
        asyncio.create_task(work)
        for work in (
            *(server.serve() for server in servers),
            publisher.run(),
            sequencer.run(),
            sequencer.drain_outbox(store),
            deps.erasure.keep_clean(),
            recover_spools(settings, sequencer, hub),
            retention(settings, store, sequencer, clock).run(),
            undertaker(settings, buckets, hub).run(),
            deps.rotations.run(),
            oauth.keep_rotated(),
            keeper.run(),
            deliveries.run(),
            *days.work(),
            *seen.work(),
            save_last_used(store, metrics.last_used),
            *own.upkeep(),
            keep_house(settings.admin.port, set, idle_s=ADMIN_IDLE_S, most=ADMIN_CONNECTIONS),
        )
    ]
    stopping = asyncio.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            task.result()  # a task that should never end has failed: let the supervisor start this process again
    finally:
        hub.close()
        for server in servers:
            server.stop()  # type: ignore[no-untyped-call]  # granian leaves it untyped
        await end([stopping, *tasks])
        with contextlib.suppress(Exception):  # what cannot be drained now is drained at the next start
            await write_down(keeper, buckets, sequencer, store)
        await sequencer.close()
        await transports.aclose()
        await keys.aclose()
        await own.aclose()
        await store.close()


async def _unlock(settings: Settings, own: OwnKeys, stop: asyncio.Event) -> Unlocked | None:
    """As `OwnKeys.unlock`; while it waits, the admin listener says so."""
    async with AsyncExitStack() as meanwhile:

        def listen() -> None:
            server = admin_server(settings, waiting_app(Waiting(spool_folder(settings)).count))
            meanwhile.push_async_callback(_stopped, asyncio.create_task(server.serve()))
            meanwhile.callback(server.stop)

        return await own.unlock(stop, listen)


async def _stopped(serving: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await serving


# -- what both of them share ------------------------------------------------------------------------------


def _begin() -> Settings:
    """What every process does first."""
    keep_memory_private()
    settings = load(Path(os.environ[SETTINGS_VARIABLE]))
    configure_logging(settings.server.log_level)
    return settings


def main(part: str, parent: int) -> int:
    """Entry of a child of the supervisor; returns its exit code, `HOPELESS` when a restart cannot help."""
    die_with_parent(parent)
    settings = _begin()
    raise_open_files()
    parts: dict[str, Callable[[], None]] = {
        "control": lambda: uvloop.run(control(settings)),
        "public": lambda: public_tree(settings, "gateway.app:worker").serve(),
    }
    try:
        parts[part]()
    except (
        DamagedError,
        InUseError,
        LimitsSettingsError,
        StoreError,
        StoreUnavailableError,
        WitnessSettingsError,
    ) as error:
        log.critical("%s", error)
        return HOPELESS
    except StoreAwayError as error:  # it may come back
        log.critical("the audit log cannot be opened: %s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

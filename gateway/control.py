"""The composition root of the control process. Read it from top to bottom; the parts that settings choose are made
in `gateway.backends`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack

import uvloop
from litestar import Litestar

from gateway.api.admin.app import admin_app
from gateway.api.admin.caller import WRITES, WRITES_PER_MINUTE
from gateway.api.admin.dependencies import AdminDependencies
from gateway.api.admin.waiting import waiting_app
from gateway.api.bus import bus_routes
from gateway.api.oauth.routes import oauth_routes
from gateway.audit.erase import Erasure
from gateway.audit.log_store import DamagedError, InUseError, StoreAwayError
from gateway.audit.reader import LogReader
from gateway.audit.waiting import Waiting
from gateway.authn.verify import Authenticator
from gateway.backends import (
    admin_audience,
    audit_log,
    budgets,
    control_store,
    limit_stores,
    limits_state,
    retention,
    turn_of,
    undertaker,
    web_sessions,
    webhooks_of,
)
from gateway.bus.hub import Hub
from gateway.bus.publisher import Publisher
from gateway.bus.streams import LiveStreams
from gateway.chores import (
    recover_spools,
    save_last_used,
    write_down,
)
from gateway.clock import SystemClock
from gateway.connections import keep_house
from gateway.control_metrics import control_metrics
from gateway.dayparts import day_parts
from gateway.identityparts import identity_parts
from gateway.keyuses import key_uses_into
from gateway.limits_settings import LimitsSettingsError
from gateway.listeners import admin_server, bus_server
from gateway.oauth.clients import WEB
from gateway.oauth.throttle import throttles
from gateway.ownkeys import OwnKeys, Unlocked
from gateway.secrets.mint import Commands
from gateway.secrets.sealed import SealedCerts
from gateway.secrets.store import StoreUnavailableError
from gateway.serve import HOPELESS
from gateway.settings import Settings
from gateway.upstream.probe import UpstreamProbe
from gateway.upstream.urls import url_fault
from gateway.witness_files import WitnessSettingsError
from gateway.witnessparts import witness_parts
from gateway.workerchores import end
from gateway.workerparts import (
    client_tokens,
    sealed_file,
    spool_folder,
    transport_pool,
    upstream_keys,
)
from tenants.store import ServerAwayError, StoreError

log = logging.getLogger("orgate")

FIRST_SNAPSHOT_S = 10.0
ADMIN_CONNECTIONS = 1_024
ADMIN_IDLE_S = 300.0
"""Longer than any admin request waits for something to happen."""


async def control(settings: Settings) -> None:
    """Serve the admin listener and the bus until SIGTERM. Raises what makes a start impossible."""
    clock = SystemClock()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    store = await control_store(settings, clock)
    sealed = sealed_file(settings)
    keys = upstream_keys(settings, clock)
    own = OwnKeys(settings, sealed, clock)
    unlocked = await _unlock(settings, own, stop)
    if unlocked is None:  # told to stop while it waited
        await own.aclose()
        await store.close()
        return
    owner, buckets, counter = limit_stores(settings, clock)
    identity, oauth = await identity_parts(
        settings, store, sealed, own.secrets, signing=unlocked.signing, clock=clock, counter=counter
    )

    sequencer, people = await audit_log(settings, store, unlocked, clock)

    hub, turn = Hub(clock), turn_of(settings, store)
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
        verifier=Authenticator(
            settings.server.url,
            admin_audience(settings),
            clock.now,
            url=settings.server.admin_url,
            unbound=frozenset({WEB.id}),
        ),
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
        streams=identity.reaching(LiveStreams(hub, publisher)),
        turn=identity.turn,
        identity=identity.admin,
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
        throttles=throttles(clock.now, counter),
        admin_url=settings.server.admin_url,
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
                uses_sink=key_uses_into(store),
                prompt_key=people.prompt_key,
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
            turn.run(),
            sequencer.drain_outbox(turn),
            deps.erasure.keep_clean(),
            recover_spools(settings, sequencer, hub),
            retention(settings, store, sequencer, clock).run(),
            undertaker(settings, buckets, hub).run(),
            turn.while_leading(deps.rotations.run),
            oauth.keep_rotated(),
            keeper.run(),
            turn.while_leading(deliveries.run),
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
            await write_down(keeper, buckets, sequencer, turn)
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


def serve(settings: Settings) -> int:
    """Run `control`; returns the exit code, `HOPELESS` when a restart cannot help."""
    try:
        uvloop.run(control(settings))
    except ServerAwayError as error:  # it may come back
        log.critical("%s", error)
        return 1
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

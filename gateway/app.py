"""The composition root: the only file that names concrete backends. Read it from top to bottom.

`python -m gateway.app control|public <parent pid>` are the two children of `gateway.serve`; `worker` is what
each process of the public tree runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import uvloop
from litestar import Litestar
from litestar.exceptions import HTTPException
from msgspec import ValidationError

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
from gateway.audit.files import DamagedError
from gateway.audit.persons import Persons
from gateway.audit.reader import LogReader
from gateway.audit.recover import recover
from gateway.audit.sequencer import Sequencer
from gateway.audit.spool import Spool
from gateway.audit.waiting import Waiting
from gateway.authn.verify import Authenticator
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import MetricsUp, RefusedUp
from gateway.bus.publisher import Publisher
from gateway.bus.streams import LiveStreams
from gateway.clock import Clock, SystemClock, unix_us
from gateway.connections import keep_house
from gateway.control_metrics import ControlMetrics
from gateway.deliveries import Deliveries
from gateway.drain import Drain
from gateway.errors import UnavailableError
from gateway.exchange import SpoolUp
from gateway.fallback import Fallback
from gateway.hardening import keep_memory_private
from gateway.inflight import InFlight
from gateway.limits import tokenizer
from gateway.limits.accounts import LimitOwner
from gateway.limits.claims import counts_tokens
from gateway.limits.counter import SliceCounter
from gateway.limits.keeper import BudgetKeeper
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_open import open_slices
from gateway.limits.slices import SlicedLimits
from gateway.limits.store import SliceAdmin, SliceStore
from gateway.limits.undertaker import Undertaker
from gateway.limits_settings import LimitsSettingsError
from gateway.listeners import admin_server, bus_server, public_tree
from gateway.oauth.service import OAuthService
from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.throttle import Counter, throttles
from gateway.oauth.tokens import TokenSigner
from gateway.ownkeys import OwnKeys, Unlocked
from gateway.pipeline import Pipeline
from gateway.process import batch_scheduling, raise_open_files, settle_heap
from gateway.secrets.certs import CertLeases
from gateway.secrets.datakeys import DataKeys
from gateway.secrets.last_used import LastUsed
from gateway.secrets.lease import KeyLeases
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.mint import Commands
from gateway.secrets.sealed import SealedCerts, SealedFile, SealedWebhooks
from gateway.secrets.sources import EnvironmentKeys, MountedKeys, SourceLeases
from gateway.secrets.store import ReadOnlyKeys, StoreUnavailableError, SystemSecrets, UpstreamKeys
from gateway.serve import HOPELESS, SETTINGS_VARIABLE, configure_logging, die_with_parent
from gateway.settings import Settings, load
from gateway.tree import tell_ready
from gateway.upstream.auth.grant import TokenEndpoints
from gateway.upstream.auth.tokens import ClientTokens
from gateway.upstream.probe import UpstreamProbe
from gateway.upstream.relay import Relay
from gateway.upstream.transport import TransportPool
from gateway.upstream.urls import url_fault
from gateway.upstream_metrics import WorkerCounters
from gateway.webhooks import WebhookPost, Webhooks
from tenants.budgets import Notice
from tenants.ids import OrgId
from tenants.snapshot import Snapshot
from tenants.sql.store import SqlControlStore, open_store, sqlite_url
from tenants.store import StoreError

log = logging.getLogger("orgate")

FIRST_SNAPSHOT_S = 10.0
METRICS_S = 1.0
LAST_USED_S = 60.0
RECOVER_S = 5.0
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
    transports = _transports(settings, clock)

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
    buckets = _in_redis(settings) or slices_over(bus)
    limits = SlicedLimits(
        boot, buckets, workers=settings.server.workers, clock=clock, folder=_limit_books(settings)
    )
    spool = Spool(_spools(settings), boot, settings.audit.spool_bytes, settings.audit.fsync_ms)
    counters = WorkerCounters(transports.gauges)
    keys = _upstream_keys(settings, clock)
    leases = _leases(keys, clock, _telling(bus, boot))
    tokens = _client_tokens(settings, clock)
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

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async def forward(up: SpoolUp) -> int:
            return (await bus.send_spool(up)).upto

        bus.start()
        async with asyncio.timeout(FIRST_SNAPSHOT_S):
            await bus.known()
        await _warm(buckets)
        settle_heap()
        forwarding = asyncio.create_task(spool.run(forward))
        house = keep_house(
            settings.public.port,
            in_flight.peers,
            idle_s=settings.server.idle_timeout_s,
            most=settings.server.max_connections,
        )
        reporting = _report(bus, lambda: _counted(boot, counters, limits, in_flight, spool))
        others = [asyncio.create_task(work) for work in (reporting, limits.run(), house)]
        drain.install()
        tell_ready()
        try:
            yield
        finally:
            await drain.aclose()
            await limits.close()
            await _leave(buckets)
            spool.stop()
            with contextlib.suppress(TimeoutError):  # what is left on disk is recovered by the control process
                async with asyncio.timeout(5):
                    await forwarding
            await _end(others)
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


def _counted(
    boot: str, counters: WorkerCounters, limits: SlicedLimits, in_flight: InFlight, spool: Spool
) -> MetricsUp:
    for name, labels, more in limits.counted():
        counters.add(name, labels, more)
    waiting = ("orgate_audit_waiting_receipts", (), spool.pending)
    return counters.message(boot, boot, (*in_flight.gauges(), *limits.gauges(), waiting))


async def _report(bus: BusClient, counted: Callable[[], MetricsUp]) -> None:
    while True:
        await asyncio.sleep(METRICS_S)
        with contextlib.suppress(UnavailableError):  # counters are cumulative: the next report has all
            await bus.send_metrics(counted())


def _telling(bus: BusClient, boot: str) -> Callable[[OrgId, str, int], None]:
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


# -- the control plane: one process -----------------------------------------------------------------------


async def control(settings: Settings) -> None:
    """Serve the admin listener and the bus until SIGTERM. Raises what makes a start impossible."""
    clock = SystemClock()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    store = await open_store(sqlite_url(settings.database), clock=clock.now)
    sealed = _sealed(settings)
    keys = _upstream_keys(settings, clock)
    own = OwnKeys(settings, sealed, clock)
    unlocked = await _unlock(settings, own, stop)
    if unlocked is None:  # told to stop while it waited
        await own.aclose()
        await store.close()
        return
    owner, buckets, counter = _limit_stores(settings, clock)
    oauth = await open_oauth(settings, store, own.secrets, unlocked.signing, clock, counter=counter)

    sequencer, people = await _audit_log(settings, store, unlocked, clock)

    hub = Hub(clock)
    publisher = Publisher(store, hub, clock, oauth.jwks_json)
    store.subscribe(publisher.wake)
    store.subscribe(sequencer.nudge)
    await publisher.sync()
    metrics = ControlMetrics(clock.now)
    hub.on_leave(metrics.last_used.left)
    transports = _transports(settings, clock)
    webhooks = _webhooks(settings, store, sealed, clock)
    keeper, deliveries = await _budgets(store, hub, owner=buckets, metrics=metrics, webhooks=webhooks, clock=clock)

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
        probe=UpstreamProbe(transports, clock.monotonic_us, _client_tokens(settings, clock), clock.now),
        webhooks=webhooks,
        limits=keeper,
        limits_state=lambda: _limits_state(buckets),
        check_url=lambda url: url_fault(url, settings.upstreams.networks()),
        metrics=metrics.exposition,
        unready=unready,
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
                metrics.absorb,
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
            _recover_spools(settings, sequencer, hub),
            _undertaker(settings, buckets, hub).run(),
            deps.rotations.run(),
            oauth.keep_rotated(),
            keeper.run(),
            deliveries.run(),
            _save_last_used(store, metrics.last_used),
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
        await _end([stopping, *tasks])
        with contextlib.suppress(Exception):  # what cannot be drained now is drained at the next start
            await _write_down(keeper, buckets, sequencer, store)
        await sequencer.close()
        await transports.aclose()
        await keys.aclose()
        await own.aclose()
        await store.close()


async def _unlock(settings: Settings, own: OwnKeys, stop: asyncio.Event) -> Unlocked | None:
    """As `OwnKeys.unlock`; while it waits, the admin listener says so."""
    async with AsyncExitStack() as meanwhile:

        def listen() -> None:
            server = admin_server(settings, waiting_app(Waiting(_spools(settings)).count))
            meanwhile.push_async_callback(_stopped, asyncio.create_task(server.serve()))
            meanwhile.callback(server.stop)

        return await own.unlock(stop, listen)


async def _stopped(serving: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await serving


async def _audit_log(
    settings: Settings, store: SqlControlStore, unlocked: Unlocked, clock: Clock
) -> tuple[Sequencer, Persons]:
    """The one writer of every organization's log, and the people whose pseudonyms it writes."""
    data_keys = DataKeys(store.persons, unlocked.wrapping, clock.now)
    await data_keys.check()
    people = Persons(store.persons, data_keys, clock.now)
    folder = settings.path(settings.audit.path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    sequencer = Sequencer(folder, unlocked.signer, people=people)
    await sequencer.open()
    return sequencer, people


def _webhooks(settings: Settings, store: SqlControlStore, sealed: SealedFile, clock: Clock) -> Webhooks:
    posting = WebhookPost(clock, allowed=settings.upstreams.networks())
    return Webhooks(store.webhooks, SealedWebhooks(sealed), posting.post, clock, secrets.token_bytes)


async def _write_down(
    keeper: BudgetKeeper, buckets: SliceAdmin, sequencer: Sequencer, store: SqlControlStore
) -> None:
    """The last round, when workers have given back what they were lent, and the entries it may have made."""
    await keeper.round(last=True)
    await _leave(buckets)
    await sequencer.drain_once(store)


async def _budgets(
    store: SqlControlStore,
    hub: Hub,
    *,
    owner: SliceAdmin,
    metrics: ControlMetrics,
    webhooks: Webhooks,
    clock: Clock,
) -> tuple[BudgetKeeper, Deliveries]:
    """What keeps budgets and tells of them. When this returns they are as they were, and no worker has been
    served."""
    deliveries = Deliveries(store.budgets, webhooks, clock, random.random, metrics.count_attempt)

    def told(notice: Notice) -> None:
        metrics.count_threshold(notice.org, notice.limit, notice.percent)
        deliveries.wake()

    keeper = BudgetKeeper(owner, store.budgets, lambda: hub.snapshot, clock, told)
    await keeper.restore()
    return keeper, deliveries


def _undertaker(settings: Settings, limits: SliceStore, hub: Hub) -> Undertaker:
    undertaker = Undertaker(_limit_books(settings), limits)
    hub.on_leave(undertaker.left)
    return undertaker


def _in_redis(settings: Settings) -> RedisSlices | None:
    """The store of the limits that several nodes share; None: the control process of this one has them."""
    return open_slices(settings.limits, settings.home) if settings.limits.store == "redis" else None


def _limit_stores(settings: Settings, clock: Clock) -> tuple[LimitOwner, LimitOwner | RedisSlices, Counter | None]:
    """The owner that workers reach over the bus, the one that counts, and what counts attempts to sign in for all
    nodes together; None: this process does."""
    owner = LimitOwner(unix_us(clock))
    if (shared := _in_redis(settings)) is None:
        return owner, owner, None
    return owner, shared, SliceCounter(shared)


async def _limits_state(buckets: object) -> str:
    if not isinstance(buckets, RedisSlices):
        return "embedded"
    wrong = await buckets.state()
    return f"redis: {wrong}" if wrong else "redis"


async def _warm(buckets: object) -> None:
    if isinstance(buckets, RedisSlices):
        await buckets.warm()


async def _leave(buckets: object) -> None:
    if isinstance(buckets, RedisSlices):
        await buckets.aclose()


async def _save_last_used(store: SqlControlStore, last_used: LastUsed) -> None:
    """A crash loses a minute of it at most."""
    while True:
        await asyncio.sleep(LAST_USED_S)
        with contextlib.suppress(StoreError):  # what is not written now is used again, or was used long ago
            await store.keys.used(last_used.take())


async def open_oauth(
    settings: Settings,
    store: SqlControlStore,
    secrets: SystemSecrets,
    signing: TokenSigner,
    clock: Clock,
    *,
    counter: Counter | None = None,
) -> OAuthService:
    """The token service on the control store's engine; `orgate init` needs it for the first invitations."""
    return await OAuthService.open(
        settings=settings,
        control=store,
        store=await SqlOAuthStore.open(store.engine),
        secrets=secrets,
        signing=signing,
        clock=clock.now,
        counter=counter,
    )


async def _recover_spools(settings: Settings, sequencer: Sequencer, hub: Hub) -> None:
    """Take up what dead workers left: at the start, when one has gone, and every few seconds besides, because a
    worker that has left the bus may hold its spool a little longer."""
    left = asyncio.Event()
    hub.on_leave(lambda _: left.set())
    while True:
        left.clear()
        try:
            await recover(_spools(settings), sequencer.append_receipts)
        except (OSError, UnavailableError, ValidationError) as error:
            # Nothing is removed that is not durable; a record this version cannot read waits for one that can.
            log.warning("audit: spools of dead workers wait: %s", type(error).__name__)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVER_S):
                await left.wait()


# -- what all of them share -------------------------------------------------------------------------------


def data_audience(settings: Settings) -> str:
    return settings.server.url + "/v1"


def admin_audience(settings: Settings) -> str:
    return settings.server.url + "/admin"


def _sealed(settings: Settings) -> SealedFile:
    return SealedFile(
        settings.path(settings.secrets.path), read_master_key(settings.secrets.master_key, settings.home)
    )


def _transports(settings: Settings, clock: Clock) -> TransportPool:
    certs = CertLeases(SealedCerts(_sealed(settings)), lambda: clock.monotonic_us() / 1e6)
    return TransportPool(allowed=settings.upstreams.networks(), identity=certs)


def _client_tokens(settings: Settings, clock: Clock) -> ClientTokens:
    endpoints = TokenEndpoints(allowed=settings.upstreams.networks())
    return ClientTokens(endpoints.ask, lambda: clock.monotonic_us() / 1e6)


def _leases(keys: UpstreamKeys, clock: Clock, tell: Callable[[OrgId, str, int], None]) -> KeyLeases | SourceLeases:
    """What a worker keeps of the keys: announced by the control process, or looked for by itself."""
    if isinstance(keys, ReadOnlyKeys):
        return SourceLeases(keys, lambda: clock.monotonic_us() / 1e6)
    return KeyLeases(keys, lambda: clock.monotonic_us() / 1e6, tell=tell)


def _upstream_keys(settings: Settings, clock: Clock) -> UpstreamKeys:
    match settings.secrets.upstream_keys:
        case "sealed-file":
            return _sealed(settings)
        case "mounted-files":
            return MountedKeys(settings.path(settings.secrets.mounted))
        case "environment":
            return EnvironmentKeys()
    # hvac and requests take 0.3 s of CPU to import, and 19 MB: only who uses them pays for them.
    from gateway.secrets.vault import VaultKeys  # noqa: PLC0415

    return VaultKeys(settings.vault, settings.home, _sealed(settings), lambda: clock.monotonic_us() / 1e6)


def _limit_books(settings: Settings) -> Path:
    return settings.bus_socket.parent / "limits"


def _spools(settings: Settings) -> Path:
    return settings.path(settings.audit.path) / "spool"


async def _end(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


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
    except (DamagedError, LimitsSettingsError, StoreError, StoreUnavailableError) as error:
        log.critical("%s", error)
        return HOPELESS
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))

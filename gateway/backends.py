"""The concrete backends of the control process that settings ask for.

Each function makes one part from the settings; what is made where, and in which order, is in `gateway.control`.
"""

from __future__ import annotations

import random
import secrets

from gateway.audit.persons import Persons
from gateway.audit.sequencer import Sequencer
from gateway.audit.stores import open_stores
from gateway.bus.hub import Hub
from gateway.clock import Clock, unix_us
from gateway.control_metrics import ControlMetrics
from gateway.deliveries import Deliveries
from gateway.limits.accounts import LimitOwner
from gateway.limits.counter import SliceCounter
from gateway.limits.keeper import BudgetKeeper
from gateway.limits.redis import RedisSlices
from gateway.limits.store import SlicePlace, SliceStore
from gateway.limits.undertaker import Undertaker
from gateway.oauth.service import OAuthService
from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.sso import Federation
from gateway.oauth.throttle import Counter
from gateway.oauth.tokens import TokenSigner
from gateway.oauth.web import WebSessions
from gateway.ownkeys import Unlocked
from gateway.retention import Retention
from gateway.secrets.datakeys import DataKeys
from gateway.secrets.sealed import SealedFile, SealedWebhooks
from gateway.secrets.store import SystemSecrets
from gateway.settings import Settings
from gateway.store_settings import store_password
from gateway.webhooks import WebhookPost, Webhooks
from gateway.workerparts import limit_books, slices_in_redis
from tenants.budgets import Notice
from tenants.sql.alone import Alone, Turn
from tenants.sql.store import SqlControlStore, open_store, sqlite_url


def admin_audience(settings: Settings) -> str:
    return settings.server.url + "/admin"


def limit_stores(settings: Settings, clock: Clock) -> tuple[LimitOwner, LimitOwner | RedisSlices, Counter | None]:
    """The owner that workers reach over the bus, the one that counts, and what counts attempts to sign in for all
    nodes together; None: this process does."""
    owner = LimitOwner(unix_us(clock))
    if (shared := slices_in_redis(settings)) is None:
        return owner, owner, None
    return owner, shared, SliceCounter(shared)


def undertaker(settings: Settings, limits: SliceStore, hub: Hub) -> Undertaker:
    undertaker = Undertaker(limit_books(settings), limits)
    hub.on_leave(undertaker.left)
    return undertaker


async def limits_state(buckets: object) -> str:
    if not isinstance(buckets, RedisSlices):
        return "embedded"
    wrong = await buckets.state()
    return f"redis: {wrong}" if wrong else "redis"


async def budgets(
    store: SqlControlStore,
    hub: Hub,
    *,
    owner: SlicePlace,
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


def webhooks_of(settings: Settings, store: SqlControlStore, sealed: SealedFile, clock: Clock) -> Webhooks:
    posting = WebhookPost(clock, allowed=settings.upstreams.networks())
    return Webhooks(store.webhooks, SealedWebhooks(sealed), posting.post, clock, secrets.token_bytes)


async def audit_log(
    settings: Settings, store: SqlControlStore, unlocked: Unlocked, clock: Clock
) -> tuple[Sequencer, Persons]:
    """The one writer of every organization's log, and the people whose pseudonyms it writes."""
    data_keys = DataKeys(store.persons, unlocked.wrapping, clock.now)
    await data_keys.check()
    people = Persons(store.persons, data_keys, clock.now)
    folder = settings.path(settings.audit.path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    stores = open_stores(settings.audit, folder, settings.home)
    sequencer = Sequencer(stores, unlocked.signer, people=people)
    await sequencer.open()
    return sequencer, people


def retention(settings: Settings, store: SqlControlStore, sequencer: Sequencer, clock: Clock) -> Retention:
    return Retention(sequencer, store.orgs, store.for_org, settings.audit, clock.now)


async def control_store(settings: Settings, clock: Clock) -> SqlControlStore:
    """Errors: as `tenants.sql.store.open_store`."""
    store, file = settings.store, settings.database
    return await open_store(
        store.url if file is None else sqlite_url(file),
        clock=clock.now,
        busy_timeout_ms=store.timeout_ms,
        password=store_password(store, settings.home),
        connections=store.connections,
    )


def turn_of(settings: Settings, store: SqlControlStore) -> Turn:
    """Whose turn it is, of the control processes on this store, and what others commit."""
    if settings.database is not None:
        return Alone(store)
    # Only who needs the driver pays for it.
    from tenants.sql.nodes import Nodes  # noqa: PLC0415

    password = store_password(settings.store, settings.home)
    return Nodes(settings.store.url, password, store, store.tell, timeout_ms=settings.store.timeout_ms)


async def open_oauth(
    settings: Settings,
    store: SqlControlStore,
    secrets: SystemSecrets,
    signing: TokenSigner,
    clock: Clock,
    *,
    counter: Counter | None = None,
    federation: Federation | None = None,
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
        federation=federation,
    )


def web_sessions(settings: Settings, oauth: OAuthService, clock: Clock) -> WebSessions:
    return WebSessions(oauth, clock=clock.now, idle_s=settings.web.idle_s, session_s=settings.web.session_s)

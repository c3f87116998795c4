"""The admin API over real parts: SQL store, sealed file, bus, sequencer, authenticator. Fakes: accounts, probe."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from msgspec import Struct

from gateway.api.admin.dependencies import AdminDependencies
from gateway.audit.erase import Erasure
from gateway.audit.persons import Persons
from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.audit.signer import Signer
from gateway.authn.verify import Authenticator
from gateway.bus.hub import Hub
from gateway.bus.publisher import Publisher
from gateway.bus.streams import LiveStreams
from gateway.exchange import Credential
from gateway.identity import IdentityProviders
from gateway.limits.accounts import LimitOwner
from gateway.limits.keeper import BudgetKeeper
from gateway.metrics import Metrics
from gateway.oauth.digests import ServerKey
from gateway.oauth.factors import Factors
from gateway.oauth.provider import Providers
from gateway.oauth.published import KeyUse, SigningKey
from gateway.oauth.sessions import LoginSessions
from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.throttle import MemoryThrottle, throttles
from gateway.outside import Outside
from gateway.secret import Secret
from gateway.secrets.datakeys import DataKeys
from gateway.secrets.sealed import SealedCerts, SealedFile, SealedIdps, SealedWebhooks
from gateway.upstream.probe import ProbeResult
from gateway.webhooks import DeliveryError, Webhooks
from policies.facts import Role
from tenants.budgets import Webhook
from tenants.ids import PLATFORM, MemberId, OrgId, new_member_id
from tenants.models import Member, Org, Upstream
from tenants.sql.store import SqlControlStore, open_store
from tenants.store import Actor
from tests.fakes.audit import at_once
from tests.integration.admin.served import Served
from tests.unit.authn import tokens

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
AUDIENCE = f"{tokens.ISSUER}/admin"
SETUP = Actor(org=PLATFORM, member="setup")


class FakeClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.seconds = float(tokens.NOW)

    def now(self) -> float:
        return self.seconds

    def monotonic_us(self) -> int:
        return int(self.seconds * 1_000_000)


class FakeInvitation(Struct, frozen=True):
    code: str
    expires_at: int
    url: str


class FakeSessions:
    """Accounts that note what was asked of them."""

    def __init__(self, control: SqlControlStore, clock: FakeClock) -> None:
        self.calls: list[tuple[str, str, str]] = []
        self.open = 2
        self.store = SqlOAuthStore(control.engine)
        self.sessions = LoginSessions(self.store.sessions, self.store.end_family, control, clock.now)
        self.factors = Factors(
            store=self.store,
            control=control,
            key=ServerKey(Secret(b"k" * 32)),
            clock=clock.now,
            random=os.urandom,
            throttle=throttles(clock.now),
            base="https://gateway.example",
        )
        self.no_rotation: Exception | None = None

    async def invite(self, org: OrgId, member_id: MemberId) -> FakeInvitation:
        self.calls.append(("invite", org, member_id))
        return FakeInvitation("THE-CODE", tokens.NOW + 7 * 86_400, f"{tokens.ISSUER}/oauth/invitation?org={org}")

    async def uninvite(self, org: OrgId, member_id: MemberId) -> None:
        self.calls.append(("uninvite", org, member_id))

    async def end_sessions(self, org: OrgId, member_id: MemberId) -> int:
        self.calls.append(("end", org, member_id))
        return self.open

    async def drop_member(self, org: OrgId, member_id: MemberId) -> None:
        self.calls.append(("drop", org, member_id))

    async def end_org(self, org: OrgId) -> int:
        self.calls.append(("end", org, ""))
        return self.open

    async def end_client(self, client_id: str) -> int:
        self.calls.append(("end", client_id, ""))
        return self.open

    def signing_keys(self) -> tuple[SigningKey, ...]:
        return (SigningKey("k1", KeyUse.CURRENT, 5), SigningKey("k2", KeyUse.NEXT, 6))

    async def rotate_signing(self, by: Actor) -> tuple[SigningKey, ...]:
        if self.no_rotation is not None:
            raise self.no_rotation
        self.calls.append(("rotate", by.org, by.member))
        return self.signing_keys()


class FakeProbe:
    def __init__(self) -> None:
        self.asked: list[tuple[Upstream, Credential | None]] = []
        self.statuses: list[int] = []
        """What the next probes meet; then 200 again."""

    async def probe(self, upstream: Upstream, credential: Credential | None) -> ProbeResult:
        self.asked.append((upstream, credential))
        status = self.statuses.pop(0) if self.statuses else 200
        return ProbeResult(ok=status == 200, status=status, ms=1.5, detail="2 models")


class FakeReceiver:
    """Takes what a webhook is told, or fails as it was told to."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes, bytes]] = []
        """(URL, secret, body) of each message."""
        self.failure: DeliveryError | None = None

    async def __call__(self, hook: Webhook, secret: Secret, message_id: str, body: bytes) -> int:
        self.got.append((hook.url, secret.reveal(), body))
        if self.failure is not None:
            raise self.failure
        return 204


class SpiedStreams(LiveStreams):
    def __init__(self, hub: Hub, publisher: Publisher) -> None:
        super().__init__(hub, publisher)
        self.resets: list[tuple[str, str]] = []

    def reset(self, org: OrgId, member: str = "") -> None:
        self.resets.append((org, member))
        super().reset(org, member)

    def shut_out(self, org: str, member: str) -> bool:
        """Whether streams were told to end both before and after every worker had refused new ones."""
        told = (org, member), ("live", ""), (org, member)
        return told in zip(self.resets, self.resets[1:], self.resets[2:], strict=False)

    async def live(self, version: int) -> Sequence[str]:
        """`resets` has ("live", "") where this was."""
        self.resets.append(("live", ""))
        return await super().live(version)


def check_url(url: str) -> str | None:
    return "leads to a loopback address" if "127.0.0.1" in url else None


class World:
    """Two organizations and the platform, a member of each role in each, and a client for the app."""

    def __init__(self, store: SqlControlStore, folder: Path, clock: FakeClock) -> None:
        self.clock = clock
        self.store = store
        self.keys = SealedFile(folder / "secrets.sealed", Secret(b"k" * 32))
        self.certs = SealedCerts(self.keys)
        self.people = Persons(store.persons, DataKeys(store.persons, Secret(b"w" * 32), clock.now), clock.now)
        signer = Signer("gateway.example", Ed25519PrivateKey.generate())
        self.sequencer = Sequencer(folder / "audit", signer, people=self.people, pause=at_once)
        self.hub = Hub(clock)
        self.publisher = Publisher(store, self.hub, clock, lambda: tokens.jwks("server"))
        self.streams = SpiedStreams(self.hub, self.publisher)
        self.sessions = FakeSessions(store, clock)
        self.writes = MemoryThrottle(1_200, 60, lambda: self.clock.seconds)
        self.probe = FakeProbe()
        self.receiver = FakeReceiver()
        self.metrics = Metrics()
        self.unready: list[str] = []
        self.limits = LimitOwner(clock.monotonic_us)
        self.members: dict[tuple[str, Role], Member] = {}
        self.erasure = Erasure(
            book=store.persons,
            people=self.people,
            queue=self.sequencer,
            store=store,
            accounts=self.sessions,
            buckets=self.limits,
            clock=clock.now,
        )
        self.providers = Providers(Outside(allowed=(ip_network("127.0.0.0/8"),)), clock)
        self.deps = AdminDependencies(
            store=store,
            keys=self.keys,
            certs=self.certs,
            sessions=self.sessions,
            writes=self.writes,
            verifier=Authenticator(tokens.ISSUER, AUDIENCE, clock.now),
            audit=LogReader(self.sequencer, self.people),
            people=self.people,
            erasure=self.erasure,
            streams=self.streams,
            probe=self.probe,
            webhooks=Webhooks(
                store.webhooks, SealedWebhooks(self.keys), self.receiver, clock, lambda count: b"w" * count
            ),
            check_url=check_url,
            identity=IdentityProviders(store, SealedIdps(self.keys), self.providers, tokens.ISSUER),
            metrics=self.metrics.exposition,
            unready=self._unready,
            limits=BudgetKeeper(self.limits, store.budgets, lambda: self.hub.snapshot, clock),
            clock=clock.now,
        )
        self.app = Served(self.deps)
        self.client = self.client_from("127.0.0.1")

    def _unready(self) -> Sequence[str]:
        return self.unready

    def client_from(self, host: str, app: Served | None = None) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(app or self.app, client=(host, 40_000))
        return httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8444")

    async def populate(self) -> None:
        """Fill an empty store; slow, so it is done once, see `conftest.template`."""
        for org in (ACME, GLOBEX):
            await self.store.orgs.create(Org(id=org, name=org.title()), SETUP)
            for role in (Role.OWNER, Role.ADMIN, Role.AUDITOR, Role.MEMBER, Role.BILLING):
                await self.join(org, role)
        for role in (Role.OPERATOR, Role.AUDITOR):
            await self.join(PLATFORM, role)

    async def join(self, org: OrgId, role: Role) -> Member:
        item = Member(org=org, id=new_member_id(), email=f"{role}@{org}.example", name=role, roles=(role,))
        made = await self.store.for_org(org).members.create(item, SETUP)
        self.members[org, role] = made
        return made

    def bearer(self, role: Role, org: OrgId | None = None, claims: dict[str, Any] | None = None) -> dict[str, str]:
        """The headers of that member's token, with other `claims` where a test wants it wrong."""
        org = org or (PLATFORM if role is Role.OPERATOR else ACME)
        member = self.members[org, role]
        now = int(self.clock.seconds)
        made = tokens.token(
            **{
                "aud": AUDIENCE,
                "org": org,
                "sub": member.id,
                "roles": [role],
                "iat": now,
                "exp": now + 900,
                **(claims or {}),
            }
        )
        return {"authorization": f"Bearer {made}"}

    async def ask(
        self, method: str, path: str, role: Role = Role.OWNER, *, org: OrgId | None = None, **more: Any
    ) -> httpx.Response:
        """One request. `path` is under `/admin/v1`."""
        headers = {**self.bearer(role, org), **more.pop("headers", {})}
        return await self.client.request(method, f"/admin/v1{path}", headers=headers, **more)

    async def actions(self, org: OrgId = ACME) -> list[str]:
        """The actions in the organization's audit log, after everything queued has become an entry."""
        await self.sequencer.drain_once(self.store)
        items, _ = await LogReader(self.sequencer, self.people).entries(org, limit=1000)
        return [str(item["action"]) for item in items]

    async def last_entry(self, org: OrgId = ACME) -> dict[str, Any]:
        await self.sequencer.drain_once(self.store)
        items, _ = await LogReader(self.sequencer, self.people).entries(org, limit=1000)
        return dict(items[-1])

    def replaced(self, **changes: Any) -> Served:
        """Another app over the same world with other dependencies."""
        found = {name: getattr(self.deps, name) for name in self.deps.__dataclass_fields__}
        return Served(AdminDependencies(**{**found, **changes}))


@asynccontextmanager
async def open_world(folder: Path, members: dict[tuple[str, Role], Member] | None = None) -> AsyncIterator[World]:
    """A world in `folder`: that of `members`, or (None) one to be populated."""
    clock = FakeClock()
    store = await open_store(f"sqlite:{folder}/control.db", clock=clock.now)
    try:
        world = World(store, folder, clock)
        if members is None:
            await world.populate()
        else:
            world.members = dict(members)
        await world.publisher.sync()
        yield world
        await world.client.aclose()
        await world.sequencer.close()
    finally:
        await store.close()


UPSTREAM: dict[str, Any] = {"name": "gpt", "base_url": "https://api.example.com"}
MODEL: dict[str, Any] = {"name": "code", "upstream": "gpt", "model": "gpt-code"}
LIMIT: dict[str, Any] = {"name": "fair", "scope": "member", "unit": "requests", "amount": 100}
RULE: dict[str, Any] = {
    "name": "no-chat",
    "effect": "deny",
    "roles": ["member"],
    "actions": ["chat"],
    "models": ["*"],
}
BODIES = {"upstreams": UPSTREAM, "models": MODEL, "limits": LIMIT, "rules": RULE}


async def fill(world: World) -> None:
    """One of each in acme and in globex."""
    for org in (ACME, GLOBEX):
        for path, body in BODIES.items():
            answer = await world.ask("POST", f"/orgs/{org}/{path}", org=org, json=body)
            assert answer.status_code == 201, answer.text

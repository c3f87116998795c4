"""What the admin API needs of the rest of the control process: Protocols where there is none elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from time import monotonic
from typing import Protocol

from gateway.api.admin.longpolls import LongPolls
from gateway.api.admin.reads import ReadNotes
from gateway.audit.erase import Erasure
from gateway.audit.log import AuditReader
from gateway.audit.persons import Persons
from gateway.audit.reconcile import Reconciliation
from gateway.audit.reconciler import Reconciles
from gateway.audit.witnesses import Witnesses
from gateway.audit_settings import AuditStoreSettings
from gateway.bus.hub import WorkerStatus
from gateway.dpop import Presented
from gateway.errors import UnavailableError
from gateway.exchange import Credential, Principal
from gateway.identity import IdentityProviders
from gateway.limits.protocol import Standings
from gateway.limits.store import BudgetAdmin
from gateway.oauth.factors import Factors
from gateway.oauth.offboard import Offboarding
from gateway.oauth.published import SigningKey
from gateway.oauth.sessions import LoginSessions
from gateway.oauth.throttle import Throttle, Throttles, throttles
from gateway.oauth.web import WebSessions
from gateway.secret import Secret
from gateway.secrets.mint import Commands
from gateway.secrets.rotation import KeyRotations
from gateway.secrets.store import ClientCerts, NoSuchSecretError, StreamSecrets, UpstreamKeys
from gateway.streaming.streams import StreamState, StreamTest
from gateway.upstream.auth.shapes import judge
from gateway.upstream.probe import ProbeResult
from gateway.webhooks import Webhooks
from tenants.ids import MemberId, OrgId
from tenants.models import Upstream
from tenants.snapshot import Snapshot
from tenants.store import Actor, ControlStore
from tenants.streams import AuditStream


class Verifier(Protocol):
    """Verifies access tokens for the admin audience (`gateway.authn.verify.Authenticator`)."""

    def authenticate(
        self, authorization: bytes | None, host: str, snapshot: Snapshot, presented: Presented | None = None
    ) -> Principal:
        """Raises `UnauthenticatedError`, or `SuspendedError` for a good token of a suspended organization."""


class Invitation(Protocol):
    """A code that sets a member's password, once, at `url`. `expires_at`: Unix seconds."""

    @property
    def code(self) -> str: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def url(self) -> str: ...


class Sessions(Protocol):
    """Accounts and refresh tokens. Durable when a call returns; each is harmless when repeated."""

    async def invite(self, org: OrgId, member_id: MemberId) -> Invitation:
        """A new invitation; one that was not used yet is worth nothing from now on."""

    async def uninvite(self, org: OrgId, member_id: MemberId) -> None:
        """An invitation that was not used yet is worth nothing from now on."""

    async def end_sessions(self, org: OrgId, member_id: MemberId) -> int:
        """Kill the member's families of refresh tokens; returns how many. Access tokens are not its business."""

    async def end_org(self, org: OrgId) -> int:
        """The same of everybody in `org`, invitations included."""

    @property
    def factors(self) -> Factors:
        """Second factors."""

    @property
    def sessions(self) -> LoginSessions:
        """Sessions to be looked at, and ended one by one."""

    async def drop_member(self, org: OrgId, member_id: MemberId) -> None:
        """Forget everything about a member who is gone: password, invitations, sessions."""

    async def end_client(self, client_id: str) -> int:
        """Kill the families of refresh tokens that were begun with a client; returns how many."""

    def signing_keys(self) -> tuple[SigningKey, ...]:
        """The keys that sign access tokens, the current one first."""

    async def rotate_signing(self, by: Actor) -> tuple[SigningKey, ...]:
        """Sign with the next one. Raises `RotatedLatelyError`, `RotatedElsewhereError`."""


class Streams(Protocol):
    """The workers, seen from the control process (the bus's hub and whoever publishes to it)."""

    @property
    def snapshot(self) -> Snapshot: ...

    def reset(self, org: OrgId, member: str = "") -> None:
        """End what `org`, or one member of it, has in flight, and reset it upstream."""

    async def live(self, version: int) -> Sequence[str]:
        """See that the store's `version` is published, then wait (about a second at most) until every worker
        serves it. Returns the workers that did not and were fenced."""

    def workers(self) -> Sequence[WorkerStatus]: ...


class Probe(Protocol):
    async def probe(self, upstream: Upstream, credential: Credential | None) -> ProbeResult:
        """Ask `upstream` once. What goes wrong there is in the result; it raises nothing for that."""


class NoLimits:
    """A `BudgetAdmin` for a control process that keeps no buckets and knows nobody who does."""

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        raise UnavailableError("there is none")

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        raise UnavailableError("there is none")

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        raise UnavailableError("there is none")

    async def carry(self, owner: OrgId, was: str, timezone: str) -> None:
        raise UnavailableError("there is none")


class Streaming(Protocol):
    """The streams of audit logs (`gateway.streaming.streams.Streams`)."""

    async def states(self, definitions: tuple[AuditStream, ...]) -> list[StreamState]: ...
    async def test(self, one: AuditStream) -> StreamTest: ...


class NoReconciler:
    """`Reconciles` where nobody counts."""

    async def reconcile(self, org: OrgId, day: int) -> Reconciliation:
        raise UnavailableError("nobody counts requests here")


class NoStreaming:
    """`Streaming` where nothing is sent."""

    async def states(self, definitions: tuple[AuditStream, ...]) -> list[StreamState]:
        return []

    async def test(self, one: AuditStream) -> StreamTest:
        raise UnavailableError("nothing is sent from here")


class NoSecrets:
    """`StreamSecrets` where none are kept."""

    async def get(self, org: OrgId, name: str) -> Secret:
        raise NoSuchSecretError("none are kept")

    async def put(self, org: OrgId, name: str, secret: Secret) -> None:
        raise UnavailableError("none are kept")

    async def delete(self, org: OrgId, name: str) -> None:
        raise NoSuchSecretError("none are kept")


async def _embedded() -> str:
    return "embedded"


@dataclass(frozen=True, kw_only=True)
class AdminDependencies:
    """`clock` gives Unix seconds.

    `check_url` says what is wrong with an upstream's URL as a target (private address), or None. `metrics`
    gives the text exposition, `unready` the reasons why this process should not be asked now, if any.
    `count_rotation` is told each outcome of an upstream's rotation, `key_used_at` says when its key was last used.
    `writes` counts the changes of each member, `throttles` makes what counts for others. `admin_url`: this
    listener's, as clients call it. `web`: sessions of browsers; None: this server has no pages. `identity`: the
    organizations' identity providers; None: there is no single sign-on.
    `limits_state`: where limits are counted, and how that is. `witnesses`: who is asked to cosign checkpoints,
    None for nobody; `degraded`: what is not as it should be while this process may be asked all the same.
    """

    store: ControlStore
    keys: UpstreamKeys
    certs: ClientCerts
    sessions: Sessions
    verifier: Verifier
    audit: AuditReader
    people: Persons
    erasure: Erasure
    streams: Streams
    probe: Probe
    webhooks: Webhooks
    check_url: Callable[[str], str | None]
    metrics: Callable[[], str]
    unready: Callable[[], Sequence[str]]
    clock: Callable[[], float]
    writes: Throttle
    admin_url: str = "https://127.0.0.1:8444"
    throttles: Throttles = field(default_factory=lambda: throttles(monotonic))
    limits: BudgetAdmin = field(default_factory=NoLimits)
    web: WebSessions | None = None
    identity: IdentityProviders | None = None
    limits_state: Callable[[], Awaitable[str]] = _embedded
    reconciler: Reconciles = field(default_factory=NoReconciler)
    streaming: Streaming = field(default_factory=NoStreaming)
    stream_secrets: StreamSecrets = field(default_factory=NoSecrets)
    commands: Commands = field(default_factory=Commands)
    witnesses: Witnesses | None = None
    audit_store: AuditStoreSettings = field(default_factory=AuditStoreSettings)
    degraded: Callable[[], Sequence[str]] = tuple
    count_rotation: Callable[[OrgId, str, str], None] = lambda *_: None
    key_used_at: Callable[[OrgId, str], int] = lambda *_: 0
    reads: ReadNotes = field(default_factory=ReadNotes)
    long_polls: LongPolls = field(default_factory=LongPolls)
    simulating: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one simulation of a limit that may run: it reads much of the audit log."""
    reconciling: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the one reconciliation that may run: it reads a day of the log, or a month."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while an owner or operator is taken away: one at a time, so that two cannot each leave the other. And
    while somebody becomes an owner or is invited: whoever invites must see what roles the code leads to."""

    @cached_property
    def rotations(self) -> KeyRotations:
        """All that changes a key. Whoever serves these dependencies also awaits its `run`."""

        def judged(upstream: Upstream, text: str) -> Secret:
            return judge(upstream.auth, text, self.check_url)

        return KeyRotations(
            store=self.store,
            keys=self.keys,
            probe=self.probe.probe,
            live=self.streams.live,
            judge=judged,
            commands=self.commands,
            count=self.count_rotation,
            clock=self.clock,
        )

    @cached_property
    def offboarding(self) -> Offboarding:
        """All that shuts a member or an organization out: the admin API's and SCIM's."""
        return Offboarding(
            control=self.store,
            logins=self.sessions,
            web=self.web,
            workers=self.streams,
            clock=self.clock,
            turn=self.turn,
        )

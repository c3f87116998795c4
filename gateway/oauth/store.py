"""The authorization server's own store: passwords, invitations, device grants, codes, families.

Only digests of codes and tokens ever get here. Digests are lower-case hexadecimal; times are Unix seconds.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from gateway.oauth.factors_store import FactorStore
from gateway.oauth.requests import ClientRequests
from gateway.oauth.sessions import SessionStore
from tenants.ids import MemberId, OrgId


class DuplicateUserCodeError(Exception):
    """Another pending grant has that user code: make another one."""


class Attempts(Struct, frozen=True):
    """Failed sign-ins of one account name, real or not. No attempt counts before `retry_at`."""

    failures: int = 0
    retry_at: float = 0


class StoredInvitation(Struct, frozen=True):
    digest: str
    org: OrgId
    member: MemberId
    expires_at: int


class DeviceStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    REDEEMED = "redeemed"


class DeviceGrant(Struct, frozen=True):
    """One device authorization (RFC 8628). `org` and `member` are who decided, '' before; `amr` and `auth_time` as
    in `Family`."""

    digest: str
    user_code_digest: str
    client: str
    resource: str
    scope: str
    expires_at: float
    interval: float
    status: DeviceStatus = DeviceStatus.PENDING
    org: OrgId = OrgId("")
    member: MemberId = MemberId("")
    polled_at: float = 0
    amr: str = ""
    auth_time: int = 0


class AuthorizationCode(Struct, frozen=True):
    """One authorization code (RFC 6749 section 4.1). `family` and `token_id` are what it brought, '' before.
    `amr` and `auth_time` as in `Family`; `jkt`: the key that it is for (RFC 9449 section 10), '' for any."""

    digest: str
    client: str
    redirect_uri: str
    resource: str
    scope: str
    challenge: str
    org: OrgId
    member: MemberId
    expires_at: float
    family: str = ""
    token_id: str = ""
    amr: str = ""
    auth_time: int = 0
    jkt: str = ""


class Consumed(Struct, frozen=True):
    """A refresh token that was rotated away, and when."""

    digest: str
    at: float


class Family(Struct, frozen=True):
    """A session: the refresh tokens that descend from one sign-in. One of them is `current`.

    `recent` are those consumed within the grace; `ended_at` is 0 while it lives. `amr`: how its member signed in,
    RFC 8176's words parted by spaces, and `auth_time` when; '' and 0 in those of before it was written down.
    `jkt`: the key that its tokens are bound to (RFC 9449 section 5), '' for none.
    """

    id: str
    org: OrgId
    member: MemberId
    client: str
    current: str
    created_at: float
    expires_at: float
    recent: tuple[Consumed, ...] = ()
    ended_at: float = 0
    amr: str = ""
    auth_time: int = 0
    jkt: str = ""


class OAuthStore(Protocol):
    """Durable when a call returns. What is called conditional is one UPDATE: of concurrent callers one wins.

    Errors: `tenants.store.StoreUnavailableError`. Nothing is retried inside. Trusted: whoever can write it can
    sign in as anybody; whoever can read it finds Argon2id hashes and digests of random values only.
    """

    @property
    def sessions(self) -> SessionStore:
        """What lists families, and ends all of an organization's."""

    @property
    def factors(self) -> FactorStore:
        """Second factors and recovery codes."""

    @property
    def clients(self) -> ClientRequests:
        """What is kept of clients' requests."""

    async def password(self, org: OrgId, member: str) -> str | None: ...
    async def rehash(self, org: OrgId, member: MemberId, old: str, new: str) -> None:
        """Replace a password's hash, unless the password has changed since `old` was read."""

    async def attempts(self, account: str) -> Attempts: ...
    async def charge(self, account: str, seen: Attempts, then: Attempts, now: float) -> bool:
        """Conditional: from `seen` to `then`. False: somebody else has charged meanwhile."""

    async def forgive(self, account: str) -> None: ...

    async def invite(self, invitation: StoredInvitation) -> None:
        """Any earlier invitation of that member is void."""

    async def uninvite(self, org: OrgId, member: MemberId) -> None: ...
    async def invitation(self, digest: str, now: float) -> StoredInvitation | None: ...
    async def accept(self, invitation: StoredInvitation, password: str, now: float) -> bool:
        """Conditional: use the invitation, set the password's hash, end the member's families. One transaction."""

    async def add_device(self, grant: DeviceGrant, now: float) -> None:
        """Raises `DuplicateUserCodeError`. Forgets grants that have long expired."""

    async def pending_devices(self, now: float, client: str = "") -> int:
        """How many wait: of all clients, or of `client`. Those of an organization count together."""

    async def device(self, digest: str) -> DeviceGrant | None: ...
    async def device_of(self, user_code_digest: str, now: float) -> DeviceGrant | None:
        """The pending, unexpired grant with that user code."""

    async def polled(self, digest: str, now: float, interval: float) -> None: ...
    async def decide(
        self,
        user_code_digest: str,
        status: DeviceStatus,
        org: OrgId,
        member: MemberId,
        now: float,
        *,
        amr: str = "",
        auth_time: int = 0,
    ) -> DeviceGrant | None:
        """Conditional: decide the pending, unexpired grant with that user code. None: there is none."""

    async def redeem(self, digest: str, family: Family) -> bool:
        """Conditional: use the approved grant and begin `family`, in one transaction."""

    async def add_code(self, code: AuthorizationCode, now: float) -> None:
        """Forgets codes that have long expired."""

    async def code(self, digest: str) -> AuthorizationCode | None: ...
    async def redeem_code(self, digest: str, family: Family, token_id: str) -> bool:
        """Conditional: use the code and begin `family`, in one transaction. `token_id`: the access token's that
        comes with it."""

    async def begin_family(self, family: Family) -> None:
        """One that no grant brings."""

    async def family(self, family: str) -> Family | None: ...
    async def rotate(self, family: Family, successor: str, consumed: tuple[Consumed, ...]) -> bool:
        """Conditional: `family.current` gives way to `successor` while the family lives; `recent` = `consumed`,
        `jkt` = that of `family`."""

    async def end_family(self, family: str, now: float) -> bool: ...
    async def end_families(self, org: OrgId, member: MemberId, now: float) -> int: ...
    async def drop_member(self, org: OrgId, member: MemberId) -> None:
        """Forget everything about a member: password, invitation, grants, families."""

"""What is kept of second factors: authenticator apps, passkeys, recovery codes."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Protocol

from msgspec import Struct

from tenants.ids import MemberId, OrgId

MAX_FACTORS: Final = 10
"""Of one member: a phone, a laptop, a few keys; and no more rows than that by whoever holds a session."""


class FactorKind(StrEnum):
    """`TOTP`: RFC 6238. `PASSKEY`: W3C Web Authentication."""

    TOTP = "totp"
    PASSKEY = "passkey"


class Factor(Struct, frozen=True):
    """One factor of one member. `id` names it; `name` is the person's own word for it.

    `key`: of an authenticator app its secret, sealed (`totp.TotpSecrets`); of a passkey the public key, base64url
    of COSE (RFC 9052). `credential`: a passkey's own id, base64url; else the same as `id`. `sign_count`: a
    passkey's. `mark` is what only rises: the time step of the last code that was used, or when the challenge was
    made that was answered last, in microseconds. `created_at` and `used_at`: Unix seconds.
    """

    org: OrgId
    member: MemberId
    id: str
    kind: FactorKind
    name: str
    key: str
    credential: str
    sign_count: int = 0
    mark: int = 0
    created_at: int = 0
    used_at: int = 0


class NoRoomError(Exception):
    """The member has `MAX_FACTORS`, or there is a factor with that credential."""


class FactorStore(Protocol):
    """Durable when a call returns. What is called conditional is one statement: of concurrent callers one wins.

    Errors: `tenants.store.StoreUnavailableError`. Trusted: whoever can write it can sign in with a second factor
    of their own, if they have the password too; whoever can read it finds public keys, secrets sealed under the
    server's key, and MACs of recovery codes under it.
    """

    async def all(self, org: OrgId, member: MemberId) -> tuple[Factor, ...]:
        """The oldest first."""

    async def add(self, factor: Factor, recovery: tuple[str, ...] = ()) -> None:
        """One more, and with the first one the digests of its recovery codes. Raises `NoRoomError`."""

    async def use(self, factor: Factor, mark: int, sign_count: int, now: int) -> bool:
        """Conditional: `mark` is higher than the one that is stored, and the sign count still `factor`'s."""

    async def remove(self, org: OrgId, member: MemberId, factor: str) -> bool:
        """Take one away; with the last one the recovery codes. False: there is none."""

    async def recovery_left(self, org: OrgId, member: MemberId) -> int: ...
    async def set_recovery(self, org: OrgId, member: MemberId, digests: tuple[str, ...]) -> None:
        """In the place of all there were."""

    async def use_recovery(self, org: OrgId, member: MemberId, digest: str) -> bool:
        """Conditional: the code is good once."""

    async def reset(self, org: OrgId, member: MemberId) -> int:
        """Forget all factors and recovery codes of a member; how many factors. Harmless when repeated."""

"""Stage 1 for personal tokens: `orgate_pt_…` → `Principal`, from the snapshot alone.

A key is found by its digest, so that nothing is compared with a secret letter by letter: how long it takes says
nothing of how much of a guess was right. What it may do is what its owner may do now: that came with the snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

from gateway.authn.hosts import is_elsewhere
from gateway.authn.words import EXPIRED, INVALID, REQUIRED, SUSPENDED_RULE
from gateway.errors import ProofNeededError, SuspendedError, UnauthenticatedError
from gateway.exchange import Principal
from tenants.ids import OrgId
from tenants.opaque import PREFIX
from tenants.snapshot import Snapshot, Tenant
from tenants.statickeys import ServedKey

STATIC_PREFIX: Final = PREFIX.encode()
CLIENT: Final = "personal-token"
"""The client that a request with one is of: in rules, limits and the audit log."""

MINUTE_S: Final = 60
_LENGTH: Final = len("orgate_pt_") + 42


class StaticKeys:
    """Judges static keys for one `audience`, that of the data plane. Belongs to one event loop.

    When each was last used is kept here until `take`: no request writes anything. `clock` gives Unix seconds.
    """

    def __init__(self, audience: str, clock: Callable[[], float]) -> None:
        self._audience = audience
        self._clock = clock
        self._used: dict[tuple[OrgId, str], int] = {}
        self._told: dict[tuple[OrgId, str], int] = {}

    def authenticate(self, token: bytes, host: str, snapshot: Snapshot) -> Principal:
        """Raises `UnauthenticatedError`, in the words in which an access token is refused; `SuspendedError` and
        `ProofNeededError` as for one."""
        tenant, key = _find(token, snapshot)
        now = self._clock()
        if now >= key.expires_at:
            raise UnauthenticatedError(EXPIRED)
        if snapshot.hosts and is_elsewhere(snapshot, host, tenant.id):
            raise UnauthenticatedError(INVALID)
        if not tenant.active:
            raise SuspendedError(f"organization '{tenant.id}' is suspended", rule=SUSPENDED_RULE)
        if tenant.proof_required:
            raise ProofNeededError(REQUIRED)
        self._note(tenant.id, key.id, int(now))
        return Principal(
            org=tenant.id,
            member=key.subject,
            roles=frozenset(key.roles),
            client=CLIENT,
            token_id=key.id,
            audience=self._audience,
            issued_at=key.created_at,
            expires_at=key.expires_at,
            teams=key.teams,
            scope=key.scope,
        )

    def take(self) -> dict[tuple[OrgId, str], int]:
        """When keys were last used, to the minute, Unix seconds: those of which nothing newer was taken before."""
        taken, self._used = self._used, {}
        return taken

    def give_back(self, taken: Mapping[tuple[OrgId, str], int]) -> None:
        """`taken` could not be told: it is taken again with what has come since."""
        self._used = {**taken, **self._used}

    def keep(self, snapshot: Snapshot) -> None:
        """Forget keys that are gone: a new snapshot has come."""
        alive = {(tenant.id, key.id) for tenant in snapshot.keyed for key in tenant.static_keys.values()}
        for known in (self._used, self._told):
            for gone in known.keys() - alive:
                del known[gone]

    def _note(self, org: OrgId, key: str, now: int) -> None:
        at = now - now % MINUTE_S
        if self._told.get((org, key)) != at:
            self._told[org, key] = self._used[org, key] = at


def _find(token: bytes, snapshot: Snapshot) -> tuple[Tenant, ServedKey]:
    if len(token) == _LENGTH:
        digest = sha256(token).hexdigest()
        for tenant in snapshot.keyed:
            key = tenant.static_keys.get(digest)
            if key is not None:
                return tenant, key
    raise UnauthenticatedError(INVALID)

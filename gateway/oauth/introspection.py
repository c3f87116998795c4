"""Token introspection, RFC 7662: whether a token counts now, told to who has a reason to know.

That is a confidential client, about tokens of its own organization that are for a plane it has itself, or that are
its own. Of everything else it hears that it does not count, as of what was never a token: nobody learns here what
another organization has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import Any, Final

from gateway.oauth.clients import Audiences, Client, ClientRegistry
from gateway.oauth.errors import InvalidClientError
from gateway.oauth.published import is_access_token
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.tokens import TokenSigner
from tenants.ids import OrgId, is_service_id
from tenants.models import Member, Service, State
from tenants.snapshot import Snapshot
from tenants.store import ControlStore, NotFoundError

INACTIVE: Final[Mapping[str, Any]] = {"active": False}
SKEW_S: Final = 30
_TOLD: Final = ("iss", "aud", "sub", "org", "roles", "groups", "scope", "client_id", "jti", "iat", "exp", "cnf")


class Introspection:
    """`clock` gives Unix seconds."""

    def __init__(
        self,
        control: ControlStore,
        *,
        registry: ClientRegistry,
        refresh: RefreshTokens,
        keys: TokenSigner,
        audiences: Audiences,
        clock: Callable[[], float],
    ) -> None:
        self._control = control
        self._registry = registry
        self._refresh = refresh
        self._keys = keys
        self._audiences = audiences
        self._clock = clock

    async def of(self, token: str, client: Client) -> Mapping[str, Any]:
        """The answer of section 2.2. `client` has authenticated. Raises `InvalidClientError` for a public one, and
        `tenants.store.StoreUnavailableError`: what cannot be looked at now is neither good nor bad."""
        if not client.confidential:
            raise InvalidClientError("introspection is for clients that authenticate")
        return await self._of_refresh(token, client) or await self._of_access(token, client) or INACTIVE

    async def _of_refresh(self, token: str, client: Client) -> Mapping[str, Any] | None:
        """A refresh token is its client's own business, whatever planes another has."""
        family = await self._refresh.current(token)
        if family is None or family.client != client.id or family.org != client.org:
            return None
        if family.created_at < client.since:
            return None
        if not await self._active(family.org, family.member):
            return None
        told: dict[str, Any] = {
            "active": True,
            "client_id": family.client,
            "sub": family.member,
            "org": family.org,
            "iat": floor(family.created_at),
            "exp": floor(family.expires_at),
        }
        return told | ({"cnf": {"jkt": family.jkt}} if family.jkt else {})

    async def _of_access(self, token: str, client: Client) -> Mapping[str, Any] | None:
        claims = self._keys.own_claims(token)
        if claims is None or not is_access_token(claims) or claims["org"] != client.org:
            return None
        if claims["aud"] not in {self._audiences.of(plane) for plane in client.planes}:
            return None
        now = self._clock()
        if now >= claims["exp"] or claims["iat"] > now + SKEW_S:
            return None
        subject = await self._active(client.org, claims["sub"])
        if subject is None or claims["iat"] < subject.not_before or await self._revoked(claims, now):
            return None
        if await self._registry.find(claims["client_id"]) is None:
            return None
        told: dict[str, Any] = {name: claims[name] for name in _TOLD if name in claims}
        return {"active": True, **told, "token_type": "DPoP" if "cnf" in claims else "Bearer"}

    async def _revoked(self, claims: Mapping[str, Any], now: float) -> bool:
        world = Snapshot(revocations=await self._control.revocations(floor(now)))
        org, member, jti = OrgId(claims["org"]), claims["sub"], claims["jti"]
        return world.revoked(org, member, jti, claims["iat"], claims["client_id"])

    async def _active(self, org: OrgId, subject: str) -> Member | Service | None:
        """Who it is, as stored now, when they and their organization are active."""
        store = self._control.for_org(org)
        try:
            found = await (store.services if is_service_id(subject) else store.members).get(subject)
            active = (await self._control.orgs.get(org)).state is State.ACTIVE
        except NotFoundError:
            return None
        return found if active and found.state is State.ACTIVE else None

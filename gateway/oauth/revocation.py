"""Token revocation, RFC 7009: a refresh token ends its family, an access token goes onto the revocation list."""

from __future__ import annotations

from gateway.oauth.caller import Caller
from gateway.oauth.clients import Client
from gateway.oauth.errors import InvalidGrantError
from gateway.oauth.published import is_access_token
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.tokens import TokenSigner
from tenants.ids import OrgId
from tenants.models import Revocation
from tenants.revocations import LEEWAY_S
from tenants.store import Actor, ControlStore, NotFoundError


class Revoker:
    def __init__(self, control: ControlStore, refresh: RefreshTokens, keys: TokenSigner) -> None:
        self._control = control
        self._refresh = refresh
        self._keys = keys

    async def revoke(self, token: str, client: Client, caller: Caller) -> None:
        """Take `token` back. Returns as well when it is unknown or dead already (section 2.2).

        Raises `InvalidGrantError` when it was issued to another client (section 2.1).
        """
        if not await self._revoke_family(token, client, caller):
            await self._revoke_access(token, client, caller)

    async def _revoke_family(self, token: str, client: Client, caller: Caller) -> bool:
        family = await self._refresh.find(token)
        if family is None:
            return False
        _must_match(family.client, client)
        if await self._refresh.end(family):
            by = Actor(family.org, family.member, client.id, caller.request_id)
            await self._control.for_org(family.org).note(
                "session.revoke", family.member, by, {"reason": "signed out"}
            )
        return True

    async def _revoke_access(self, token: str, client: Client, caller: Caller) -> None:
        claims = self._keys.own_claims(token)
        if claims is None or not is_access_token(claims):
            return
        _must_match(claims["client_id"], client)
        org, member = OrgId(claims["org"]), claims["sub"]
        revocation = Revocation(
            org=org,
            not_before=claims["iat"] + 1,
            expires_at=claims["exp"] + LEEWAY_S,
            member=member,
            token_id=claims["jti"],
        )
        # Whoever repeats it has nothing written, and no worker told: it takes no more than a token to repeat it.
        known = await self._control.revocations(claims["iat"])
        if any((one.org, one.token_id) == (org, claims["jti"]) for one in known):
            return
        try:
            await self._control.for_org(org).revoke(revocation, Actor(org, member, client.id, caller.request_id))
        except NotFoundError:
            return  # the organization was deleted, and its tokens with it


def _must_match(issued_to: str, client: Client) -> None:
    if issued_to != client.id:
        raise InvalidGrantError("the token was issued to another client")

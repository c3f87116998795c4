"""The grants with which people's programs get tokens: what a code, a device code and a refresh token bring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import floor
from typing import Any

from gateway.oauth.accounts import Accounts
from gateway.oauth.authorization import CODE_S, AuthorizationCodes
from gateway.oauth.caller import Caller
from gateway.oauth.clients import Audiences, Client, ClientRegistry, GrantType, Plane, scope_of
from gateway.oauth.device import DeviceFlow
from gateway.oauth.dpop import Possession
from gateway.oauth.errors import InvalidGrantError, InvalidRequestError, InvalidTargetError
from gateway.oauth.refresh import RefreshTokens, ReusedError
from gateway.oauth.signin import SignIn, parted
from gateway.oauth.store import AuthorizationCode, DeviceGrant, Family, OAuthStore
from gateway.oauth.tokens import AccessToken, AccessTokens, TokenSigner
from tenants.ids import OrgId
from tenants.models import Member
from tenants.revocations import revoke_tokens
from tenants.store import Actor, ControlStore


class UserGrants:
    """One method a grant. `clock` gives Unix seconds. The client has authenticated, and may use the grant; the
    caller's DPoP proof was judged."""

    def __init__(
        self,
        *,
        control: ControlStore,
        store: OAuthStore,
        registry: ClientRegistry,
        accounts: Accounts,
        codes: AuthorizationCodes,
        devices: DeviceFlow,
        refresh: RefreshTokens,
        access: AccessTokens,
        audiences: Audiences,
        possession: Possession,
        signin: SignIn,
        signing: TokenSigner,
        clock: Callable[[], float],
    ) -> None:
        self._control = control
        self._store = store
        self._registry = registry
        self._accounts = accounts
        self._codes = codes
        self._devices = devices
        self._refresh = refresh
        self._access = access
        self._audiences = audiences
        self._possession = possession
        self._signin = signin
        self._signing = signing
        self._clock = clock

    async def authorization_code(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, Any]:
        code = await self._codes.find(form, client)
        plane = self._audiences.plane(client, form.get("resource", code.resource))
        scope = scope_of(plane, form.get("scope", ""))
        if self._audiences.of(plane) != code.resource:
            raise InvalidTargetError("resource is not the one of the authorization request")
        if code.family:
            raise await self._reused(code, caller)
        jkt = await self._possession.binding(caller, code.org, code.jkt)
        asked_at = await self.asked_at(code.org, client)
        member = await self._accounts.member(code.org, code.member)
        if member is None:
            raise InvalidGrantError("the account that approved this may not sign in any more")
        await self._stands(member, code.amr, code.expires_at - CODE_S)
        # Signed before the code is redeemed: a key that is out of reach must not cost the sign-in.
        access = await self._issue(member, client, plane, scope, asked_at=asked_at, by=code, jkt=jkt)
        refresh_token, family = self._refresh.begin(
            code.org, code.member, client.id, amr=code.amr, auth_time=code.auth_time, jkt=client.binds(jkt)
        )
        claims = self._signing.own_claims(access.text) or {}
        if not await self._codes.redeem(code, family, str(claims.get("jti", ""))):
            raise await self._reused(await self._codes.reused(code), caller)
        # A crash here leaves a family without an audit entry, whose token nobody has ever seen.
        await self._note("session.create", member, client.id, caller, {"grant": "authorization_code"})
        return _answer(access, scope, client, refresh_token)

    async def _reused(self, code: AuthorizationCode, caller: Caller) -> InvalidGrantError:
        """A code that comes back was copied: what it brought ends (RFC 6749 section 4.1.2)."""
        if code.family and await self._store.end_family(code.family, self._clock()):
            by = Actor(code.org, code.member, code.client, caller.request_id)
            store = self._control.for_org(code.org)
            if code.token_id:
                await store.revoke(
                    revoke_tokens(code.org, self._clock(), member=code.member, token=code.token_id), by
                )
            await store.note("session.revoke", code.member, by, {"reason": "authorization code reused"})
        return InvalidGrantError("the authorization code was used")

    async def device_code(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, Any]:
        device_code = _required(form, "device_code")
        grant = await self._devices.poll(device_code, client.id)
        plane = self._audiences.plane(client, form.get("resource", grant.resource))
        scope = scope_of(plane, form.get("scope", ""))
        jkt = await self._possession.binding(caller, grant.org)
        asked_at = await self.asked_at(grant.org, client)
        member = await self._accounts.member(grant.org, grant.member)
        if member is None:
            raise InvalidGrantError("the account that approved this may not sign in any more")
        await self._stands(member, grant.amr, self._devices.began(grant))
        # Signed before the code is redeemed: a key that is out of reach must not cost the sign-in.
        access = await self._issue(member, client, plane, scope, asked_at=asked_at, by=grant, jkt=jkt)
        refresh_token, family = self._refresh.begin(
            grant.org, grant.member, client.id, amr=grant.amr, auth_time=grant.auth_time, jkt=client.binds(jkt)
        )
        await self._devices.redeem(grant, family)
        # A crash here leaves a family without an audit entry, whose token nobody has ever seen.
        await self._note("session.create", member, client.id, caller, {"grant": "device_code"})
        return _answer(access, scope, client, refresh_token)

    async def refresh_token(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, Any]:
        token = _required(form, "refresh_token")
        # What the request asks for is judged first: a mistake in it must not use the token up.
        plane = self._audiences.plane(client, form.get("resource", ""))
        scope = scope_of(plane, form.get("scope", ""))
        family = await self._refresh.find(token)
        if family is None or family.client != client.id or family.created_at < client.since:
            raise InvalidGrantError("the refresh token is not valid, or its session has ended")
        jkt = await self._possession.binding(caller, family.org, family.jkt)
        asked_at = await self.asked_at(family.org, client)
        member = await self._accounts.member(family.org, family.member)
        if member is None:
            raise InvalidGrantError("the account of this session may not sign in any more")
        if lacking := await self._signin.lacks(member, parted(family.amr), family.created_at):
            await self._refresh.end(family)
            await self._note("session.revoke", member, client.id, caller, {"reason": f"{lacking} demanded"})
            raise InvalidGrantError(f"{lacking} is demanded of this account by now: sign in again")
        # Signed before the token is used up: a key that is out of reach must not end the session.
        access = await self._issue(member, client, plane, scope, asked_at=asked_at, by=family, jkt=jkt)
        try:
            successor = await self._refresh.rotate(token, family, client.binds(jkt))
        except ReusedError:
            await self._note("session.revoke", member, client.id, caller, {"reason": "refresh token reused"})
            successor = None
        if successor is None:
            raise InvalidGrantError("the refresh token is not valid, or its session has ended")
        return _answer(access, scope, client, successor)

    async def _stands(self, member: Member, amr: str, began: float) -> None:
        """A sign-in of before a demand gets no session of after it. Raises `InvalidGrantError`."""
        if lacking := await self._signin.lacks(member, parted(amr), began):
            raise InvalidGrantError(f"{lacking} is demanded of this account by now: sign in again")

    async def asked_at(self, org: OrgId, client: Client) -> float:
        """From when on a token asked for now may count, Unix seconds: at once, or where a revocation of the whole
        organization, or of this client, ends within this second. Called before the member is looked up: what is
        taken back after that takes back this token too. Raises `InvalidClientError` for a client that is gone."""
        now = self._clock()
        mine = [r for r in await self._control.revocations(floor(now)) if r.org == org and not r.token_id]
        if client.org:  # as it stands by now: one that was suspended since it authenticated gets nothing
            await self._registry.get(client.id)
        return max([now, *(r.not_before for r in mine if r.member in ("", client.id))])

    async def _issue(
        self,
        member: Member,
        client: Client,
        plane: Plane,
        scope: str,
        *,
        asked_at: float,
        by: AuthorizationCode | DeviceGrant | Family,
        jkt: str,
    ) -> AccessToken:
        """`by`: how the member signed in, and when; `jkt`: the key that it is bound to."""
        teams = await self._control.for_org(member.org).teams.of(member.id)
        audience = self._audiences.of(plane)
        return await self._access.issue(
            member,
            client.id,
            audience,
            scope,
            asked_at=asked_at,
            teams=teams,
            amr=parted(by.amr),
            auth_time=by.auth_time,
            jkt=jkt,
        )

    async def _note(
        self, action: str, member: Member, client: str, caller: Caller, detail: Mapping[str, str]
    ) -> None:
        by = Actor(member.org, member.id, client, caller.request_id)
        await self._control.for_org(member.org).note(action, member.id, by, detail)


def _answer(access: AccessToken, scope: str, client: Client, refresh_token: str) -> dict[str, Any]:
    """RFC 6749 section 5.1. A client that is not registered to refresh is given nothing to refresh with."""
    refresh = {"refresh_token": refresh_token} if GrantType.REFRESH_TOKEN in client.grant_types else {}
    return {
        "access_token": access.text,
        "token_type": access.kind,
        "expires_in": access.expires_in,
        **refresh,
        "scope": scope,
    }


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise InvalidRequestError(f"{name} is missing")
    return value

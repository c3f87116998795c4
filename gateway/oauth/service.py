"""The authorization server's front: one method an endpoint, one for each thing the admin API needs."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

from argon2 import PasswordHasher
from msgspec import Struct, structs

from gateway.oauth.account import OwnAccount
from gateway.oauth.accounts import Accounts, Invitation
from gateway.oauth.authorization import AuthorizationCodes, AuthorizationRequest, Return, refusal
from gateway.oauth.caller import Caller
from gateway.oauth.client_auth import ClientAuthentication
from gateway.oauth.clients import Audiences, Client, ClientRegistry, GrantType, Plane, scope_of
from gateway.oauth.device import DeviceFlow
from gateway.oauth.digests import KEY_BYTES, ServerKey
from gateway.oauth.dpop import Possession
from gateway.oauth.errors import (
    AccessDeniedError,
    InvalidRequestError,
    RotatedElsewhereError,
    UnsupportedGrantTypeError,
)
from gateway.oauth.exchange import TokenExchange
from gateway.oauth.factors import Factors
from gateway.oauth.grants import UserGrants
from gateway.oauth.introspection import Introspection
from gateway.oauth.metadata import GRANTS, metadata
from gateway.oauth.par import PushedRequests
from gateway.oauth.passwords import Passwords
from gateway.oauth.published import SigningKey
from gateway.oauth.refresh import RefreshTokens
from gateway.oauth.revocation import Revoker
from gateway.oauth.services import ServiceTokens
from gateway.oauth.sessions import LoginSessions
from gateway.oauth.signin import SignedIn, SignIn
from gateway.oauth.signing import KeyStore
from gateway.oauth.sso import Federation, SingleSignOn
from gateway.oauth.store import DeviceStatus, OAuthStore
from gateway.oauth.throttle import Counter, throttles
from gateway.oauth.ticket import Tickets
from gateway.oauth.tokens import AccessTokens, TokenSigner
from gateway.secret import Secret
from gateway.settings import Settings
from tenants.ids import PLATFORM, MemberId, OrgId
from tenants.models import Member
from tenants.store import Actor, ControlStore

log = logging.getLogger("orgate.oauth")

HMAC_NAME: Final = "oauth/hmac"
LOOK_S: Final = 3_600.0
SYSTEM: Final = Actor(org=PLATFORM, member="system")


class OAuthConfig(Struct, frozen=True, kw_only=True):
    """`issuer` is `settings.server.url`. Times in seconds; the defaults are those of the settings and RFC 8628."""

    issuer: str
    admin_url: str = ""
    access_s: int = 900
    refresh_s: int = 7 * 86_400
    reuse_grace_s: int = 10
    signing_s: int = 90 * 86_400
    device_interval_s: int = 5
    device_expires_s: int = 600

    @property
    def base(self) -> str:
        """What the endpoints' URLs begin with."""
        return self.issuer.rstrip("/")


class OAuthService:
    """Made by `open`. Forms are parameters by name, each at most once and none empty (RFC 6749 section 3.2).

    Errors of the methods that answer clients: `errors.OAuthError`, `tenants.store.StoreUnavailableError`.
    """

    def __init__(
        self,
        config: OAuthConfig,
        *,
        control: ControlStore,
        store: OAuthStore,
        signing: TokenSigner,
        key: ServerKey,
        clock: Callable[[], float],
        hasher: PasswordHasher | None = None,
        random: Callable[[int], bytes] = os.urandom,
        counter: Counter | None = None,
        federation: Federation | None = None,
    ) -> None:
        """`counter`: where attempts are counted for all nodes together; None: here. `federation`: what single
        sign-on needs; None: there is none."""
        throttle = throttles(clock, counter)
        self.config = config
        self.registry = ClientRegistry(control)
        self.signing = signing
        self._control = control
        self._store = store
        self._clock = clock
        self._audiences = Audiences(config.base)
        self._accounts = Accounts(
            store=store,
            control=control,
            passwords=Passwords(hasher),
            clock=clock,
            random=random,
            throttle=throttle,
            invitation_url=f"{config.base}/oauth/invitation",
        )
        self._devices = DeviceFlow(
            store=store,
            key=key,
            clock=clock,
            random=random,
            throttle=throttle,
            page_url=f"{config.base}/oauth/device",
            interval_s=config.device_interval_s,
            expires_s=config.device_expires_s,
        )
        self._codes = AuthorizationCodes(
            store=store,
            clock=clock,
            random=random,
            audiences=self._audiences,
            registry=self.registry,
            admin_url=config.admin_url,
        )
        self.par = PushedRequests(
            store.clients, self._codes, key=key, clock=clock, random=random, throttle=throttle
        )
        self.clients = ClientAuthentication(
            self.registry,
            store.clients,
            audiences=(config.issuer, f"{config.base}/oauth/token", f"{config.base}/oauth/par"),
            clock=clock,
            throttle=throttle,
        )
        self._refresh = RefreshTokens(
            store=store,
            key=key,
            clock=clock,
            random=random,
            lifetime_s=config.refresh_s,
            grace_s=config.reuse_grace_s,
        )
        self.factors = Factors(
            store=store,
            control=control,
            key=key,
            clock=clock,
            random=random,
            throttle=throttle,
            base=config.base,
        )
        self.signin = SignIn(self._accounts, Tickets(key, clock), self.factors, clock)
        self.sso: SingleSignOn | None = None
        if federation is not None:
            self.sso = SingleSignOn.of(
                federation, control, store, key=key, now=clock, random=random, throttle=throttle, base=config.base
            )
        self.possession = Possession(config.base, key, control, clock)
        access = AccessTokens(issuer=config.issuer, keys=signing, random=random, lifetime_s=config.access_s)
        self.grants = UserGrants(
            control=control,
            store=store,
            registry=self.registry,
            accounts=self._accounts,
            codes=self._codes,
            devices=self._devices,
            refresh=self._refresh,
            access=access,
            audiences=self._audiences,
            possession=self.possession,
            signin=self.signin,
            signing=signing,
            clock=clock,
        )
        self.services = ServiceTokens(control, access, self._audiences, self.possession, self.grants.asked_at)
        self.exchange = TokenExchange(
            control,
            self.services,
            federation.providers if federation else None,
            audiences=self._audiences,
            throttle=throttle,
        )
        self.introspection = Introspection(
            control,
            registry=self.registry,
            refresh=self._refresh,
            keys=signing,
            audiences=self._audiences,
            clock=clock,
        )
        self.sessions = LoginSessions(store.sessions, store.end_family, control, clock)
        self.account = OwnAccount(
            store=store,
            control=control,
            accounts=self._accounts,
            signin=self.signin,
            sessions=self.sessions,
            key=key,
            clock=clock,
            random=random,
        )
        self._revoker = Revoker(control, self._refresh, signing)

    @classmethod
    async def open(
        cls,
        *,
        settings: Settings,
        control: ControlStore,
        store: OAuthStore,
        secrets: KeyStore,
        signing: TokenSigner,
        clock: Callable[[], float],
        hasher: PasswordHasher | None = None,
        device_interval_s: int = 5,
        counter: Counter | None = None,
        federation: Federation | None = None,
    ) -> OAuthService:
        """Load the HMAC key, making it at the first start. Control process only; `clock` gives Unix seconds."""
        secret = await secrets.load(HMAC_NAME)
        if secret is None:
            # A crash before this returns leaves no key, and nothing that was made with it.
            secret = Secret(os.urandom(KEY_BYTES))
            await secrets.store(HMAC_NAME, secret)
        config = OAuthConfig(
            issuer=settings.server.url,
            admin_url=settings.server.admin_url,
            access_s=settings.tokens.access_s,
            refresh_s=settings.tokens.refresh_s,
            reuse_grace_s=settings.tokens.reuse_grace_s,
            signing_s=settings.tokens.signing_key_s,
            device_interval_s=device_interval_s,
        )
        key = ServerKey(secret)
        return cls(
            config,
            control=control,
            store=store,
            signing=signing,
            key=key,
            clock=clock,
            hasher=hasher,
            counter=counter,
            federation=federation,
        )

    def metadata(self) -> dict[str, Any]:
        """RFC 8414 section 2."""
        return metadata(self.config.issuer, self.config.admin_url)

    def jwks_json(self) -> str:
        """RFC 7517; also what the snapshot carries to the workers."""
        return self.signing.jwks_json()

    def signing_keys(self) -> tuple[SigningKey, ...]:
        """The keys that sign access tokens, the current one first."""
        return self.signing.facts()

    async def rotate_signing(self, by: Actor) -> tuple[SigningKey, ...]:
        """Sign with the next key from now on. Raises what `TokenSigner.rotate` raises."""
        await self.signing.rotate()
        # A crash here leaves a rotation without an entry: the keys themselves say when it was.
        kid = self.signing.facts()[0].kid
        await self._control.for_org(PLATFORM).note("signing_key.rotate", kid, by, {})
        return self.signing.facts()

    async def keep_rotated(self) -> None:
        """Rotate the signing key when it is `signing_s` old, until cancelled. Keys kept elsewhere are not ours to
        rotate."""
        while True:
            due = self.signing.facts()[0].since + self.config.signing_s - self._clock()
            if due > 0:
                await asyncio.sleep(min(due, LOOK_S))
                continue
            try:
                await self.rotate_signing(SYSTEM)
            except RotatedElsewhereError:
                return
            except Exception as error:  # noqa: BLE001  # the store of secrets has kinds of its own; said, tried again
                log.warning("the signing key is %d s overdue and was not rotated: %s", -due, error)
                await asyncio.sleep(LOOK_S)

    def audience(self, plane: Plane) -> str:
        return self._audiences.of(plane)

    async def device_authorization(
        self, form: Mapping[str, str], caller: Caller, client: Client | None = None
    ) -> dict[str, Any]:
        """RFC 8628 section 3.1. `client`: who asks, where that has been found out."""
        client = client or await self.clients.client(form, caller)
        client.require(GrantType.DEVICE_CODE)
        resource, scope = form.get("resource", ""), form.get("scope", "")
        scope_of(self._audiences.plane(client, resource), scope)
        return structs.asdict(await self._devices.start(client.id, resource, scope, caller))

    async def decide_device(self, form: Mapping[str, str], caller: Caller) -> str:
        """The verification page's form: sign in and say yes or no. Returns `approved` or `denied`."""
        action = form.get("action", "")
        if action not in {"approve", "deny"}:
            raise InvalidRequestError("action is approve or deny")
        code = _required(form, "user_code")
        who = await self.signin.at_once(form, caller)
        return await self.decide_device_for(who, code, caller, approve=action == "approve")

    async def ask_device(self, user_code: str, who: SignedIn) -> Client:
        """The client that waits with `user_code` for `who`, who has just signed in."""
        return await self.registry.get((await self._devices.asked(user_code, who.member)).client)

    async def decide_device_for(self, who: SignedIn, user_code: str, caller: Caller, *, approve: bool) -> str:
        """`who` has seen who asks, and says yes or no. Returns `approved` or `denied`."""
        decided = await self._devices.decide(user_code, who, approve=approve)
        if decided.status is DeviceStatus.DENIED:
            detail = {"reason": "denied by the member"}
            await self._note("session.refuse", who.member, decided.client, caller, detail)
        return decided.status.value

    def device_digest(self, user_code: str) -> str:
        """What a ticket of the verification page is about."""
        return self._devices.digest_of(user_code)

    async def accept_invitation(self, form: Mapping[str, str], caller: Caller) -> str:
        """The invitation page's form. Returns `accepted`."""
        org, email, code, password, again = (
            _required(form, name) for name in ("org", "email", "code", "password", "password_again")
        )
        await self._accounts.accept(org, email, code, password=password, again=again, caller=caller)
        return "accepted"

    async def token(self, form: Mapping[str, str], caller: Caller, client: Client | None = None) -> dict[str, Any]:
        """RFC 6749 section 3.2, for GRANTS. `client`: who asks, where it has authenticated or is our own."""
        client = client or await self.clients.client(form, caller)
        grant = _required(form, "grant_type")
        if grant not in GRANTS:
            raise UnsupportedGrantTypeError(f"grant_type is one of: {', '.join(GRANTS)}")
        client.require(GrantType(grant))
        caller = structs.replace(self.possession.proven(caller), inside=client.own)
        if grant == GrantType.AUTHORIZATION_CODE:
            return await self.grants.authorization_code(form, client, caller)
        if grant == GrantType.DEVICE_CODE:
            return await self.grants.device_code(form, client, caller)
        if grant == GrantType.CLIENT_CREDENTIALS:
            return await self.services.client_credentials(form, client, caller)
        if grant == GrantType.TOKEN_EXCHANGE:
            return await self.exchange.exchange(form, client, caller)
        return await self.grants.refresh_token(form, client, caller)

    async def revoke(self, form: Mapping[str, str], caller: Caller, client: Client | None = None) -> None:
        """RFC 7009 section 2.1. `token_type_hint` is not needed: the kinds look different. `client` as above."""
        client = client or await self.clients.client(form, caller)
        await self._revoker.revoke(_required(form, "token"), client, caller)

    async def lives(self, refresh_token: str) -> bool:
        """Whether the family of `refresh_token` has neither ended nor expired."""
        return await self._refresh.find(refresh_token) is not None

    async def invite(self, org: OrgId, member_id: MemberId) -> Invitation:
        """A new invitation, any earlier one of this member void. Raises `tenants.store.NotFoundError`."""
        return await self._accounts.invite(org, member_id)

    async def uninvite(self, org: OrgId, member_id: MemberId) -> None:
        """Void a member's unused invitation, if there is one."""
        await self._store.uninvite(org, member_id)

    async def end_sessions(self, org: OrgId, member_id: MemberId) -> int:
        """End every refresh family of a member, sign-ins about to complete included. Returns how many.

        Access tokens are another matter: `OrgStore.revoke` takes those back.
        """
        return await self._store.end_families(org, member_id, self._clock())

    async def end_org(self, org: OrgId) -> int:
        """The same of everybody in an organization, invitations included."""
        return await self.sessions.end_org(org)

    async def drop_member(self, org: OrgId, member_id: MemberId) -> None:
        """Forget a deleted member: password, invitation, grants and families."""
        await self._store.drop_member(org, member_id)
        await self.factors.reset(org, member_id)

    async def end_client(self, client_id: str) -> int:
        """End every refresh family that was begun with a client, sign-ins about to complete included; how many."""
        return await self._store.clients.end_client(client_id, self._clock())

    async def authorization(self, form: Mapping[str, str]) -> Return:
        """Where an authorization request (RFC 6749 section 4.1.1) wants its answer. What this raises is shown to
        the person and never redirected."""
        return await self._codes.back(form)

    def authorization_request(self, back: Return, form: Mapping[str, str]) -> AuthorizationRequest:
        """The rest of it. What this raises goes back to the client: `authorization.refusal`."""
        self.par.judge(form, back.client)
        return self._codes.checked(back, form)

    async def authorize(self, request: AuthorizationRequest, form: Mapping[str, str], caller: Caller) -> str:
        """The sign-in page's form, all at once: sign in and say yes or no. Returns the URL to go on to. A person
        who cannot sign in stays at the page: raises `OAuthError`."""
        action = form.get("action", "")
        if action not in {"approve", "deny"}:
            raise InvalidRequestError("action is approve or deny")
        back = request.back
        if action == "deny":
            return refusal(back, self.config.issuer, AccessDeniedError("the sign-in was refused"))
        return await self.authorize_for(await self.signin.at_once(form, caller), request)

    async def authorize_for(self, who: SignedIn, request: AuthorizationRequest) -> str:
        """The URL to go on to, once `who` has said yes."""
        return request.back.to(self.config.issuer, code=await self._codes.grant(request, who))

    async def _note(
        self, action: str, member: Member, client: str, caller: Caller, detail: Mapping[str, str]
    ) -> None:
        by = Actor(member.org, member.id, client, caller.request_id)
        await self._control.for_org(member.org).note(action, member.id, by, detail)


def _required(form: Mapping[str, str], name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise InvalidRequestError(f"{name} is missing")
    return value

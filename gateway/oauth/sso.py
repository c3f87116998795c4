"""Single sign-on: to the organization's own provider and back, OpenID Connect with code, PKCE, nonce and state.

Nothing is stored for somebody who sets out. Where they were is in a cookie of their browser, under the server's
key and for ten minutes; PKCE's verifier and the nonce are made from the state by the same key. What is stored is
that a state was used, so that no answer counts twice. Each organization has a redirect URI of its own: an answer
of one organization's provider that is brought to another's is refused before its code is sent anywhere (mix-up,
RFC 9700 section 4.4), whether or not providers say `iss` (RFC 9207).
"""

from __future__ import annotations

import asyncio
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256 as digest_of
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

from msgspec import DecodeError, Struct, json

from gateway.oauth.caller import Caller
from gateway.oauth.digests import ServerKey, sha256
from gateway.oauth.errors import (
    InvalidRequestError,
    OAuthError,
    TemporarilyUnavailableError,
    TooManyAttemptsError,
)
from gateway.oauth.provider import Issuer, Metadata, ProviderDownError, ProviderError, Providers
from gateway.oauth.signin import FEDERATED, SignedIn
from gateway.oauth.sso_identity import Exchange, Identity, IdentityError
from gateway.oauth.sso_members import CLIENT, Admission, ShutOut
from gateway.oauth.store import OAuthStore
from gateway.oauth.throttle import Throttles
from gateway.secret import Secret
from tenants.idp import IdentityProvider
from tenants.ids import InvalidIdError, OrgId
from tenants.ids import org_id as parse_org
from tenants.models import Member, State
from tenants.store import Actor, ControlStore, NotFoundError

NOBODY: Final = "anonymous"
"""Who asks, and whom it is about, while no account is known."""

FLOW_S: Final = 600.0
"""A person finds their second factor within ten minutes, or begins again."""

CALLBACK: Final = "/oauth/sso/callback"
COOKIE: Final = "__Host-orgate_sso_"
"""And the first letters of the state: two tabs may be on their way."""

MAX_COOKIE: Final = 3_600
"""Bytes: browsers keep 4,096 with the name and attributes."""

STARTS_PER_ADDRESS: Final = 500
"""In ten minutes: a company behind one address signs in on a Monday morning."""

STRANGERS_NOTED: Final = 60
"""Refusals about nobody known that an organization's log takes in ten minutes. Anybody can bring them about, from
as many addresses as they have; one that is about an account is always noted."""

PERIOD_S: Final = 600.0
_STATE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_TAG: Final = 32
_HINT: Final = 254
_USED: Final = "._sso"

_ANSWERS: Final[Mapping[str, str]] = {
    "access_denied": "the provider refused the sign-in",
    "login_required": "the provider wants you to sign in there first",
    "interaction_required": "the provider wants something of you first: sign in there, and try again",
    "consent_required": "the provider wants your consent, or an admin's, to let Orgate know who you are",
    "account_selection_required": "the provider wants you to choose an account there first",
    "invalid_request": "the provider finds Orgate's request malformed",
    "unauthorized_client": "the provider does not let this client sign people in",
    "unsupported_response_type": "the provider gives no authorization codes",
    "invalid_scope": "the provider does not know one of the scopes that are asked for",
    "server_error": "the provider failed; try again",
    "temporarily_unavailable": "the provider is not available now; try again",
    "unmet_authentication_requirements": "the provider could not sign you in as strongly as your roles ask",
}
"""RFC 6749 section 4.1.2.1 and OpenID Connect Core 1.0 section 3.1.2.6. What a provider says beside is not shown:
anybody can write it into a link."""


class SsoRefusedError(OAuthError):
    """Nobody was signed in."""

    code = "access_denied"
    status = 403


class SsoDownError(OAuthError):
    """The provider cannot be used now, or not as it is set."""

    code = "temporarily_unavailable"
    status = 503


class Flow(Struct, frozen=True, array_like=True):
    """Where somebody set out from. `hidden`: what that page's forms carry. `until`: Unix seconds."""

    state: str
    org: OrgId
    version: int
    path: str
    hidden: dict[str, str]
    until: float


class Begun(Struct, frozen=True):
    """Where to send the browser (`url`, of `host`), and the cookie that it has to bring back."""

    url: str
    host: str
    cookie: str
    value: str


class UsedStates(Protocol):
    """`requests.ClientRequests.use`."""

    async def use(self, client: str, digest: str, expires_at: float, now: float) -> bool: ...


Secrets = Callable[[IdentityProvider], Awaitable[Secret | None]]
"""The client secret of a provider, None for a public client. Raises `ProviderError` when it cannot be read."""


class Federation(Struct, frozen=True):
    """What single sign-on needs of the rest of the control process: see `SingleSignOn` and `Admission`."""

    providers: Providers
    secret: Secrets
    turn: asyncio.Lock
    shut_out: ShutOut


class SingleSignOn:
    """One loop's. `now`: Unix seconds. `base`: what the gateway's own URLs begin with."""

    def __init__(
        self,
        *,
        control: ControlStore,
        providers: Providers,
        secret: Secrets,
        admission: Admission,
        used: UsedStates,
        key: ServerKey,
        now: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
        base: str,
    ) -> None:
        self._control = control
        self._providers = providers
        self._secret = secret
        self._admission = admission
        self._used = used
        self._key = key
        self._now = now
        self._random = random
        self._base = base
        self._exchange = Exchange(providers, now)
        self._starts = throttle("sso-starts", STARTS_PER_ADDRESS, PERIOD_S)
        self._strangers = throttle("sso-strangers", STRANGERS_NOTED, PERIOD_S)

    @classmethod
    def of(
        cls,
        federation: Federation,
        control: ControlStore,
        store: OAuthStore,
        *,
        key: ServerKey,
        now: Callable[[], float],
        random: Callable[[int], bytes],
        throttle: Throttles,
        base: str,
    ) -> SingleSignOn:
        """With `store`'s memory of what was used, and its invitations."""
        admission = Admission(control, turn=federation.turn, shut_out=federation.shut_out, uninvite=store.uninvite)
        return cls(
            control=control,
            providers=federation.providers,
            secret=federation.secret,
            admission=admission,
            used=store.clients,
            key=key,
            now=now,
            random=random,
            throttle=throttle,
            base=base,
        )

    def redirect_uri(self, org: OrgId) -> str:
        return callback_of(self._base, org)

    async def only(self, org: str) -> bool:
        """Whether passwords are closed there: whoever names this organization may be sent on at once."""
        provider = await self._provider(org)
        return provider is not None and provider.only

    async def begin(self, org: str, path: str, hidden: Mapping[str, str], hint: str, caller: Caller) -> Begun:
        """To the provider of `org`, from the page at `path` whose forms carry `hidden`. `hint`: the address that
        was typed, '' for none. Raises `OAuthError`; an organization that does not exist has no single sign-on."""
        await self._starts.check(caller.address)
        await self._starts.charge(caller.address)
        provider = await self._provider(org)
        if provider is None:
            raise SsoRefusedError("this organization has no single sign-on: sign in with your e-mail and password")
        try:
            metadata = await self._providers.metadata(_issuer(provider))
        except ProviderError as error:
            raise SsoDownError(f"single sign-on does not work now: {error}") from None
        if not metadata.authorization_endpoint:
            raise SsoDownError("single sign-on does not work now: the provider names no authorization_endpoint")
        state = _text(self._random(32))
        flow = Flow(state, provider.org, provider.version, path, dict(hidden), self._now() + FLOW_S)
        value = self._seal(flow)
        if len(value) > MAX_COOKIE:
            raise InvalidRequestError("the request that led here is too long for single sign-on")
        url = self._authorization_url(provider, metadata, state, hint)
        return Begun(url, urlsplit(url).netloc, COOKIE + state[:8], value)

    def flow(self, query: Mapping[str, str], cookies: Mapping[str, str]) -> Flow:
        """What this browser set out for, of which `query` is the answer. Raises `InvalidRequestError`."""
        state = query.get("state", "")
        value = cookies.get(COOKIE + state[:8], "") if _STATE.fullmatch(state) else ""
        flow = self._open(value)
        if flow is None or not hmac.compare_digest(flow.state.encode(), state.encode()):
            raise InvalidRequestError("this sign-in was not begun in this browser, or too long ago; begin again")
        return flow

    async def finish(self, flow: Flow, org: str, query: Mapping[str, str], caller: Caller) -> SignedIn:
        """Who came back to the redirect URI of `org`, with the answer `query`. Raises `OAuthError`; each refusal
        is in the organization's audit log, but for `STRANGERS_NOTED`."""
        if not await self._used.use(flow.org + _USED, sha256(flow.state), flow.until, self._now()):
            raise InvalidRequestError("this sign-in has come to its end already; begin again")
        provider = await self._provider(flow.org)
        if provider is None or provider.version != flow.version:
            raise SsoRefusedError("your organization's single sign-on was changed meanwhile; begin again")
        try:
            identity = await self._identity(provider, flow, org, query)
            member = await self._admission.admit(provider, identity, caller)
        except IdentityError as error:
            await self._refuse(flow.org, error.reason, caller, error.member or NOBODY)
            raise SsoRefusedError(str(error)) from None
        except ProviderError as error:
            down = isinstance(error, ProviderDownError)
            await self._refuse(flow.org, "provider down" if down else "provider wrong", caller)
            raise SsoDownError(f"single sign-on does not work now: {error}") from None
        except NotFoundError:  # deleted in this moment
            raise SsoRefusedError("your account here was deleted; ask an admin of your organization") from None
        return self._signed_in(member, identity)

    async def _identity(
        self, provider: IdentityProvider, flow: Flow, org: str, query: Mapping[str, str]
    ) -> Identity:
        if org != flow.org:
            raise IdentityError("mix-up", "this answer came to another organization's address than was asked at")
        metadata = await self._providers.metadata(_issuer(provider))
        if (metadata.says_iss or "iss" in query) and query.get(
            "iss", ""
        ) != provider.issuer:  # RFC 9207 section 2.4
            raise IdentityError("mix-up", "this answer is not from your organization's provider")
        if "error" in query:
            code = query["error"]
            known = code in _ANSWERS
            text = _ANSWERS.get(code, "the provider refused the sign-in")
            raise IdentityError(f"provider: {code}" if known else "provider: error", text)
        if not query.get("code"):
            raise IdentityError("no code", "the provider's answer has no code")
        return await self._exchange.identity(
            provider,
            await self._secret(provider),
            code=query["code"],
            redirect_uri=self.redirect_uri(provider.org),
            verifier=self._made(b"sso verifier", flow.state),
            nonce=self._made(b"sso nonce", flow.state),
        )

    def _authorization_url(self, provider: IdentityProvider, metadata: Metadata, state: str, hint: str) -> str:
        """OpenID Connect Core 1.0 section 3.1.2.1."""
        challenge = _text(digest_of(self._made(b"sso verifier", state).encode()).digest())
        demanded = dict.fromkeys(acr for demand in provider.demands for acr in demand.acr)
        asked = {
            "response_type": "code",
            "client_id": provider.client_id,
            "redirect_uri": self.redirect_uri(provider.org),
            "scope": " ".join(provider.scopes),
            "state": state,
            "nonce": self._made(b"sso nonce", state),
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        if demanded:
            asked["acr_values"] = " ".join(demanded)
        if 0 < len(hint) <= _HINT and hint.isprintable():
            asked["login_hint"] = hint
        endpoint = metadata.authorization_endpoint
        return endpoint + ("&" if urlsplit(endpoint).query else "?") + urlencode(asked)

    async def _provider(self, org: str) -> IdentityProvider | None:
        """That of an organization which exists and is active."""
        try:
            found = await self._control.orgs.get(parse_org(org.strip()))
        except (InvalidIdError, NotFoundError):
            return None
        return await self._control.for_org(found.id).idp.get() if found.state is State.ACTIVE else None

    async def _refuse(self, org: OrgId, reason: str, caller: Caller, about: str = NOBODY) -> None:
        if about == NOBODY:
            try:
                await self._strangers.check(org)
                await self._strangers.charge(org)
            except TooManyAttemptsError:
                return  # the person is told all the same
            except TemporarilyUnavailableError:
                pass  # noted: where nothing is counted nobody can set out, and few are on their way
        by = Actor(org=org, member=NOBODY, client=CLIENT, request_id=caller.request_id)
        await self._control.for_org(org).note("session.refuse", about, by, {"reason": f"sso: {reason}"})

    def _signed_in(self, member: Member, identity: Identity) -> SignedIn:
        methods = tuple(word for word in identity.amr if word != FEDERATED)
        return SignedIn(member, (FEDERATED, *methods), identity.auth_time or int(self._now()))

    def _made(self, label: bytes, state: str) -> str:
        return _text(self._key.mac(label, state.encode()))

    def _seal(self, flow: Flow) -> str:
        body = json.encode(flow)
        return _text(self._key.mac(b"sso flow", body) + body)

    def _open(self, value: str) -> Flow | None:
        try:
            raw = urlsafe_b64decode(value + "=" * (-len(value) % 4))
        except (Base64Error, ValueError):
            return None
        tag, body = raw[:_TAG], raw[_TAG:]
        if not hmac.compare_digest(tag, self._key.mac(b"sso flow", body)):
            return None
        try:
            flow = json.decode(body, type=Flow)
        except DecodeError:  # an earlier version's
            return None
        return flow if self._now() < flow.until else None


def callback_of(base: str, org: OrgId) -> str:
    """The redirect URI of an organization: what is registered at its provider."""
    return f"{base}{CALLBACK}/{org}"


def _issuer(provider: IdentityProvider) -> Issuer:
    return Issuer(provider.org, provider.issuer, provider.ca_pem)


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()

"""Authorization code with PKCE: RFC 6749 section 4.1 as OAuth 2.1 narrows it, RFC 7636, RFC 8252, RFC 9207.

Only S256, only `response_type=code`, only redirect URIs that match exactly (a loopback one on any port). A code
lives for a minute and is used once; one that comes back kills what it brought.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from hashlib import sha256 as digest_of
from typing import Final
from urllib.parse import urlencode, urlsplit

from msgspec import Struct

from gateway.dpop import JKT
from gateway.oauth.clients import UNKNOWN, Audiences, Client, ClientRegistry, GrantType, scope_of
from gateway.oauth.digests import sha256
from gateway.oauth.errors import (
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    OAuthError,
    UnsupportedResponseTypeError,
)
from gateway.oauth.signin import SignedIn, joined
from gateway.oauth.store import AuthorizationCode, Family, OAuthStore

CODE_S: Final = 60.0
"""RFC 6749 section 4.1.2 allows ten minutes; a browser that is sent on needs a moment."""

MAX_STATE: Final = 1_024
PUSHED: Final = "pushed"
"""The mark of a request that was pushed: `gateway.oauth.par`."""

PARAMETERS: Final = (
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "resource",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    PUSHED,
)
"""What of an authorization request goes through the sign-in page."""

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1"})


class Return(Struct, frozen=True):
    """Where an authorization request wants its answer: checked, so that something may be sent there."""

    client: Client
    redirect_uri: str
    state: str

    def to(self, issuer: str, **answer: str) -> str:
        """The URL to send the browser to. It names the issuer, against mix-up (RFC 9207)."""
        joint = "&" if urlsplit(self.redirect_uri).query else "?"
        state = {"state": self.state} if self.state else {}
        return self.redirect_uri + joint + urlencode({**answer, **state, "iss": issuer})

    @property
    def origin(self) -> str:
        """As a content security policy names it: a scheme alone where nothing but that is known."""
        parts = urlsplit(self.redirect_uri)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else f"{parts.scheme}:"


class AuthorizationRequest(Struct, frozen=True):
    """A request that a person may say yes to. `jkt`: the key that its code is for (RFC 9449 section 10)."""

    back: Return
    resource: str
    scope: str
    challenge: str
    jkt: str = ""


class AuthorizationCodes:
    def __init__(
        self,
        *,
        store: OAuthStore,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        audiences: Audiences,
        registry: ClientRegistry,
        admin_url: str = "",
    ) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._random = random
        self._audiences = audiences
        self._admin_url = admin_url

    async def back(self, form: Mapping[str, str]) -> Return:
        """Who asks and where the answer goes. What this refuses must not be redirected (RFC 6749 section 4.1.2.1):
        raises `InvalidClientError`, `InvalidRequestError`."""
        client = await self._registry.get(form.get("client_id", ""))
        uri = form.get("redirect_uri", "")
        if not any(_matches(registered, uri, self._admin_url) for registered in client.redirect_uris):
            raise InvalidRequestError("redirect_uri is missing or not registered for this client")
        state = form.get("state", "")
        if len(state) > MAX_STATE or not state.isascii() or not state.isprintable():
            # Not sent back: whatever it is, it is not what a client made to recognise its own request.
            raise InvalidRequestError(f"state is at most {MAX_STATE} printable ASCII characters")
        return Return(client, uri, state)

    def checked(self, back: Return, form: Mapping[str, str]) -> AuthorizationRequest:
        """The rest of the request. What this refuses is redirected: raises `OAuthError`."""
        back.client.require(GrantType.AUTHORIZATION_CODE)
        if form.get("response_type", "") != "code":
            raise UnsupportedResponseTypeError("response_type is code")
        if form.get("code_challenge_method", "") != "S256":  # left out it would be `plain`: refused too
            raise InvalidRequestError("code_challenge_method is S256")
        challenge = form.get("code_challenge", "")
        if not _CHALLENGE.fullmatch(challenge):
            raise InvalidRequestError("code_challenge is the base64url of a SHA-256 (RFC 7636)")
        if form.get("response_mode", "query") != "query":
            raise InvalidRequestError("response_mode is query")
        if "request" in form or "request_uri" in form:
            raise InvalidRequestError("request objects are not supported")
        jkt = form.get("dpop_jkt", "")
        if jkt and not JKT.fullmatch(jkt):
            raise InvalidRequestError("dpop_jkt is the base64url of a key's SHA-256 (RFC 9449)")
        plane = self._audiences.plane(back.client, form.get("resource", ""))
        return AuthorizationRequest(
            back, self._audiences.of(plane), scope_of(plane, form.get("scope", "")), challenge, jkt
        )

    async def grant(self, request: AuthorizationRequest, who: SignedIn) -> str:
        """A code for `who`, who has just signed in and said yes. Raises `InvalidClientError` when the client is
        another organization's: in the words for one that does not exist."""
        member = who.member
        if not request.back.client.lets_in(member.org):
            raise InvalidClientError(UNKNOWN)
        code = "ogc_" + urlsafe_b64encode(self._random(32)).rstrip(b"=").decode()
        now = self._clock()
        made = AuthorizationCode(
            digest=sha256(code),
            client=request.back.client.id,
            redirect_uri=request.back.redirect_uri,
            resource=request.resource,
            scope=request.scope,
            challenge=request.challenge,
            jkt=request.jkt,
            org=member.org,
            member=member.id,
            expires_at=now + CODE_S,
            amr=joined(who.amr),
            auth_time=who.auth_time,
        )
        await self._store.add_code(made, now)
        return code

    async def find(self, form: Mapping[str, str], client: Client) -> AuthorizationCode:
        """The code that a token request brings, whoever brings it twice included: the caller looks at `family`.
        Raises `InvalidGrantError`, `InvalidRequestError`.

        A wrong verifier does not use the code up: whoever stole the code alone must not be able to end it.
        """
        verifier = form.get("code_verifier", "")
        if not _VERIFIER.fullmatch(verifier):
            raise InvalidRequestError("code_verifier is 43 to 128 unreserved characters (RFC 7636)")
        code = await self._store.code(sha256(form.get("code", "")))
        if code is None or code.client != client.id:
            raise InvalidGrantError("the authorization code is unknown")
        if form.get("redirect_uri", "") != code.redirect_uri:
            raise InvalidGrantError("redirect_uri is not the one of the authorization request")
        challenge = urlsafe_b64encode(digest_of(verifier.encode()).digest()).rstrip(b"=").decode()
        if not hmac.compare_digest(challenge, code.challenge):
            raise InvalidGrantError("code_verifier does not match the code_challenge")
        if not code.family and self._clock() >= code.expires_at:
            raise InvalidGrantError("the authorization code has expired")
        return code

    async def redeem(self, code: AuthorizationCode, family: Family, token_id: str) -> bool:
        """Use it: of concurrent requests one begins the family."""
        return await self._store.redeem_code(code.digest, family, token_id)

    async def reused(self, code: AuthorizationCode) -> AuthorizationCode:
        """The code as it is stored now, once somebody else has used it."""
        return await self._store.code(code.digest) or code


def refusal(back: Return, issuer: str, error: OAuthError) -> str:
    """The URL that tells a client why not (RFC 6749 section 4.1.2.1)."""
    return back.to(issuer, error=error.code, error_description=error.description)


def _matches(registered: str, uri: str, admin_url: str) -> bool:
    """Exactly; a loopback address with any port (RFC 8252 section 7.3)."""
    if registered.startswith("/"):
        return bool(admin_url) and uri == admin_url + registered
    if uri == registered:
        return True
    try:
        known, given = urlsplit(registered), urlsplit(uri)
        port = given.port
    except ValueError:
        return False
    if known.scheme != "http" or known.hostname not in _LOOPBACK or not port:
        return False
    host = f"[{known.hostname}]" if ":" in known.hostname else known.hostname
    query = f"?{known.query}" if known.query else ""
    return uri == f"{known.scheme}://{host}:{port}{known.path}{query}"

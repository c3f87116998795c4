"""Outside issuers of tokens: their discovery documents and keys, asked for seldom and kept for a while.

OpenID Connect Discovery 1.0, RFC 8414, RFC 7517. Whoever sets an issuer is not trusted, and neither is what it
answers: what `Ask` fetches is bounded in size and time, follows no redirect and goes to no private address.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from gateway.clock import Clock
from gateway.oauth.provider_jwt import (
    KeySet,
    OutsideTokenError,
    UnknownKeyError,
    check_claims,
    parse_keys,
    verified,
)
from gateway.secret import Secret
from tenants.idp import provider_url_fault
from tenants.ids import OrgId

ASK_S: Final = 5.0
"""For one question, name and TLS included."""

DOCUMENT_S: Final = 3_600.0
KEYS_S: Final = 600.0
"""How long a document, and keys, are taken as they are."""

STALE_S: Final = 1_800.0
"""So much longer while the provider cannot be reached."""

ROLLED_S: Final = 30.0
"""A token with an unknown key has keys fetched anew, once in so long: tokens are made up faster than that."""

AGAIN_S: Final = 5.0
"""A provider that failed is left alone for so long."""

MAX_DOCUMENT: Final = 64 * 1024
MAX_KEYS: Final = 256 * 1024
MAX_KEPT: Final = 1_024
WELL_KNOWN: Final = "/.well-known/openid-configuration"

T = TypeVar("T")


class ProviderError(Exception):
    """The provider cannot be used. Says why in words that may be shown and logged: none of them is a secret, and
    none the provider's."""


class ProviderDownError(ProviderError):
    """It cannot be reached, is slow, or says that it is not well: what was fetched before is used on."""


class Question(Struct, frozen=True):
    """One request: a POST of `body` (a form), else a GET. `ca_pem`: the provider's own CA, else the system's."""

    org: OrgId
    url: str
    ca_pem: str = ""
    body: Secret | None = None
    authorization: Secret | None = None
    limit: int = MAX_DOCUMENT


class Answer(Struct, frozen=True):
    status: int
    body: bytes


class Ask(Protocol):
    """`gateway.outside.Outside`."""

    async def __call__(self, question: Question) -> Answer:
        """Whatever status it has. Raises `ProviderError`, at the latest after `ASK_S`; for what is larger than
        `limit` too."""


class Issuer(Struct, frozen=True):
    """An issuer as one organization names it: what is kept of it is kept for this organization."""

    org: OrgId
    url: str
    ca_pem: str = ""


class Metadata(Struct, frozen=True):
    """What of a discovery document is used. Endpoints are '' where it names none."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    userinfo_endpoint: str = ""
    response_types: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    challenge_methods: tuple[str, ...] = ()
    token_auth_methods: tuple[str, ...] = ("client_secret_basic",)
    algorithms: tuple[str, ...] = ()
    says_iss: bool = False


@dataclass(slots=True)
class _Kept(Generic[T]):
    """Times are monotonic seconds. One task fetches, the others wait for it."""

    value: T | None = None
    at: float = -math.inf
    failure: ProviderError | None = None
    failed_at: float = -math.inf
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class Providers:
    """One loop's. Nothing is on disk: after a restart everything is fetched anew."""

    def __init__(self, ask: Ask, clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._documents: OrderedDict[Issuer, _Kept[Metadata]] = OrderedDict()
        self._keys: OrderedDict[Issuer, _Kept[KeySet]] = OrderedDict()

    async def metadata(self, issuer: Issuer) -> Metadata:
        """The discovery document of `issuer`, which names that issuer to the letter. Raises `ProviderError`."""

        async def fetch() -> Metadata:
            return await self._discover(issuer)

        return await self._get(_slot(self._documents, issuer), fetch, DOCUMENT_S)

    async def keys(self, issuer: Issuer, *, newer: bool = False) -> KeySet:
        """Its keys. `newer`: those known do not do, so fetch them unless that was within `ROLLED_S`. Raises
        `ProviderError`."""

        async def fetch() -> KeySet:
            uri = (await self.metadata(issuer)).jwks_uri
            try:
                return parse_keys(await self._fetched(issuer, uri, "the key set (jwks_uri)", MAX_KEYS))
            except OutsideTokenError as error:
                raise ProviderError(str(error)) from None

        return await self._get(_slot(self._keys, issuer), fetch, ROLLED_S if newer else KEYS_S)

    async def verify(self, token: str, issuer: Issuer, audience: str, *, leeway_s: float = 60.0) -> dict[str, Any]:
        """The claims of a JWT that `issuer` signed for `audience` and that counts now: signature, `iss`, `aud`,
        `exp`, `nbf`, `iat`, `sub`. What else it says is the caller's to judge.

        Raises `OutsideTokenError` for the token, `ProviderError` where it cannot be judged.
        """
        try:
            claims = verified(token, await self.keys(issuer))
        except UnknownKeyError:  # they have rolled their keys
            claims = verified(token, await self.keys(issuer, newer=True))
        check_claims(claims, issuer.url, audience, self._clock.now(), leeway_s)
        return claims

    async def ask(self, question: Question) -> Answer:
        """Any other request to a provider, by the same rules. Raises `ProviderError`."""
        return await self._ask(question)

    def forget(self, issuer: Issuer) -> None:
        """Fetch everything anew the next time: somebody is looking whether it works now."""
        self._documents.pop(issuer, None)
        self._keys.pop(issuer, None)

    async def _get(self, kept: _Kept[T], fetch: Callable[[], Awaitable[T]], fresh_s: float) -> T:
        value = kept.value
        if value is not None and self._now() - kept.at < fresh_s:
            return value
        async with kept.turn:
            value, now = kept.value, self._now()
            if value is not None and now - kept.at < fresh_s:
                return value  # somebody else has fetched it meanwhile
            if kept.failure is None or now - kept.failed_at >= AGAIN_S:
                try:
                    kept.value = await fetch()
                except ProviderError as error:
                    kept.failure, kept.failed_at = error, self._now()
                else:
                    kept.at, kept.failure = self._now(), None
                    return kept.value
            # One that lies is not believed for what it said before; one that is away may be.
            down, usable = isinstance(kept.failure, ProviderDownError), max(fresh_s, KEYS_S) + STALE_S
            if value is None or not down or now - kept.at >= usable:
                raise type(kept.failure)(str(kept.failure))
            return value

    async def _discover(self, issuer: Issuer) -> Metadata:
        if wrong := provider_url_fault(issuer.url):
            raise ProviderError(f"the issuer {wrong}")
        url = issuer.url.rstrip("/") + WELL_KNOWN
        return _metadata(await self._fetched(issuer, url, "the discovery document", MAX_DOCUMENT), issuer.url)

    async def _fetched(self, issuer: Issuer, url: str, what: str, limit: int) -> bytes:
        answer = await self._ask(Question(issuer.org, url, issuer.ca_pem, limit=limit))
        if answer.status == 429 or answer.status >= 500:
            raise ProviderDownError(f"the provider answered status {answer.status} when asked for {what}")
        if answer.status != 200:
            redirect = ": a redirect, which is not followed" if 300 <= answer.status < 400 else ""
            raise ProviderError(f"the provider answered status {answer.status} when asked for {what}{redirect}")
        return answer.body

    def _now(self) -> float:
        return self._clock.monotonic_us() / 1e6


class _Document(Struct, frozen=True):
    """OpenID Connect Discovery 1.0 section 3. Types are strict; what is not named here is passed over."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    userinfo_endpoint: str = ""
    response_types_supported: tuple[str, ...] = ()
    scopes_supported: tuple[str, ...] = ()
    code_challenge_methods_supported: tuple[str, ...] = ()
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    id_token_signing_alg_values_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False


_DECODER: Final = msgspec.json.Decoder(_Document)


def _metadata(body: bytes, issuer: str) -> Metadata:
    try:
        found = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ProviderError("the provider's discovery document is none of OpenID Connect Discovery") from None
    if found.issuer != issuer:  # section 4.3: to the letter, or one provider could speak for another
        raise ProviderError("the provider's discovery document names another issuer than the one that is set")
    for name in ("jwks_uri", "authorization_endpoint", "token_endpoint", "userinfo_endpoint"):
        url: str = getattr(found, name)
        if (url or name == "jwks_uri") and (wrong := _endpoint_fault(url, issuer)):
            raise ProviderError(f"{name} of the provider's discovery document {wrong}")
    return Metadata(
        issuer=found.issuer,
        jwks_uri=found.jwks_uri,
        authorization_endpoint=found.authorization_endpoint,
        token_endpoint=found.token_endpoint,
        userinfo_endpoint=found.userinfo_endpoint,
        response_types=found.response_types_supported,
        scopes=found.scopes_supported,
        challenge_methods=found.code_challenge_methods_supported,
        token_auth_methods=found.token_endpoint_auth_methods_supported,
        algorithms=found.id_token_signing_alg_values_supported,
        says_iss=found.authorization_response_iss_parameter_supported,
    )


def _endpoint_fault(url: str, issuer: str) -> str | None:
    if issuer.startswith("https:") and not url.startswith("https:"):
        return "begins with https://"
    return provider_url_fault(url, query=True)


def _slot(shelf: OrderedDict[Issuer, _Kept[T]], issuer: Issuer) -> _Kept[T]:
    kept = shelf.get(issuer)
    if kept is None:
        kept = shelf[issuer] = _Kept()
        if len(shelf) > MAX_KEPT:
            shelf.popitem(last=False)
    shelf.move_to_end(issuer)
    return kept

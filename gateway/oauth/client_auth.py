"""Which client asks, and whether it is: RFC 6749 section 2.3, RFC 7523 section 3.

A client proves itself in the one way it is registered for. Whatever is wrong with that is said in the same words,
as of a client that does not exist, so that nobody learns which ones do.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn
from urllib.parse import unquote_plus

from msgspec import Struct

from gateway.jws import MalformedError, VerifyingKey, parse_object, split, verifying_key
from gateway.jws import decode as base64url
from gateway.oauth.caller import Caller
from gateway.oauth.clients import BUILT_IN, AuthMethod, Client, ClientRegistry
from gateway.oauth.digests import sha256
from gateway.oauth.errors import InvalidClientError, InvalidRequestError
from gateway.oauth.requests import ClientRequests
from gateway.oauth.throttle import Throttles

REFUSED: Final = "the client is not registered, or did not authenticate as it is registered to"
PUBLIC: Final = "this client is public: it has no secret"
ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGORITHMS: Final = ("RS256", "PS256", "ES256", "EdDSA", "Ed25519")
"""What an assertion may be signed with (RFC 7518 section 3.1, RFC 8037; RFC 9864 for the last name)."""

MAX_ASSERTION: Final = 8 * 1024
LONGEST_S: Final = 300
"""How far ahead an assertion's end may lie: so long its id has to be remembered."""

SKEW_S: Final = 30
WRONG_FOR_A_CLIENT: Final = 50
WRONG_FROM_AN_ADDRESS: Final = 500
PERIOD_S: Final = 600.0
_SHOWN: Final = ("client_secret", "client_assertion")
_ID: Final = re.compile(r"[\x20-\x7e]{1,256}")
_LATEST: Final = 1 << 53


class Shown(Struct, frozen=True):
    """What a request shows: `method` NONE is a name alone. `proof`: the secret, or the assertion."""

    client: str
    method: AuthMethod
    proof: str = ""


class ClientAuthentication:
    """`audiences`: what an assertion may be addressed to, the issuer and the endpoints that take one."""

    def __init__(
        self,
        registry: ClientRegistry,
        assertions: ClientRequests,
        *,
        audiences: Sequence[str],
        clock: Callable[[], float],
        throttle: Throttles,
    ) -> None:
        self._registry = registry
        self._assertions = assertions
        self._audiences = frozenset(audiences)
        self._clock = clock
        self._wrong = throttle("wrong-client-proofs", WRONG_FOR_A_CLIENT, PERIOD_S)
        self._addresses = throttle("wrong-client-addresses", WRONG_FROM_AN_ADDRESS, PERIOD_S)

    async def client(self, form: Mapping[str, str], caller: Caller, authorization: Sequence[str] = ()) -> Client:
        """The client that asks, authenticated as it is registered to. `authorization`: the values of that header.

        Raises `InvalidRequestError` for more than one method or one that is malformed, `InvalidClientError`,
        `TooManyAttemptsError`, `TemporarilyUnavailableError`.
        """
        shown = _shown(form, authorization)
        account = f"{caller.address}|{shown.client[:128]}"
        await self._addresses.check(caller.address)
        await self._wrong.check(account)
        client = await self._registry.find(shown.client)
        if client is not None and not client.own and await self._is(client, shown):
            return client
        await self._addresses.charge(caller.address)
        await self._wrong.charge(account)
        built_in = BUILT_IN.get(shown.client)
        known = built_in is not None and not built_in.own  # everybody knows those, and what is wrong may be said
        raise InvalidClientError(PUBLIC if known else REFUSED)

    async def _is(self, client: Client, shown: Shown) -> bool:
        if client.auth_method is not shown.method:
            return False
        match shown.method:
            case AuthMethod.NONE:
                return True
            case AuthMethod.PRIVATE_KEY_JWT:
                return await self._asserted(client, shown.proof)
            case _:
                now, digest = self._clock(), sha256(shown.proof)
                found = [hmac.compare_digest(secret.digest, digest) for secret in client.secrets]
                alive = [not secret.expires_at or now < secret.expires_at for secret in client.secrets]
                return any(right and good for right, good in zip(found, alive, strict=True))

    async def _asserted(self, client: Client, text: str) -> bool:
        now = self._clock()
        try:
            claims = _verified(client, text)
            ends, used_id = self._judged(client, claims, now)
        except MalformedError:
            return False
        # After everything else: an assertion that is refused for another reason is not used up by that.
        return await self._assertions.use(client.id, sha256(used_id), ends + SKEW_S, now)

    def _judged(self, client: Client, claims: Mapping[str, Any], now: float) -> tuple[float, str]:
        """(its end, its id). RFC 7523 section 3, and `jti` is not optional here."""
        if claims.get("iss") != client.id or claims.get("sub") != client.id:
            _no("issuer and subject are the client")
        aud = claims.get("aud")
        named = [aud] if isinstance(aud, str) else aud
        # One that is addressed to somebody else as well could be passed on to us by them.
        if not isinstance(named, list) or not named or not all(one in self._audiences for one in map(str, named)):
            _no("it is not addressed to this server alone")
        ends = _instant(claims, "exp")
        if ends is None or now >= ends + SKEW_S or ends > now + LONGEST_S + SKEW_S:
            _no("its end is past, or too far ahead")
        for name in ("iat", "nbf"):
            if name in claims and ((begins := _instant(claims, name)) is None or begins > now + SKEW_S):
                _no("it begins later than now")
        jti = claims.get("jti")
        if not isinstance(jti, str) or not _ID.fullmatch(jti):
            _no("it has no id")
        return ends, jti


def _shown(form: Mapping[str, str], authorization: Sequence[str]) -> Shown:
    """Raises `InvalidRequestError` for more than one proof, or two names (RFC 6749 section 2.3)."""
    ways = [name for name in _SHOWN if name in form]
    if len(authorization) + len(ways) > 1:
        raise InvalidRequestError("a client authenticates in one way at a time")
    named = form.get("client_id", "")
    if authorization:
        client, secret = _basic(authorization[0])
        _same(named, client)
        return Shown(client, AuthMethod.CLIENT_SECRET_BASIC, secret)
    if "client_secret" in form:
        return Shown(named, AuthMethod.CLIENT_SECRET_POST, form["client_secret"])
    if "client_assertion" in form:
        if form.get("client_assertion_type") != ASSERTION_TYPE:
            raise InvalidRequestError(f"client_assertion_type is {ASSERTION_TYPE}")
        client = _subject(form["client_assertion"])
        _same(named, client)
        return Shown(client, AuthMethod.PRIVATE_KEY_JWT, form["client_assertion"])
    return Shown(named, AuthMethod.NONE)


def _same(named: str, client: str) -> None:
    if named not in ("", client):
        raise InvalidRequestError("client_id is not the client that authenticates")


def _basic(value: str) -> tuple[str, str]:
    """Name and secret, each form-urlencoded (RFC 6749 section 2.3.1). Raises `InvalidClientError`."""
    scheme, _, encoded = value.partition(" ")
    try:
        if scheme.lower() != "basic":
            raise ValueError("another scheme")
        client, colon, secret = b64decode(encoded.strip(), validate=True).decode("ascii").partition(":")
        found = unquote_plus(client, errors="strict"), unquote_plus(secret, errors="strict")
    except (Base64Error, ValueError):  # UnicodeDecodeError is a ValueError
        raise InvalidClientError(REFUSED) from None
    if not colon or not found[0] or not found[1]:
        raise InvalidClientError(REFUSED)
    return found


def _subject(assertion: str) -> str:
    """Who an assertion says it is of: whose keys are to be tried. Raises `InvalidClientError`."""
    try:
        subject = parse_object(split(assertion.encode(), MAX_ASSERTION).payload).get("sub")
    except MalformedError:
        subject = None
    if not isinstance(subject, str) or not _ID.fullmatch(subject):
        raise InvalidClientError(REFUSED)
    return subject


def _verified(client: Client, text: str) -> Mapping[str, Any]:
    """The claims of an assertion signed with one of the client's keys. Raises `MalformedError`."""
    assertion = split(text.encode(), MAX_ASSERTION)
    header = parse_object(base64url(assertion.header))
    # An allow-list: no jwk, jku, x5u, x5c, crit, b64 can steer the verification.
    if not header.keys() <= {"alg", "kid", "typ"}:
        _no("its header wants something that is not done here")
    alg, kid = header.get("alg"), header.get("kid", "")
    if not isinstance(alg, str) or alg not in ALGORITHMS or not isinstance(kid, str):
        _no("its algorithm is not accepted")
    if not isinstance(header.get("typ", ""), str) or header.get("typ", "JWT").lower() not in {"jwt", _CLIENT_TYPE}:
        _no("it is another kind of token")
    if not any(key.verify(assertion.signature, assertion.signed) for key in client_keys(client.jwks, alg, kid)):
        _no("its signature is not one of the client's")
    return parse_object(assertion.payload)


_CLIENT_TYPE: Final = "client-authentication+jwt"


def client_keys(jwks: str, alg: str, kid: str = "") -> list[VerifyingKey]:
    """The keys of a registered set that are for `alg`, with that `kid` where one is named. Raises `MalformedError`
    for what is no set."""
    found = []
    for jwk in parse_object(jwks.encode()).get("keys", []):
        if kid and jwk.get("kid") != kid:
            continue
        try:
            found.append(verifying_key(jwk, alg))
        except MalformedError:
            continue  # a key for another algorithm: the set may have several
    return found


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    """A NumericDate (RFC 7519 section 2), which need not be whole."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _LATEST:
        return None
    return float(value)


def _no(reason: str) -> NoReturn:
    raise MalformedError(reason)

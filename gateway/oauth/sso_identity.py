"""A code of the organization's provider → who that is: token request and ID Token, OpenID Connect Core 1.0.

What a provider says of itself in an error is never shown: its code, where the RFC knows it, is enough to act on.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote_plus, urlencode

import msgspec
from msgspec import Struct

from gateway.oauth.provider import Answer, Issuer, Metadata, ProviderDownError, ProviderError, Providers, Question
from gateway.oauth.provider_jwt import MAX_TOKEN, OutsideTokenError, half_hash, instant
from gateway.secret import Secret
from tenants.idp import IdentityProvider

LEEWAY_S: Final = 60.0
OLDEST_S: Final = 600.0
"""An ID Token is made when its code is redeemed: one that is older was made for something else."""

MAX_ANSWER: Final = 2 * MAX_TOKEN
MAX_GROUPS: Final = 1_000
MAX_GROUP: Final = 256
MAX_METHODS: Final = 16

_CODES: Final[Mapping[str, str]] = {
    "invalid_client": "it does not accept the gateway's client id and secret",
    "unauthorized_client": "it does not let this client use authorization codes",
    "invalid_grant": "it does not accept the code that it has just given",
    "invalid_request": "it finds the request malformed",
    "invalid_scope": "it does not know one of the scopes",
    "unsupported_grant_type": "it does not take authorization codes",
}
"""RFC 6749 section 5.2."""


class IdentityError(Exception):
    """What the provider says is not to be believed, or not enough. `reason` is for the audit log, the message is
    shown to the person; neither holds anything of a token. `member`: the id of the account it is about, '' while
    that is not known."""

    def __init__(self, reason: str, message: str, member: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        self.member = member


class Identity(Struct, frozen=True):
    """Who it is, as the provider says. `groups` None: it was not asked for them. `verified`: of the address, None
    where it does not say. `auth_time`: Unix seconds, 0 where it does not say."""

    subject: str
    email: str
    verified: bool | None
    name: str
    groups: tuple[str, ...] | None
    acr: str
    amr: tuple[str, ...]
    auth_time: int


class Exchange:
    """`now` gives Unix seconds."""

    def __init__(self, providers: Providers, now: Callable[[], float]) -> None:
        self._providers = providers
        self._now = now

    async def identity(
        self,
        provider: IdentityProvider,
        secret: Secret | None,
        *,
        code: str,
        redirect_uri: str,
        verifier: str,
        nonce: str,
    ) -> Identity:
        """Raises `IdentityError`, `ProviderError`."""
        issuer = Issuer(provider.org, provider.issuer, provider.ca_pem)
        metadata = await self._providers.metadata(issuer)
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        question = token_question(provider, metadata, secret, form)
        answer = await self._providers.ask(question)
        tokens = _tokens(answer)
        id_token = str(tokens["id_token"])
        try:
            claims = await self._providers.verify(id_token, issuer, provider.client_id, leeway_s=LEEWAY_S)
        except OutsideTokenError as error:
            raise IdentityError("id token", f"the provider's ID Token is not accepted: {error}") from None
        self._check(claims, provider.client_id, nonce)
        access = tokens.get("access_token")
        if "at_hash" in claims and (
            not isinstance(access, str) or claims["at_hash"] != half_hash(id_token, access)
        ):
            raise IdentityError("at_hash", "the provider's two tokens do not belong together")
        wanted = [provider.email_claim, *([provider.groups_claim] if provider.groups_claim else [])]
        if metadata.userinfo_endpoint and any(_claim(claims, name) is None for name in wanted):
            claims = {**await self._userinfo(issuer, metadata, access, str(claims["sub"])), **claims}
        for required in provider.claims:
            if not _holds(_claim(claims, required.name), required.value):
                text = f"the provider says that you are of somewhere else (claim {required.name})"
                raise IdentityError(f"claim {required.name}", text)
        return self._identity(claims, provider)

    def _check(self, claims: Mapping[str, Any], client_id: str, nonce: str) -> None:
        """OpenID Connect Core 1.0 section 3.1.3.7, as far as `Providers.verify` does not know it."""
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(said.encode(), nonce.encode()):
            raise IdentityError("nonce", "the provider's ID Token was made for another sign-in")
        audiences = claims["aud"]
        party = claims.get("azp")
        several = isinstance(audiences, list) and len(audiences) > 1
        if (several and party is None) or (party is not None and party != client_id):
            raise IdentityError("azp", "the provider's ID Token was made for another application")
        issued = instant(dict(claims), "iat")
        if issued is None or issued < self._now() - OLDEST_S:
            raise IdentityError("iat", "the provider's ID Token is of long ago: one of the two clocks is wrong")

    async def _userinfo(self, issuer: Issuer, metadata: Metadata, access: object, subject: str) -> dict[str, Any]:
        """What the ID Token leaves out (section 5.3); nothing where the provider has no more to say."""
        if not isinstance(access, str) or not access.isascii() or not access.isprintable() or " " in access:
            return {}
        url = metadata.userinfo_endpoint
        bearer = Secret(f"Bearer {access}")
        question = Question(issuer.org, url, issuer.ca_pem, authorization=bearer, limit=MAX_ANSWER)
        answer = await self._providers.ask(question)
        found = _object(answer.body) if answer.status == 200 else {}
        if found and found.get("sub") != subject:  # section 5.3.2: else it is about somebody else
            raise IdentityError("userinfo", "the provider's userinfo is about somebody else")
        return found

    def _identity(self, claims: Mapping[str, Any], provider: IdentityProvider) -> Identity:
        verified = claims.get("email_verified")
        if isinstance(verified, str):  # Cognito writes it as text
            verified = {"true": True, "false": False}.get(verified.lower(), False)
        auth_time = instant(dict(claims), "auth_time") or 0.0
        return Identity(
            subject=str(claims["sub"]),
            email=_text(_claim(claims, provider.email_claim), 254),
            verified=None if verified is None else verified is True,
            name=_text(_claim(claims, provider.name_claim), 200),
            groups=_groups(claims, provider.groups_claim) if provider.groups_claim else None,
            acr=_text(claims.get("acr"), 200),
            amr=_methods(claims.get("amr")),
            auth_time=int(min(auth_time, self._now())),
        )


def token_question(
    provider: IdentityProvider, metadata: Metadata, secret: Secret | None, form: Mapping[str, str]
) -> Question:
    """`form` for the token endpoint, with the client's authentication (RFC 6749 section 2.3.1). Raises
    `ProviderError` where the provider wants one that is not spoken here."""
    if not metadata.token_endpoint:
        raise ProviderError("the provider's discovery document names no token_endpoint")
    authorization = None
    sent = dict(form)
    methods = metadata.token_auth_methods
    if secret is None:
        sent["client_id"] = provider.client_id
    elif "client_secret_basic" in methods:
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(secret.reveal())}"
        authorization = Secret("Basic " + base64.b64encode(pair.encode()).decode())
    elif "client_secret_post" in methods:
        sent |= {"client_id": provider.client_id, "client_secret": secret.reveal().decode()}
    else:
        raise ProviderError("the provider takes no client secret: neither client_secret_basic nor _post")
    return Question(
        org=provider.org,
        url=metadata.token_endpoint,
        ca_pem=provider.ca_pem,
        body=Secret(urlencode(sent)),
        authorization=authorization,
        limit=MAX_ANSWER,
    )


def refused_code(answer: Answer) -> str:
    """The error of a token endpoint's answer, if RFC 6749 section 5.2 knows it; else ''."""
    code = _object(answer.body).get("error")
    return code if isinstance(code, str) and code in _CODES else ""


def refused_words(code: str) -> str:
    return _CODES.get(code, "")


def _tokens(answer: Answer) -> dict[str, Any]:
    if answer.status == 429 or answer.status >= 500:
        raise ProviderDownError(f"the provider's token endpoint answered status {answer.status}")
    if answer.status != 200:
        code = refused_code(answer)
        why = refused_words(code) or f"it answered status {answer.status}"
        raise IdentityError(code or "token endpoint", f"the provider gave no token: {why}")
    found = _object(answer.body)
    if not isinstance(found.get("id_token"), str):
        raise IdentityError("no id token", "the provider gave no ID Token: is openid among the scopes?")
    return found


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim `name`; where there is none of that name, the one that its dots lead to (`realm_access.roles`)."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


def _holds(found: Any, wanted: str) -> bool:
    listed = found if isinstance(found, list) else [found]
    return any(isinstance(one, str) and one == wanted for one in listed)


def _groups(claims: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """The groups; none where the claim is not there, as some providers leave out an empty one."""
    elsewhere = claims.get("_claim_names")
    if (isinstance(elsewhere, dict) and name in elsewhere) or claims.get("hasgroups") is True:
        # Taken for none they would cost every role that a group gives.
        text = "you are in so many groups that the provider leaves them out of its ID Token"
        raise IdentityError("groups left out", text)
    found = _claim(claims, name)
    listed = [found] if isinstance(found, str) else [] if found is None else found
    if not isinstance(listed, list) or not all(isinstance(group, str) for group in listed):
        raise IdentityError("groups", "the provider's claim of groups is no list of names")
    if len(listed) > MAX_GROUPS or any(len(group) > MAX_GROUP for group in listed):
        text = f"the provider names more than {MAX_GROUPS} groups, or one of more than {MAX_GROUP} characters"
        raise IdentityError("groups too many", text)
    return tuple(dict.fromkeys(listed))


def _methods(found: Any) -> tuple[str, ...]:
    """RFC 8176: words. What is none is left out: it would end up in our own tokens."""
    listed = found if isinstance(found, list) else []
    words = (word for word in listed if isinstance(word, str) and 0 < len(word) <= 32)
    return tuple(dict.fromkeys(word for word in words if word.replace("_", "").replace("-", "").isalnum()))[
        :MAX_METHODS
    ]


def _text(found: Any, most: int) -> str:
    if not isinstance(found, str) or len(found) > most or not found.isprintable():
        return ""
    return found.strip()


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}

"""Token exchange, RFC 8693: a CI job's own token becomes a short access token of a service account. No secret.

The client is the service account itself: `client_id` is `<organization>.<id of the account>`. What is wrong with a
token is in the organization's audit log; whoever sent it hears the same of an account that does not exist.

The answer has no `act` (section 4.1): nobody acts for somebody else here. The job is the service account, as
whoever has a client's secret is that client.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from typing import Any, Final

from msgspec import structs

from gateway.jws import MalformedError, parse_object
from gateway.oauth.accounts import ANONYMOUS
from gateway.oauth.caller import Caller
from gateway.oauth.clients import Audiences, Client, GrantType
from gateway.oauth.errors import (
    InvalidGrantError,
    InvalidRequestError,
    InvalidTargetError,
    TemporarilyUnavailableError,
)
from gateway.oauth.provider import Issuer, ProviderError, Providers
from gateway.oauth.provider_jwt import MAX_TOKEN, OutsideTokenError, instant
from gateway.oauth.services import ServiceTokens
from gateway.oauth.throttle import Throttles
from tenants.ids import OrgId
from tenants.models import State
from tenants.store import Actor, ControlStore, NotFoundError
from tenants.trust import MOST_TRUSTS, ServiceTrust, holds, text

ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 -- the standard's word
SUBJECT_TYPES: Final = ("urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt")

LONGEST_S: Final = 86_400
"""From `iat` to `exp` of an outside token: the longest job of the CI systems there are."""

LEEWAY_S: Final = 30.0
REFUSALS_PER_ADDRESS: Final = 200
REFUSALS_PER_ACCOUNT: Final = 600
PERIOD_S: Final = 600.0
MAX_SHOWN: Final = 200
REFUSED: Final = "the subject token is not one that stands for this service account"


class NotTrustedError(Exception):
    """Why an outside token stands for nobody here, for the audit log: nothing of the token is in it."""


class TokenExchange:
    """`providers` None: no outside issuer can be asked from here."""

    def __init__(
        self,
        control: ControlStore,
        services: ServiceTokens,
        providers: Providers | None,
        *,
        audiences: Audiences,
        throttle: Throttles,
    ) -> None:
        self._control = control
        self._services = services
        self._providers = providers
        self._audiences = audiences
        self._addresses = throttle("refused-exchanges", REFUSALS_PER_ADDRESS, PERIOD_S)
        self._accounts = throttle("refused-exchanges-for", REFUSALS_PER_ACCOUNT, PERIOD_S)

    async def exchange(self, form: Mapping[str, str], client: Client, caller: Caller) -> dict[str, Any]:
        """The grant. `client` is the service account, whether or not there is one; `caller` has shown its proof.

        Raises `InvalidRequestError`, `InvalidTargetError`, `InvalidScopeError`; `InvalidGrantError` for an outside
        token that stands for nobody, `TemporarilyUnavailableError` when its issuer cannot be asked.
        """
        token = _subject_token(form)
        form = {**form, "resource": self._resource(form, client)}
        await self._addresses.check(caller.address)
        try:
            trust, claims = await self._trusted(token, client)
        except NotTrustedError as error:
            await self._refuse(client, caller, str(error))
            raise InvalidGrantError(REFUSED) from None
        except ProviderError as error:
            await self._refuse(client, caller, str(error))
            said = "the issuer of the subject token cannot be asked for its keys now; try again"
            raise TemporarilyUnavailableError(said, retry_after_s=5) from None
        allowed = structs.replace(client, planes=trust.planes)
        answer = await self._services.issue(
            client.org,
            client.service,
            allowed,
            form,
            caller=caller,
            grant=GrantType.TOKEN_EXCHANGE,
            detail=_said(trust, claims),
        )
        return {**answer, "issued_token_type": ACCESS_TOKEN}

    async def _trusted(self, token: str, client: Client) -> tuple[ServiceTrust, Mapping[str, Any]]:
        """Which rule the token is trusted by, and what it says. Nothing is fetched for an issuer that the
        organization does not name."""
        issuer, audience = _unverified(token)
        rules = await self._rules(client.org, client.service)
        of_issuer = [rule for rule in rules if rule.issuer == issuer]
        if not of_issuer:
            raise NotTrustedError("no trust names the token's issuer")
        candidates = [rule for rule in of_issuer if rule.audience == audience]
        if not candidates:
            raise NotTrustedError("no trust has the token's audience, which is one and no other")
        if self._providers is None:
            raise ProviderError("outside issuers cannot be asked from here")
        failure: Exception = NotTrustedError("the claims that are pinned do not hold")
        for ca_pem in dict.fromkeys(rule.ca_pem for rule in candidates):
            place = Issuer(client.org, issuer, ca_pem)
            try:
                claims = await self._providers.verify(token, place, audience, leeway_s=LEEWAY_S)
            except OutsideTokenError as error:
                failure = NotTrustedError(str(error))
                continue
            except ProviderError as error:
                failure = error
                continue
            _must_be_short(claims)
            for rule in candidates:
                if rule.ca_pem == ca_pem and holds(rule.claims, claims):
                    return rule, claims
        raise failure

    async def _rules(self, org: OrgId, service: str) -> list[ServiceTrust]:
        """Those of an account that may have tokens, by name."""
        if await self._services.account(org, service) is None:
            raise NotTrustedError("there is no such service account, or it is suspended")
        found, _ = await self._control.for_org(org).trusts.page(limit=MOST_TRUSTS, filters={"service": service})
        return sorted(found, key=lambda rule: rule.name)

    def _resource(self, form: Mapping[str, str], client: Client) -> str:
        """What the token is for: `resource` (RFC 8707) or, in the words of RFC 8693, `audience`."""
        resource, audience = form.get("resource", ""), form.get("audience", "")
        if resource and audience and resource != audience:
            raise InvalidTargetError("resource and audience name two targets: a token is for one")
        self._audiences.plane(client, resource or audience)
        return resource or audience

    async def _refuse(self, client: Client, caller: Caller, reason: str) -> None:
        """Written down where there is an organization, as often as anybody needs to see it."""
        await self._addresses.charge(caller.address)
        await self._accounts.check(client.id)
        await self._accounts.charge(client.id)
        try:
            if (await self._control.orgs.get(client.org)).state is not State.ACTIVE:
                return
        except NotFoundError:
            return
        by = Actor(client.org, ANONYMOUS, client.id, caller.request_id)
        detail = {"grant": GrantType.TOKEN_EXCHANGE.value, "reason": reason}
        await self._control.for_org(client.org).note("session.refuse", client.service, by, detail)


def _subject_token(form: Mapping[str, str]) -> str:
    """Section 2.1. Raises `InvalidRequestError`."""
    if form.get("subject_token_type", "") not in SUBJECT_TYPES:
        raise InvalidRequestError(f"subject_token_type is one of: {', '.join(SUBJECT_TYPES)}")
    if form.get("requested_token_type", ACCESS_TOKEN) != ACCESS_TOKEN:
        raise InvalidRequestError(f"requested_token_type is {ACCESS_TOKEN}")
    if "actor_token" in form or "actor_token_type" in form:
        raise InvalidRequestError("there is no actor: leave actor_token and actor_token_type out")
    token = form.get("subject_token", "")
    if not token or not token.isascii() or len(token) > MAX_TOKEN:
        raise InvalidRequestError(f"subject_token is missing, or no JWT of at most {MAX_TOKEN} bytes")
    return token


def _unverified(token: str) -> tuple[str, str]:
    """The issuer and the one audience that a token says it has: which rules may be about it, and nothing more.
    Raises `NotTrustedError`."""
    parts = token.split(".")
    try:
        body = urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)) if len(parts) == 3 else b""
        said = parse_object(body)
    except (Base64Error, MalformedError, ValueError):
        raise NotTrustedError("the token is no signed JWT") from None
    issuer, audience = said.get("iss"), said.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        audience = audience[0]
    if not isinstance(issuer, str) or not isinstance(audience, str):
        # One that is for others as well could come from any of them.
        raise NotTrustedError("the token does not name one issuer and one audience")
    return issuer, audience


def _must_be_short(claims: Mapping[str, Any]) -> None:
    begins, ends = instant(dict(claims), "iat"), instant(dict(claims), "exp")
    if begins is None or ends is None or not 0 < ends - begins <= LONGEST_S:
        raise NotTrustedError(f"the token is made for longer than {LONGEST_S} s")


def _said(trust: ServiceTrust, claims: Mapping[str, Any]) -> dict[str, str | Sequence[str]]:
    """What the audit log has of it: which rule, and the values of the claims that the rule is about."""
    names = [claim.partition("=")[0] for claim in trust.claims]
    values = [f"{name}={text(claims.get(name))[:MAX_SHOWN]}" for name in names]
    return {"trust": trust.name, "issuer": trust.issuer, "claims": values}

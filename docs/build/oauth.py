"""oauth.md: endpoints, parameters, errors, and the claims of a token, which is made to be looked at."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, cast

import gateway.oauth.errors
from docs.build.markdown import code, codes, page, table, words
from docs.build.oauth_clients import registered
from docs.build.oauth_proofs import proofs
from gateway.api.oauth import csrf, forms
from gateway.api.relay_control import MAX_BODY, RELAYED
from gateway.oauth import (
    account,
    accounts,
    authorization,
    client_auth,
    device,
    factors,
    factors_store,
    lockout,
    par,
    passwords,
    recovery,
)
from gateway.oauth.clients import BUILT_IN, SCOPES, GrantType, Plane
from gateway.oauth.errors import OAuthError
from gateway.oauth.service import OAuthConfig
from gateway.oauth.tokens import AccessTokens, TokenSigner
from tenants.ids import MemberId, OrgId
from tenants.models import Member

ENDPOINTS = {
    "/.well-known/oauth-authorization-server": "Metadata (RFC 8414).",
    "/.well-known/jwks.json": "The keys that access tokens are verified with (RFC 7517).",
    "/oauth/account": "The page where members see and change their own account.",
    "/oauth/account/change": "Where the forms of that page go.",
    "/oauth/authorize": "The page where a person signs in for a program with a browser (RFC 6749 section 4.1).",
    "/oauth/device": "The page where a person enters the code, signs in, and says yes or no.",
    "/oauth/device_authorization": "Begin a sign-in (RFC 8628 section 3.1).",
    "/oauth/introspect": "Whether a token counts now, and whose it is (RFC 7662). For clients that authenticate.",
    "/oauth/invitation": "The page where an invitation becomes a password.",
    "/oauth/par": "Push an authorization request, and get the `request_uri` that stands for it (RFC 9126).",
    "/oauth/revoke": "Take a token back (RFC 7009).",
    "/oauth/sso/callback/{org:str}": "Where an organization's identity provider sends browsers back to.",
    "/oauth/token": "Get tokens (RFC 6749 section 3.2).",
}
AUTHENTICATION: Mapping[str, str] = {
    "client_id": "Required, unless the client authenticates in a way that names it.",
    "client_secret": "With `client_secret_post`.",
    "client_assertion_type": f"With `private_key_jwt`: `{client_auth.ASSERTION_TYPE}`.",
    "client_assertion": "With `private_key_jwt`.",
}
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "GET /oauth/authorize": {
        "client_id": "Required.",
        "response_type": "Required: `code`.",
        "redirect_uri": "Required: one of the client's, exactly; a loopback address with any port (RFC 8252).",
        "code_challenge": "Required (RFC 7636).",
        "code_challenge_method": "Required: `S256`.",
        "dpop_jkt": "The thumbprint of the key that the code is for (RFC 9449 section 10).",
        "state": f"Comes back as it was: at most {authorization.MAX_STATE} characters.",
        "resource": "Which plane the token is for (RFC 8707).",
        "scope": "May be left out: a plane has one scope.",
        "response_mode": "May be left out: `query`.",
        "request_uri": "What `/oauth/par` gave, with `client_id`: whatever else there is counts for nothing"
        " (RFC 9126 section 4).",
    },
    "POST /oauth/par": {
        **AUTHENTICATION,
        "…": "Those of `GET /oauth/authorize` but for `request_uri`. They are judged at once.",
    },
    "POST /oauth/introspect": {**AUTHENTICATION, "token": "Required: an access token or a refresh token."},
    "POST /oauth/device_authorization": {
        **AUTHENTICATION,
        "resource": "Which plane the token is for (RFC 8707).",
        "scope": "May be left out: a plane has one scope.",
    },
    "POST /oauth/token": {
        **AUTHENTICATION,
        "grant_type": "Required: " + codes(grant.value for grant in GrantType) + ".",
        "code": "Required with the authorization code grant; good once.",
        "code_verifier": "Required with the authorization code grant (RFC 7636).",
        "redirect_uri": "Required with the authorization code grant: the one of the request.",
        "device_code": "Required with the device grant.",
        "refresh_token": "Required with the refresh grant; each is good once.",
        "subject_token": "Required with a token exchange (RFC 8693): the token that an outside issuer signed.",
        "subject_token_type": "Required with a token exchange: that of an ID token or of a JWT.",
        "requested_token_type": "With a token exchange: may be left out, an access token.",
        "audience": "With a token exchange: another word for `resource`.",
        "resource": "As above. A refresh may name another plane than the one before.",
        "scope": "As above.",
    },
    "POST /oauth/revoke": {**AUTHENTICATION, "token": "Required: a refresh token or an access token."},
    "POST /oauth/device": {
        "user_code": "Required. Capitals, spaces and hyphens do not matter.",
        "org": "Required.",
        "email": "Required.",
        "password": "Required.",
        "action": "Required: `ask` shows who asks for what; `approve` or `deny`. A program is answered"
        " `insufficient_user_authentication` where a second factor is due: the person uses the page.",
        "ticket": "From the page before, in the place of organization, e-mail and password: for its next step"
        " alone, for five minutes, in the browser with the same `csrf_token`.",
        "csrf_token": "Required: the page's.",
    },
    "POST /oauth/invitation": {
        "org": "Required.",
        "email": "Required.",
        "code": "Required: the invitation.",
        "password": f"Required: {passwords.MIN_LENGTH} to {passwords.MAX_LENGTH} characters.",
        "password_again": "Required: the same.",
    },
}
OPTIONAL = {
    "groups": "The teams the member is in, a list; left out when there are none (RFC 9068).",
    "amr": "How the member signed in, a list (RFC 8176): `pwd`, `otp`, `hwk` or `swk` for a passkey, `mfa`; `fed`"
    " where another identity provider said who it is, with its own words. Left out where nobody signed in.",
    "auth_time": "When they did, Unix seconds. Left out with `amr`.",
}
CLAIMS = {
    "iss": "`server.url`.",
    "aud": "One plane: `<server.url>/v1` or `<server.url>/admin`.",
    "sub": "The member's id, or the service account's.",
    "org": "The organization's id.",
    "roles": "The member's roles, a list.",
    "scope": "The plane's scope.",
    "client_id": "Which client it was given to.",
    "jti": "The token's id.",
    "iat": "Unix seconds. Never later than the moment before the member was read from the store.",
    "exp": "Unix seconds: `iat` + `tokens.access_s`.",
}


class _Signer:
    """Stands where the signing keys do, and keeps the claims."""

    claims: Mapping[str, Any] = {}

    async def signed(self, claims: Mapping[str, Any]) -> str:
        self.claims = claims
        return ""


def claims() -> list[str]:
    """The names of the claims of an access token, from one that is made here."""
    signer = _Signer()
    maker = AccessTokens(issuer="", keys=cast(TokenSigner, signer), random=bytes, lifetime_s=900)
    member = Member(org=OrgId("acme"), id=MemberId("mem_0"), email="", name="", roles=())
    asyncio.run(maker.issue(member, "", "", "", asked_at=0))
    return list(signer.claims)


def errors() -> list[type[OAuthError]]:
    """By status and code, of the service and of its pages: never of whatever else a test has defined."""
    homes = (gateway.oauth.errors, csrf, forms)
    found = [
        thing
        for home in homes
        for thing in vars(home).values()
        if inspect.isclass(thing) and issubclass(thing, OAuthError) and thing.__module__ == home.__name__
    ]
    return sorted(
        (one for one in found if one is not OAuthError), key=lambda one: (one.status, one.code, one.__name__)
    )


def render() -> str:
    default = {name: field.default for name, field in inspect.signature(OAuthConfig).parameters.items()}
    blocks = [
        "The authorization server is part of the gateway, on the public listener. People sign in with an"
        " authorization code and PKCE ([RFC 7636](https://www.rfc-editor.org/rfc/rfc7636)) where a program"
        " has a browser beside it, else with the device flow ([RFC 8628](https://www.rfc-editor.org/rfc/rfc8628))."
        " `orgate login` does all of this.",
        "## Endpoints",
        table(("path", "methods", "what it is"), [(code(p), codes(m), ENDPOINTS[p]) for p, m in RELAYED.items()]),
        f"Bodies are forms (`application/x-www-form-urlencoded`), at most {MAX_BODY // 1024} KiB. A parameter"
        " that comes twice is refused. Pages answer a program that sends `Accept: application/json` in JSON."
        " Every form, a program's too, carries the page's cookie and its `csrf_token`: GET the page first.",
        "## Clients",
        table(
            ("client_id", "is", "may have tokens for", "redirect URIs"),
            [
                (
                    code(c.id),
                    c.name,
                    codes(f"<server.url>/{plane}" for plane in c.planes),
                    codes(f"<server.admin_url>{uri}" if uri.startswith("/") else uri for uri in c.redirect_uris),
                )
                for c in BUILT_IN.values()
            ],
        ),
        *registered(),
        "## Parameters",
    ]
    for endpoint, names in PARAMETERS.items():
        rows = [(code(name), text) for name, text in names.items()]
        blocks += [f"### {endpoint}", table(("parameter", "meaning"), rows)]
    blocks += [
        "## Planes",
        table(
            ("resource", "scope", "opens"),
            [
                (
                    code(f"<server.url>/{plane}"),
                    code(SCOPES[plane]),
                    "models" if plane is Plane.DATA else "the admin API",
                )
                for plane in Plane
            ],
        ),
        "Without `resource` a token is for the data plane. A token opens one plane and nothing else.",
        "## Access tokens",
        "JWTs as [RFC 9068](https://www.rfc-editor.org/rfc/rfc9068) says, RS256, `typ: at+jwt`, `kid` a thumbprint"
        " (RFC 7638).",
        table(
            ("claim", "meaning"),
            [(code(n), t) for n, t in [*((n, CLAIMS[n]) for n in claims()), *OPTIONAL.items()]],
        ),
        "## Refresh tokens",
        "Opaque, `ogr_…`, good once. A family lives for `tokens.refresh_s` in all. A used token still gets the"
        " same successor for `tokens.reuse_grace_s`; used later, it ends the whole family, since somebody must"
        " have copied it. See [design 0005](../design/0005-refresh-families.md).",
        *proofs(),
        "## Times and bounds",
        table(
            ("what", "value"),
            [
                ("an authorization code lives", f"{authorization.CODE_S:.0f} s, once"),
                ("device and user code live", f"{default['device_expires_s']} s"),
                (
                    "a pushed request waits",
                    f"{par.EXPIRES_S} s, once; the pages then take {par.PAGES_S} s at most",
                ),
                (
                    "pushed requests of one client at once",
                    f"{par.MAX_WAITING}; of a public one {par.MAX_WAITING_PUBLIC},"
                    f" and {par.PUBLIC_FROM_AN_ADDRESS} from one address in {par.EXPIRES_S} s",
                ),
                (
                    "wrong proofs of one client from one address",
                    f"{client_auth.WRONG_FOR_A_CLIENT} in {client_auth.PERIOD_S:.0f} s",
                ),
                ("wait between polls", f"{default['device_interval_s']} s, five more after each `slow_down`"),
                (
                    "device sign-ins waiting at once",
                    f"{device.MAX_PENDING}; {device.MAX_OF_BUILT_IN} of one built-in client,"
                    f" {device.MAX_OF_ORG} of one organization's own clients",
                ),
                ("sign-ins begun from one address", f"{device.STARTS_PER_ADDRESS} in {device.PERIOD_S:.0f} s"),
                ("wrong user codes of one member", f"{device.WRONG_CODES_PER_MEMBER} in {device.PERIOD_S:.0f} s"),
                (
                    "wrong passwords of one account",
                    f"{lockout.FREE_FAILURES} free, then 2, 4, 8 … {accounts.LONGEST_WAIT_S:.0f} s of waiting",
                ),
                (
                    "wrong passwords from one address",
                    f"{accounts.FAILURES_PER_ADDRESS} in {accounts.PERIOD_S:.0f} s",
                ),
                (
                    "wrong codes of one member",
                    f"{lockout.FREE_FAILURES} free, then 2, 4, 8 … {factors.LONGEST_CODE_WAIT_S:.0f} s of waiting",
                ),
                ("second factors of one member", str(factors_store.MAX_FACTORS)),
                ("recovery codes", f"{recovery.CODES}, each once"),
                ("the account page's session lives", f"{account.SESSION_S} s"),
                ("a sign-in counts there as of just now", f"{account.FRESH_S} s"),
                ("an invitation lives", f"{accounts.INVITATION_S // 86_400} days, once"),
            ],
        ),
        "## Errors",
        'JSON as RFC 6749 section 5.2 says: `{"error", "error_description"}`; with `Retry-After` where waiting'
        " helps. From `/oauth/authorize` they go back to the client, with `state` and `iss` (RFC 9207), unless the"
        " client or its redirect URI is wrong: that is shown and goes nowhere.",
        table(
            ("error", "status", "when"),
            [(code(e.code), str(e.status), words(e) or _WHEN[e]) for e in errors()],
        ),
    ]
    return page("OAuth", "`gateway/oauth/` and `gateway/api/oauth/`", *blocks)


_WHEN: Mapping[type[OAuthError], str] = {
    gateway.oauth.errors.UnsupportedGrantTypeError: "`grant_type` is none of those above.",
    gateway.oauth.errors.InvalidScopeError: "A scope was asked for that the plane does not have.",
    gateway.oauth.errors.AuthorizationPendingError: "Nobody has decided yet: ask again after the interval.",
    forms.TooLongError: "The form is too long.",
}

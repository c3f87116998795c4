"""oauth.md: endpoints, parameters, errors, and the claims of a token, which is made to be looked at."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from typing import Any, cast

import gateway.oauth.errors
from docs.build.markdown import code, codes, page, table, words
from gateway.api.oauth import csrf, forms
from gateway.api.relay_control import MAX_BODY, RELAYED
from gateway.oauth import accounts, authorization, device, passwords
from gateway.oauth.clients import BUILT_IN, SCOPES, GrantType, Plane
from gateway.oauth.errors import OAuthError
from gateway.oauth.service import OAuthConfig
from gateway.oauth.tokens import AccessTokens, TokenSigner
from tenants.ids import MemberId, OrgId
from tenants.models import Member

ENDPOINTS = {
    "/.well-known/oauth-authorization-server": "Metadata (RFC 8414).",
    "/.well-known/jwks.json": "The keys that access tokens are verified with (RFC 7517).",
    "/oauth/authorize": "The page where a person signs in for a program with a browser (RFC 6749 section 4.1).",
    "/oauth/device": "The page where a person enters the code, signs in, and says yes or no.",
    "/oauth/device_authorization": "Begin a sign-in (RFC 8628 section 3.1).",
    "/oauth/introspect": "Whether a token counts now, and whose it is (RFC 7662). For clients that authenticate.",
    "/oauth/invitation": "The page where an invitation becomes a password.",
    "/oauth/par": "Push an authorization request, and get the `request_uri` that stands for it (RFC 9126).",
    "/oauth/revoke": "Take a token back (RFC 7009).",
    "/oauth/token": "Get tokens (RFC 6749 section 3.2).",
}
PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "GET /oauth/authorize": {
        "client_id": "Required.",
        "response_type": "Required: `code`.",
        "redirect_uri": "Required: one of the client's, exactly; a loopback address with any port (RFC 8252).",
        "code_challenge": "Required (RFC 7636).",
        "code_challenge_method": "Required: `S256`.",
        "state": f"Comes back as it was: at most {authorization.MAX_STATE} characters.",
        "resource": "Which plane the token is for (RFC 8707).",
        "scope": "May be left out: a plane has one scope.",
    },
    "POST /oauth/device_authorization": {
        "client_id": "Required.",
        "resource": "Which plane the token is for (RFC 8707).",
        "scope": "May be left out: a plane has one scope.",
    },
    "POST /oauth/token": {
        "client_id": "Required.",
        "grant_type": "Required: " + codes(grant.value for grant in GrantType) + ".",
        "code": "Required with the authorization code grant; good once.",
        "code_verifier": "Required with the authorization code grant (RFC 7636).",
        "redirect_uri": "Required with the authorization code grant: the one of the request.",
        "device_code": "Required with the device grant.",
        "refresh_token": "Required with the refresh grant; each is good once.",
        "resource": "As above. A refresh may name another plane than the one before.",
        "scope": "As above.",
    },
    "POST /oauth/revoke": {"client_id": "Required.", "token": "Required: a refresh token or an access token."},
    "POST /oauth/device": {
        "user_code": "Required. Capitals, spaces and hyphens do not matter.",
        "org": "Required.",
        "email": "Required.",
        "password": "Required.",
        "action": "Required: `ask` shows who asks for what; `approve` or `deny`.",
        "ticket": "From the page that `ask` leads to, with `approve` and `deny`: in the place of organization,"
        " e-mail and password, for five minutes, in the browser with the same `csrf_token`.",
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
OPTIONAL = {"groups": "The teams the member is in, a list; left out when there are none (RFC 9068)."}
CLAIMS = {
    "iss": "`server.url`.",
    "aud": "One plane: `<server.url>/v1` or `<server.url>/admin`.",
    "sub": "The member's id.",
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
        "They are public: they have no secret, and one that sends a secret is refused. `orgate-web` is the gateway"
        " itself ([in a browser](../guides/auditor.md#in-a-browser)): it asks for tokens without a network, and a"
        " request that comes over one in its name is refused.",
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
        "## Times and bounds",
        table(
            ("what", "value"),
            [
                ("an authorization code lives", f"{authorization.CODE_S:.0f} s, once"),
                ("device and user code live", f"{default['device_expires_s']} s"),
                ("wait between polls", f"{default['device_interval_s']} s, five more after each `slow_down`"),
                ("sign-ins waiting at once", str(device.MAX_PENDING)),
                ("sign-ins begun from one address", f"{device.STARTS_PER_ADDRESS} in {device.PERIOD_S:.0f} s"),
                ("wrong user codes of one member", f"{device.WRONG_CODES_PER_MEMBER} in {device.PERIOD_S:.0f} s"),
                (
                    "wrong passwords of one account",
                    f"{accounts.FREE_FAILURES} free, then 2, 4, 8 … {accounts.LONGEST_WAIT_S:.0f} s of waiting",
                ),
                (
                    "wrong passwords from one address",
                    f"{accounts.FAILURES_PER_ADDRESS} in {accounts.PERIOD_S:.0f} s",
                ),
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

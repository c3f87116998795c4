"""The part of oauth.md about who may be a client, and how it shows that it is."""

from __future__ import annotations

from collections.abc import Mapping

from docs.build.markdown import code, codes, table
from gateway.oauth import client_auth
from gateway.oauth.clients import AuthMethod

_METHODS: Mapping[AuthMethod, str] = {
    AuthMethod.NONE: "`client_id` alone: a public client, which anybody can call itself.",
    AuthMethod.CLIENT_SECRET_BASIC: "`Authorization: Basic`, both parts form-encoded first (RFC 6749, 2.3.1).",
    AuthMethod.CLIENT_SECRET_POST: "`client_id` and `client_secret` in the form.",
    AuthMethod.PRIVATE_KEY_JWT: "`client_assertion` and `client_assertion_type` in the form.",
}


def registered() -> list[str]:
    """What stands below the table of built-in clients."""
    minutes = client_auth.LONGEST_S // 60
    return [
        "These come with Orgate, for everybody. They are public: they have no secret, and one that sends a secret"
        " is refused. `orgate-web` is the gateway itself ([in a browser](../guides/auditor.md#in-a-browser)): it"
        " asks for tokens without a network, and a request that comes over one in its name is refused.",
        "An organization registers others for its own people and programs, as `<organization>.<name>`"
        " ([how](../guides/admin.md#programs-of-your-own), [why so](../design/0030-clients.md)). Each"
        " authenticates in the one way it is registered for:",
        table(
            ("`auth_method`", "what it sends"),
            [(code(method.value), _METHODS[method]) for method in AuthMethod],
        ),
        f"An assertion (RFC 7523) is signed with {codes(client_auth.ALGORITHMS)} by one of the client's registered"
        " keys; `iss` and `sub` are the `client_id`, `aud` is the issuer, the token endpoint or `/oauth/par` and"
        f" nothing else, `exp` at most {minutes} minutes ahead, and `jti` is used once. More than one way at a"
        " time is `invalid_request`; whatever else is wrong is `invalid_client`, in the same words as of a client"
        " that does not exist.",
        "A token is taken back by the client that it was issued to, and no other. Introspection tells a"
        " confidential client of the access tokens of its organization that are for a plane it is registered for,"
        ' and of its own refresh tokens; of everything else it says `{"active": false}`.',
    ]

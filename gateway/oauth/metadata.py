"""What the authorization server says of itself: RFC 8414 section 2. Names what exists and nothing else."""

from __future__ import annotations

from typing import Any, Final

from gateway.jws import ALGORITHMS as PROOF_ALGORITHMS
from gateway.oauth.client_auth import ALGORITHMS
from gateway.oauth.clients import SCOPES, AuthMethod, GrantType

GRANTS: Final = (
    GrantType.AUTHORIZATION_CODE,
    GrantType.DEVICE_CODE,
    GrantType.REFRESH_TOKEN,
    GrantType.CLIENT_CREDENTIALS,
    GrantType.TOKEN_EXCHANGE,
)
"""What the token endpoint answers to."""


def metadata(issuer: str, admin_url: str) -> dict[str, Any]:
    """The document. `issuer` is `server.url`; the endpoints are beneath it."""
    base = issuer.rstrip("/")
    methods = [method.value for method in AuthMethod]
    proven = [method.value for method in AuthMethod if method is not AuthMethod.NONE]
    signed = list(ALGORITHMS)
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{base}/oauth/authorize",
        "token_endpoint": f"{base}/oauth/token",
        "device_authorization_endpoint": f"{base}/oauth/device_authorization",
        "pushed_authorization_request_endpoint": f"{base}/oauth/par",
        "revocation_endpoint": f"{base}/oauth/revoke",
        "introspection_endpoint": f"{base}/oauth/introspect",
        "jwks_uri": f"{base}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "require_pushed_authorization_requests": False,  # each client says for itself (RFC 9126 section 6)
        "dpop_signing_alg_values_supported": list(PROOF_ALGORITHMS),
        "grant_types_supported": [grant.value for grant in GRANTS],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": signed,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": signed,
        "introspection_endpoint_auth_methods_supported": proven,
        "introspection_endpoint_auth_signing_alg_values_supported": signed,
        "scopes_supported": list(SCOPES.values()),
        "orgate_admin_url": admin_url,  # RFC 8414 section 2: additional parameters are allowed
    }

"""Authlib's client against the running gateway: what programs in Python use."""

from __future__ import annotations

import ssl
import warnings
from typing import Any

import pytest

from tests.integration.oauth.certified.conftest import House

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it warns of its own module for JOSE when it is imported
    from authlib.common.security import generate_token  # type: ignore[import-untyped]  # none of Authlib has types
    from authlib.integrations.base_client.errors import OAuthError  # type: ignore[import-untyped]
    from authlib.integrations.httpx_client import OAuth2Client  # type: ignore[import-untyped]

REDIRECT = "http://127.0.0.1:51236/callback"
DEVICE = "urn:ietf:params:oauth:grant-type:device_code"


def _client(house: House, client: str, **more: Any) -> Any:
    base = house.gateway.url
    found = house.gateway.http.get(f"{base}/.well-known/oauth-authorization-server").json()
    context = ssl.create_default_context(cafile=str(house.gateway.ca))
    secret = house.secrets.get(client.removeprefix("acme."))
    method = "client_secret_basic" if secret else "none"
    made = OAuth2Client(
        client,
        secret,
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
        token_endpoint=found["token_endpoint"],
        code_challenge_method="S256",
        redirect_uri=REDIRECT,
        scope="inference",
        verify=context,
        **more,
    )
    made.metadata["found"] = found
    return made


def test_code_with_pkce_refresh_and_revocation(house: House) -> None:
    with _client(house, "acme.app") as client:
        found = client.metadata["found"]
        verifier = generate_token(48)
        page, state = client.create_authorization_url(found["authorization_endpoint"], code_verifier=verifier)
        back = house.person.authorizes(page)
        token = client.fetch_token(authorization_response=back, state=state, code_verifier=verifier)
        assert (token["token_type"], token["scope"]) == ("Bearer", "inference")
        assert client.get(f"{house.gateway.url}/v1/models").status_code == 200
        renewed = client.refresh_token()
        assert renewed["refresh_token"] != token["refresh_token"]
        assert client.get(f"{house.gateway.url}/v1/models").status_code == 200
        assert client.revoke_token(found["revocation_endpoint"], renewed["refresh_token"]).status_code == 200
        with pytest.raises(OAuthError, match="invalid_grant"):
            client.refresh_token()


def test_the_device_flow(house: House) -> None:
    with _client(house, "orgate-cli") as client:
        found = client.metadata["found"]
        asked = {"client_id": "orgate-cli", "scope": "inference"}
        where = found["device_authorization_endpoint"]
        begun = client.request("POST", where, data=asked, withhold_token=True).json()
        with pytest.raises(OAuthError, match="authorization_pending"):
            client.fetch_token(grant_type=DEVICE, device_code=begun["device_code"])
        house.person.at_device(begun["user_code"])
        assert client.fetch_token(grant_type=DEVICE, device_code=begun["device_code"])["refresh_token"]
        assert client.get(f"{house.gateway.url}/v1/models").status_code == 200


def test_client_credentials_and_introspection(house: House) -> None:
    with _client(house, "acme.backend") as client:
        found = client.metadata["found"]
        token = client.fetch_token(grant_type="client_credentials")
        assert "refresh_token" not in token
        assert client.get(f"{house.gateway.url}/v1/models").status_code == 200
        seen = client.introspect_token(found["introspection_endpoint"], token["access_token"]).json()
        assert (seen["active"], seen["sub"], seen["client_id"]) == (True, house.service, "acme.backend")

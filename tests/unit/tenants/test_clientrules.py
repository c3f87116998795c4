"""What a registered client may be: redirect URIs, grants and keys that go together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tenants.clientrules import redirect_fault
from tenants.clients import OAuthClient, org_of
from tenants.validate import validate

CLIENT: dict[str, Any] = {
    "org": "acme",
    "name": "portal",
    "title": "The Portal",
    "auth_method": "client_secret_basic",
    "redirect_uris": ["https://portal.example/cb"],
}


def faults(**changes: Any) -> dict[str, str]:
    return dict(validate(msgspec.convert({**CLIENT, **changes}, OAuthClient)))


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://portal.example/cb", "not to 127.0.0.1"),
        ("http://localhost/cb", "localhost"),
        ("https://portal.example/cb#x", "fragment"),
        ("https://*.example/cb", "wildcard"),
        ("https://user@portal.example/cb", "user name"),
        ("https://portal.example\\@evil.example/cb", "backslashes"),
        ("https://Portal.example/cb", "lower case"),
        ("https:///cb", "host name"),
        ("https://portal.example:0/cb", "host name"),
        ("https://portal.example:99999/cb", "is not a URI"),
        ("https://portal.example/cb?code=1", "the answer has too"),
        ("javascript:alert(1)", "begins with"),
        ("data:text/html,x", "begins with"),
        ("myapp:/cb", "begins with"),
        ("com.example.app://cb", "one slash"),
        ("com.example.app:cb", "one slash"),
        ("/cb", "begins with"),
        ("https://portal.example/ c", "no spaces"),
        ("https://portal.example/\u00e9", "ASCII"),
        ("https://" + "x" * 2_000, "2000"),
        ("", "begins with"),
    ],
)
def test_a_redirect_uri_that_could_lead_elsewhere_is_refused(uri: str, said: str) -> None:
    assert said in redirect_fault(uri)
    assert "redirect_uris" in faults(redirect_uris=[uri])


@pytest.mark.parametrize(
    "uri",
    [
        "https://portal.example/cb?tenant=acme",
        "https://portal.example:8443/",
        "http://127.0.0.1/cb",
        "http://[::1]:9000/cb",
        "https://[2001:db8::1]/cb",
        "com.example.app:/cb",
    ],
)
def test_a_redirect_uri_that_the_standards_allow(uri: str) -> None:
    assert faults(redirect_uris=[uri]) == {}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"redirect_uris": []}, "redirect_uris"),
        ({"grant_types": [], "redirect_uris": []}, "grant_types"),
        ({"grant_types": ["refresh_token"], "redirect_uris": []}, "grant_types"),
        ({"planes": []}, "planes"),
        ({"title": ""}, "title"),
        ({"title": "x" * 81}, "title"),
        ({"name": "No Name"}, "name"),
        ({"name": "svc_ci"}, "name"),
        ({"grant_types": ["client_credentials"], "redirect_uris": []}, "service"),
        ({"service": "mem_1"}, "service"),
        ({"jwks": "{}"}, "jwks"),
        ({"auth_method": "private_key_jwt"}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": "["}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": '{"keys":[]}'}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": '{"keys":[7]}'}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": '{"keys":[{"kty":"oct","k":"AAAA"}]}'}, "jwks"),
        ({"auth_method": "private_key_jwt", "jwks": '{"keys":[{"kty":"EC","crv":"P-256","x":"A"}]}'}, "jwks"),
        ({"redirect_uris": ["https://a.example/"] * 2}, "redirect_uris"),
        (
            {"grant_types": ["urn:ietf:params:oauth:grant-type:device_code"], "require_par": True},
            "redirect_uris",
        ),
    ],
)
def test_what_does_not_go_together_is_said_by_field(changes: dict[str, Any], field: str) -> None:
    assert field in faults(**changes)


@pytest.mark.parametrize(
    ("client_id", "org"),
    [
        ("acme.app", "acme"),
        ("acme.a.b", "acme"),
        ("orgate-cli", ""),
        ("", ""),
        (".app", ""),
        ("A.b", ""),
        ("a--b.c", ""),
    ],
)
def test_a_client_id_says_whose_it_is(client_id: str, org: str) -> None:
    assert org_of(client_id) == org

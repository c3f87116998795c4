"""Tokens that do not open the data plane. All but the missing and the expired one get the same words."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import RSAKey

from gateway.authn.verify import EXPIRED, INVALID, MISSING
from gateway.oauth.signing import SigningKeys
from gateway.secrets.masterkey import read_master_key
from gateway.secrets.sealed import SealedFile
from tests.integration.gateway.refusals import refused
from tests.integration.gateway.world import World


class Forge:
    """Signs with the server's own key, read from its sealed file: what is refused, the signature is not why."""

    def __init__(self, world: World) -> None:
        home = world.gateway.home
        sealed = SealedFile(home / "secrets.sealed", read_master_key("master.key", home))
        self.keys = asyncio.run(SigningKeys.load_or_create(sealed, time.time))
        self.token = world.ada.session.access_token
        self.claims: dict[str, Any] = json.loads(_decode(self.token.split(".")[1]))
        self.admin = world.ada.session.admin_token

    def signed(self, **changes: Any) -> str:
        return self.keys.sign({**self.claims, **changes})

    def elsewhere(self) -> str:
        """The same claims under the same `kid`, signed by another key."""
        header = {"typ": "at+jwt", "alg": "RS256", "kid": self.keys.kid}
        key = RSAKey.generate_key(2048)
        return jws.serialize_compact(header, json.dumps(self.claims).encode(), key, algorithms=["RS256"])

    def altered(self, **changes: Any) -> str:
        """Other claims under the signature of the true ones."""
        head, _, signature = self.token.split(".")
        return f"{head}.{_encode(json.dumps({**self.claims, **changes}).encode())}.{signature}"

    def unsigned(self) -> str:
        header = _encode(b'{"typ":"at+jwt","alg":"none"}')
        return f"{header}.{self.token.split('.')[1]}."


def _decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.fixture(scope="module")
def forge(world: World) -> Forge:
    return Forge(world)


def ask(world: World, headers: dict[str, str], path: str = "/v1/models") -> Any:
    return world.gateway.http.get(world.gateway.url + path, headers=headers)


def test_the_forge_makes_tokens_that_would_pass(world: World, forge: Forge) -> None:
    assert ask(world, {"authorization": "Bearer " + forge.signed()}).status_code == 200


TOKENS: dict[str, tuple[Callable[[Forge], str], str]] = {
    "expired": (lambda f: f.signed(iat=int(time.time()) - 1_000, exp=int(time.time()) - 1), EXPIRED),
    "for the admin API": (lambda f: f.admin, INVALID),
    "for somebody else's service": (lambda f: f.signed(aud="https://elsewhere.example/v1"), INVALID),
    "of another issuer": (lambda f: f.signed(iss="https://elsewhere.example"), INVALID),
    "of an organization that never was": (lambda f: f.signed(org="umbrella"), INVALID),
    "issued in the future": (lambda f: f.signed(iat=int(time.time()) + 600, exp=int(time.time()) + 900), INVALID),
    "that lives for a year": (lambda f: f.signed(exp=int(time.time()) + 31_536_000), INVALID),
    "signed by another key": (Forge.elsewhere, INVALID),
    "with its organization altered": (lambda f: f.altered(org="globex"), INVALID),
    "with its roles altered": (lambda f: f.altered(roles=["owner"]), INVALID),
    "without a signature": (Forge.unsigned, INVALID),
    "cut off": (lambda f: f.token[:-9], INVALID),
    "of nonsense": (lambda _: "sk-live-0123456789", INVALID),
    "too long": (lambda _: "a." * 5_000, INVALID),
}


@pytest.mark.parametrize("name", TOKENS)
def test_refused(world: World, forge: Forge, name: str) -> None:
    make, words = TOKENS[name]
    answer = ask(world, {"authorization": "Bearer " + make(forge)})
    error = refused(answer.status_code, answer.headers, answer.content, expect=401, code="invalid_token")
    assert error["message"] == words
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("value", [None, "", "Bearer", "Basic YWRhOnB3", "Token abc"])
def test_no_token(world: World, value: str | None) -> None:
    answer = ask(world, {} if value is None else {"authorization": value})
    error = refused(answer.status_code, answer.headers, answer.content, expect=401, code="invalid_token")
    assert error["message"] == MISSING


def test_a_token_in_the_query_does_not_count(world: World) -> None:
    """RFC 6750 section 2.3: URLs end up in logs."""
    answer = ask(world, {}, f"/v1/models?access_token={world.ada.session.access_token}")
    refused(answer.status_code, answer.headers, answer.content, expect=401, code="invalid_token")


def test_a_data_token_does_not_open_the_admin_api(world: World) -> None:
    session = world.owner
    answer = world.gateway.http.get(world.gateway.admin_url + "/admin/v1/me", headers=session.bearer)
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.headers["www-authenticate"].startswith("Bearer")

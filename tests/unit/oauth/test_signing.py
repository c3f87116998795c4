"""Signing keys: stored once, rotated without a token failing, public only in their public half."""

from __future__ import annotations

import json

import pytest

from gateway.authn.verify import Authenticator
from gateway.oauth.errors import RotatedLatelyError
from gateway.oauth.published import KeyUse
from gateway.oauth.signing import AHEAD_S, KEYS_NAME, SigningKeys
from gateway.secret import Secret
from tenants.ids import OrgId
from tenants.models import Org
from tenants.snapshot import Snapshot, TenantRecord

ISSUER, AUDIENCE = "https://gateway.example", "https://gateway.example/v1"


class Shelf:
    def __init__(self) -> None:
        self.held: dict[str, Secret] = {}

    async def load(self, name: str) -> Secret | None:
        return self.held.get(name)

    async def store(self, name: str, secret: Secret) -> None:
        self.held[name] = secret


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def _claims(clock: Clock) -> dict[str, object]:
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "mem_ada",
        "org": "acme",
        "roles": ["member"],
        "scope": "",
        "client_id": "orgate-cli",
        "jti": "t",
        "iat": int(clock.now),
        "exp": int(clock.now) + 1800,
    }


def _accepts(authn: Authenticator, token: str, jwks: str) -> str:
    snapshot = Snapshot(1, [TenantRecord(Org(id=OrgId("acme"), name="Acme"))], (), jwks)
    return authn.authenticate(f"Bearer {token}".encode(), "h", snapshot).member


async def test_keys_are_created_once_and_loaded_after() -> None:
    shelf, clock = Shelf(), Clock()
    first = await SigningKeys.load_or_create(shelf, clock)
    second = await SigningKeys.load_or_create(shelf, clock)
    assert first.kid == second.kid
    assert first.jwks_json() == second.jwks_json()
    assert list(shelf.held) == [KEYS_NAME]


async def test_what_it_signs_verifies_and_the_jwks_is_public() -> None:
    clock = Clock()
    keys = await SigningKeys.load_or_create(Shelf(), clock)
    authn = Authenticator(ISSUER, AUDIENCE, clock)
    assert _accepts(authn, keys.sign(_claims(clock)), keys.jwks_json()) == "mem_ada"
    published = json.loads(keys.jwks_json())["keys"]
    assert [set(key) for key in published] == [{"kty", "use", "alg", "kid", "n", "e"}] * 2
    assert published[0]["kid"] == keys.kid


async def test_rotation_fails_no_token_old_or_new_even_with_yesterday_s_jwks() -> None:
    shelf, clock = Shelf(), Clock()
    keys = await SigningKeys.load_or_create(shelf, clock)
    clock.now += AHEAD_S
    authn = Authenticator(ISSUER, AUDIENCE, clock)
    before, old_kid, old_jwks = keys.sign(_claims(clock)), keys.kid, keys.jwks_json()
    await keys.rotate()
    assert keys.kid != old_kid
    after = keys.sign(_claims(clock))
    assert _accepts(authn, after, old_jwks)  # a worker that has not heard of the rotation yet
    assert _accepts(authn, before, keys.jwks_json())
    assert _accepts(authn, after, keys.jwks_json())
    assert (await SigningKeys.load_or_create(shelf, clock)).kid == keys.kid

    clock.now += 1799
    assert _accepts(authn, before, keys.jwks_json())
    clock.now += 100
    assert old_kid not in keys.jwks_json()
    await keys.rotate()
    assert old_kid not in json.dumps(json.loads(shelf.held[KEYS_NAME].reveal()))


async def test_a_key_signs_only_once_every_verifier_can_have_it() -> None:
    clock = Clock()
    keys = await SigningKeys.load_or_create(Shelf(), clock)
    clock.now += AHEAD_S - 7
    kid = keys.kid
    with pytest.raises(RotatedLatelyError) as caught:
        await keys.rotate()
    assert (caught.value.wait_s, keys.kid) == (7, kid)
    clock.now += 7
    await keys.rotate()
    with pytest.raises(RotatedLatelyError):
        await keys.rotate()


async def test_what_an_operator_sees_of_the_keys() -> None:
    clock = Clock()
    keys = await SigningKeys.load_or_create(Shelf(), clock)
    made = int(clock.now)
    clock.now += 1_000
    first = keys.kid
    await keys.rotate()
    rotated = int(clock.now)
    current, following, retired = keys.facts()
    assert (current.kid, current.use, current.since) == (keys.kid, KeyUse.CURRENT, rotated)
    assert (following.use, following.since) == (KeyUse.NEXT, rotated)
    assert (retired.kid, retired.use, retired.since) == (first, KeyUse.RETIRED, made)
    clock.now = retired.gone_at + 1
    assert len(keys.facts()) == 2


async def test_the_age_of_keys_from_before_counts_from_the_first_start() -> None:
    shelf, clock = Shelf(), Clock()
    await SigningKeys.load_or_create(shelf, clock)
    stored = json.loads(shelf.held[KEYS_NAME].reveal())
    for key in (stored["current"], stored["next"]):
        del key["since"]
    shelf.held[KEYS_NAME] = Secret(json.dumps(stored).encode())
    clock.now += 5
    assert (await SigningKeys.load_or_create(shelf, clock)).facts()[0].since == clock.now
    clock.now += 5
    again = await SigningKeys.load_or_create(shelf, clock)
    assert again.facts()[0].since == clock.now - 5
    await again.rotate()  # the next one has been published for who knows how long

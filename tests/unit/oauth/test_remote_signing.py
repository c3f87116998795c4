"""Tokens signed by a key elsewhere: which version signs, which are published, what is said while it is away."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from collections.abc import Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt
from joserfc.jwk import KeySet

from gateway.errors import UnavailableError
from gateway.oauth.errors import RotatedElsewhereError, TemporarilyUnavailableError
from gateway.oauth.remote_signing import RemoteSigningKeys
from gateway.oauth.signing import AHEAD_S, SigningKeys
from gateway.secrets.transit import PublicVersion
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S

START = 1_800_000_000.0
KEYS = [generate_private_key(65537, 2048) for _ in range(3)]
CLAIMS = {"sub": "mem_1", "iat": int(START), "exp": int(START) + 900}


class Remote:
    """Signs with real keys; `made` says when each version was made."""

    def __init__(self, *made: float) -> None:
        self.made = list(made)
        self.away = False

    async def versions(self) -> Sequence[PublicVersion]:
        if self.away:
            raise RuntimeError("sealed")
        return [
            PublicVersion(
                number,
                at,
                KEYS[number - 1]
                .public_key()
                .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
                .decode(),
            )
            for number, at in enumerate(self.made, 1)
        ]

    async def sign(self, version: int, data: bytes) -> bytes:
        if self.away:
            raise UnavailableError("https://vault.internal is sealed", retry_after_s=2)
        return KEYS[version - 1].sign(data, PKCS1v15(), SHA256())


def kids(keys: RemoteSigningKeys) -> list[str]:
    return [key["kid"] for key in json.loads(keys.jwks_json())["keys"]]


async def test_a_token_verifies_against_the_published_keys() -> None:
    keys = await RemoteSigningKeys.open(Remote(START), lambda: START)
    token = await keys.signed(CLAIMS)
    found = jwt.decode(token, KeySet.import_key_set(json.loads(keys.jwks_json())), algorithms=["RS256"])
    assert found.claims == CLAIMS
    assert found.header == {"typ": "at+jwt", "alg": "RS256", "kid": kids(keys)[0]}
    assert keys.own_claims(token) == CLAIMS
    assert keys.own_claims(token[:-4] + "AAAA") is None
    assert keys.own_claims("nonsense") is None


async def test_what_is_published_has_the_form_of_the_keys_in_memory() -> None:
    class Nowhere:
        async def load(self, name: str) -> None:
            return None

        async def store(self, name: str, secret: object) -> None:
            """Kept nowhere."""

    remote = await RemoteSigningKeys.open(Remote(START), lambda: START)
    local = await SigningKeys.load_or_create(Nowhere(), lambda: START)
    (mine, *_), (theirs, *_) = (json.loads(keys.jwks_json())["keys"] for keys in (remote, local))
    assert mine.keys() == theirs.keys()
    assert {name: mine[name] for name in ("kty", "e", "use", "alg")} == {
        name: theirs[name] for name in ("kty", "e", "use", "alg")
    }


async def test_a_new_version_is_published_first_and_signs_later_and_the_old_one_stays_until_its_tokens_end() -> (
    None
):
    now = [START]
    remote = Remote(START - 10_000)
    keys = await RemoteSigningKeys.open(remote, lambda: now[0])
    (old,) = kids(keys)
    remote.made.append(START)
    await keys.look()
    both = kids(keys)
    assert both[0] == old
    assert len(both) == 2
    now[0] = START + AHEAD_S - 1
    before = await keys.signed(CLAIMS)
    assert [(one.kid, one.use) for one in keys.facts()] == [(old, "current"), (both[1], "next")]
    now[0] = START + AHEAD_S
    after = await keys.signed(CLAIMS)
    header = [json.loads(_decoded(token.split(".")[0])) for token in (before, after)]
    assert [one["kid"] for one in header] == both
    last = START + AHEAD_S + LONGEST_TOKEN_S + LEEWAY_S
    now[0] = last - 1
    assert kids(keys) == both
    assert [(one.kid, one.use) for one in keys.facts()] == [(both[1], "current"), (old, "retired")]
    with pytest.raises(RotatedElsewhereError):
        await keys.rotate()
    now[0] = last
    assert kids(keys) == both[1:]


async def test_a_key_that_was_just_made_signs_at_once_when_there_is_no_other() -> None:
    keys = await RemoteSigningKeys.open(Remote(START), lambda: START)
    assert keys.own_claims(await keys.signed(CLAIMS)) == CLAIMS


async def test_while_it_is_away_the_answer_is_oauth_s_own_and_names_no_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    remote = Remote(START)
    keys = await RemoteSigningKeys.open(remote, lambda: START)
    published = keys.jwks_json()
    remote.away = True
    with pytest.raises(TemporarilyUnavailableError) as caught:
        await keys.signed(CLAIMS)
    assert (caught.value.code, caught.value.status, caught.value.retry_after_s) == (
        "temporarily_unavailable",
        503,
        2,
    )
    assert "vault" not in caught.value.description
    assert "https://vault.internal is sealed" in caplog.text
    await keys.look()
    assert keys.jwks_json() == published
    remote.away = False
    assert keys.own_claims(await keys.signed(CLAIMS)) == CLAIMS


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))

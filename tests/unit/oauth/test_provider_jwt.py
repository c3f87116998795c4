"""JWTs of outside issuers: the known attacks, and nothing that is right refused."""

from __future__ import annotations

import base64
import hmac
import json
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from gateway.oauth.provider_jwt import (
    MAX_TOKEN,
    OutsideTokenError,
    UnknownKeyError,
    check_claims,
    parse_keys,
    verified,
)
from tests.fakes.oidc import Signer, rsa, signed, unsigned

NOW = 1_800_000_000
ISSUER, AUDIENCE = "https://id.example", "us"
RIGHT: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s-1", "iat": NOW, "exp": NOW + 300}


def _set(*keys: Any) -> bytes:
    return json.dumps({"keys": [k.as_dict(private=False) if isinstance(k, Signer) else k for k in keys]}).encode()


KEYS = parse_keys(_set(rsa()))


@pytest.mark.parametrize("alg", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"])
def test_each_rsa_signature_is_verified(alg: str) -> None:
    key = {**rsa().as_dict(private=False), "alg": alg}
    assert verified(signed(RIGHT, rsa(), alg), parse_keys(_set(key))) == RIGHT


@pytest.mark.parametrize(("alg", "curve"), [("ES256", "P-256"), ("ES384", "P-384"), ("ES512", "P-521")])
def test_each_curve_is_verified(alg: str, curve: Any) -> None:
    key = ECKey.generate_key(curve, {"kid": "e"})
    keys = parse_keys(_set(key, rsa()))
    assert verified(signed(RIGHT, key, alg), keys) == RIGHT
    with pytest.raises(OutsideTokenError, match="signature"):
        verified(signed(RIGHT, ECKey.generate_key(curve, {"kid": "e"}), alg), keys)


def test_edwards_too() -> None:
    key = OKPKey.generate_key("Ed25519", {"kid": "o"})
    assert verified(signed(RIGHT, key, "Ed25519"), parse_keys(_set(key))) == RIGHT


def test_header_members_that_only_describe_are_passed_over() -> None:
    token = signed(RIGHT, rsa(), x5t="abc", **{"x5t#S256": "abc", "pi.atm": "1"})
    assert verified(token, KEYS) == RIGHT


def test_no_kid_will_do_where_there_is_one_key() -> None:
    bare = {name: value for name, value in rsa().as_dict(private=False).items() if name != "kid"}
    assert verified(signed(RIGHT, rsa(), kid=None), parse_keys(_set(bare))) == RIGHT
    with pytest.raises(OutsideTokenError, match="which of the provider's keys"):
        verified(signed(RIGHT, rsa(), kid=None), parse_keys(_set(rsa(), rsa(1))))


def _confused() -> str:
    """Signed by HMAC with the published key's own text (CVE-2015-9235)."""
    signed_part = unsigned(RIGHT, alg="HS256", kid=rsa().kid).removesuffix(".")
    tag = hmac.digest(rsa().as_pem(private=False), signed_part.encode(), "sha256")
    return f"{signed_part}.{base64.urlsafe_b64encode(tag).decode().rstrip('=')}"


def _recoded(change: str) -> str:
    head, body, tag = signed(RIGHT, rsa()).split(".")
    match change:
        case "claims":
            body = base64.urlsafe_b64encode(json.dumps({**RIGHT, "sub": "other"}).encode()).decode().rstrip("=")
        case "tag":
            tag = tag[:-8] + "A" * 8
        case "empty":
            tag = ""
        case "padding":
            tag += "="
        case "space":
            body = " " + body
    return f"{head}.{body}.{tag}"


@pytest.mark.parametrize(
    "token",
    [
        *(unsigned(RIGHT, alg=alg, kid="key-0") for alg in ("none", "None", "NONE", "nOnE", "", "RS256")),
        unsigned(RIGHT, alg=["RS256"]),
        unsigned(RIGHT, alg=None),
        _confused(),
        signed(RIGHT, OctKey.import_key("a" * 32), "HS256", kid="key-0"),
        signed(RIGHT, rsa(1), kid="key-0"),
        signed(RIGHT, rsa(1), jwk=rsa(1).as_dict(private=False), kid="key-0"),
        signed(RIGHT, rsa(), jku="https://evil.example/jwks"),
        signed(RIGHT, rsa(), x5u="https://evil.example/cert"),
        signed(RIGHT, rsa(), x5c=["MIIB"]),
        signed(RIGHT, rsa(), kid="../../dev/null"),
        signed(RIGHT, rsa(), kid="key-0' OR '1'='1"),
        signed(RIGHT, rsa(), "RS512"),
        *(_recoded(change) for change in ("claims", "tag", "empty", "padding", "space")),
        signed('{"iss": "a", "iss": "b"}', rsa()),
        signed('{"exp": NaN}', rsa()),
        signed('{"exp": Infinity}', rsa()),
        signed("[1]", rsa()),
        signed('"text"', rsa()),
        signed("no json", rsa()),
        signed("[" * 20_000, rsa()),
        signed({**RIGHT, "groups": ["g" * 1_000] * 70}, rsa()),
        "",
        "a.b",
        "a.b.c.d.e",
        "..",
        "x" * (MAX_TOKEN + 1),
        "é.é.é",
    ],
)
def test_what_is_not_right_is_refused(token: str) -> None:
    with pytest.raises(OutsideTokenError):
        verified(token, KEYS)


def test_a_header_that_must_be_understood_is_refused() -> None:
    head = base64.urlsafe_b64encode(b'{"alg":"RS256","kid":"key-0","crit":["exp"],"exp":1}').decode().rstrip("=")
    _, body, tag = signed(RIGHT, rsa()).split(".")
    with pytest.raises(OutsideTokenError, match="header"):
        verified(f"{head}.{body}.{tag}", KEYS)


def test_an_unknown_key_is_told_apart() -> None:
    with pytest.raises(UnknownKeyError):
        verified(signed(RIGHT, rsa(1)), KEYS)


def _without(key: Signer, **changes: Any) -> dict[str, Any]:
    return {**key.as_dict(private=False), **changes}


@pytest.mark.parametrize(
    "jwk",
    [
        _without(rsa(), use="enc"),
        _without(rsa(), key_ops=["encrypt"]),
        _without(rsa(), key_ops="verify"),
        _without(rsa(), alg="HS256"),
        _without(rsa(), alg="RSA-OAEP"),
        _without(rsa(), kid=7),
        _without(rsa(), n=""),
        _without(rsa(), n=5),
        _without(rsa(), e="!"),
        _without(rsa(), kty="oct", k="c2VjcmV0"),
        _without(ECKey.generate_key("secp256k1", {"kid": "e"})),
        _without(ECKey.generate_key("P-256", {"kid": "e"}), x="AAAA"),
        _without(OKPKey.generate_key("X25519", {"kid": "o"})),
        {"kty": "RSA", "kid": "small", "e": "AQAB", "n": "x" * 171},
        {"kty": "RSA", "kid": "so large that it takes seconds", "e": "AQAB", "n": "x" * 50_000},
        _without(rsa(), e="x" * 300),
        "no key",
        {},
        None,
    ],
)
def test_keys_that_verify_nothing_are_passed_over(jwk: Any) -> None:
    assert [key.kid for key in parse_keys(_set(jwk, rsa()))] == ["key-0"]


def test_a_private_key_that_is_published_is_not_taken_along() -> None:
    key = RSAKey.generate_key(2048, {"kid": "leak"})
    (found,) = parse_keys(_set(key.as_dict(private=True)))
    assert not found.public.is_private


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "us-too"},
        {"aud": "u"},
        {"aud": None},
        {"aud": []},
        {"aud": {"us": 1}},
        {"sub": ""},
        {"sub": None},
        {"sub": 7},
        {"sub": "s" * 256},
        {"sub": "a\nb"},
        {"exp": None},
        {"exp": NOW - 61},
        {"exp": str(NOW + 300)},
        {"exp": True},
        {"exp": 1e300},
        {"exp": -1},
        {"iat": None},
        {"iat": NOW + 61},
        {"nbf": NOW + 61},
        {"nbf": "soon"},
    ],
)
def test_claims_that_do_not_hold_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(OutsideTokenError):
        check_claims({**RIGHT, **changes}, ISSUER, AUDIENCE, NOW, 60)


@pytest.mark.parametrize(
    "changes",
    [{}, {"aud": ["other", "us"]}, {"exp": NOW - 59}, {"iat": NOW + 59}, {"nbf": NOW}, {"exp": NOW + 0.5}],
)
def test_claims_that_hold_are_taken(changes: dict[str, Any]) -> None:
    check_claims({**RIGHT, **changes}, ISSUER, AUDIENCE, NOW, 60)

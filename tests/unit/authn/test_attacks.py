"""The known attacks on JWTs: each is refused as `UnauthenticatedError`, none is answered otherwise."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from gateway.authn.verify import EXPIRED, INVALID, Authenticator
from gateway.errors import UnauthenticatedError
from tests.unit.authn.tokens import (
    AUDIENCE,
    ISSUER,
    NOW,
    b64,
    claims,
    header,
    jwk,
    key,
    kid,
    sign,
    token,
    world,
)


def _each(*values: Any) -> tuple[Any, ...]:
    """Values of every type, each to be put where one of them belongs."""
    return values


NONE_SPELLINGS = ("none", "None", "NONE", "nOnE", "", "null", "none ", "\u0000none")


def _none() -> Iterator[str]:
    for spelling in NONE_SPELLINGS:
        head, body = b64(json.dumps(header(alg=spelling)).encode()), b64(json.dumps(claims()).encode())
        signature = token().split(".")[2]
        yield from (
            f"{head}.{body}.",
            f"{head}.{body}",
            f"{head}.{body}.{signature}",
            f"{head}.{body}.{b64(b'x')}",
        )


def _hmac() -> Iterator[str]:
    """The public key, in each spelling an implementation might have it, as an HMAC secret."""
    public = key("server").public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    pkcs1 = public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    for secret in (
        pem,
        pem.strip(),
        der,
        pkcs1,
        json.dumps(jwk("server")).encode(),
        jwk("server")["n"].encode(),
        b"",
    ):
        for alg, digest in (("HS256", "sha256"), ("HS512", "sha512"), ("RS256", "sha256")):
            signed = f"{b64(json.dumps(header(alg=alg)).encode())}.{b64(json.dumps(claims()).encode())}"
            yield f"{signed}.{b64(hmac.new(secret, signed.encode(), getattr(hashlib, digest)).digest())}"


def _other_rsa() -> Iterator[str]:
    """The right key with another padding or hash."""
    for alg in ("RS256", "PS256", "RS512", "RS1"):
        signed = f"{b64(json.dumps(header(alg=alg)).encode())}.{b64(json.dumps(claims()).encode())}".encode()
        for padding, digest in (
            (PSS(MGF1(SHA256()), 32), SHA256()),
            (PKCS1v15(), SHA512()),
            (PKCS1v15(), SHA1()),
        ):
            yield f"{signed.decode()}.{b64(key('server').sign(signed, padding, digest))}"


def _embedded() -> Iterator[str]:
    """The attacker's key, offered in the header or hidden behind the known kid."""
    yield sign(header(), claims(), "attacker")
    yield sign(header(kid=kid("attacker")), claims(), "attacker")
    for extra in _each(
        {"jwk": jwk("attacker")},
        {"jku": "https://attacker.example/jwks.json"},
        {"jku": f"{ISSUER}/.well-known/jwks.json"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": ["MIIB"]},
        {"x5t": "abc"},
        {"x5t#S256": "abc"},
    ):
        yield sign({**header(), **extra}, claims(), "attacker")
        yield sign({**header(), **extra}, claims())  # even rightly signed: nothing may steer the verification
        yield sign({**header(kid=kid("attacker")), **extra}, claims(), "attacker")


def _crit() -> Iterator[str]:
    for extra in _each(
        {"crit": ["exp"], "exp": NOW},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": ["unknown"], "unknown": 1},
        {"crit": []},
        {"crit": "alg"},
        {"b64": False},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
    ):
        yield sign({**header(), **extra}, claims())


def _header() -> Iterator[str]:
    for changes in _each(
        *(
            {"kid": value}
            for value in _each(..., "", None, 0, [], {}, ["x"], "../../dev/null", "/dev/null", "' OR 1=1 --")
        ),
        *({"kid": kid("server") + tail} for tail in ("\x00", " ", "\n", "/")),
        {"kid": [kid("server")]},
        *(
            {"typ": value}
            for value in _each(
                ..., "", None, "JWT", "jwt", "at", "at+jwt ", "logout+jwt", "dpop+jwt", 1, ["at+jwt"]
            )
        ),
        *(
            {"alg": value}
            for value in _each(..., None, "rs256", "RS256 ", "ES256", "EdDSA", "HS256", 256, ["RS256"], {})
        ),
    ):
        yield sign(header(**changes), claims())
    yield sign("[]", claims())
    yield sign('"RS256"', claims())
    yield sign("null", claims())
    yield sign("{", claims())
    yield sign("", claims())
    yield sign(b"\xff\xfe{}", claims())
    yield sign("[" * 3000, claims())


def _duplicates() -> Iterator[str]:
    good = json.dumps(claims())[:-1]
    for name in ("exp", "iss", "aud", "sub", "org", "roles", "iat", "jti"):
        yield sign(header(), f'{good}, "{name}": {json.dumps(claims()[name])}}}')
    yield sign(header(), good + ', "\\u006frg": "acme"}')  # the same name, escaped
    yield sign(header(), good + ', "x": {"a": 1, "a": 2}}')
    head = json.dumps(header())[:-1]
    for name in ("alg", "typ", "kid"):
        yield sign(f'{head}, "{name}": {json.dumps(header()[name])}}}', claims())
    yield sign(f'{{"alg": "none", {head[1:]}}}', claims())


def _times() -> Iterator[str]:
    absurd = _each(
        ..., None, True, "never", str(NOW + 900), float(NOW + 900), 0, -1, 1e308, 10**400, 2**63, 2**53,
        [NOW + 900], {}, NOW + 86_400, NOW + 1_900,
    )  # fmt: skip
    for value in absurd:
        yield sign(header(), claims(exp=value))
    for value in _each(..., None, True, "0", float(NOW), -1, 0, NOW + 31, NOW + 900, 10**400, [], NOW - 10_000):
        yield sign(header(), claims(iat=value))
    yield sign(header(), claims(iat=NOW, exp=NOW))
    yield sign(header(), claims(iat=NOW + 20, exp=NOW + 10))
    for value in _each(None, True, "0", 1.5, -1, NOW + 60, 10**400, []):
        yield sign(header(), claims(nbf=value))
    good = json.dumps(claims())[:-1].replace(str(NOW + 890), "%s") + "}"
    for raw in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "1e999",
        f"{NOW + 890}.0",
        "9" * 5000,
        "0x7fffffff",
        "+1",
    ):
        yield sign(header(), good % raw)


def _audiences() -> Iterator[str]:
    for value in _each(
        ..., None, "", [], {}, 1, True, [AUDIENCE, 1], [[AUDIENCE]], {"aud": AUDIENCE}, AUDIENCE[:-1],
        AUDIENCE + "/",
        AUDIENCE + "/x", AUDIENCE + " ", f"{AUDIENCE} {ISSUER}/admin", f"x{AUDIENCE}", AUDIENCE.upper(),
        [AUDIENCE + "x"], f"{ISSUER}/admin", ISSUER, "https://gateway.example:443/v1", "*", ["*"],
    ):  # fmt: skip
        yield sign(header(), claims(aud=value))


def _claims() -> Iterator[str]:
    for value in _each(..., None, "", ISSUER + "/", "http://gateway.example", ISSUER.upper(), [ISSUER], {}, 1):
        yield sign(header(), claims(iss=value))
    for value in _each(..., None, ["inference"], {}, 1, True):
        yield sign(header(), claims(scope=value))
    for value in _each(
        ...,
        None,
        "member",
        "owner admin",
        {},
        {"owner": 1},
        [1],
        [None],
        ["root"],
        ["Member"],
        [["member"]],
    ):
        yield sign(header(), claims(roles=value))
    for value in (None, "core", {"core": 1}, [1], [None], [["core"]], 7):
        yield sign(header(), claims(groups=value))
    yield sign(header(), claims(roles=["operator"]))  # operators live in the platform's organization only
    for value in _each(
        ..., None, "", 1, [], "acme/..", "Acme", "acme\x00", "acme ", "unknown-org", "*", ["acme"], {}
    ):
        yield sign(header(), claims(org=value))
    for name in ("sub", "client_id", "jti"):
        for value in _each(..., None, "", 1, [], {}, True, "a b", "a\nb", "a\x00", "é", "x" * 300):
            yield sign(header(), claims(**{name: value}))


def _shapes() -> Iterator[str]:
    good = token()
    head, body, signature = good.split(".")
    yield from ("", ".", "..", "...", "....", "a.b.c", good + ".", "." + good, good + "." + signature, good + "=")
    yield from (f"{head}.{body}", f"{head}.{body}.", f".{body}.{signature}", f"{head}..{signature}")
    yield from (f" {good}", f"{good} ", f"{good}\n", f"{good}\x00", f"{good}, {good}", good.replace(".", " . ", 1))
    yield from (f"{head}.{body}.{signature[:-1]}", f"{head}.{body}.{signature}A", f"{head}=.{body}.{signature}")
    last = signature[-1]
    twin = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield f"{head}.{body}.{signature[:-1]}{twin[twin.index(last) ^ 1]}"  # the unused bits of the last letter
    yield f"{head}.{body}.{signature.replace('-', '+').replace('_', '/')}+"
    yield sign(header(), claims(org="globex")).rsplit(".", 1)[0] + "." + signature  # another body under it
    yield sign(header(), json.dumps(claims()) + " {}")
    yield from (sign(header(), raw) for raw in ("[]", "null", "1", '"x"', "{", "", b"\xff", "{}", "[" * 3000))
    yield sign(header(), claims(padding="x" * 9000))  # longer than a token may be
    yield "A" * 100_000
    yield f"{b64(b'{}')}." * 1000
    # RFC 7516, five parts; RFC 7515 JSON serialization; a detached payload
    yield f"{head}.{body}.{signature}.{body}.{signature}"
    yield json.dumps({"protected": head, "payload": body, "signature": signature})
    yield f"{head}..{signature}"


ATTACKS = {
    "alg-none": _none,
    "hmac-with-public-key": _hmac,
    "other-rsa-algorithms": _other_rsa,
    "embedded-or-foreign-key": _embedded,
    "crit-and-extensions": _crit,
    "header-members": _header,
    "duplicate-members": _duplicates,
    "times": _times,
    "audience": _audiences,
    "claims": _claims,
    "shapes": _shapes,
}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_is_accepted(name: str) -> None:
    authn = Authenticator(ISSUER, AUDIENCE, lambda: float(NOW))
    snapshot = world()
    authn.authenticate(f"Bearer {token()}".encode(), "gateway.example", snapshot)  # the good one is in the cache
    tried = 0
    for attack in ATTACKS[name]():
        for _ in range(2):
            with pytest.raises(UnauthenticatedError) as caught:
                authn.authenticate(
                    f"Bearer {attack}".encode("utf-8", "surrogatepass"), "gateway.example", snapshot
                )
            assert caught.value.message == INVALID, attack[:200]
        tried += 1
    assert tried >= 10


def test_an_expired_token_says_so_and_only_when_it_was_ours() -> None:
    authn = Authenticator(ISSUER, AUDIENCE, lambda: float(NOW))
    old = claims(iat=NOW - 1000, exp=NOW - 100)
    for made, says in ((sign(header(), old), EXPIRED), (sign(header(), old, "attacker"), INVALID)):
        with pytest.raises(UnauthenticatedError) as caught:
            authn.authenticate(f"Bearer {made}".encode(), "gateway.example", world())
        assert caught.value.message == says


@given(st.binary(max_size=400))
def test_no_bytes_break_it(noise: bytes) -> None:
    authn = Authenticator(ISSUER, AUDIENCE, lambda: float(NOW))
    with pytest.raises(UnauthenticatedError):
        authn.authenticate(b"Bearer " + noise, "gateway.example", world())


@given(st.data())
def test_no_changed_letter_is_accepted(data: st.DataObject) -> None:
    authn = Authenticator(ISSUER, AUDIENCE, lambda: float(NOW))
    good = token().encode()
    place = data.draw(st.integers(0, len(good) - 1))
    letter = data.draw(st.integers(0, 255).filter(lambda value: value != good[place]))
    with pytest.raises(UnauthenticatedError):
        authn.authenticate(b"Bearer " + good[:place] + bytes([letter]) + good[place + 1 :], "h", world())

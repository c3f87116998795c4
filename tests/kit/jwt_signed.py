"""Attacks on JSON Web Tokens that show how strictly a server reads what its own key has signed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384, SHA512

from tests.kit.jwt_target import GONE, Family, Target, b64, signing_input

SIGNED: dict[str, Family] = {}
"""What only the server's key can make: none of it is a token all the same."""


def signed(make: Family) -> Family:
    SIGNED[make.__name__.replace("_", " ")] = make
    return make


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

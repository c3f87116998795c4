"""Time-based one-time passwords by the RFC's own vectors, their secrets at rest, and the picture of one."""

from __future__ import annotations

import os
import re
from base64 import b32encode, b64decode, b64encode
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.oauth import totp
from gateway.oauth.digests import ServerKey
from gateway.secret import Secret

RFC_SECRET = Secret(b32encode(b"12345678901234567890"))


@pytest.mark.parametrize(
    ("now", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_vectors_of_rfc_6238_appendix_b(now: int, code: str) -> None:
    assert totp.step_of(RFC_SECRET, code, now) == now // 30
    assert totp.step_of(RFC_SECRET, code, now + 30) == now // 30
    assert totp.step_of(RFC_SECRET, code, now + 90) == -1
    assert totp.step_of(RFC_SECRET, "000000", now) == -1


@pytest.mark.parametrize("text", ["", "12345", "1234567", "12345a", "１２３４５６", "-12345", " 12345"])
def test_what_is_no_code(text: str) -> None:
    assert not totp.is_code(text)


def test_a_secret_has_160_bits_and_its_uri_says_who_and_where() -> None:
    secret = totp.new_secret(os.urandom)
    assert re.fullmatch("[A-Z2-7]{32}", secret)
    parts = urlsplit(totp.uri(secret, "ann@acme.example (acme)", "Orgate gateway.example"))
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    said = parse_qs(parts.query)
    assert said["secret"] == [secret]
    assert said["issuer"] == ["Orgate gateway.example"]


def test_the_picture_is_inline_svg_without_a_script_or_an_address_to_load() -> None:
    text = totp.picture("otpauth://totp/a?secret=<script>")
    assert text.startswith("<svg")
    assert "script" not in text
    assert "href" not in text
    assert "style" not in text


def test_a_sealed_secret_opens_for_what_it_was_bound_to_and_nothing_else() -> None:
    secrets = totp.TotpSecrets(ServerKey(Secret(b"k" * 32)), os.urandom)
    sealed = secrets.seal("SECRET", "acme", "mem_ada", "f1")
    opened = secrets.open(sealed, "acme", "mem_ada", "f1")
    assert opened is not None
    assert opened.reveal() == b"SECRET"
    assert b"SECRET" not in b64decode(sealed)
    assert secrets.seal("SECRET", "acme", "mem_ada", "f1") != sealed
    for bound in (("globex", "mem_ada", "f1"), ("acme", "mem_bob", "f1"), ("acme", "mem_ada", "f2"), ()):
        assert secrets.open(sealed, *bound) is None
    other = totp.TotpSecrets(ServerKey(Secret(b"x" * 32)), os.urandom)
    assert other.open(sealed, "acme", "mem_ada", "f1") is None
    raw = bytearray(b64decode(sealed))
    raw[-1] ^= 1
    for text in (b64encode(raw).decode(), "", "AAAA", "é", sealed[:-8]):
        assert secrets.open(text, "acme", "mem_ada", "f1") is None

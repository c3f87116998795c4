"""AWS Signature Version 4, held against AWS's own test suite."""

from __future__ import annotations

import calendar

import pytest

from gateway.secret import Secret
from gateway.upstream.auth.sigv4 import Signer
from tests.unit.upstream.auth.sigv4_vectors import SECRET, STAMP, VECTORS, Vector

AT = calendar.timegm((2015, 8, 30, 12, 36, 0))
HOST = b"example.amazonaws.com"


def signer(token: str = "") -> Signer:
    session = Secret(token) if token else None
    return Signer("AKIDEXAMPLE", Secret(SECRET), "us-east-1", "service", host=HOST, token=session)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_published_vector(vector: Vector) -> None:
    said = signer().authorization(vector.method, vector.target, vector.headers, vector.body, AT)
    scope = b"AKIDEXAMPLE/20150830/us-east-1/service/aws4_request"
    expected = b"AWS4-HMAC-SHA256 Credential=%b, SignedHeaders=%b, Signature=%b"
    assert said == expected % (scope, vector.signed, vector.signature)


def test_it_adds_what_a_request_needs_and_signs_no_more_than_that() -> None:
    """The vector `post-x-www-form-urlencoded`, with fields besides that a proxy may change."""
    vector = VECTORS[-1]
    headers = [(b"user-agent", b"orgate"), vector.headers[0], (b"accept", b"*/*")]
    added = dict(signer().sign(b"POST", b"/", headers, vector.body, AT + 0.9))
    assert set(added) == {b"authorization", b"x-amz-date"}
    assert added[b"x-amz-date"] == STAMP
    assert added[b"authorization"].endswith(vector.signature)


def test_a_session_token_is_sent_and_signed() -> None:
    """The vector `get-vanilla-with-session-token`."""
    token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267"  # AWS's own example
    added = dict(signer(token).sign(b"GET", b"/", (), b"", AT))
    assert added[b"x-amz-security-token"] == token.encode()
    signature = b"07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"
    assert added[b"authorization"].endswith(
        b"SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=" + signature
    )


def test_midnight_changes_the_key_and_back() -> None:
    """One signer serves for days; a clock that is set back is served too."""
    one = signer()
    today = one.sign(b"GET", b"/", (), b"", AT)
    tomorrow = one.sign(b"GET", b"/", (), b"", AT + 86_400)
    assert tomorrow == signer().sign(b"GET", b"/", (), b"", AT + 86_400)
    assert b"/20150831/" in dict(tomorrow)[b"authorization"]
    assert one.sign(b"GET", b"/", (), b"", AT) == today


@pytest.mark.parametrize("other", [b"body!", b""])
def test_the_body_is_signed(other: bytes) -> None:
    assert signer().sign(b"POST", b"/", (), b"body", AT) != signer().sign(b"POST", b"/", (), other, AT)

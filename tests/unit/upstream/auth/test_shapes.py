"""What may be stored as a key of each kind; what is refused is not quoted."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.auth.shapes import Client, ShapeError, SigningKey, judge, parts, quoted, read, shape
from tenants.models import CredentialKind as Kind
from tests.kit.certs import Pki

AWS = {
    "access_key_id": "AKIDPLANTED",
    "secret_access_key": "PLANTED/a+b=",
    "region": "eu-west-1",
    "service": "bedrock",
}
CLIENT = {"token_url": "https://idp.example/t?v=2", "client_id": "gw", "client_secret": "PLANTED pass"}


@pytest.mark.parametrize("kind", [Kind.BEARER, Kind.API_KEY, Kind.X_API_KEY])
def test_a_plain_key_is_kept_as_it_is(kind: Kind) -> None:
    assert judge(kind, "sk-1 {'").reveal() == b"sk-1 {'"
    for text in ("", " sk", "sk\n", "sk-€", "x" * 8193):
        with pytest.raises(ShapeError, match="8192 printable ASCII"):
            judge(kind, text)


def test_a_key_of_several_fields_is_kept_on_one_line() -> None:
    kept = judge(Kind.AWS_SIGV4, json.dumps({**AWS, "session_token": ""}, indent=4))
    assert kept.reveal() == json.dumps(AWS, separators=(",", ":")).encode()
    key = read(SigningKey, kept)
    assert (key.secret_access_key.reveal(), key.session_token) == (b"PLANTED/a+b=", None)
    assert "PLANTED/" not in repr(key)
    client = read(Client, judge(Kind.OAUTH_CLIENT_CREDENTIALS, json.dumps(CLIENT)))
    assert (client.client_secret.reveal(), client.client_auth) == (b"PLANTED pass", "basic")
    assert "PLANTED" not in repr(client)


@pytest.mark.parametrize(
    ("kind", "change", "field", "says"),
    [
        (Kind.AWS_SIGV4, {"region": ""}, "region", "missing"),
        (Kind.AWS_SIGV4, {"region": "PLANTED/x"}, "region", "us-east-1"),
        (Kind.AWS_SIGV4, {"service": 7}, "service", "text"),
        (Kind.AWS_SIGV4, {"access_key_id": "PLAN TED"}, "access_key_id", "letters and digits"),
        (Kind.AWS_SIGV4, {"secret_access_key": "PLANTED x"}, "secret_access_key", "without spaces"),
        (Kind.AWS_SIGV4, {"secret_access_key": "PLANTED€"}, "secret_access_key", "ASCII"),
        (Kind.AWS_SIGV4, {"session_token": "PLAN\nTED"}, "session_token", "without spaces"),
        (Kind.AWS_SIGV4, {"PLANTED": "x"}, "", "not known"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"client_secret": None}, "client_secret", "text"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"client_secret": "PLAN\tTED"}, "client_secret", "printable"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "http://idp.example/"}, "token_url", "https"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "ftp://idp.example/"}, "token_url", "https"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "https://[::1/PLANTED"}, "token_url", "URL"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "https://gw:PLANTED@idp.example/"}, "token_url", "password"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "https://idp.example/#PLANTED"}, "token_url", "fragment"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "https://idp.example/a PLANTED"}, "token_url", "URL"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"token_url": "https://10.0.0.1/"}, "token_url", "a private address"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"scope": 'a "PLANTED"'}, "scope", "RFC 6749"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"audience": "a\nPLANTED"}, "audience", "printable"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"client_auth": "PLANTED"}, "client_auth", "basic or post"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"ca_pem": "PLANTED"}, "ca_pem", "PEM"),
        (Kind.OAUTH_CLIENT_CREDENTIALS, {"audience": "x" * 8192}, "", "8192"),
    ],
)
def test_a_wrong_field_is_named_and_not_quoted(kind: Kind, change: dict[str, Any], field: str, says: str) -> None:
    def check(url: str) -> str | None:
        return "a private address" if "10.0.0.1" in url else None

    given = {**(AWS if kind is Kind.AWS_SIGV4 else CLIENT), **change}
    with pytest.raises(ShapeError, match=says) as refused:
        judge(kind, json.dumps(given, ensure_ascii=False), check)
    assert refused.value.field == field
    assert "PLAN" not in str(refused.value)


@pytest.mark.parametrize("text", ["PLANTED", '["PLANTED"]', '{"PLANTED": "x"', "", "{}", '"\ud800"', " " * 20_000])
def test_what_is_no_object_is_refused(text: str) -> None:
    for kind in (Kind.AWS_SIGV4, Kind.OAUTH_CLIENT_CREDENTIALS):
        with pytest.raises(ShapeError) as refused:
            judge(kind, text)
        assert "PLANTED" not in str(refused.value)


def test_clear_text_stays_on_this_machine(pki: Pki) -> None:
    for url in ("http://127.0.0.1:9/t", "http://[::1]/t", "http://localhost/t", "https://idp.example"):
        kept = judge(Kind.OAUTH_CLIENT_CREDENTIALS, json.dumps({**CLIENT, "token_url": url, "ca_pem": pki.ca_pem}))
        assert kept.reveal().decode("ascii").isprintable(), "every store takes one line"


def test_a_keyless_upstream_takes_none() -> None:
    with pytest.raises(ShapeError, match="'none'"):
        judge(Kind.NONE, "sk-1")


@pytest.mark.parametrize("stored", [b"sk-PLANTED", b"{}", b'{"access_key_id": 1}', b"\xff", b"[" * 5000])
def test_a_key_put_there_by_another_hand_is_not_quoted(stored: bytes) -> None:
    for reading in (lambda: read(SigningKey, Secret(stored)), lambda: read(Client, Secret(stored))):
        with pytest.raises(ShapeError) as refused:
            reading()
        assert "PLANTED" not in str(refused.value)
        assert refused.value.__cause__ is None


def test_kinds_that_share_a_shape_may_be_swapped() -> None:
    assert shape(Kind.BEARER) == shape(Kind.API_KEY) == shape(Kind.X_API_KEY)
    assert len({shape(kind) for kind in Kind}) == 4


@pytest.mark.parametrize(
    ("kind", "stored", "secrets"),
    [
        (Kind.BEARER, "sk-1", (b"sk-1",)),
        (Kind.NONE, "", ()),
        (Kind.AWS_SIGV4, json.dumps({**AWS, "session_token": "st"}), (b"AKIDPLANTED", b"PLANTED/a+b=", b"st")),
        (Kind.OAUTH_CLIENT_CREDENTIALS, json.dumps(CLIENT), (b"PLANTED pass",)),
        (Kind.AWS_SIGV4, "not one", (b"not one",)),
    ],
)
def test_all_that_is_secret_in_a_key_is_known(kind: Kind, stored: str, secrets: tuple[bytes, ...]) -> None:
    assert parts(kind, Credential(1, Secret(stored))) == secrets


@pytest.mark.parametrize("written", [b'a/b"c', b'a\\/b\\"c', b'a/b\\"c', b"a%2Fb%22c", b"a%2fb\\u0022c"])
def test_a_secret_is_found_however_it_is_written(written: bytes) -> None:
    assert quoted((b'a/b"c',), b'{"error": "' + written + b'"}')
    assert not quoted((b'a/b"c',), b'{"error": "a/b"}')

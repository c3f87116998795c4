"""From a credential to header fields, for each kind."""

from __future__ import annotations

import json

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.auth.authorizer import NO_KEY, Token, authorizer
from tenants.ids import OrgId
from tenants.models import CredentialKind as Kind
from tenants.models import Upstream

AWS = {"access_key_id": "AKID", "secret_access_key": "sk-aws", "region": "eu-west-1", "service": "bedrock"}
CLIENT = {"token_url": "https://idp.example", "client_id": "gw", "client_secret": "cs-1"}


def bound(auth: Kind, url: str = "https://model.example:8443/openai") -> Upstream:
    return Upstream(OrgId("acme"), "up", url, auth=auth)


def key(text: str) -> Credential:
    return Credential(3, Secret(text))


@pytest.mark.parametrize(
    ("kind", "credential", "fixed"),
    [
        (Kind.BEARER, key("sk-1"), ((b"authorization", b"Bearer sk-1"),)),
        (Kind.API_KEY, key("sk-1"), ((b"api-key", b"sk-1"),)),
        (Kind.X_API_KEY, key("sk-1"), ((b"x-api-key", b"sk-1"), (b"anthropic-version", b"2023-06-01"))),
        (Kind.NONE, NO_KEY, ()),
        (
            Kind.OAUTH_CLIENT_CREDENTIALS,
            Token(3, Secret("at-1"), key(json.dumps(CLIENT))),
            ((b"authorization", b"Bearer at-1"),),
        ),
    ],
)
def test_what_every_request_says(
    kind: Kind, credential: Credential, fixed: tuple[tuple[bytes, bytes], ...]
) -> None:
    shown = authorizer(bound(kind), credential, lambda: 0.0)
    assert (shown.fixed, shown.sign) == (fixed, None)


def test_aws_requests_are_signed_with_the_clock_of_the_moment() -> None:
    now = [0.0]
    shown = authorizer(bound(Kind.AWS_SIGV4), key(json.dumps(AWS)), lambda: now[0])
    assert shown.fixed == ()
    assert shown.sign is not None
    dates = []
    for now[0] in (86_400.0, 86_401.0):
        fields = dict(shown.sign(b"POST", b"/v1/completions", ((b"content-type", b"application/json"),), b"{}"))
        assert b"Credential=AKID/19700102/eu-west-1/bedrock/aws4_request" in fields[b"authorization"]
        assert b"SignedHeaders=content-type;host;x-amz-date," in fields[b"authorization"]
        assert b"sk-aws" not in fields[b"authorization"]
        dates.append(fields[b"x-amz-date"])
    assert dates == [b"19700102T000000Z", b"19700102T000001Z"]


def test_the_host_that_is_signed_is_the_one_that_is_sent() -> None:
    signed = []
    for url in ("https://model.example:443", "https://model.example", "https://model.example:8443"):
        shown = authorizer(bound(Kind.AWS_SIGV4, url), key(json.dumps(AWS)), lambda: 0.0)
        assert shown.sign is not None
        signed.append(shown.sign(b"GET", b"/", (), b""))
    assert signed[0] == signed[1] != signed[2]


@pytest.mark.parametrize(
    ("kind", "credential", "secrets"),
    [
        (Kind.BEARER, key("sk-1"), ("sk-1",)),
        (Kind.AWS_SIGV4, key(json.dumps(AWS)), ("sk-aws", "AKID")),
        (Kind.OAUTH_CLIENT_CREDENTIALS, Token(3, Secret("at-1"), key(json.dumps(CLIENT))), ("at-1", "cs-1")),
    ],
)
def test_an_answer_that_quotes_a_part_is_found_out(kind: Kind, credential: Credential, secrets: list[str]) -> None:
    shown = authorizer(bound(kind), credential, lambda: 0.0)
    for secret in secrets:
        assert shown.quoted_in(f'{{"error": "not {secret}"}}'.encode())
    assert not shown.quoted_in(b'{"error": "no such model"}')


def test_a_key_of_another_kind_is_said_to_be_one() -> None:
    with pytest.raises(UnavailableError, match="not of the kind 'aws-sigv4'") as refused:
        authorizer(bound(Kind.AWS_SIGV4), key("sk-planted"), lambda: 0.0)
    assert "planted" not in str(refused.value)
    assert refused.value.retry_after_s


@pytest.mark.parametrize("kind", [Kind.BEARER, Kind.API_KEY, Kind.X_API_KEY])
@pytest.mark.parametrize("stored", [AWS, CLIENT])
def test_a_key_of_several_fields_is_not_shown_whole(kind: Kind, stored: dict[str, str]) -> None:
    """A request may be pinned to the snapshot from before `auth` was changed and the next key set."""
    with pytest.raises(UnavailableError, match="not of the kind"):
        authorizer(bound(kind), key(json.dumps(stored)), lambda: 0.0)
    assert authorizer(bound(kind), key('{"odd": "but plain"}'), lambda: 0.0).fixed


def test_a_clients_secret_never_goes_to_the_model() -> None:
    with pytest.raises(AssertionError, match="token endpoint alone"):
        authorizer(bound(Kind.OAUTH_CLIENT_CREDENTIALS), key(json.dumps(CLIENT)), lambda: 0.0)

"""Client authentication: RFC 6749 section 2.3, RFC 7523."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest
from joserfc.jwk import ECKey, OctKey
from msgspec.structs import replace

from gateway.oauth.caller import Caller
from gateway.oauth.client_auth import ALGORITHMS, PUBLIC, REFUSED, WRONG_FOR_A_CLIENT
from gateway.oauth.digests import sha256
from gateway.oauth.errors import InvalidClientError, InvalidRequestError, TooManyAttemptsError
from tenants.clients import AuthMethod
from tenants.models import State
from tests.unit.oauth.conftest import ACME, BY, HERE, ISSUER, Bench
from tests.unit.oauth.registered import EC, ED, RSA, SECRET, Key, assertion, basic, jwks, register

KEYED: dict[str, Any] = {"auth_method": AuthMethod.PRIVATE_KEY_JWT, "jwks": jwks(RSA, EC, ED)}


async def found(bench: Bench, form: dict[str, str] | None = None, *authorization: str) -> str:
    return (await bench.service.clients.client(form or {}, HERE, authorization)).id


async def refused(bench: Bench, form: dict[str, str] | None = None, *authorization: str) -> str:
    with pytest.raises(InvalidClientError) as said:
        await found(bench, form, *authorization)
    return said.value.description


async def test_a_secret_comes_in_the_header_form_encoded(bench: Bench) -> None:
    await register(bench)
    assert await found(bench, {}, basic()) == "acme.app"
    assert await found(bench, {"client_id": "acme.app"}, basic().replace("Basic", "bAsIc")) == "acme.app"
    assert await refused(bench, {}, basic(secret="another")) == REFUSED


async def test_a_secret_comes_in_the_body_where_it_is_registered_so(bench: Bench) -> None:
    await register(bench, auth_method=AuthMethod.CLIENT_SECRET_POST)
    form = {"client_id": "acme.app", "client_secret": SECRET}
    assert await found(bench, form) == "acme.app"
    assert await refused(bench, {**form, "client_secret": "another"}) == REFUSED


@pytest.mark.parametrize("method", list(AuthMethod))
async def test_a_client_proves_itself_in_the_one_way_it_is_registered_for(
    bench: Bench, method: AuthMethod
) -> None:
    await register(bench, auth_method=method, jwks=KEYED["jwks"] if method is AuthMethod.PRIVATE_KEY_JWT else "")
    ways: dict[AuthMethod, tuple[dict[str, str], tuple[str, ...]]] = {
        AuthMethod.NONE: ({"client_id": "acme.app"}, ()),
        AuthMethod.CLIENT_SECRET_BASIC: ({}, (basic(),)),
        AuthMethod.CLIENT_SECRET_POST: ({"client_id": "acme.app", "client_secret": SECRET}, ()),
        AuthMethod.PRIVATE_KEY_JWT: (assertion(bench), ()),
    }
    for way, (form, authorization) in ways.items():
        if way is method:
            assert await found(bench, form, *authorization) == "acme.app"
        else:
            assert await refused(bench, form, *authorization) == REFUSED


@pytest.mark.parametrize(
    ("form", "authorization"),
    [
        ({"client_id": "acme.app", "client_secret": SECRET}, (basic(),)),
        ({"client_secret": SECRET, "client_assertion": "a.b.c"}, ()),
        ({"client_assertion": "a.b.c"}, (basic(),)),
        ({}, (basic(), basic())),
        ({"client_id": "acme.other"}, (basic(),)),
        ({"client_assertion": "a.b.c"}, ()),
        ({"client_assertion": "a.b.c", "client_assertion_type": "urn:another"}, ()),
    ],
    ids=str,
)
async def test_one_way_at_a_time(bench: Bench, form: dict[str, str], authorization: tuple[str, ...]) -> None:
    await register(bench)
    with pytest.raises(InvalidRequestError):
        await found(bench, form, *authorization)


NO_HEADERS = (
    "",
    "Basic",
    "Basic ",
    "Basic !!!",
    "Bearer abc",
    "Basic " + b64encode(b"acme.app").decode(),
    "Basic " + b64encode(b":secret").decode(),
    "Basic " + b64encode(b"acme.app:").decode(),
    "Basic " + b64encode(b"acme.app:%ff%fe").decode(),
    "Basic " + b64encode("acmé:x".encode()).decode(),
    basic("acme.app\0"),
    basic("acme." + "x" * 5_000),
    basic("nobody.app"),
    basic("orgate-web", "x"),
)


async def test_a_header_that_is_none_is_refused_in_the_same_words(bench: Bench) -> None:
    await register(bench)
    for value in NO_HEADERS:
        assert await refused(bench, {}, value) == REFUSED, value


async def test_of_a_client_that_does_not_exist_nothing_else_is_said(bench: Bench) -> None:
    await register(bench)
    said = [
        await refused(bench, {}, basic(secret="wrong")),
        await refused(bench, {}, basic("acme.nobody")),
        await refused(bench, {}, basic("nobody.app")),
        await refused(bench, {"client_id": "acme.app"}),
        await refused(bench, {"client_id": "acme.nobody"}),
        await refused(bench, {"client_id": "orgate-web"}),
        await refused(bench, {"client_id": "acme."}),
        await refused(bench, {"client_id": "."}),
        await refused(bench, {}),
    ]
    assert set(said) == {REFUSED}
    assert await refused(bench, {"client_id": "orgate-cli", "client_secret": "x"}) == PUBLIC


async def test_a_client_that_is_suspended_or_whose_organization_is_does_not_exist(bench: Bench) -> None:
    made = await register(bench)
    clients = bench.control.for_org(ACME).clients
    await clients.replace(replace(made, state=State.SUSPENDED), 1, BY)
    assert await refused(bench, {}, basic()) == REFUSED
    await clients.replace(made, 2, BY)
    assert await found(bench, {}, basic()) == "acme.app"
    await bench.suspend_org()
    assert await refused(bench, {}, basic()) == REFUSED


async def test_two_secrets_count_while_one_gives_way(bench: Bench) -> None:
    await register(bench)
    await bench.control.for_org(ACME).clients.add_secret("app", sha256("second"), 100, BY)
    for secret in (SECRET, "second"):
        assert await found(bench, {}, basic(secret=secret)) == "acme.app"
    bench.now += 100
    assert await refused(bench, {}, basic()) == REFUSED
    assert await found(bench, {}, basic(secret="second")) == "acme.app"


async def test_guessing_is_throttled_for_this_client_at_this_address(bench: Bench) -> None:
    await register(bench)
    for _ in range(WRONG_FOR_A_CLIENT):
        await refused(bench, {}, basic(secret="guess"))
    with pytest.raises(TooManyAttemptsError):
        await found(bench, {}, basic())
    elsewhere = Caller(address="198.51.100.7")
    assert (await bench.service.clients.client({}, elsewhere, (basic(),))).id == "acme.app"
    bench.now += 600
    assert await found(bench, {}, basic()) == "acme.app"


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_an_assertion_is_signed_with_a_registered_key(bench: Bench) -> None:
    await register(bench, **KEYED)
    keys: dict[str, Key] = {"RS256": RSA, "PS256": RSA, "ES256": EC}
    for alg in ALGORITHMS:
        form = assertion(bench, keys.get(alg, ED), alg, jti=alg)
        assert await found(bench, form) == "acme.app", alg
    for aud in (f"{ISSUER}/oauth/token", [ISSUER], f"{ISSUER}/oauth/par"):
        assert await found(bench, assertion(bench, aud=aud, jti=str(aud))) == "acme.app", aud


async def test_an_assertion_is_used_once(bench: Bench) -> None:
    await register(bench, **KEYED)
    form = assertion(bench)
    assert await found(bench, form) == "acme.app"
    assert await refused(bench, form) == REFUSED
    assert await refused(bench, assertion(bench, RSA, "RS256")) == REFUSED  # the id counts, whatever signed it
    assert await found(bench, assertion(bench, jti="two")) == "acme.app"
    bench.now += 60 + 29
    assert await refused(bench, form) == REFUSED  # within the skew: still remembered


OTHER = ECKey.generate_key("P-256", parameters={"kid": "ec"})
NOW = 1_800_000_000


WRONG: tuple[dict[str, Any], ...] = (
    {"key": OTHER},
    {"header": {"kid": "rsa"}},
    {"header": {"jwk": OTHER.as_dict(private=False)}},
    {"header": {"typ": "at+jwt"}},
    {"iss": "acme.other"},
    {"iss": None},
    {"sub": "acme.other"},
    {"aud": "https://elsewhere.example"},
    {"aud": [ISSUER, "https://elsewhere.example"]},
    {"aud": []},
    {"aud": None},
    {"aud": f"{ISSUER}.evil.example"},
    {"exp": NOW - 31},
    {"exp": NOW + 331},
    {"exp": None},
    {"exp": "never"},
    {"exp": True},
    {"exp": 1e308},
    {"iat": NOW + 31},
    {"nbf": NOW + 31},
    {"nbf": "now"},
    {"jti": None},
    {"jti": ""},
    {"jti": 7},
    {"jti": "x" * 257},
    {"padding": "x" * 9_000},
)


async def test_an_assertion_that_is_not_as_it_should_be_is_refused(bench: Bench) -> None:
    await register(bench, **KEYED)
    for changes in WRONG:
        assert await refused(bench, assertion(bench, **changes)) == REFUSED, changes


async def test_no_assertion_without_a_signature_or_with_a_shared_key(bench: Bench) -> None:
    await register(bench, **KEYED)
    form = assertion(bench)
    head, body, signature = form["client_assertion"].split(".")
    none = b64encode(b'{"alg":"none"}').decode().rstrip("=")
    for text in (f"{none}.{body}.", f"{none}.{body}.{signature}", f"{head}.{body}.", "", "a.b", "\u00e9.b.c"):
        changed = {**form, "client_assertion": text}
        assert await refused(bench, changed) == REFUSED
    hmac = OctKey.import_key(KEYED["jwks"])
    assert await refused(bench, assertion(bench, hmac, "HS256")) == REFUSED  # type: ignore[arg-type]
    assert await found(bench, form) == "acme.app"  # none of these used it up

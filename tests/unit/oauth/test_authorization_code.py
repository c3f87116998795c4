"""Authorization code with PKCE: RFC 6749 section 4.1, RFC 7636, RFC 8252, RFC 9207, RFC 9700."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.oauth.authorization import AuthorizationRequest
from gateway.oauth.errors import (
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    InvalidTargetError,
    OAuthError,
    SignInRefusedError,
    UnsupportedResponseTypeError,
)
from tests.unit.oauth.conftest import ACME, ADA, HERE, ISSUER, PASSWORD, Bench

VERIFIER = "v" * 43
CHALLENGE = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
REDIRECT = "http://127.0.0.1:49152/callback"
REQUEST = {
    "response_type": "code",
    "client_id": "orgate-cli",
    "redirect_uri": REDIRECT,
    "state": "xyz",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
WHO = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD, "action": "approve"}


async def asked(bench: Bench, **changes: str) -> AuthorizationRequest:
    form = {name: value for name, value in {**REQUEST, **changes}.items() if value}
    return bench.service.authorization_request(await bench.service.authorization(form), form)


async def answered(bench: Bench, request: dict[str, str] | None = None, **who: str) -> dict[str, str]:
    """The parameters that the browser carries back to the client."""
    url = await bench.service.authorize(await asked(bench, **(request or {})), {**WHO, **who}, HERE)
    assert url.startswith(REDIRECT + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


async def redeem(bench: Bench, code: str, **changes: str) -> dict[str, object]:
    form = {
        "grant_type": "authorization_code",
        "client_id": "orgate-cli",
        "code": code,
        "redirect_uri": REDIRECT,
        "code_verifier": VERIFIER,
    }
    return await bench.service.token({**form, **changes}, HERE)


async def test_the_whole_flow_gives_tokens_that_renew(bench: Bench) -> None:
    back = await answered(bench)
    assert (back["state"], back["iss"]) == ("xyz", ISSUER)
    tokens = await redeem(bench, back["code"])
    claims = bench.signing.own_claims(str(tokens["access_token"]))
    assert claims is not None
    assert (claims["sub"], claims["org"], claims["aud"]) == (ADA, "acme", f"{ISSUER}/v1")
    assert (await bench.refresh(str(tokens["refresh_token"])))["scope"] == "inference"
    (created,) = [change for change in await bench.noted() if change.action == "session.create"]
    assert (created.target, created.detail["grant"]) == (ADA, "authorization_code")


async def test_the_resource_asked_for_is_the_one_that_is_given(bench: Bench) -> None:
    code = (await answered(bench, {"resource": f"{ISSUER}/admin", "scope": "admin"}))["code"]
    with pytest.raises(InvalidTargetError):
        await redeem(bench, code, resource=f"{ISSUER}/v1")
    assert (await redeem(bench, code))["scope"] == "admin"


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": ""}, InvalidClientError),
        ({"client_id": "somebody"}, InvalidClientError),
        ({"redirect_uri": ""}, InvalidRequestError),
        *(
            ({"redirect_uri": uri}, InvalidRequestError)
            for uri in (
                "https://127.0.0.1:1/callback",
                "http://127.0.0.1:1/callback/",
                "http://127.0.0.1:1/callback?x=1",
                "http://127.0.0.1:1/callback#x",
                "http://127.0.0.1:1/",
                "http://127.0.0.1:0/callback",
                "http://127.0.0.1:99999/callback",
                "http://127.0.0.1:+80/callback",
                "http://127.0.0.1:/callback",
                "http://127.0.0.1:1@evil.example/callback",
                "http://evil.example@127.0.0.1:1/callback",
                "http://127.0.0.1.evil.example:1/callback",
                "http://localhost:1/callback",
                "http://127.1:1/callback",
                "http://[::1]:1/other",
                "HTTP://127.0.0.1:1/callback",
                "http://127.0.0.1:1/callback\n",
                "javascript:alert(1)",
                "//127.0.0.1:1/callback",
            )
        ),
        ({"state": "s" * 1_025}, InvalidRequestError),
        ({"state": "a\nb"}, InvalidRequestError),
    ],
)
async def test_what_must_not_be_redirected_is_refused_before_anything_is(
    bench: Bench, changes: dict[str, str], error: type[OAuthError]
) -> None:
    with pytest.raises(error):
        await bench.service.authorization({n: value for n, value in {**REQUEST, **changes}.items() if value})


@pytest.mark.parametrize("uri", [REDIRECT, "http://[::1]:8123/callback", "http://127.0.0.1/callback"])
async def test_a_loopback_address_may_have_any_port(bench: Bench, uri: str) -> None:
    assert (await bench.service.authorization({**REQUEST, "redirect_uri": uri})).redirect_uri == uri


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": ""}, UnsupportedResponseTypeError),
        ({"response_type": "token"}, UnsupportedResponseTypeError),
        ({"response_type": "code token"}, UnsupportedResponseTypeError),
        ({"code_challenge_method": ""}, InvalidRequestError),
        ({"code_challenge_method": "plain"}, InvalidRequestError),
        ({"code_challenge_method": "s256"}, InvalidRequestError),
        ({"code_challenge": ""}, InvalidRequestError),
        ({"code_challenge": CHALLENGE + "="}, InvalidRequestError),
        ({"code_challenge": CHALLENGE[1:]}, InvalidRequestError),
        ({"response_mode": "fragment"}, InvalidRequestError),
        ({"request_uri": "https://evil.example/r"}, InvalidRequestError),
        ({"request": "e30.e30."}, InvalidRequestError),
        ({"scope": "inference admin root"}, InvalidScopeError),
        ({"scope": "admin"}, InvalidScopeError),
        ({"resource": "https://evil.example/v1"}, InvalidTargetError),
    ],
)
async def test_what_is_wrong_with_the_rest_is_said_to_the_client(
    bench: Bench, changes: dict[str, str], error: type[OAuthError]
) -> None:
    with pytest.raises(error):
        await asked(bench, **changes)


async def test_who_says_no_gives_no_code(bench: Bench) -> None:
    back = await answered(bench, action="deny")
    assert (back["error"], back["state"], back["iss"]) == ("access_denied", "xyz", ISSUER)
    assert "code" not in back


async def test_who_cannot_sign_in_stays_at_the_page(bench: Bench) -> None:
    with pytest.raises(SignInRefusedError):
        await answered(bench, password="not it, not at all")
    await bench.suspend()
    with pytest.raises(SignInRefusedError):
        await answered(bench)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code": ""}, InvalidGrantError),
        ({"code": "ogc_" + "A" * 43}, InvalidGrantError),
        ({"client_id": "orgate-editor"}, InvalidGrantError),
        ({"redirect_uri": ""}, InvalidGrantError),
        ({"redirect_uri": "http://127.0.0.1:49153/callback"}, InvalidGrantError),
        ({"code_verifier": "w" * 43}, InvalidGrantError),
        ({"code_verifier": CHALLENGE}, InvalidGrantError),
        ({"code_verifier": ""}, InvalidRequestError),
        ({"code_verifier": "v" * 42}, InvalidRequestError),
        ({"code_verifier": "v" * 129}, InvalidRequestError),
        ({"code_verifier": "v" * 42 + "é"}, InvalidRequestError),
    ],
)
async def test_a_code_without_what_belongs_to_it_brings_nothing_and_is_not_used_up(
    bench: Bench, changes: dict[str, str], error: type[OAuthError]
) -> None:
    code = (await answered(bench))["code"]
    with pytest.raises(error):
        await redeem(bench, **{"code": code, **changes})
    assert (await redeem(bench, code))["token_type"] == "Bearer"


async def test_a_code_lives_a_minute(bench: Bench) -> None:
    code = (await answered(bench))["code"]
    bench.now += 60
    with pytest.raises(InvalidGrantError, match="expired"):
        await redeem(bench, code)


async def test_a_code_that_comes_back_kills_what_it_brought(bench: Bench) -> None:
    code = (await answered(bench))["code"]
    tokens = await redeem(bench, code)
    claims = bench.signing.own_claims(str(tokens["access_token"]))
    assert claims is not None
    bench.now += 3_600  # long after it has expired
    with pytest.raises(InvalidGrantError, match="was used"):
        await redeem(bench, code)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(str(tokens["refresh_token"]))
    revoked = await bench.control.revocations(int(bench.now))
    assert [(one.org, one.member, one.token_id) for one in revoked] == [(ACME, ADA, claims["jti"])]
    assert [change.detail["reason"] for change in await bench.noted("session.revoke")] == [
        "authorization code reused"
    ]


async def test_of_many_at_once_one_gets_tokens_and_they_are_dead(bench: Bench) -> None:
    code = (await answered(bench))["code"]
    answers = await asyncio.gather(*(redeem(bench, code) for _ in range(20)), return_exceptions=True)
    (won,) = [answer for answer in answers if isinstance(answer, dict)]
    assert all(isinstance(answer, InvalidGrantError) for answer in answers if answer is not won)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(str(won["refresh_token"]))


async def test_a_code_of_somebody_whose_sessions_were_ended_is_worth_nothing(bench: Bench) -> None:
    code = (await answered(bench))["code"]
    await bench.service.end_sessions(ACME, ADA)
    with pytest.raises(InvalidGrantError):
        await redeem(bench, code)


async def test_a_code_of_somebody_suspended_meanwhile_is_worth_nothing(bench: Bench) -> None:
    code = (await answered(bench))["code"]
    await bench.suspend()
    with pytest.raises(InvalidGrantError, match="may not sign in"):
        await redeem(bench, code)

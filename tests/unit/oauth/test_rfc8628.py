"""Device authorization, RFC 8628."""

from __future__ import annotations

import asyncio

import pytest

from gateway.oauth.caller import Caller
from gateway.oauth.clients import BUILT_IN
from gateway.oauth.device import MAX_OF_BUILT_IN, MAX_OF_ORG, MAX_PENDING, STARTS_PER_ADDRESS, DeviceFlow
from gateway.oauth.errors import (
    AccessDeniedError,
    AuthorizationPendingError,
    ExpiredTokenError,
    InvalidClientError,
    InvalidGrantError,
    InvalidRequestError,
    InvalidScopeError,
    InvalidTargetError,
    OAuthError,
    SignInRefusedError,
    SlowDownError,
    TemporarilyUnavailableError,
    TooManyAttemptsError,
)
from tenants.clients import AuthMethod, GrantType
from tests.unit.oauth.conftest import ACME, ADA, GLOBEX, HERE, ISSUER, USER_CODE, Bench
from tests.unit.oauth.registered import register


async def test_the_whole_flow_gives_tokens_for_one_audience(bench: Bench) -> None:
    device = await bench.begin()
    assert USER_CODE.fullmatch(device["user_code"])
    assert device["verification_uri"] == f"{ISSUER}/oauth/device"
    assert device["verification_uri_complete"].endswith(device["user_code"])
    assert (device["expires_in"], device["interval"]) == (600, 5)
    with pytest.raises(AuthorizationPendingError):
        await bench.redeem(device["device_code"])
    assert await bench.decide(device["user_code"].lower().replace("-", " ")) == "approved"
    tokens = await bench.redeem(device["device_code"])
    assert (tokens["token_type"], tokens["expires_in"], tokens["scope"]) == ("Bearer", 900, "inference")
    claims = bench.signing.own_claims(tokens["access_token"])
    assert claims is not None
    jti = claims.pop("jti")
    assert len(jti) == 32
    assert claims == {
        "iss": ISSUER,
        "aud": f"{ISSUER}/v1",
        "sub": ADA,
        "org": "acme",
        "roles": ["member"],
        "scope": "inference",
        "client_id": "orgate-cli",
        "iat": int(bench.now),
        "exp": int(bench.now) + 900,
        "amr": ["pwd"],
        "auth_time": int(bench.now),
    }
    created = [change for change in await bench.noted() if change.action == "session.create"]
    assert [(c.org, c.target, c.actor.client, c.actor.request_id) for c in created] == [
        (ACME, ADA, "orgate-cli", "req-1")
    ]


async def test_a_device_code_is_used_once_also_by_many_at_once(bench: Bench) -> None:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    answers = await asyncio.gather(
        *(bench.redeem(device["device_code"]) for _ in range(20)), return_exceptions=True
    )
    won = [answer for answer in answers if isinstance(answer, dict)]
    assert len(won) == 1
    assert all(isinstance(answer, InvalidGrantError) for answer in answers if not isinstance(answer, dict))
    assert await bench.service.end_sessions(ACME, ADA) == 1


async def test_polling_too_fast_slows_down_by_five_seconds_each_time(bench: Bench) -> None:
    code = (await bench.begin())["device_code"]
    for wait, error in (
        (0, AuthorizationPendingError),
        (5, AuthorizationPendingError),
        (1, SlowDownError),
        (5, SlowDownError),  # ten by now
        (14, AuthorizationPendingError),
        (15, AuthorizationPendingError),
    ):
        bench.now += wait
        with pytest.raises(error):
            await bench.redeem(code)


async def test_codes_expire(bench: Bench) -> None:
    device = await bench.begin()
    bench.now += 600
    with pytest.raises(ExpiredTokenError):
        await bench.redeem(device["device_code"])
    with pytest.raises(InvalidGrantError):
        await bench.decide(device["user_code"])


async def test_a_refusal_reaches_the_device(bench: Bench) -> None:
    device = await bench.begin()
    assert await bench.decide(device["user_code"], "deny") == "denied"
    with pytest.raises(AccessDeniedError):
        await bench.redeem(device["device_code"])
    with pytest.raises(InvalidGrantError):
        await bench.decide(device["user_code"])


async def test_another_client_cannot_redeem(bench: Bench) -> None:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    with pytest.raises(InvalidGrantError):
        await bench.redeem(device["device_code"], "orgate-editor")
    assert await bench.redeem(device["device_code"])


async def test_the_member_is_looked_at_again_when_the_code_is_redeemed(bench: Bench) -> None:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    await bench.suspend()
    with pytest.raises(InvalidGrantError):
        await bench.redeem(device["device_code"])


async def test_ending_sessions_voids_an_approval_not_yet_redeemed(bench: Bench) -> None:
    device = await bench.begin()
    await bench.decide(device["user_code"])
    await bench.service.end_sessions(ACME, ADA)
    with pytest.raises(AccessDeniedError):
        await bench.redeem(device["device_code"])


async def test_guessing_user_codes_is_bounded_per_member(bench: Bench) -> None:
    device = await bench.begin()
    for n in range(10):
        with pytest.raises(InvalidGrantError):
            await bench.decide(f"BCDF-GHJ{'BCDFGHJKLM'[n]}")
    with pytest.raises(TooManyAttemptsError) as caught:
        await bench.decide(device["user_code"])
    assert caught.value.retry_after_s == 600
    gus = {"org": "globex", "email": "gus@globex.example"}
    assert await bench.decide(device["user_code"], **gus) == "approved"
    assert (await bench.redeem(device["device_code"]))["access_token"]


async def test_a_wrong_password_does_not_touch_the_grant(bench: Bench) -> None:
    device = await bench.begin()
    with pytest.raises(SignInRefusedError):
        await bench.decide(device["user_code"], password="not the password")
    with pytest.raises(SignInRefusedError):
        await bench.decide(device["user_code"], org=GLOBEX)  # Ada's e-mail and password in another organization
    assert await bench.decide(device["user_code"]) == "approved"


async def test_an_editor_gets_nothing_but_completions(bench: Bench) -> None:
    with pytest.raises(InvalidTargetError):
        await bench.begin("orgate-editor", resource=f"{ISSUER}/admin")
    device = await bench.begin("orgate-editor")
    await bench.decide(device["user_code"])
    with pytest.raises(InvalidTargetError):
        await bench.redeem(device["device_code"], "orgate-editor", resource=f"{ISSUER}/admin")
    tokens = await bench.redeem(device["device_code"], "orgate-editor")  # the mistake did not use the code up
    with pytest.raises(InvalidTargetError):
        await bench.refresh(tokens["refresh_token"], "orgate-editor", resource=f"{ISSUER}/admin")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, InvalidClientError),
        ({"client_id": "unknown"}, InvalidClientError),
        ({"client_id": "orgate-cli", "client_secret": "x"}, InvalidClientError),
        ({"client_id": "orgate-cli"}, InvalidRequestError),
        ({"client_id": "orgate-cli", "grant_type": "password"}, OAuthError),
        ({"client_id": "orgate-cli", "grant_type": "refresh_token"}, InvalidRequestError),
        (
            {"client_id": "orgate-cli", "grant_type": "refresh_token", "refresh_token": "x", "scope": "root"},
            InvalidScopeError,
        ),
        ({"client_id": "orgate-cli", "grant_type": "refresh_token", "refresh_token": "x"}, InvalidGrantError),
        (
            {
                "client_id": "orgate-cli",
                "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
                "device_code": "x",
            },
            InvalidGrantError,
        ),
    ],
)
async def test_what_is_wrong_is_said_by_its_code(
    bench: Bench, form: dict[str, str], error: type[OAuthError]
) -> None:
    with pytest.raises(error):
        await bench.service.token(form, HERE)


async def test_starts_are_bounded_per_address(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.device.STARTS_PER_ADDRESS", 3)
    await bench.start()
    for _ in range(3):
        await bench.begin()
    with pytest.raises(TooManyAttemptsError):
        await bench.begin()
    await bench.service.device_authorization({"client_id": "orgate-cli"}, Caller(address="192.0.2.2"))


async def test_pending_sign_ins_are_bounded(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.device.MAX_PENDING", 2)
    for _ in range(2):
        await bench.begin()
    with pytest.raises(TemporarilyUnavailableError):
        await bench.begin()
    bench.now += 600
    assert await bench.begin()


async def test_one_built_in_client_leaves_room_for_others(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.oauth.device.MAX_OF_BUILT_IN", 2)
    device = await bench.begin()
    await bench.begin()
    with pytest.raises(TemporarilyUnavailableError):
        await bench.begin()
    assert await bench.begin("orgate-editor")
    await bench.decide(device["user_code"])  # it waits no more
    assert await bench.begin()


async def test_one_organization_s_clients_leave_room_for_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.oauth.device.MAX_OF_ORG", 2)
    public = {"auth_method": AuthMethod.NONE, "grant_types": (GrantType.DEVICE_CODE,), "redirect_uris": ()}
    for name, org in (("one", ACME), ("two", ACME), ("one", GLOBEX)):
        await register(bench, name, org, **public)
    await bench.begin("acme.one")
    await bench.begin("acme.two")
    for name in ("acme.one", "acme.two"):
        with pytest.raises(TemporarilyUnavailableError):
            await bench.begin(name)
    assert await bench.begin("globex.one")
    assert await bench.begin()


def test_no_share_is_all_of_it() -> None:
    built_in = [client for client in BUILT_IN.values() if GrantType.DEVICE_CODE in client.grant_types]
    public = [client for client in built_in if not client.own]
    assert len(public) * MAX_OF_BUILT_IN + MAX_OF_ORG < MAX_PENDING
    assert 20 * STARTS_PER_ADDRESS <= MAX_OF_BUILT_IN // 2


async def test_two_pending_grants_never_share_a_user_code(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(["BBBB-BBBB", "BBBB-BBBB", "CCCC-CCCC"])
    monkeypatch.setattr(DeviceFlow, "_user_code", lambda _: next(drawn))
    assert [(await bench.begin())["user_code"] for _ in range(2)] == ["BBBB-BBBB", "CCCC-CCCC"]

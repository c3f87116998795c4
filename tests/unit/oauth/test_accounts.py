"""Invitations, passwords, lock-out."""

from __future__ import annotations

import asyncio

import pytest
from argon2 import PasswordHasher

from gateway.oauth.caller import Caller
from gateway.oauth.errors import (
    InvalidGrantError,
    InvalidRequestError,
    OAuthError,
    SignInRefusedError,
    TemporarilyUnavailableError,
    TooManyAttemptsError,
)
from gateway.oauth.passwords import Passwords
from tenants.ids import MemberId
from tenants.store import NotFoundError
from tests.unit.oauth.conftest import ACME, ADA, GLOBEX, GUS, HERE, PASSWORD, Bench

NEW = "another good password"


async def _sign_in(
    bench: Bench, org: str = "acme", email: str = "ada@acme.example", password: str = PASSWORD
) -> str:
    device = await bench.begin()
    return await bench.decide(device["user_code"], org=org, email=email, password=password)


def _form(code: str, **changes: str) -> dict[str, str]:
    form = {"org": "acme", "email": "ada@acme.example", "code": code, "password": NEW, "password_again": NEW}
    return {**form, **changes}


async def test_an_invitation_sets_the_password_once(bench: Bench) -> None:
    old_session = (await bench.login())["refresh_token"]
    invitation = await bench.service.invite(ACME, ADA)
    assert invitation.expires_at == int(bench.now) + 7 * 86_400
    assert invitation.code not in invitation.url
    spelled = f" {invitation.code.lower()} "
    assert await bench.service.accept_invitation(_form(spelled, email="ADA@acme.example"), HERE) == "accepted"
    assert await _sign_in(bench, password=NEW) == "approved"
    with pytest.raises(SignInRefusedError):
        await _sign_in(bench)
    with pytest.raises(InvalidGrantError):
        await bench.refresh(old_session)
    with pytest.raises(InvalidGrantError):
        await bench.service.accept_invitation(_form(invitation.code), HERE)
    assert len(await bench.noted("invitation.accept")) == 3


async def test_an_invitation_used_by_many_at_once_sets_one_password(bench: Bench) -> None:
    code = (await bench.service.invite(ACME, ADA)).code
    tries = [f"password number {n:02}" for n in range(10)]
    answers = await asyncio.gather(
        *(bench.service.accept_invitation(_form(code, password=p, password_again=p), HERE) for p in tries),
        return_exceptions=True,
    )
    assert sum(answer == "accepted" for answer in answers) == 1
    assert await _sign_in(bench, password=tries[answers.index("accepted")]) == "approved"


async def test_an_invitation_ends_after_seven_days_or_with_the_next_one(bench: Bench) -> None:
    first = await bench.service.invite(ACME, ADA)
    second = await bench.service.invite(ACME, ADA)
    with pytest.raises(InvalidGrantError):
        await bench.service.accept_invitation(_form(first.code), HERE)
    bench.now += 7 * 86_400
    with pytest.raises(InvalidGrantError):
        await bench.service.accept_invitation(_form(second.code), HERE)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"org": "globex", "email": "gus@globex.example"}, InvalidGrantError),
        ({"org": "globex"}, InvalidGrantError),
        ({"org": "Not An Org"}, InvalidGrantError),
        ({"email": "somebody@acme.example"}, InvalidGrantError),
        ({"code": "AAAAA-AAAAA-AAAAA-AAAAA-AAAAA"}, InvalidGrantError),
        ({"password_again": NEW + "!"}, InvalidRequestError),
        ({"password": "short", "password_again": "short"}, InvalidRequestError),
        ({"password": "x" * 257, "password_again": "x" * 257}, InvalidRequestError),
        ({"code": ""}, InvalidRequestError),
    ],
)
async def test_a_mistake_leaves_the_invitation_good(
    bench: Bench, changes: dict[str, str], error: type[OAuthError]
) -> None:
    code = (await bench.service.invite(ACME, ADA)).code
    with pytest.raises(error):
        await bench.service.accept_invitation({**_form(code), **changes}, HERE)
    assert await bench.service.accept_invitation(_form(code), HERE) == "accepted"


async def test_nobody_is_invited_who_is_not_there(bench: Bench) -> None:
    for org, member in ((ACME, MemberId("mem_none")), (GLOBEX, ADA), (ACME, GUS)):
        with pytest.raises(NotFoundError):
            await bench.service.invite(org, member)


@pytest.mark.parametrize("email", ["ada@acme.example", "nobody@acme.example"])
@pytest.mark.parametrize("org", ["acme", "no-such-org", "Not An Org"])
async def test_failing_locks_out_by_doubling_for_accounts_that_exist_and_others_alike(
    bench: Bench, org: str, email: str
) -> None:
    for failures in range(1, 16):
        with pytest.raises(SignInRefusedError, match="do not go together"):
            await _sign_in(bench, org, email, "wrong password")
        wait = 0 if failures <= 4 else min(2 ** (failures - 4), 900)
        if wait:
            with pytest.raises(TooManyAttemptsError) as caught:
                await _sign_in(bench, org, email)  # even the right one
            assert caught.value.retry_after_s == wait
        bench.now += wait


async def test_signing_in_lifts_the_lock_out(bench: Bench) -> None:
    for _ in range(2):
        for _ in range(4):
            with pytest.raises(SignInRefusedError):
                await _sign_in(bench, password="wrong password")
        assert await _sign_in(bench) == "approved"


async def test_guesses_made_at_once_all_count(bench: Bench) -> None:
    device = await bench.begin()
    answers = await asyncio.gather(
        *(bench.decide(device["user_code"], password=f"guess {n}") for n in range(40)), return_exceptions=True
    )
    refused = sum(isinstance(answer, SignInRefusedError) for answer in answers)
    assert refused <= 5
    assert refused + sum(isinstance(answer, TooManyAttemptsError) for answer in answers) == 40


async def test_failures_of_one_address_are_bounded_whatever_names_it_tries(bench: Bench) -> None:
    device = await bench.begin()
    for n in range(100):
        with pytest.raises(SignInRefusedError):
            await bench.decide(device["user_code"], email=f"somebody-{n}@acme.example")
    with pytest.raises(TooManyAttemptsError):
        await bench.decide(device["user_code"])
    elsewhere = Caller(address="192.0.2.2")
    form = {"user_code": device["user_code"], "org": "acme", "email": "ada@acme.example", "password": PASSWORD}
    assert await bench.service.decide_device({**form, "action": "approve"}, elsewhere) == "approved"


async def test_suspended_accounts_hear_what_everybody_hears(bench: Bench) -> None:
    with pytest.raises(SignInRefusedError) as wrong:
        await _sign_in(bench, password="wrong password")
    await bench.suspend()
    with pytest.raises(SignInRefusedError) as suspended:
        await _sign_in(bench)
    assert suspended.value.description == wrong.value.description


async def test_refusals_are_noted_without_names(bench: Bench) -> None:
    for org, email in (
        ("acme", "ada@acme.example"),
        ("acme", "nobody@acme.example"),
        ("no-such-org", "x@y.example"),
    ):
        with pytest.raises(SignInRefusedError):
            await _sign_in(bench, org, email, "wrong password")
    noted = await bench.noted("session.refuse")
    assert [(c.org, c.target) for c in noted] == [("acme", ADA), ("acme", "anonymous"), ("platform", "anonymous")]
    assert "@" not in str(noted)


async def test_a_password_made_with_other_costs_is_hashed_anew(bench: Bench) -> None:
    stored = await bench.store.password(ACME, ADA)
    assert stored is not None
    cheap = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1).hash(PASSWORD)
    await bench.store.rehash(ACME, ADA, stored, cheap)
    assert await _sign_in(bench) == "approved"
    now = await bench.store.password(ACME, ADA)
    assert now is not None
    assert "t=1," in now
    assert await _sign_in(bench) == "approved"


async def test_no_more_hashing_at_once_than_there_is_memory_for() -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    answers = await asyncio.gather(*(passwords.verify(None, "x") for _ in range(80)), return_exceptions=True)
    assert sum(isinstance(answer, TemporarilyUnavailableError) for answer in answers) == 16
    assert await passwords.verify(None, "x") is False


async def test_one_spelling_per_password() -> None:
    passwords = Passwords(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    assert await passwords.verify(await passwords.hash("cafe\u0301 au lait"), "café au lait")
    assert not await passwords.verify("not a hash", "café au lait")

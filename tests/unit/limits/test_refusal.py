"""What a limit's no says: to people, to programs, and in headers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from gateway.api.data.openai import error_body, error_event
from gateway.errors import LimitExceededError, QuotaExceededError, UnavailableError
from gateway.exchange import Claim, Headers
from gateway.limits.headers import rate_limit_headers
from gateway.limits.refusal import ended, owner, refused, undecided
from gateway.quota import Quota
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit

ENDS = 1_796_083_200  # 2026-12-01T00:00:00Z


def claim(**changes: Any) -> Claim:
    values: dict[str, Any] = {
        "org": OrgId("acme"),
        "limit": "typing",
        "scope": "member",
        "subject": "mem_1",
        "unit": LimitUnit.REQUESTS,
        "cost": 1,
        "amount": 60,
        "burst": 60,
        "period_s": 60,
    }
    values |= changes
    return Claim(cost=values.pop("cost"), least=values.pop("least", -1), quota=Quota(**values))


def budget(**changes: Any) -> Claim:
    month = {"limit": "monthly", "scope": "org", "subject": "", "unit": LimitUnit.SPEND, "period_s": 0}
    return claim(
        **{**month, "amount": 200 * 10**9, "burst": 0, "starts_s": ENDS - 86_400, "ends_s": ENDS, **changes}
    )


def said(claims: Sequence[Claim], left: Sequence[int], now_ms: int) -> Headers:
    return rate_limit_headers(claims, left, lambda: now_ms)


@pytest.mark.parametrize(
    ("asked", "wait_us", "left", "message"),
    [
        (claim(), 1_500_001, 0, "limit 'typing' (for each member) is used up; try again in 2 s"),
        (claim(), 0, 0, "limit 'typing' (for each member) is used up; try again in 1 s"),
        (claim(amount=0), -1, 0, "limit 'typing' (for each member) lets nothing pass"),
        (
            claim(unit=LimitUnit.CONCURRENCY, amount=4, period_s=0),
            1_000_000,
            0,
            "limit 'typing' (for each member) allows 4 requests at once, and as many are in flight",
        ),
        (
            claim(unit=LimitUnit.INPUT_TOKENS, cost=900, amount=100, burst=500),
            -1,
            500,
            "limit 'typing' (for each member) holds 500 input tokens at most and this request asks for 900:"
            " shorten it or lower max_tokens",
        ),
        (
            claim(scope="team", unit=LimitUnit.TOKENS, cost=900, amount=1_000, burst=1_000),
            7_000_000,
            850,
            "limit 'typing' (for each team) has 850 tokens left and this request asks for 900; try again in 7 s",
        ),
        (
            budget(),
            5_000_000,
            0,
            "limit 'monthly' (for the whole organization) of 200 dollars is used up until 2026-12-01T00:00:00Z",
        ),
        (
            budget(unit=LimitUnit.TOKENS, amount=2_000, cost=70),
            5_000_000,
            50,
            "limit 'monthly' (for the whole organization) has 50 tokens left until 2026-12-01T00:00:00Z"
            " and this request asks for 70",
        ),
        (
            budget(cost=3 * 10**11 + 5 * 10**8),
            -1,
            0,
            "limit 'monthly' (for the whole organization) holds 200 dollars at most and this request asks for"
            " 300.5 dollars: shorten it or lower max_tokens",
        ),
    ],
)
def test_the_words(asked: Claim, wait_us: int, left: int, message: str) -> None:
    assert refused(asked, wait_us, left=left).message == f"{message}; set by your organization's admins"


def test_retry_after_is_rounded_up_and_absent_where_waiting_is_of_no_use() -> None:
    assert [refused(claim(), wait).retry_after_s for wait in (0, 1, 1_000_000, 1_000_001)] == [1, 1, 1, 2]
    assert refused(claim(), -1).retry_after_s is None
    assert ended(budget()).retry_after_s is None


@pytest.mark.parametrize(
    ("asked", "by", "words"),
    [
        (claim(), "organization", "your organization's admins"),
        (claim(limit="platform/fair", scope="org", subject=""), "platform", "the platform's operators"),
        (claim(org=PLATFORM, scope="upstream", subject="https://x.example"), "platform", "platform's operators"),
    ],
)
def test_it_says_who_set_it(asked: Claim, by: str, words: str) -> None:
    error = refused(asked, 1)
    assert owner(asked.quota) == error.owner == by
    assert error.message.endswith(words)
    assert "x.example" not in error.message


def test_a_shared_bucket_is_said_to_be_shared_without_saying_with_whom() -> None:
    assert "for all organizations together" in refused(claim(org=PLATFORM, scope="upstream"), 1).message


def test_a_rate_is_a_rate_limit_and_a_budget_a_quota_as_openai_says_it() -> None:
    rate: dict[str, Any] = json.loads(error_body(refused(claim(), 1)))["error"]
    assert {key: rate[key] for key in ("type", "code", "limit", "scope", "owner")} == {
        "type": "rate_limit_error",
        "code": "rate_limit_exceeded",
        "limit": "typing",
        "scope": "member",
        "owner": "organization",
    }
    assert "resets_at" not in rate
    quota: dict[str, Any] = json.loads(error_body(refused(budget(), 1)))["error"]
    assert (quota["type"], quota["code"], quota["resets_at"]) == (
        "insufficient_quota",
        "insufficient_quota",
        "2026-12-01T00:00:00Z",
    )


def test_what_cuts_a_stream_is_the_last_event_and_says_that_it_was_in_the_middle() -> None:
    error = ended(budget())
    assert isinstance(error, QuotaExceededError)
    assert "in the middle of this answer until 2026-12-01T00:00:00Z" in error.message
    assert b'"code":"insufficient_quota"' in error_event(error)
    assert type(ended(claim(unit=LimitUnit.TOKENS))) is LimitExceededError


def test_a_limit_that_cannot_be_asked_and_denies_is_named() -> None:
    error = undecided(claim())
    assert isinstance(error, UnavailableError)
    assert (error.status, error.retry_after_s) == (503, 1)
    assert "'typing'" in error.message
    said = json.loads(error_body(error))["error"]
    assert (said["type"], said["code"]) == ("server_error", "unavailable")
    assert (said["limit"], said["scope"], said["owner"]) == ("typing", "member", "organization")


def test_a_refusal_carries_what_is_left() -> None:
    error = refused(claim(), 1, said([claim()], [0], 0))
    assert dict(error.headers)[b"x-ratelimit-remaining-requests"] == b"0"


def test_what_is_said_is_of_the_strictest_of_each_unit_and_budgets_reset_when_their_window_ends() -> None:
    asked = [claim(), claim(limit="day", amount=9, burst=9, period_s=90), budget()]
    assert said(asked, [50, 3, -7], ENDS * 1_000 - 2_500) == [
        (b"x-ratelimit-limit-requests", b"9"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"60000ms"),
        (b"x-ratelimit-limit-spend", b"200"),
        (b"x-ratelimit-remaining-spend", b"0"),
        (b"x-ratelimit-reset-spend", b"2500ms"),
    ]
    assert said([claim()], [60], 0)[2] == (b"x-ratelimit-reset-requests", b"0ms")
    assert said([budget()], [1], (ENDS + 5) * 1_000)[2] == (b"x-ratelimit-reset-spend", b"0ms")


def test_of_two_limits_of_one_unit_either_may_be_the_strictest() -> None:
    for left in ([7, 3], [3, 7]):
        both = said([claim(), claim(limit="other", amount=90, burst=90)], left, 0)
        assert both[1] == (b"x-ratelimit-remaining-requests", b"3")
        assert len(both) == 3


def test_what_is_the_same_again_is_not_made_again() -> None:
    asked = claim(amount=9, burst=9, period_s=90)
    once, again = said([asked], [3], 0), said([asked], [3], 0)
    assert all(one is other for one, other in zip(once, again, strict=True))
    assert [value for _, value in said([asked], [2], 0)] == [b"9", b"2", b"70000ms"]
    assert said([claim(amount=9, burst=9, period_s=9)], [2], 0)[2] == (b"x-ratelimit-reset-requests", b"7000ms")
    assert [value for _, value in said([asked], [0], 0)] == [b"9", b"0", b"90000ms"]


def test_a_budget_of_which_callers_are_told_has_a_header_of_its_own() -> None:
    asked = [budget(notify_at=80), budget(limit="week", notify_at=80)]
    headers = said(asked, [40 * 10**9, 40 * 10**9 + 1], (ENDS - 90) * 1_000)
    assert [name for name, _ in headers].count(b"x-ratelimit-limit-spend") == 1
    assert headers[3:] == [(b"x-orgate-budget", b"monthly;used=80;reset=90")]


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("monthly", b"monthly"),
        ("platform/monthly-2.x_y", b"platform/monthly-2.x_y"),
        ("9lives", b'"9lives"'),
        ("platform/9lives", b"platform/9lives"),
    ],
)
def test_a_name_that_is_no_token_is_a_string_in_the_header(name: str, item: bytes) -> None:
    told = said([budget(limit=name, notify_at=80)], [0], (ENDS - 90) * 1_000)[-1]
    assert told == (b"x-orgate-budget", item + b";used=100;reset=90")


def test_headers_have_openais_names_and_others_made_like_them() -> None:
    asked = [
        claim(unit=LimitUnit.TOKENS, amount=5, burst=1, period_s=1),
        claim(unit=LimitUnit.OUTPUT_TOKENS, amount=7, burst=7),
        budget(),
        claim(unit=LimitUnit.CONCURRENCY, amount=5, burst=5, period_s=0),
    ]
    assert said(asked, [-2, 7, 12_500_000_001, 1], (ENDS - 60) * 1_000) == [
        (b"x-ratelimit-limit-tokens", b"5"),
        (b"x-ratelimit-remaining-tokens", b"0"),
        (b"x-ratelimit-reset-tokens", b"600ms"),
        (b"x-ratelimit-limit-output-tokens", b"7"),
        (b"x-ratelimit-remaining-output-tokens", b"7"),
        (b"x-ratelimit-reset-output-tokens", b"0ms"),
        (b"x-ratelimit-limit-spend", b"200"),
        (b"x-ratelimit-remaining-spend", b"12.500000001"),
        (b"x-ratelimit-reset-spend", b"60000ms"),
        (b"x-ratelimit-limit-concurrency", b"5"),
        (b"x-ratelimit-remaining-concurrency", b"1"),
    ]

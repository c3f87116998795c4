"""A limit's no, as OpenAI's SDK gives it to its user: which error, what it says, and when it is tried again."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.integration.clients.conftest import World
from tests.kit.wait import until

Connect = Callable[..., AbstractContextManager[OpenAI]]
LIMITS: tuple[dict[str, Any], ...] = (
    {"name": "one-a-second", "unit": "requests", "amount": 1, "period_s": 1},
    {"name": "two-an-hour", "unit": "requests", "amount": 2, "period_s": 3_600},
    {"name": "daily", "unit": "output_tokens", "amount": 20, "window": "day", "notify_at": [50]},
    {"name": "small", "unit": "tokens", "amount": 100},
    {"name": "five-an-hour", "unit": "requests", "amount": 5, "period_s": 3_600},
)


@pytest.fixture(scope="module", autouse=True)
def limited(world: World) -> None:
    """A model of its own for each limit, so that it is alone on its bucket."""
    for limit in LIMITS:
        world.owner.create("models", name=limit["name"], upstream="demo", model="demo-coder")
        world.owner.create("limits", scope="model", subject=limit["name"], **limit)


@pytest.fixture
def connect(world: World, token: str) -> Connect:
    """Makes a client; `seen` collects the statuses of its answers."""

    @contextmanager
    def connected(seen: list[int], *, max_retries: int = 0) -> Iterator[OpenAI]:
        hooks = {"response": [lambda answer: seen.append(answer.status_code)]}
        http = openai.DefaultHttpxClient(verify=world.tls(), event_hooks=hooks)
        with OpenAI(api_key=token, base_url=world.url, http_client=http, max_retries=max_retries) as client:
            yield client

    return connected


def refused(client: OpenAI, model: str, tries: int = 5, max_tokens: int = 1) -> openai.RateLimitError:
    for _ in range(tries):
        try:
            client.completions.create(model=model, prompt="x", max_tokens=max_tokens)
        except openai.RateLimitError as error:
            return error
    raise AssertionError(f"{tries} requests were served")


def told_of_budgets(client: OpenAI, model: str) -> str:
    answer = client.completions.with_raw_response.create(model=model, prompt="x", max_tokens=1)
    return answer.headers.get("x-orgate-budget", "")


def body(error: openai.RateLimitError) -> dict[str, Any]:
    assert isinstance(error.body, dict)
    return error.body


def test_a_rate_says_what_is_left_whose_it_is_and_when_to_come_back(connect: Connect) -> None:
    seen: list[int] = []
    with connect(seen, max_retries=2) as client:
        error = refused(client, "two-an-hour")
    assert seen == [200, 200, 429], (
        "it is not tried again by itself: the wait is longer than anybody's program has"
    )
    headers = error.response.headers
    assert (error.code, error.type) == ("rate_limit_exceeded", "rate_limit_error")
    said = body(error)
    assert (said["limit"], said["scope"], said["owner"]) == ("two-an-hour", "model", "organization")
    assert "set by your organization's admins" in said["message"]
    assert "resets_at" not in said
    wait = int(headers["retry-after"])
    assert 1_700 < wait <= 1_800
    assert f"try again in {wait} s" in said["message"]
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 3_500_000 < int(headers["x-ratelimit-reset-requests"].removesuffix("ms")) <= 3_600_000
    assert int(headers["x-ratelimit-remaining-tokens"]) > 0, "what else limits it is said, too"
    assert headers["x-request-id"] == error.request_id


def test_a_budget_is_openais_quota_and_says_when_it_begins_anew(connect: Connect) -> None:
    seen: list[int] = []
    with connect(seen, max_retries=2) as client:
        told = [told_of_budgets(client, "daily") for _ in range(11)]
        error = refused(client, "daily", tries=30, max_tokens=4)
    assert seen.count(429) == 1
    assert told[0] == ""
    assert re.fullmatch(r"daily;used=5[05];reset=\d{1,5}", told[-1]), told
    assert (error.code, error.type) == ("insufficient_quota", "insufficient_quota")
    said = body(error)
    resets = datetime.fromisoformat(said["resets_at"]).timestamp()
    assert resets % 86_400 == 0, "the organization's days begin at midnight, UTC"
    assert said["resets_at"] in said["message"]
    assert abs(int(error.response.headers["retry-after"]) - math.ceil(resets - time.time())) <= 2
    assert error.response.headers["x-should-retry"] == "false"
    assert error.response.headers["x-ratelimit-limit-output-tokens"] == "20"
    assert int(error.response.headers["x-ratelimit-remaining-output-tokens"]) < 4


def test_what_can_never_pass_is_not_to_be_tried_again(connect: Connect) -> None:
    seen: list[int] = []
    with connect(seen, max_retries=2) as client:
        error = refused(client, "small", tries=1, max_tokens=1_000)
    assert seen == [429]
    assert "retry-after" not in error.response.headers
    assert "holds 100 tokens at most" in body(error)["message"]


def test_alone_on_its_bucket_whoever_waits_as_told_is_never_refused_twice_in_a_row(connect: Connect) -> None:
    """The SDK waits for `Retry-After` and tries once more."""
    seen: list[int] = []
    with connect(seen, max_retries=1) as client:
        for _ in range(4):
            assert client.completions.create(model="one-a-second", prompt="x", max_tokens=1).choices
    assert seen.count(200) == 4
    assert 429 in seen
    assert all(pair != (429, 429) for pair in pairwise(seen))


def test_an_admin_sees_who_used_it_what_less_would_have_done_and_sets_it_back(
    world: World, connect: Connect
) -> None:
    limit = "/admin/v1/orgs/acme/limits/five-an-hour"

    def used() -> dict[str, Any]:
        items = world.owner.admin("GET", f"{limit}/usage").json()["items"]
        return items[0] if items else {}

    def tried(amount: int) -> dict[str, Any]:
        less = {**LIMITS[-1], "scope": "model", "subject": "five-an-hour", "amount": amount}
        answer = world.owner.admin("POST", "/admin/v1/orgs/acme/limits-simulation", json={"limit": less})
        report: dict[str, Any] = json.loads(answer.text.splitlines()[-1])["report"]
        return report

    seen: list[int] = []
    with connect(seen) as client:
        refused(client, "five-an-hour", tries=6)
        assert seen == [200] * 5 + [429]
        until(lambda: used().get("used") == 5, "what five requests used is known")
        assert (used()["left"], used()["open"], used()["platform"]) == (0, 0, False)
        until(lambda: tried(5)["requests"] == 6, "six requests are in the log")
        assert (tried(5)["refused"], tried(5)["refused_then"]) == (1, 1)
        (row,) = tried(2)["rows"]
        assert (row["model"], row["requests"], row["refused"]) == ("five-an-hour", 6, 4)
        assert world.owner.admin("POST", f"{limit}/reset").json() == {"buckets": 1}
        until(lambda: _served(client), "it is as if nothing had been used")


def _served(client: OpenAI) -> bool:
    try:
        client.completions.create(model="five-an-hour", prompt="x", max_tokens=1)
    except openai.RateLimitError:
        return False
    return True

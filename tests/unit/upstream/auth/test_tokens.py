"""Tokens in hand: fetched once, renewed by a timer, turned over with their key, kept while the endpoint is away.

Time is the test's: a clock, and timers that fire when it is moved past them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import UnavailableError
from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.auth.grant import Grant, GrantError
from gateway.upstream.auth.shapes import Client
from gateway.upstream.auth.tokens import FLOOR_S, MAX_RETRY_S, ClientTokens
from tenants.ids import OrgId
from tenants.models import CredentialKind, Upstream

UP = Upstream(
    OrgId("acme"), "up", "https://model.example", auth=CredentialKind.OAUTH_CLIENT_CREDENTIALS, key_version=1
)


def key(secret: str = "cs-planted", version: int = 1) -> Credential:
    """A new object each time, as each renewal of a lease makes."""
    client = {"token_url": "https://idp.example/token", "client_id": "gw", "client_secret": secret}
    return Credential(version, Secret(json.dumps(client)))


class _Timer:
    def __init__(self, at: float, work: Callable[[], None]) -> None:
        self.at = at
        self.work = work
        self.over = False

    def cancel(self) -> None:
        self.over = True


class Endpoint:
    """Gives `at-1`, `at-2`, … to whoever asks; the time and the timers of the test are here too."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.timers: list[_Timer] = []
        self.asked: list[str] = []
        self.life_s = 100.0
        self.error: GrantError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.tokens = ClientTokens(self.ask, lambda: self.now, self.call_later)

    async def ask(self, upstream: Upstream, client: Client) -> Grant:
        self.asked.append(client.client_secret.reveal().decode())
        number = len(self.asked)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return Grant(Secret(f"at-{number}"), self.life_s)

    def call_later(self, delay: float, work: Callable[[], None]) -> _Timer:
        self.timers.append(_Timer(self.now + delay, work))
        return self.timers[-1]

    async def move(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        for timer in list(self.timers):
            if not timer.over and timer.at <= self.now:
                timer.over = True
                timer.work()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    def peek(self, upstream: Upstream = UP, client: Credential | None = None) -> str | None:
        token = self.tokens.peek(upstream, client or key())
        return token.secret.reveal().decode() if token is not None else None

    async def lease(self, upstream: Upstream = UP, client: Credential | None = None) -> str:
        return (await self.tokens.lease(upstream, client or key())).secret.reveal().decode()


async def test_many_who_come_at_once_ask_once() -> None:
    endpoint = Endpoint()
    assert endpoint.peek() is None
    endpoint.gate.clear()
    waiting = [asyncio.create_task(endpoint.lease()) for _ in range(20)]
    await endpoint.settle()
    waiting[0].cancel()
    await endpoint.settle()
    endpoint.gate.set()
    assert await asyncio.gather(*waiting[1:]) == ["at-1"] * 19
    assert endpoint.asked == ["cs-planted"]
    assert endpoint.peek() == "at-1"


async def test_a_token_in_use_is_renewed_before_it_ends_and_nobody_waits() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    for _ in range(3):
        assert endpoint.peek() is not None
        await endpoint.move(79)
        assert endpoint.peek() is not None
        await endpoint.move(1)  # 80 % of 100 s
    assert endpoint.asked == ["cs-planted"] * 4
    assert endpoint.peek() == "at-4"


async def test_a_token_that_nobody_uses_is_let_go() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    await endpoint.move(80)
    assert endpoint.asked == ["cs-planted"]
    assert endpoint.peek() is None
    assert await endpoint.lease() == "at-2"


async def test_while_the_endpoint_is_away_the_token_serves_until_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    endpoint.peek()
    endpoint.error = GrantError("the token endpoint answered status 503")
    caplog.set_level(logging.DEBUG)
    tries = []
    for _ in range(89):
        await endpoint.move(1)
        assert endpoint.peek() == "at-1"
        tries.append(len(endpoint.asked))
    assert tries[-1] == 4, "80 s, then 2, 4 and … s later: not on every request"
    await endpoint.move(1)  # the last tenth of its life is not used
    assert endpoint.peek() is None
    with pytest.raises(UnavailableError, match="cannot be fetched now") as refused:
        await endpoint.lease()
    assert refused.value.retry_after_s
    assert "was not fetched: the token endpoint answered status 503" in caplog.text
    assert "planted" not in caplog.text
    endpoint.error = None
    await endpoint.move(MAX_RETRY_S)
    assert (await endpoint.lease()).startswith("at-")


async def test_an_endpoint_that_failed_is_not_asked_by_every_request() -> None:
    endpoint = Endpoint()
    endpoint.error = GrantError("no")
    waits = []
    for _ in range(50):
        with pytest.raises(UnavailableError) as refused:
            await endpoint.lease()
        waits.append(refused.value.retry_after_s)
    assert (len(endpoint.asked), set(waits)) == (1, {2})
    await endpoint.move(2)
    endpoint.error = None
    assert await endpoint.lease() == "at-2"


async def test_the_same_key_leased_anew_costs_nothing() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    assert endpoint.peek(client=key(version=2)) == "at-1"
    await endpoint.settle()
    assert endpoint.asked == ["cs-planted"]


async def test_a_new_key_is_switched_to_behind_the_requests_back() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    endpoint.gate.clear()
    assert endpoint.peek(client=key("new", 2)) == "at-1"
    await endpoint.settle()
    assert endpoint.peek(client=key("new", 2)) == "at-1"
    endpoint.gate.set()
    await endpoint.settle()
    assert endpoint.peek(client=key("new", 2)) == "at-2"
    assert endpoint.asked == ["cs-planted", "new"]
    await endpoint.move(80)
    assert endpoint.asked[2:] == ["new"], "the old key's timer is gone"


async def test_a_new_key_that_is_wrong_takes_nothing_away_at_once() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    endpoint.error = GrantError("no")
    assert endpoint.peek(client=key("wrong", 2)) == "at-1"
    await endpoint.settle()
    assert endpoint.peek(client=key("wrong", 2)) == "at-1"


async def test_the_key_of_before_has_its_own_token_and_neither_is_fetched_for_the_other() -> None:
    """A request whose new key was refused is sent again with the one that a rotation keeps."""
    endpoint = Endpoint()
    await endpoint.lease(client=key("old", 1))
    endpoint.peek(client=key("new", 2))
    await endpoint.settle()
    for _ in range(10):
        assert endpoint.peek(client=key("new", 2)) == "at-2"
        assert endpoint.peek(client=key("old", 1)) == "at-1"
    await endpoint.settle()
    assert endpoint.asked == ["old", "new"]


async def test_a_key_that_is_tried_again_does_not_get_the_newer_ones_token() -> None:
    endpoint = Endpoint()
    await endpoint.lease(client=key("new", 2))
    assert endpoint.peek(client=key("old", 1)) is None
    assert await endpoint.lease(client=key("old", 1)) == "at-2"
    assert endpoint.asked == ["new", "old"]


async def test_a_key_that_is_set_back_goes_on_with_its_token() -> None:
    endpoint = Endpoint()
    await endpoint.lease(client=key("old", 1))
    endpoint.peek(client=key("new", 2))
    await endpoint.settle()
    assert endpoint.peek(client=key("old", 3)) == "at-1"
    await endpoint.settle()
    assert endpoint.asked == ["old", "new"]


async def test_of_many_rotations_two_keys_are_remembered() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    for version in range(2, 20):
        endpoint.peek(client=key(f"cs-{version}", version))
        await endpoint.settle()
    assert len([timer for timer in endpoint.timers if not timer.over]) == 2


async def test_a_token_does_not_go_to_another_server() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    elsewhere = Upstream(UP.org, UP.name, "https://other.example", auth=UP.auth)
    assert endpoint.peek(elsewhere) is None
    assert await endpoint.lease(elsewhere) == "at-2"


async def test_a_token_does_not_go_to_another_organization() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    theirs = Upstream(OrgId("globex"), UP.name, UP.base_url, auth=UP.auth)
    assert endpoint.peek(theirs) is None
    assert await endpoint.lease(theirs) == "at-2"
    assert endpoint.peek() == "at-1"


async def test_a_refused_token_is_fetched_anew_at_once_and_not_more_often_than_the_floor() -> None:
    endpoint = Endpoint()
    token = await endpoint.tokens.lease(UP, key())
    endpoint.tokens.refused(UP, token)
    await endpoint.settle()
    assert len(endpoint.asked) == 1, "it is younger than the floor"
    await endpoint.move(FLOOR_S)
    endpoint.gate.clear()
    for _ in range(10):
        endpoint.tokens.refused(UP, token)
    assert endpoint.peek() is None, "whoever comes waits for the new one"
    waiting = asyncio.create_task(endpoint.lease())
    await endpoint.settle()
    endpoint.gate.set()
    assert await waiting == "at-2"
    endpoint.tokens.refused(UP, token)
    await endpoint.move(FLOOR_S)
    endpoint.tokens.refused(UP, token)
    await endpoint.settle()
    assert len(endpoint.asked) == 2, "an old one's refusal says nothing of the new one"


async def test_a_token_wrongly_refused_serves_on_when_no_other_can_be_had() -> None:
    endpoint = Endpoint()
    token = await endpoint.tokens.lease(UP, key())
    await endpoint.move(FLOOR_S)
    endpoint.error = GrantError("no")
    endpoint.tokens.refused(UP, token)
    assert await endpoint.lease() == "at-1"
    assert endpoint.peek() == "at-1"
    endpoint.tokens.refused(UP, token)
    await endpoint.settle()
    assert len(endpoint.asked) == 2, "the endpoint failed a moment ago"


@pytest.mark.parametrize("life_s", [1.0, 0.5])
async def test_a_short_life_is_used_up_to_its_last_tenth(life_s: float) -> None:
    endpoint = Endpoint()
    endpoint.life_s = life_s
    await endpoint.lease()
    endpoint.now += life_s * 0.89
    assert endpoint.peek() == "at-1"
    endpoint.now += life_s * 0.02
    assert endpoint.peek() is None


async def test_a_key_of_another_kind_is_said_to_be_one(caplog: pytest.LogCaptureFixture) -> None:
    endpoint = Endpoint()
    with pytest.raises(UnavailableError, match="not of the kind 'oauth-client-credentials'") as refused:
        await endpoint.lease(client=Credential(1, Secret("sk-planted")))
    assert "planted" not in str(refused.value) + caplog.text
    with pytest.raises(UnavailableError, match="not of the kind"):
        await endpoint.tokens.fetched(UP, Credential(1, Secret("sk-planted")))


async def test_a_key_that_is_tried_is_asked_for_whatever_is_in_hand() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    assert (await endpoint.tokens.fetched(UP, key("new"))).secret.reveal() == b"at-2"
    assert endpoint.peek() == "at-1"
    endpoint.error = GrantError("the token endpoint answered status 401 (invalid_client)")
    with pytest.raises(UnavailableError, match="invalid_client"):
        await endpoint.tokens.fetched(UP, key("new"))


async def test_closing_ends_what_is_under_way() -> None:
    endpoint = Endpoint()
    await endpoint.lease()
    endpoint.gate.clear()
    endpoint.peek(client=key("new"))
    before: set[Any] = asyncio.all_tasks()
    await endpoint.tokens.aclose()
    assert all(timer.over for timer in endpoint.timers)
    assert [task for task in before if not task.done()] == [asyncio.current_task()]

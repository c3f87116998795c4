"""What the owner of the limits forgets and when, and whose lease ends when. What it answers: tests/contract."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.limits.account import KEPT_US, LEASE_US
from gateway.limits.accounts import LimitOwner
from gateway.limits.kinds import KEPT_S
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Wish
from tenants.ids import OrgId
from tenants.models import LimitUnit

ACME = OrgId("acme")
SECOND = 1_000_000
BEGIN_S = 1_800_000_000

RATE = Part("rate", "", LimitUnit.TOKENS, 60, 60, 60)
BUDGET = Part("budget", "", LimitUnit.SPEND, 100, 100, 0, BEGIN_S, BEGIN_S + 3_600)
SLOTS = Part("slots", "", LimitUnit.CONCURRENCY, 5, 5, 0)


class Place:
    def __init__(self) -> None:
        self.now_us = BEGIN_S * SECOND
        self.owner = LimitOwner(lambda: self.now_us)

    def say(
        self, worker: str, *parts: Part, session: str = "", seq: int = 1, org: str = ACME, cost: int = 0
    ) -> SliceAnswer:
        wishes = (tuple(Wish(place, cost, cost) for place in range(len(parts))),) if cost else ()
        return self.owner.answer(SliceAsk(OrgId(org), worker, session, "", seq, 1, parts, wishes))

    def close(self, worker: str, answer: SliceAnswer, *parts: Part) -> None:
        ask = SliceAsk(ACME, worker, answer.session, answer.epoch, 2, 1, parts, (), close=True)
        assert self.owner.answer(ask).known


@pytest.fixture
def place() -> Place:
    return Place()


def test_what_is_full_and_idle_is_forgotten(place: Place) -> None:
    for number in range(200):
        place.now_us += KEPT_US
        subject = f"mem_{number}"
        place.say(f"w{number}", replace(RATE, subject=subject), replace(SLOTS, subject=subject), cost=1)
        assert len(place.owner) < 10


def test_organizations_that_nobody_asks_for_are_forgotten(place: Place) -> None:
    for number in range(200):
        place.now_us += KEPT_US
        place.say("w1", RATE, SLOTS, org=f"org-{number}", cost=1)
    assert len(place.owner) < 10


def test_a_store_that_began_just_now_forgets_nothing(place: Place) -> None:
    for number in range(100):
        place.now_us += KEPT_US // 200
        place.say(f"w{number}", replace(RATE, subject=f"mem_{number}"))
    assert len(place.owner) == 100


def test_a_debt_is_not_forgotten(place: Place) -> None:
    place.say("in debt", replace(RATE, spent=600))
    place.now_us += 2 * KEPT_US
    for number in range(20):
        place.say(f"w{number}")
    assert place.say("again", RATE).slices[0].left == 60 - 600 + 120


async def test_a_budget_is_remembered_for_two_days_after_its_window(place: Place) -> None:
    place.say("w1", replace(BUDGET, spent=30))
    place.now_us = (BUDGET.ends_s + KEPT_S) * SECOND
    place.say("w2")
    assert [known.level for known in await place.owner.usage(ACME)] == [70]
    place.now_us += 1
    place.say("w3")
    place.say("w4")
    assert await place.owner.usage(ACME) == []


async def test_of_an_organization_that_is_not_known_nothing_is_used(place: Place) -> None:
    assert list(await place.owner.usage(OrgId("nobody"))) == []
    assert await place.owner.reset(OrgId("nobody"), "rate") == 0
    assert len(place.owner) == 0


def test_a_worker_that_left_has_its_lease_from_then_on(place: Place) -> None:
    """So that whoever knows what it has spent can say it, however long it was silent before."""
    place.say("w1", SLOTS, cost=5)
    place.now_us += LEASE_US - 1
    place.owner.left("w1")
    place.owner.left("nobody")
    place.now_us += LEASE_US - 1
    assert place.say("w2", SLOTS).slices[0].left == 0
    place.now_us += 1
    assert place.say("w3", SLOTS).slices[0].left == 5


def test_a_session_that_was_closed_leaves_those_of_others(place: Place) -> None:
    one, two = place.say("w1", SLOTS, cost=1), place.say("w2", SLOTS, cost=2)
    place.close("w1", one)
    assert place.say("w3", SLOTS).slices[0].left == 3
    place.close("w2", two)
    assert place.say("w4", SLOTS).slices[0].left == 5


@pytest.mark.parametrize("unit", [LimitUnit.BYTES, LimitUnit.CONCURRENCY])
def test_a_limit_that_counts_something_else_has_another_bucket(place: Place, unit: LimitUnit) -> None:
    place.say("w1", replace(RATE, spent=20))
    assert place.say("w2", RATE).slices[0].left == 40
    assert place.say("w3", replace(RATE, unit=unit)).slices[0].left == 60

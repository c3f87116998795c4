"""The owner in memory and the library in Redis: the same messages, the same answers, to the unit.

`EXAMPLES=20000 pytest tests/properties/test_limit_stores.py` looks for longer.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.limits.account import Account
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Standings, Wish
from gateway.limits.redis import RedisSlices
from gateway.limits.redis_library import GIVEN_CLOCK, library
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tests.contract.slice_store_redis import forget, single
from tests.kit.redis import shared_server

ORG = OrgId("acme")
SECOND = 1_000_000
BEGIN_US = 1_800_000_000 * SECOND
EXAMPLES = int(os.environ.get("EXAMPLES", "150"))

MOST = 9_000_000_000_000_000
MONTH_S = 31 * 86_400

rates = st.one_of(
    st.tuples(st.integers(0, 60), st.integers(1, 60), st.sampled_from([1, 7, 60])),
    st.tuples(st.integers(1, MOST), st.integers(1, MOST), st.sampled_from([1, 60, 86_400, MONTH_S])).filter(
        lambda rate: rate[1] < rate[0] * 1_000
    ),
)
windows = st.sampled_from([(-3_600, 7), (7, 7_200), (-3_600, 7_200)])
kinds = st.one_of(
    st.builds(
        lambda limit, rate, subject: Part(limit, subject, LimitUnit.TOKENS, rate[0], rate[1], rate[2]),
        st.sampled_from(["a", "b"]),
        rates,
        st.sampled_from(["", "", "mem:1"]),
    ),
    st.builds(
        lambda limit, amount, window: Part(
            limit,
            "",
            LimitUnit.SPEND,
            amount,
            amount,
            0,
            BEGIN_US // SECOND + window[0],
            BEGIN_US // SECOND + window[1],
        ),
        st.sampled_from(["a", "c"]),
        st.one_of(st.integers(0, 60), st.integers(1, MOST)),
        windows,
    ),
    st.builds(
        lambda amount: Part("at-once", "", LimitUnit.CONCURRENCY, amount, amount, 0),
        st.integers(0, 30),
    ),
)
units = st.one_of(st.just(0), st.integers(0, 60), st.integers(0, 10**12))
bases = st.one_of(st.integers(-60, 60), st.integers(-(10**12), 10**13))


def distinct(parts: list[Part]) -> list[Part]:
    """No bucket twice in one message."""
    return list({(p.limit, p.subject, p.unit, p.starts_s): p for p in parts}.values())


parts = (
    st.lists(
        st.builds(
            lambda part, *said: replace(
                part,
                spent=said[0],
                back=said[1],
                open=said[2],
                want=said[3],
                left=said[4],
                left_at_us=said[5],
                held=said[6],
            ),
            kinds,
            units,
            units,
            units,
            units,
            bases,
            st.one_of(st.just(-1), st.integers(BEGIN_US - 100 * SECOND, BEGIN_US + SECOND)),
            st.integers(0, 30),
        ),
        max_size=4,
    )
).map(distinct)
wish = st.tuples(st.integers(0, 3), st.integers(0, 60), units)
requests = st.lists(st.lists(wish, min_size=1, max_size=3, unique_by=lambda wished: wished[0]), max_size=3)


@dataclass(frozen=True)
class Say:
    worker: int
    parts: list[Part]
    requests: list[list[tuple[int, int, int]]]
    workers: int
    opens: bool  # a new session, whatever the worker had
    epoch: str | None  # None: the store's
    out: int  # how far the number is from the next
    close: bool


says = st.builds(
    Say,
    worker=st.integers(0, 3),
    parts=parts,
    requests=requests,
    workers=st.integers(1, 4),
    opens=st.sampled_from([False] * 9 + [True]),
    epoch=st.sampled_from([None, "", "another", "another"]),
    out=st.sampled_from([0] * 19 + [-1, 1]),
    close=st.sampled_from([False] * 9 + [True]),
)
moves = st.lists(
    st.one_of(
        says,
        says,
        says,
        st.tuples(
            st.just("wait"), st.one_of(st.integers(0, 1_000), st.integers(0, 4 * SECOND), st.integers(0, 10**10))
        ),
        st.tuples(st.just("wait"), st.one_of(st.integers(-SECOND, 0), st.integers(-(10**10), 0))),
        st.tuples(st.just("again"), st.integers(0, 100)),
        st.tuples(st.just("reset"), st.sampled_from(["a", "b", "c"]), st.sampled_from([None, "", "mem:1"])),
        st.tuples(st.just("seed"), kinds, bases, st.integers(-100 * SECOND, 100 * SECOND)),
    ),
    max_size=25,
)


Move = Say | tuple[object, ...]


@dataclass
class Both:
    """One message after the other to both. Each names its sessions and its epoch itself."""

    redis: RedisSlices
    clock_us: int = BEGIN_US
    sent: list[tuple[SliceAsk, SliceAsk]] = field(default_factory=list)
    sessions: dict[int, tuple[str, str, int]] = field(default_factory=dict)
    epochs: tuple[str, str] = ("", "")

    @cached_property
    def account(self) -> Account:
        """It begins when it is first spoken to."""
        return Account(self.clock_us)

    async def move(self, move: Move) -> None:
        match move:
            case Say():
                await self.say(move)
            case ("wait", int(us)):
                self.clock_us += us
            case ("again", int(place)) if self.sent:
                await self.ask(*self.sent[place % len(self.sent)])
            case ("reset", str(limit), subject):
                assert subject is None or isinstance(subject, str)
                count = await self.redis.reset(ORG, limit, subject)
                assert self.account.reset(limit, subject, self.clock_us) == count
            case ("seed", Part() as part, int(level), int(ago_us)):
                at_us = self.clock_us - ago_us
                known = Standings(
                    part.limit,
                    part.subject,
                    part.unit,
                    part.amount,
                    part.burst,
                    part.period_s,
                    part.starts_s,
                    part.ends_s,
                    level,
                    0,
                    0,
                    0,
                    at_us,
                )
                self.account.seed([known], self.clock_us)
                await self.redis.seed(ORG, [known])
        await self.compare()

    async def say(self, said: Say) -> None:
        one, two, seq = self.sessions.get(said.worker, ("", "", 0))
        if said.opens:
            one, two, seq = "", "", 0
        first = SliceAsk(
            ORG,
            f"w{said.worker}",
            one,
            self.epochs[0] if said.epoch is None else said.epoch,
            seq + 1 + said.out,
            said.workers,
            tuple(said.parts),
            tuple(
                tuple(
                    Wish(place % len(said.parts), min(least, cost), cost)
                    for place, least, cost in {wished[0] % len(said.parts): wished for wished in request}.values()
                )
                for request in (said.requests if said.parts else ())
            ),
            said.close,
        )
        second = replace(first, session=two, epoch=self.epochs[1] if said.epoch is None else said.epoch)
        self.sent.append((first, second))
        answers = await self.ask(first, second)
        if answers[0].known:
            self.sessions[said.worker] = answers[0].session, answers[1].session, first.seq
        else:
            self.sessions.pop(said.worker, None)

    async def ask(self, first: SliceAsk, second: SliceAsk) -> tuple[SliceAnswer, SliceAnswer]:
        one, two = self.account.answer(first, self.clock_us), await self.redis.ask(second)
        assert replace(one, session="", epoch="") == replace(two, session="", epoch="")
        assert (one.session == "") == (two.session == "")
        self.epochs = one.epoch, two.epoch
        return one, two

    async def compare(self) -> None:
        one, two = self.account.usage(self.clock_us), await self.redis.usage(ORG)
        assert _worth_knowing(one) == _worth_knowing(two)


def _worth_knowing(told: Sequence[Standings]) -> list[Standings]:
    """Without what may have been forgotten: full, in nobody's hands."""
    kept = [one for one in told if one.lent or one.level != (one.burst if one.amount else 0)]
    return sorted(kept, key=lambda one: (one.limit, one.subject, one.unit, one.starts_s))


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=moves)
def test_both_answer_the_same(runner: asyncio.Runner, history: list[Move]) -> None:
    """To any history of messages, new and old, of resets and seeds, with a clock that jumps."""

    async def replay() -> None:
        server = shared_server("redis")
        route = single(server)
        prefix = "d-" + secrets.token_hex(4)
        both = Both(RedisSlices(route, prefix=prefix, text=library(GIVEN_CLOCK), clock_us=lambda: both.clock_us))
        try:
            for move in history:
                await both.move(move)
        finally:
            await both.redis.aclose()
            forget([server], prefix)

    runner.run(replay())

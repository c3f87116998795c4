"""The library inside Redis and the owner in memory, told the same: they answer the same, to the unit.

`EXAMPLES=20000 pytest --timeout 0 tests/properties/test_limit_stores.py` looks for longer.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from itertools import count
from typing import Any

import msgspec
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.limits.account import LEASE_US, STEP_US, Account
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Standings, Wish
from gateway.limits.redis_library import GIVEN_CLOCK, library
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tests.kit.redis import shared_server

EXAMPLES = int(os.environ.get("EXAMPLES", "150"))
ORG = OrgId("acme")
SECOND = 1_000_000
BEGIN_US = 1_800_000_000 * SECOND
DAY_US = 86_400 * SECOND

LARGE = 9_000_000_000_000_000
STARTS, ENDS = 1_799_990_000, 1_800_090_000

PARTS = (
    Part("rate", "", LimitUnit.TOKENS, 50, 30, 7),
    Part("rate", "", LimitUnit.TOKENS, 77, 77, 60),
    Part("rate", "", LimitUnit.TOKENS, 0, 0, 7),
    Part("rate", "", LimitUnit.REQUESTS, 5_000, 800, 1),
    Part("rate", "mem:1", LimitUnit.REQUESTS, 1_000, 1_000, 86_400),
    Part("bytes", "", LimitUnit.BYTES, LARGE, LARGE, 31 * 86_400),
    Part("bytes", "", LimitUnit.BYTES, LARGE // 7, LARGE // 9, 31 * 86_400 - 1),
    Part("budget", "", LimitUnit.SPEND, 400, 400, 0, STARTS, ENDS),
    Part("budget", "", LimitUnit.SPEND, 300, 300, 0, STARTS, ENDS),
    Part("budget", "", LimitUnit.SPEND, 300, 300, 0, ENDS, ENDS + 86_400),
    Part("platform/all", "https://api.example:443", LimitUnit.SPEND, LARGE, LARGE, 0, STARTS, ENDS),
    Part("slots", "", LimitUnit.CONCURRENCY, 12, 12, 0),
    Part("slots", "", LimitUnit.CONCURRENCY, 7, 7, 0),
    Part("slots", "", LimitUnit.CONCURRENCY, 400, 400, 0),
)

some = st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 10**12))
few = st.one_of(st.just(0), st.integers(0, 40))
ages = st.one_of(st.just(-1), st.integers(0, 3 * SECOND), st.integers(0, DAY_US))


@st.composite
def parts(draw: st.DrawFn) -> tuple[Part, ...]:
    """Each bucket once."""
    chosen = draw(
        st.lists(
            st.sampled_from(PARTS),
            max_size=4,
            unique_by=lambda part: (part.limit, part.subject, part.unit, part.starts_s),
        )
    )
    found = []
    for part in chosen:
        age = draw(ages)
        found.append(
            replace(
                part,
                spent=draw(some),
                back=draw(few),
                open=draw(few),
                want=draw(some),
                held=draw(few),
                left=-1 if age < 0 else draw(st.integers(-50, part.amount + 2)),
                left_at_us=-1 if age < 0 else BEGIN_US - age,
            )
        )
    return tuple(found)


@st.composite
def messages(draw: st.DrawFn) -> SliceAsk:
    """Of one of three workers; whose session and which message it is, is filled in when it is sent."""
    named = draw(parts())
    requests = []
    if named:
        places = st.integers(0, len(named) - 1)
        wishes = st.builds(
            lambda place, least, more: Wish(place, least, least + more), places, some, st.one_of(st.just(0), some)
        )
        requests = draw(
            st.lists(st.lists(wishes, min_size=1, max_size=3, unique_by=lambda wish: wish.part), max_size=3)
        )
    return SliceAsk(
        ORG,
        f"w{draw(st.integers(0, 2))}",
        "",
        draw(st.sampled_from(["", "same", "same", "same", "another"])),
        draw(st.sampled_from([0] * 15 + [-1, 1])),  # how far from the next it is
        draw(st.integers(1, 4)),
        named,
        tuple(map(tuple, requests)),
        draw(st.sampled_from([False] * 9 + [True])),
        draw(st.sampled_from([False] * 5 + [True])),
    )


waits = st.one_of(
    st.integers(0, 3_000),
    st.integers(0, 2 * SECOND),
    st.sampled_from([SECOND, LEASE_US]),
    st.integers(0, 9 * SECOND),
    st.integers(0, 40 * DAY_US),
)
moves = st.lists(
    st.one_of(
        st.tuples(st.just("say"), messages()),
        st.tuples(st.just("say"), messages()),
        st.tuples(st.just("say"), messages()),
        st.tuples(st.just("wait"), waits),
        st.tuples(st.just("clock"), st.one_of(st.integers(-3 * STEP_US, 0), st.integers(-DAY_US, 0))),
        st.tuples(st.just("again"), st.integers(0, 30)),
        st.tuples(st.just("reopen"), messages()),
        st.tuples(st.just("reset"), st.sampled_from(PARTS), st.booleans()),
        st.tuples(st.just("seed"), st.sampled_from(PARTS), st.integers(-50, 500), ages),
    ),
    min_size=5,
    max_size=30,
)


def told(answer: SliceAnswer) -> SliceAnswer:
    """Without the names that each store gives. A wait is no longer than doubles can say, 285 years."""
    results = tuple(replace(one, wait_us=min(one.wait_us, LARGE)) for one in answer.results)
    return replace(answer, session="", epoch="", results=results)


class InRedis:
    """The calls of the library, by a client that knows nothing of workers."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.text = library(GIVEN_CLOCK)
        self.key = f"agree-{secrets.token_hex(4)}:{{{ORG}}}:account"

    def call(self, what: str, message: object, now_us: int) -> Any:
        packed = msgspec.msgpack.encode(message)
        arguments = (1, self.key, what, packed, secrets.token_hex(8), now_us)
        try:
            return self.client.evalsha(self.text.sha1, *arguments)
        except redis.exceptions.NoScriptError:
            return self.client.eval(self.text.script, *arguments)

    def forget(self) -> None:
        found = list(self.client.scan_iter(match=self.key.removesuffix("account") + "*", count=1_000))
        if found:
            self.client.delete(*found)


class Both:
    """Two stores and the names that each has given to what the other calls otherwise."""

    def __init__(self, store: InRedis) -> None:
        self.clock_us = BEGIN_US
        self.redis = store
        self.numbers = count()
        self.memory: Account | None = None
        self.epochs = {"": ("", ""), "another": ("x", "x")}
        self.sessions: dict[str, tuple[str, str, int]] = {}
        self.log: list[tuple[SliceAsk, SliceAsk]] = []

    @property
    def account(self) -> Account:
        if self.memory is None:  # one begins when it is first spoken to
            self.memory = Account(self.clock_us, lambda: f"m{next(self.numbers)}")
        return self.memory

    def move(self, move: tuple[Any, ...]) -> None:
        match move:
            case ("wait" | "clock", us):
                self.clock_us += us
            case ("say", SliceAsk() as message):
                self.say(message)
            case ("reopen", SliceAsk() as message):
                self.sessions.pop(message.worker, None)
                self.say(message)
            case ("again", place) if self.log:
                self.send(*self.log[place % len(self.log)])
            case ("reset", Part() as part, every):
                if self.memory is not None:
                    subject = None if every else part.subject
                    wanted = ("0", part.limit, subject or "", subject is None)
                    self.redis.call("reset", wanted, self.clock_us)
                    self.account.reset(part.limit, subject, self.clock_us)
            case ("seed", Part() as part, level, age):
                known = Standings(
                    part.limit, part.subject, part.unit, part.amount, part.burst, part.period_s,
                    part.starts_s, part.ends_s, level, 0, 0, 0, BEGIN_US - age,
                )  # fmt: skip
                self.account.seed([known], self.clock_us)
                self.redis.call("seed", [known], self.clock_us)

    def say(self, message: SliceAsk) -> None:
        here, there, seq = self.sessions.get(message.worker, ("", "", 0))
        epochs = self.epochs.get(message.epoch, ("", ""))
        seq += 1 + message.seq
        one = replace(message, session=here, seq=seq, epoch=epochs[0])
        other = replace(message, session=there, seq=seq, epoch=epochs[1])
        self.log.append((one, other))
        self.send(one, other)

    def send(self, one: SliceAsk, other: SliceAsk) -> None:
        here = self.account.answer(one, self.clock_us)
        there = msgspec.msgpack.decode(self.redis.call("ask", other, self.clock_us), type=SliceAnswer)
        assert told(here) == told(there)
        assert bool(here.session) == bool(there.session)
        self.epochs["same"] = here.epoch, there.epoch
        known = self.sessions.get(one.worker, ("", "", 0))
        if one.close or (not here.known and one.session == known[0]):
            self.sessions.pop(one.worker, None)
        elif here.known:
            before = known[2] if known[0] == here.session else 0
            self.sessions[one.worker] = here.session, there.session, max(one.seq, before)

    def compare(self) -> None:
        if self.memory is None:
            return
        said = self.redis.call("usage", ("0",), self.clock_us)
        _, there = msgspec.msgpack.decode(said, type=tuple[str, list[Standings]])
        assert _worth_knowing(self.account.usage(self.clock_us)) == _worth_knowing(there)


def _worth_knowing(told: list[Standings]) -> list[Standings]:
    """Without what may have been forgotten: full or letting nothing pass, and in nobody's hands."""
    kept = [one for one in told if one.lent or (one.level != one.burst and one.amount)]
    return sorted(kept, key=lambda one: (one.limit, one.subject, one.unit, one.starts_s))


@pytest.fixture(scope="module")
def client() -> Iterator[redis.Redis]:
    with shared_server("redis").client() as client:
        yield client


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(history=moves)
def test_they_answer_the_same(client: redis.Redis, history: list[tuple[Any, ...]]) -> None:
    """To any history of messages, new ones and old, of resets and seeds, with a clock that jumps."""
    store = InRedis(client)
    both = Both(store)
    try:
        for move in history:
            both.move(move)
        both.compare()
    finally:
        store.forget()

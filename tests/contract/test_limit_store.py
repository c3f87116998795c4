"""What every `LimitStore` keeps: in memory, and over slices of one owner, or of Redis, that workers share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle

import pytest
from msgspec.structs import replace

from gateway.errors import LimitExceededError
from gateway.exchange import Claim, Hold, Used
from gateway.limits.accounts import LimitOwner
from gateway.limits.memory import MemoryLimits
from gateway.limits.protocol import SliceAnswer, SliceAsk
from gateway.limits.slices import SLOW_TICKS, SlicedLimits
from gateway.limits.store import LimitStore, SliceStore
from gateway.quota import Quota
from tenants.amounts import dollars
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, OnEnd
from tests.contract.slice_store_redis import FakeTime, on_one

ACME, OTHER = OrgId("acme"), OrgId("other")
SECOND = 1_000_000


class FakeClock(FakeTime):
    def __init__(self) -> None:
        super().__init__(7 * SECOND)

    def __call__(self) -> int:
        return self.now_us

    def monotonic_us(self) -> int:
        return self.now_us

    def now(self) -> float:
        return self.now_us / SECOND


def claim(
    *,
    org: OrgId = ACME,
    limit: str = "per-minute",
    subject: str = "",
    unit: LimitUnit = LimitUnit.REQUESTS,
    cost: int = 1,
    amount: int = 10,
    burst: int = 0,
    period_s: int = 60,
) -> Claim:
    return Claim(
        Quota(
            org=org,
            limit=limit,
            scope="member" if subject else "org",
            subject=subject,
            unit=unit,
            amount=amount,
            burst=burst or amount,
            period_s=period_s,
        ),
        cost,
    )


def budget(
    cost: int,
    amount: int,
    *,
    unit: LimitUnit = LimitUnit.TOKENS,
    on_end: OnEnd = OnEnd.FINISH,
    window: tuple[int, int] = (5, 3_605),
) -> Claim:
    """By its calendar window; requests need of it what the limit's `on_end` says."""
    starts_s, ends_s = window
    least = {OnEnd.FINISH: -1, OnEnd.CUT: 1, OnEnd.DENY_NEXT: 1}[on_end]
    asked = claim(limit=f"{unit}-budget", unit=unit, cost=cost, amount=amount, period_s=0)
    quota = replace(asked.quota, starts_s=starts_s, ends_s=ends_s, on_end=on_end)
    return Claim(quota, cost, least)


def slots(amount: int, *, org: OrgId = ACME, limit: str = "at-once") -> Claim:
    return claim(org=org, limit=limit, unit=LimitUnit.CONCURRENCY, amount=amount, period_s=0)


def tokens(cost: int, amount: int = 1_000, limit: str = "tokens") -> Claim:
    return claim(limit=limit, unit=LimitUnit.TOKENS, cost=cost, amount=amount)


class Turns:
    """Several workers' stores as one: each request goes to the next."""

    def __init__(self, workers: Sequence[SlicedLimits]) -> None:
        self.workers = workers
        self._next = cycle(workers)

    async def reserve(self, claims: Sequence[Claim]) -> Hold:
        return await next(self._next).reserve(claims)

    def take(self, claims: tuple[Claim, ...]) -> Hold | None:
        return next(self._next).take(claims)


class Wire:
    """Between workers and the owner."""

    def __init__(self, owner: LimitOwner) -> None:
        self._owner = owner

    async def ask(self, message: SliceAsk) -> SliceAnswer:
        await asyncio.sleep(0)  # as over a wire: others run meanwhile
        return self._owner.answer(message)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "slices-1", "slices-3", "redis-2"])
async def store(request: pytest.FixtureRequest, clock: FakeClock) -> AsyncGenerator[LimitStore]:
    place, _, count = request.param.partition("-")
    match place:
        case "memory":
            yield MemoryLimits(clock)
        case "slices":
            async with working(Wire(LimitOwner(clock)), int(count), clock) as limits:
                yield limits
        case "redis":
            async with on_one("redis", clock) as (slices, _), working(slices, int(count), clock) as limits:
                yield limits


@asynccontextmanager
async def working(slices: SliceStore, count: int, clock: FakeClock) -> AsyncGenerator[LimitStore]:
    workers = [SlicedLimits(f"w{number}", slices, workers=count, clock=clock) for number in range(count)]
    yield Turns(workers)
    for worker in workers:
        await worker.close()


async def settled(store: LimitStore) -> None:
    """What came back anywhere is known everywhere, and unused slices are returned: a few ticks of every worker."""
    if isinstance(store, Turns):
        for _ in range(SLOW_TICKS):
            for worker in store.workers:
                await worker.sync()


async def left_after(store: LimitStore, asked: Claim) -> bytes:
    """What its caller is told to have left of it."""
    (_, (_, remaining), *_) = (await store.reserve([asked])).headers()
    return remaining


def amount_of(unit: LimitUnit, units: int) -> bytes:
    return (dollars(units) if unit is LimitUnit.SPEND else str(units)).encode()


async def admitted(store: LimitStore, claims: Sequence[Claim], tries: int) -> int:
    count = 0
    for _ in range(tries):
        try:
            await store.reserve(claims)
        except LimitExceededError:
            continue
        count += 1
    return count


async def test_as_many_pass_as_the_bucket_holds(store: LimitStore) -> None:
    assert await admitted(store, [claim(amount=10)], 25) == 10


async def test_what_is_taken_at_once_counts_like_what_is_awaited(store: LimitStore) -> None:
    asked = (claim(amount=10), tokens(1))
    passed = 0
    for _ in range(25):
        try:
            hold = store.take(asked) or await store.reserve(asked)
        except LimitExceededError:
            continue
        hold.settle(Used(1))
        passed += 1
        await settled(store)
    assert passed == 10
    assert store.take(asked) is None


async def test_of_a_hundred_at_once_exactly_ten_pass(store: LimitStore) -> None:
    results = await asyncio.gather(
        *(store.reserve([claim(amount=10)]) for _ in range(100)), return_exceptions=True
    )
    assert sum(not isinstance(result, BaseException) for result in results) == 10
    assert {type(r) for r in results if isinstance(r, BaseException)} == {LimitExceededError}


@pytest.mark.parametrize("wanted", [claim(amount=100), claim(amount=1_000), slots(100), slots(40)], ids=str)
async def test_of_twice_the_limit_at_once_as_many_as_it_allows_pass(store: LimitStore, wanted: Claim) -> None:
    tries = [store.reserve([wanted]) for _ in range(wanted.quota.amount * 2)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    passed = sum(not isinstance(result, BaseException) for result in results)
    assert wanted.quota.amount * 0.7 <= passed <= wanted.quota.amount  # some may wait in another worker's slice
    await settled(store)  # slices that nobody used are back
    assert passed + await admitted(store, [wanted], wanted.quota.amount) == wanted.quota.amount


async def test_a_refusal_names_the_limit_and_whose_it_is(store: LimitStore) -> None:
    mine = claim(limit="mine", subject="mem_1", amount=1)
    await store.reserve([mine])
    with pytest.raises(LimitExceededError, match=r"'mine' .for each member. is used up") as refusal:
        await store.reserve([mine])
    assert (refusal.value.limit, refusal.value.scope) == ("mine", "member")
    assert refusal.value.retry_after_s in (
        60,
        62,
    )  # or after another worker has spoken: until then nothing comes in


async def test_who_waits_for_retry_after_succeeds(store: LimitStore, clock: FakeClock) -> None:
    wanted = [claim(amount=7, period_s=60)]
    assert await admitted(store, wanted, 7) == 7
    for _ in range(20):
        with pytest.raises(LimitExceededError) as refusal:
            await store.reserve(wanted)
        wait = refusal.value.retry_after_s
        assert wait is not None
        clock.advance(wait)
        await store.reserve(wanted)


async def test_a_second_too_early_is_refused(store: LimitStore, clock: FakeClock) -> None:
    await store.reserve([claim(amount=1, period_s=60)])
    await settled(store)
    clock.advance(59.999999)
    with pytest.raises(LimitExceededError) as refusal:
        await store.reserve([claim(amount=1, period_s=60)])
    assert refusal.value.retry_after_s == 1


async def test_all_or_nothing(store: LimitStore) -> None:
    wide, narrow = claim(limit="wide", amount=5), claim(limit="narrow", amount=1)
    await store.reserve([wide, narrow])
    for _ in range(3):
        with pytest.raises(LimitExceededError) as refusal:
            await store.reserve([wide, narrow])
        assert refusal.value.limit == "narrow"
    assert await admitted(store, [wide], 10) == 4


async def test_the_strictest_limit_is_named(store: LimitStore) -> None:
    minute, day = claim(limit="minute", amount=1), claim(limit="day", amount=1, period_s=86_400)
    await store.reserve([minute, day])
    with pytest.raises(LimitExceededError) as refusal:
        await store.reserve([minute, day])
    assert refusal.value.limit == "day"
    assert refusal.value.retry_after_s in (86_400, 86_402)


async def test_buckets_of_others_are_untouched(store: LimitStore) -> None:
    assert await admitted(store, [claim(amount=2)], 5) == 2
    assert await admitted(store, [claim(org=OTHER, amount=2)], 5) == 2
    assert await admitted(store, [claim(subject="mem_2", amount=2)], 5) == 2


async def test_a_refund_restores_the_request_too(store: LimitStore) -> None:
    wanted = [claim(amount=1), tokens(900), slots(1)]
    for _ in range(4):
        (await store.reserve(wanted)).refund()
        await settled(store)
    await store.reserve(wanted)
    with pytest.raises(LimitExceededError):
        await store.reserve(wanted)


async def test_tokens_are_settled_on_what_was_used(store: LimitStore) -> None:
    (await store.reserve([tokens(900)])).settle(Used(100))
    await settled(store)
    (await store.reserve([tokens(900)])).settle(Used(900))
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve([tokens(1)])


async def test_more_used_than_reserved_is_a_debt(store: LimitStore, clock: FakeClock) -> None:
    (await store.reserve([tokens(10)])).settle(Used(1_500))  # 500 below nothing: half a minute
    await settled(store)
    with pytest.raises(LimitExceededError) as refusal:
        await store.reserve([tokens(1)])
    assert refusal.value.retry_after_s == 31
    clock.advance(31)
    await store.reserve([tokens(1)])


async def test_slots_come_back_when_settled(store: LimitStore) -> None:
    held = [await store.reserve([slots(2)]) for _ in range(2)]
    with pytest.raises(LimitExceededError, match="2 requests at once") as refusal:
        await store.reserve([slots(2)])
    assert refusal.value.retry_after_s == 1
    held[0].settle(Used(0))
    await settled(store)
    again = await store.reserve([slots(2)])
    with pytest.raises(LimitExceededError):
        await store.reserve([slots(2)])
    again.refund()
    held[1].refund()


async def test_a_hold_ends_once(store: LimitStore) -> None:
    hold = await store.reserve([claim()])
    hold.settle(Used(0))
    with pytest.raises(RuntimeError):
        hold.settle(Used(0))
    with pytest.raises(RuntimeError):
        hold.refund()


async def test_what_can_never_pass_is_said_so(store: LimitStore) -> None:
    with pytest.raises(LimitExceededError, match="holds 1000 tokens at most and this request asks for 1001"):
        await store.reserve([tokens(1_001)])
    with pytest.raises(LimitExceededError, match="lets nothing pass"):
        await store.reserve([claim(amount=0)])


async def test_a_changed_limit_counts_at_once(store: LimitStore) -> None:
    assert await admitted(store, [claim(amount=4)], 9) == 4
    assert await admitted(store, [claim(amount=6)], 9) == 2
    assert await admitted(store, [claim(amount=1)], 9) == 0


async def test_a_burst_is_less_or_more_than_the_amount(store: LimitStore, clock: FakeClock) -> None:
    assert await admitted(store, [claim(limit="small", amount=60, burst=5)], 20) == 5
    assert await admitted(store, [claim(limit="large", amount=6, burst=9)], 20) == 9
    clock.advance(3)
    assert await admitted(store, [claim(limit="small", amount=60, burst=5)], 20) == 3


async def test_headers_say_what_is_left_of_the_strictest(store: LimitStore, clock: FakeClock) -> None:
    hold = await store.reserve([claim(amount=10), claim(limit="b", amount=4), tokens(250)])
    assert hold.headers() == [
        (b"x-ratelimit-limit-requests", b"4"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"15000ms"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"750"),
        (b"x-ratelimit-reset-tokens", b"15000ms"),
    ]


async def test_a_budget_lasts_until_its_window_ends(store: LimitStore, clock: FakeClock) -> None:
    (await store.reserve([budget(600, 1_000)])).settle(Used(500))
    await settled(store)
    (await store.reserve([budget(500, 1_000)])).settle(Used(500))
    clock.advance(1_000)
    with pytest.raises(LimitExceededError) as refusal:
        await store.reserve([budget(1, 1_000)])
    assert refusal.value.retry_after_s == 2_598
    assert refusal.value.resets_at == "1970-01-01T01:00:05Z"
    clock.advance(2_598)
    await store.reserve([budget(1_000, 1_000, window=(3_605, 7_205))])


async def test_headers_of_a_budget_are_reset_when_its_window_ends(store: LimitStore) -> None:
    assert (await store.reserve([budget(600, 1_000)])).headers() == [
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"400"),
        (b"x-ratelimit-reset-tokens", b"3598000ms"),
    ]


@pytest.mark.parametrize(
    ("unit", "charged"),
    [
        (LimitUnit.REQUESTS, 1),
        (LimitUnit.TOKENS, 7),
        (LimitUnit.INPUT_TOKENS, 5),
        (LimitUnit.OUTPUT_TOKENS, 2),
        (LimitUnit.BYTES, 11),
        (LimitUnit.SPEND, 13),
    ],
)
async def test_each_unit_is_charged_what_was_used_of_it(store: LimitStore, unit: LimitUnit, charged: int) -> None:
    cost = 1 if unit is LimitUnit.REQUESTS else 20
    (await store.reserve([budget(cost, 100, unit=unit)])).settle(Used(5, 2, 11, 13))
    await settled(store)
    assert await left_after(store, budget(1, 100, unit=unit)) == amount_of(unit, 99 - charged)


async def test_who_may_finish_is_admitted_with_all_it_may_use(store: LimitStore) -> None:
    (await store.reserve([budget(600, 1_000)])).settle(Used(900))
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve([budget(101, 1_000)])
    hold = await store.reserve([budget(100, 1_000)])
    assert hold.spending(Used(500)) is None
    hold.settle(Used(500))
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve([budget(1, 1_000)])


async def test_who_finds_anything_left_may_finish_and_the_next_is_denied(store: LimitStore) -> None:
    wanted = [budget(600, 1_000, on_end=OnEnd.DENY_NEXT)]
    (await store.reserve(wanted)).settle(Used(990))
    await settled(store)
    hold = await store.reserve(wanted)
    assert hold.metered
    assert hold.spending(Used(300)) is None
    hold.settle(Used(600))
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve(wanted)


async def test_a_stream_is_cut_when_its_budget_ends(store: LimitStore) -> None:
    wanted = budget(600, 1_000, on_end=OnEnd.CUT)
    (await store.reserve([wanted])).settle(Used(700))
    await settled(store)
    hold = await store.reserve([wanted])
    assert hold.metered
    assert hold.tight
    assert hold.spending(Used(100)) is None
    cut = None
    for used in range(110, 1_000, 10):
        cut = hold.spending(Used(used))
        if cut is not None:
            break
        await settled(store)
    assert cut is not None
    assert cut.quota.limit == wanted.quota.limit
    assert 300 <= used <= 320  # it was told what the stream uses ten at a time
    hold.settle(Used(used))
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve([wanted])


async def test_a_stream_that_would_be_cut_goes_on_while_there_is_more(store: LimitStore) -> None:
    wanted = budget(100, 1_000, on_end=OnEnd.CUT)
    hold = await store.reserve([wanted])
    assert not hold.tight
    for used in range(10, 1_000, 10):
        assert hold.spending(Used(used)) is None
        await settled(store)
    hold.settle(Used(990))
    await settled(store)
    assert await left_after(store, wanted) == b"0"


async def test_what_a_stream_has_used_so_far_is_used(store: LimitStore) -> None:
    hold = await store.reserve([budget(100, 1_000)])
    assert hold.spending(Used(300)) is None
    await settled(store)
    with pytest.raises(LimitExceededError):
        await store.reserve([budget(701, 1_000)])
    hold.settle(Used(300))
    await store.reserve([budget(700, 1_000)])


async def test_an_organizations_claims_and_the_platforms_are_all_or_nothing(store: LimitStore) -> None:
    shared = claim(org=PLATFORM, limit="origin", subject="https://api.example:443", amount=5)
    await store.reserve([claim(amount=1), shared])
    for _ in range(3):
        with pytest.raises(LimitExceededError) as refusal:
            await store.reserve([claim(amount=1), shared])
        assert refusal.value.limit == "per-minute"
    await settled(store)
    assert await admitted(store, [claim(org=OTHER, amount=10), shared], 10) == 4
    with pytest.raises(LimitExceededError) as refusal:
        await store.reserve([claim(org=OTHER, amount=10), shared])
    assert refusal.value.limit == "origin"


async def test_nothing_to_claim_is_always_granted(store: LimitStore) -> None:
    hold = await store.reserve([])
    assert hold.headers() == []
    hold.settle(Used(12))

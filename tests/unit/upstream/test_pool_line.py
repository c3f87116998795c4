"""Who waits when an upstream is full, and how it ends: a turn, a refusal, the end of one's time, a cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.upstream.balance import Bounds
from gateway.upstream.errors import SaturatedError
from gateway.upstream.gauges import Gauges
from gateway.upstream.pool import Connection, ConnectionPool
from gateway.upstream.share import Share, Shares
from tests.kit.signal import turns
from tests.unit.upstream.paper import Dials, Paper

COMPLETION, CHAT, AGENT = 0, 1, 2


class Served:
    """Requests that wait, and in which order they came to their turn."""

    def __init__(self) -> None:
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[Connection]] = {}

    def wait(self, pool: ConnectionPool, name: str, lane: int = 0, **options: Any) -> asyncio.Task[Connection]:
        async def one() -> Connection:
            connection = await pool.acquire(lane, **options)
            self.order.append(name)
            return connection

        task = self.tasks[name] = asyncio.ensure_future(one())
        return task


async def full(bounds: Bounds, gauges: Gauges, limit: int = 1, **options: Any) -> tuple[ConnectionPool, Paper]:
    """A pool whose only connection has all its slots taken."""
    dials = Dials(limit)
    pool = ConnectionPool(dials, bounds, gauges, **options)
    first = asyncio.ensure_future(pool.acquire())
    await turns()
    paper = dials.succeed(1)
    assert await first is paper
    for _ in range(limit - 1):
        assert pool.take() is paper
    return pool, paper


async def test_completions_overtake_chat_and_chat_overtakes_agents() -> None:
    pool, paper = await full(Bounds(1), gauges := Gauges())
    served = Served()
    for name, lane in (("agent", AGENT), ("chat", CHAT), ("completion", COMPLETION)):
        served.wait(pool, name, lane)
        await turns()
    assert gauges.queue == [1, 1, 1]
    for _ in range(3):
        paper.free()
        await turns()
    assert served.order == ["completion", "chat", "agent"]
    assert (gauges.queue, gauges.waiting) == ([0, 0, 0], 0)
    assert gauges.queued == [2, 1, 1]  # one of them waited for the dial
    assert all(seconds > 0 for seconds in gauges.queued_s)


async def test_one_too_many_is_refused_at_once_and_only_in_its_lane() -> None:
    pool, paper = await full(Bounds(1, max_queue=2), gauges := Gauges())
    served = Served()
    waiting = [served.wait(pool, str(number), CHAT) for number in range(2)]
    await turns()
    with pytest.raises(SaturatedError) as refusal:
        await pool.acquire(CHAT)
    assert 1 <= refusal.value.retry_after_s <= 30
    other = served.wait(pool, "completion", COMPLETION)
    await turns()
    assert (gauges.shed, gauges.queue, paper.reserved) == ([0, 1, 0], [1, 2, 0], 1)
    for _ in range(3):
        paper.free()
        await turns()
    assert served.order == ["completion", "0", "1"]
    assert [task.done() for task in (*waiting, other)] == [True] * 3


async def test_no_queue_at_all() -> None:
    pool, paper = await full(Bounds(1, max_queue=0), Gauges())
    with pytest.raises(SaturatedError):
        await pool.acquire()
    pool.release(paper)
    assert pool.take() is paper


async def test_waiting_for_the_first_connection_is_no_queue() -> None:
    """As many as the connections to come will carry, however short the queue."""
    dials = Dials(limit=100)
    pool = ConnectionPool(dials, Bounds(2, max_queue=0), Gauges())
    served = Served()
    for number in range(200):
        served.wait(pool, str(number))
    await turns()
    with pytest.raises(SaturatedError):
        await pool.acquire()
    dials.succeed(1)
    await turns(5)
    assert len(served.order) == 100
    dials.succeed(2)
    await turns(5)
    assert len(served.order) == 200


async def test_connections_that_the_upstream_does_not_accept_are_not_waited_for() -> None:
    dials = Dials()
    pool = ConnectionPool(dials, Bounds(2, max_queue=1), Gauges())
    holder = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.succeed(1)
    await holder
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    dials.fail(2, httpx.ConnectError("no"))
    await turns()
    with pytest.raises(SaturatedError):
        await pool.acquire()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_who_is_out_of_time_leaves_the_line() -> None:
    loop = asyncio.get_running_loop()
    pool, paper = await full(Bounds(1), gauges := Gauges())
    late = asyncio.ensure_future(pool.acquire(CHAT, loop.time() + 0.01))
    patient = asyncio.ensure_future(pool.acquire(CHAT, loop.time() + 60))
    with pytest.raises(TimeoutError):
        await late
    with pytest.raises(TimeoutError):
        await pool.acquire(AGENT, loop.time())
    assert (gauges.expired, gauges.queue) == ([0, 1, 1], [0, 1, 0])
    paper.free()
    assert await patient is paper


async def test_slot_that_comes_free_too_late_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time is over, the timer has not run: it must not be sent any more."""
    loop = asyncio.get_running_loop()
    pool, paper = await full(Bounds(1), Gauges())
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now)
    late = asyncio.ensure_future(pool.acquire(0, now + 1))
    patient = asyncio.ensure_future(pool.acquire(0, now + 60))
    await turns()
    monkeypatch.setattr(loop, "time", lambda: now + 2)
    paper.free()
    assert await patient is paper
    with pytest.raises(TimeoutError):
        await late


async def test_cap_below_what_the_connections_take() -> None:
    pool, paper = await full(Bounds(1, max_in_flight=2), Gauges())
    paper.limit = 100
    assert pool.take() is paper
    assert pool.take() is None
    waiting = asyncio.ensure_future(pool.acquire())
    await turns()
    assert not waiting.done()
    paper.free()
    assert await waiting is paper
    assert paper.open == 2


async def member(share: Share, org: str, cap: int, limit: int = 100) -> tuple[ConnectionPool, Paper]:
    """A pool with one idle connection."""
    pool, paper = await full(Bounds(1, max_in_flight=cap), Gauges(), 1, org=org, share=share)
    paper.limit = limit
    paper.free()
    return pool, paper


async def test_organizations_take_turns_at_one_origin() -> None:
    share = Share()
    acme, papers = await member(share, "acme", 2)
    globex, theirs = await member(share, "globex", 2)
    assert acme.take() is acme.take() is papers
    assert acme.take() is globex.take() is None  # two are in flight there, whoever sent them
    served = Served()
    for number in range(3):
        served.wait(acme, f"a{number}")
    await turns()
    for number in range(2):
        served.wait(globex, f"g{number}")
    await turns()
    for paper in (papers, papers, papers, theirs, theirs):
        paper.free()
        await turns()
        assert papers.open + theirs.open == 2
    assert served.order == ["a0", "g0", "a1", "g1", "a2"]


async def test_small_cap_of_one_organization_holds_up_nobody_else() -> None:
    share = Share()
    modest, _ = await member(share, "modest", 1)
    acme, papers = await member(share, "acme", 4)
    assert [acme.take() for _ in range(4)] == [papers] * 4
    assert acme.take() is None
    papers.free()
    assert modest.take() is not None
    assert modest.take() is None


async def test_lower_cap_counts_what_the_configuration_before_has_in_flight() -> None:
    share = Share()
    before, old = await member(share, "acme", 4)
    after, new = await member(share, "acme", 2)
    assert [before.take() for _ in range(4)] == [old] * 4
    before.drain()
    waiting = asyncio.ensure_future(after.acquire())
    for _ in range(2):
        old.free()
        await turns()
    assert not waiting.done()
    old.free()
    assert await waiting is new


async def test_lowered_cap_of_one_organization_holds_up_nobody_else() -> None:
    """Much in flight under a high cap, then a low one: the others' next turn comes at the next end."""
    share = Share()
    before, old = await member(share, "acme", 20)
    after, _ = await member(share, "acme", 1)
    globex, theirs = await member(share, "globex", 2)
    assert [before.take() for _ in range(20)] == [old] * 20
    before.drain()
    waiting = asyncio.ensure_future(globex.acquire())
    await turns()
    assert not waiting.done()
    old.free()
    await turns()
    assert waiting.done()
    assert after.take() is None
    assert (old.open, theirs.open) == (19, 1)


async def test_who_has_no_stream_free_is_passed_over_by_others_at_the_origin() -> None:
    share = Share()
    acme, papers = await member(share, "acme", 9, limit=1)
    globex, theirs = await member(share, "globex", 9)
    assert acme.take() is papers
    waiting = asyncio.ensure_future(acme.acquire())
    await turns()
    assert await globex.acquire() is theirs
    papers.free()
    assert await waiting is papers


async def test_pool_without_connections_counts_for_nothing() -> None:
    share = Share()
    acme, papers = await member(share, "acme", 1)
    globex, _ = await member(share, "globex", 1)
    assert acme.take() is papers
    assert globex.take() is None
    acme.close()
    assert globex.take() is not None


async def test_share_lives_as_long_as_somebody_has_it() -> None:
    shares = Shares()
    share = shares.of(("https", "models.example", 443))
    assert shares.of(("https", "models.example", 443)) is share
    assert shares.of(("https", "models.example", 8443)) is not share


# Whatever happens in whatever order: no slot is lost, none is given twice.

steps = st.lists(
    st.one_of(
        st.tuples(st.just("arrive"), st.integers(0, 1), st.integers(0, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("free"), st.integers(0, 30)),
        st.tuples(st.just("free and cancel"), st.integers(0, 30), st.integers(0, 30)),
        st.tuples(st.just("dial"), st.booleans()),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("pass"), st.just(0)),
    ),
    max_size=60,
)


class Storm:
    """Two organizations' pools at one origin, and everything that may happen to them."""

    def __init__(self, cap: int, limit: int) -> None:
        self.cap = cap
        share = Share()
        self.gauges = [Gauges(), Gauges()]
        self.dials = [Dials(limit), Dials(limit)]
        self.pools = [
            ConnectionPool(
                self.dials[number],
                Bounds(2, max_in_flight=cap, max_queue=4),
                self.gauges[number],
                org=str(number),
                share=share,
            )
            for number in range(2)
        ]
        self.settled = [0, 0]
        self.papers: list[Paper] = []
        self.tasks: list[tuple[int, asyncio.Task[Connection]]] = []
        self.held: list[Paper] = []

    def arrive(self, pool: int, lane: int) -> None:
        connection = self.pools[pool].take()
        if connection is not None:
            self.held.append(cast("Paper", connection))
        else:
            self.tasks.append((pool, asyncio.ensure_future(self.pools[pool].acquire(lane))))

    def cancel(self, number: int) -> None:
        if self.tasks:
            self.tasks[number % len(self.tasks)][1].cancel()

    def free(self, number: int) -> None:
        if self.held:
            paper = self.held.pop(number % len(self.held))
            if not paper.closed:
                paper.free()

    def dial(self, success: bool) -> None:
        for number, dials in enumerate(self.dials):
            for each in range(self.settled[number], len(dials.begun)):
                if success:
                    self.papers.append(dials.succeed(each + 1))
                else:
                    dials.fail(each + 1, httpx.ConnectError("no"))
            self.settled[number] = len(dials.begun)

    def lose(self, number: int) -> None:
        live = [paper for paper in self.papers if not paper.closed]
        if live:
            lost = live[number % len(live)]
            self.held = [paper for paper in self.held if paper is not lost]
            lost.reserved = 0
            lost.close()

    async def rest(self) -> None:
        await turns(6)
        waiting = []
        for pool, task in self.tasks:
            if not task.done():
                waiting.append((pool, task))
            elif not task.cancelled() and task.exception() is None:
                paper = cast("Paper", task.result())
                if not paper.closed:
                    self.held.append(paper)
        self.tasks = waiting

    def check(self) -> None:
        open_now = 0
        for paper in self.papers:
            if not paper.closed:
                assert 0 <= paper.open <= paper.limit
                open_now += paper.open
        assert open_now == len(self.held)
        assert open_now <= self.cap
        for number, pool in enumerate(self.pools):
            waiting = sum(1 for each, _ in self.tasks if each == number)
            assert self.gauges[number].waiting == sum(self.gauges[number].queue) == waiting
            # Nobody waits for what is there:
            assert not waiting or not pool.has_slot or open_now == self.cap

    def act(self, step: tuple[Any, ...]) -> None:
        acts: dict[str, Callable[..., None]] = {
            "arrive": self.arrive,
            "cancel": self.cancel,
            "free": self.free,
            "dial": self.dial,
            "lose": self.lose,
        }
        if step[0] == "free and cancel":  # in one step of the loop: the one whose turn it has become, perhaps
            self.free(step[1])
            self.cancel(step[2])
        elif step[0] in acts:
            acts[step[0]](*step[1:])

    async def run(self, script: list[tuple[Any, ...]]) -> None:
        for number in range(8):  # both begin with a line
            self.arrive(number % 2, number % 3)
        for _ in range(3):
            await self.rest()
            self.dial(True)
        await self.rest()
        self.check()
        for step in script:
            self.act(step)
            if step[0] in ("pass", "dial", "lose"):
                await self.rest()
                self.check()
        await self.rest()
        self.check()
        for _ in range(200):  # everything ends, and everybody who still waits comes to a turn
            if not self.tasks:
                break
            self.dial(True)
            while self.held:
                self.free(0)
            await self.rest()
            self.check()
        assert not self.tasks, "somebody waits for ever"
        for pool in self.pools:
            pool.close()


@given(steps, st.integers(1, 4), st.integers(1, 3))
@settings(max_examples=150)
def test_no_slot_is_lost_and_none_is_given_twice(script: list[tuple[Any, ...]], cap: int, limit: int) -> None:
    async def storm() -> None:
        await Storm(cap, limit).run(script)

    asyncio.run(storm())

"""Laws of an account under any history: workers that die, close and speak twice, answers that are lost, stores
that forget, clocks that jump, limits that change."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.limits import bucket
from gateway.limits.account import LEASE_US, STEP_US, Account
from gateway.limits.kinds import rate_of
from gateway.limits.protocol import Part, SliceAnswer, SliceAsk, Wish
from tenants.ids import OrgId
from tenants.models import LimitUnit

ORG = OrgId("acme")
SECOND = 1_000_000
BEGIN_US = 1_800_000_000 * SECOND
DAY_S = 86_400

RATE = Part("rate", "", LimitUnit.TOKENS, 50, 30, 7)
BUDGET = Part("budget", "", LimitUnit.SPEND, 400, 400, 0, 1_799_990_000, 1_800_090_000)
SLOTS = Part("slots", "", LimitUnit.CONCURRENCY, 12, 12, 0)
PARTS = (RATE, BUDGET, SLOTS)

small = st.integers(0, 40)


@dataclass
class Said:
    """What one message says: of each bucket, and the requests."""

    spent: tuple[int, int, int]
    back: tuple[int, int, int]
    open: tuple[int, int, int]
    want: tuple[int, int, int]
    requests: list[tuple[tuple[int, int], ...]]


def three(numbers: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[int, int, int]]:
    return st.tuples(numbers, numbers, numbers)


costs = st.tuples(small, small).map(lambda two: (min(two), max(two)))
said = st.builds(
    Said,
    spent=three(st.one_of(st.just(0), small)),
    back=three(st.one_of(st.just(0), small)),
    open=three(small),
    want=three(st.one_of(st.just(0), small)),
    requests=st.lists(st.tuples(costs, costs, costs), max_size=3),
)
waits = st.one_of(st.integers(0, 3_000), st.integers(0, 2 * SECOND), st.just(LEASE_US), st.integers(0, 9 * SECOND))
moves = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), waits),
        st.tuples(st.just("say"), st.integers(0, 2), said, st.integers(0, 2)),  # repeated so often
        st.tuples(st.just("old"), st.integers(0, 50)),
        st.tuples(st.just("close"), st.integers(0, 2)),
        st.tuples(st.just("reopen"), st.integers(0, 2)),
        st.tuples(st.just("clock"), st.one_of(st.integers(-2 * STEP_US, STEP_US), st.integers(-(10**10), 10**10))),
    ),
    max_size=25,
)


@dataclass
class Whole:
    """A bucket that knows nothing of lending: what comes in, and what is spent."""

    rate: bucket.Rate
    level: bucket.Level

    def spend(self, units: int) -> None:
        self.level = bucket.Level(self.level.ticks - units * self.rate.period_us, self.level.at_us)

    def refill(self, now_us: int) -> None:
        self.level = bucket.refill(self.rate, self.level, now_us)

    @property
    def units(self) -> int:
        return bucket.units(self.rate, self.level)


@dataclass
class Session:
    id: str
    seq: int
    heard_us: int
    hands: list[int] = field(default_factory=lambda: [0, 0, 0])
    open: list[int] = field(default_factory=lambda: [0, 0, 0])


class Ledger:
    """An account, and beside it what each message must have done."""

    def __init__(self) -> None:
        self.clock_us = self.now_us = BEGIN_US
        numbers = count()
        self.account = Account(BEGIN_US, lambda: f"s{next(numbers)}")
        self.rate = Whole(rate_of(RATE), bucket.full(rate_of(RATE), BEGIN_US))
        self.used = 0
        self.sessions: dict[str, Session] = {}
        self.log: list[tuple[SliceAsk, SliceAnswer]] = []

    def move(self, move: tuple[object, ...]) -> None:
        match move:
            case ("wait", int(us)):
                self.clock_us += us
            case ("clock", int(us)):
                self.clock_us += us
            case ("say", int(worker), Said() as words, int(again)):
                self.say(f"w{worker}", words, again)
            case ("close", int(worker)):
                self.close(f"w{worker}")
            case ("reopen", int(worker)):
                self.now()
                self.end([f"w{worker}"])
                # Not the first message that it sent before: that would be the same one again.
                self.ask(replace(self.message(f"w{worker}", PARTS), workers=len(self.log)), PARTS)
            case ("old", int(place)) if self.log:
                self.repeat(*self.log[place % len(self.log)])
        self.check()

    def now(self) -> None:
        """As the account sees it: it stands still while a clock has gone back by a little."""
        if not 0 < self.now_us - self.clock_us <= STEP_US:
            self.now_us = self.clock_us
            for session in self.sessions.values():
                session.heard_us = min(session.heard_us, self.now_us)
        self.end([one for one, s in self.sessions.items() if self.now_us - s.heard_us >= LEASE_US])
        self.rate.refill(self.now_us)

    def end(self, workers: list[str]) -> None:
        for worker in workers:
            if (session := self.sessions.pop(worker, None)) is not None:
                lost = [had - reserved for had, reserved in zip(session.hands, session.open, strict=True)]
                self.rate.refill(self.now_us)
                self.rate.spend(lost[0])
                self.used += lost[1]

    def message(self, worker: str, parts: tuple[Part, ...]) -> SliceAsk:
        session = self.sessions.get(worker)
        return SliceAsk(
            ORG,
            worker,
            session.id if session else "",
            self.account.epoch,
            session.seq + 1 if session else 1,
            1,
            parts,
        )

    def say(self, worker: str, words: Said, again: int) -> None:
        parts = tuple(
            replace(part, spent=spent, back=back, open=reserved, want=want)
            for part, spent, back, reserved, want in zip(
                PARTS, words.spent, words.back, words.open, words.want, strict=True
            )
        )
        self.now()
        message = replace(
            self.message(worker, parts),
            requests=tuple(
                tuple(Wish(place, least, cost) for place, (least, cost) in enumerate(request))
                for request in words.requests
            ),
        )
        answer = self.ask(message, parts)
        for _ in range(again):
            assert self.account.answer(message, self.clock_us) == answer

    def ask(self, message: SliceAsk, parts: tuple[Part, ...]) -> SliceAnswer:
        answer = self.account.answer(message, self.clock_us)
        assert answer.known
        assert answer.now_us == self.now_us
        session = self.sessions.setdefault(message.worker, Session(answer.session, 0, self.now_us))
        assert session.id == answer.session
        session.seq, session.heard_us = message.seq, self.now_us
        for place, part in enumerate(parts):
            if place < 2:
                (self.rate.spend if place == 0 else self.spend)(part.spent)
            rest = session.hands[place] - part.spent - part.back
            session.hands[place] = max(rest, 0)
            session.open[place] = min(part.open, session.hands[place])
        for request, result in zip(message.requests, answer.results, strict=True):
            assert bool(result.granted) != (result.part >= 0)
            for wish, units in zip(request, result.granted, strict=bool(result.granted)):
                assert 0 <= units <= wish.cost
                session.hands[wish.part] += units
        for place, (part, more) in enumerate(zip(parts, answer.slices, strict=True)):
            assert 0 <= more.lent <= part.want
            session.hands[place] += more.lent
        self.log.append((message, answer))
        return answer

    def spend(self, units: int) -> None:
        self.used += units

    def close(self, worker: str) -> None:
        self.now()
        if worker in self.sessions:
            answer = self.account.answer(replace(self.message(worker, ()), close=True), self.clock_us)
            assert answer.known
            del self.sessions[worker]

    def repeat(self, message: SliceAsk, answer: SliceAnswer) -> None:
        """A message that comes once more, however late. (A first one would open another session, and end one.)"""
        self.now()
        session = self.sessions.get(message.worker)
        last = session is not None and session.id == answer.session and session.seq == message.seq
        if not message.session and not last:
            return
        again = self.account.answer(message, self.clock_us)
        if last and session is not None:
            assert again == answer
            session.heard_us = self.now_us
        else:
            assert not again.known

    def check(self) -> None:
        self.now()
        told = {one.limit: one for one in self.account.usage(self.clock_us)}
        if not told:
            return
        hands = [sum(s.hands[place] for s in self.sessions.values()) for place in range(3)]
        for place, part in enumerate(PARTS):
            assert told[part.limit].lent == hands[place]
            assert told[part.limit].open == sum(s.open[place] for s in self.sessions.values())
        assert told["rate"].level + hands[0] == self.rate.units
        assert told["rate"].level + hands[0] <= RATE.burst
        assert told["budget"].level + hands[1] + self.used == BUDGET.amount
        assert told["slots"].level + hands[2] == SLOTS.amount


@settings(max_examples=200, deadline=None)
@given(moves)
def test_what_is_left_in_hands_and_used_is_all_that_came_in(history: list[tuple[object, ...]]) -> None:
    """To the unit, and however often messages come: a bucket that lends has what one has that does not."""
    ledger = Ledger()
    for move in history:
        ledger.move(move)


@dataclass
class Use:
    """A worker that spends what it has, at moments of its own, and says so later."""

    name: str
    session: str = ""
    epoch: str = ""
    seq: int = 0
    had: int = 0  # in its hands, as the store says
    unsaid: int = 0  # spent of that since
    left: int = -1
    left_at_us: int = -1
    pending: SliceAsk | None = None
    spoke_us: int = 0


@dataclass(frozen=True)
class Spent:
    """`units` at `at_us`, when the store had been lost so many times, and `owed` of what was in hands when it was
    lost the last time was there still: it is out of no bucket that the store knows."""

    at_us: int
    units: int
    losses: int
    owed: int


class Spending:
    """Workers that spend only what they were given, and a store that they speak to over a bad line."""

    def __init__(self, part: Part, *others: Part) -> None:
        self.parts = (part, *others)  # the limit as the first worker knows it, and the others
        self.clock_us = BEGIN_US
        self.numbers = count()
        self.names = count()
        self.account = self.store()
        self.users = [self.user() for _ in range(2)]
        self.spent: list[Spent] = []
        self.losses = 0
        self.owed: dict[str, int] = {}  # by user

    def store(self) -> Account:
        return Account(self.clock_us, lambda: f"s{next(self.numbers)}")

    def user(self) -> Use:
        return Use(f"w{next(self.names)}", spoke_us=self.clock_us)

    def move(self, move: tuple[object, ...]) -> None:
        match move:
            case ("wait", int(us)):
                self.clock_us += us
            case ("speak", int(place), int(cost), int(want), int(back), str(fate)):
                self.speak(place, cost, want, back, fate)
            case ("spend", int(place), int(units)):
                self.spend(self.users[place], units)
            case ("use", int(place), int(cost)):
                self.speak(place, cost, 0, 0, "heard")
                self.spend(self.users[place], cost)
            case ("die", int(place), bool(buried), int(us)):
                self.die(place, buried)
                self.clock_us += us
            case ("lose",):
                self.account = self.store()
                self.losses += 1
                self.owed = self.in_hands()
        now = self.in_hands()
        self.owed = {name: min(units, now.get(name, 0)) for name, units in self.owed.items()}

    def in_hands(self) -> dict[str, int]:
        """To be spent still, or on its way back."""
        return {
            user.name: user.had - user.unsaid + (user.pending.parts[0].back if user.pending else 0)
            for user in self.users
        }

    def silent(self, user: Use) -> bool:
        return self.clock_us - user.spoke_us > SECOND

    def spend(self, user: Use, units: int) -> None:
        """A worker that has not been able to speak for a second spends no more: its lease may run out."""
        units = min(units, user.had - user.unsaid)
        if units > 0 and not self.silent(user) and user.pending is None:
            user.unsaid += units
            self.spent.append(Spent(self.clock_us, units, self.losses, sum(self.owed.values())))

    def speak(self, place: int, cost: int, want: int, back: int, fate: str) -> None:
        user, limit = self.users[place], self.parts[place % len(self.parts)]
        if user.pending is None:
            spent, user.unsaid = user.unsaid, 0
            back = min(back, user.had - spent)
            part = replace(
                limit,
                spent=spent,
                back=back,
                want=want,
                left=user.left,
                left_at_us=user.left_at_us,
                held=user.had,
            )
            user.had -= spent + back
            requests = ((Wish(0, 1, cost),),) if cost else ()  # what there is
            user.pending = SliceAsk(ORG, user.name, user.session, user.epoch, user.seq + 1, 3, (part,), requests)
        if fate == "lost":
            return
        answer = self.account.answer(user.pending, self.clock_us)
        if fate == "unheard":
            return
        message, user.pending = user.pending, None
        user.spoke_us = self.clock_us
        if answer.known:
            user.session, user.seq, user.epoch = answer.session, message.seq, answer.epoch
            user.left, user.left_at_us = answer.slices[0].left, answer.now_us
            user.had += sum(sum(result.granted) for result in answer.results) + answer.slices[0].lent
            return
        user.session, user.seq = "", 0
        if answer.epoch == user.epoch:  # its lease is over: all that it had has been counted
            user.had = 0
        else:
            part = message.parts[0]
            opening = replace(message, session="", seq=1, requests=(), parts=(replace(part, want=0),))
            user.pending = opening
            self.speak(place, 0, 0, 0, "heard")

    def die(self, place: int, buried: bool) -> None:
        """Killed with what it has; the undertaker closes its session, or nobody does. Another one comes."""
        user = self.users[place]
        if buried and user.pending is None and user.session:
            part = replace(self.parts[place % len(self.parts)], spent=user.unsaid)
            self.account.answer(
                SliceAsk(ORG, user.name, user.session, user.epoch, user.seq + 1, 3, (part,), (), True),
                self.clock_us,
            )
        self.users[place] = self.user()


places = st.integers(0, 1)
units = st.integers(0, 20)
whole = st.just(20)
spending = st.lists(
    st.one_of(
        st.tuples(st.just("use"), places, st.one_of(whole, units)),
        st.tuples(st.just("speak"), places, st.one_of(whole, units), units, units, st.just("heard")),
        st.tuples(st.just("speak"), places, units, units, units, st.sampled_from(["unheard", "lost"])),
        st.tuples(st.just("spend"), places, st.one_of(whole, units)),
        st.tuples(st.just("wait"), st.one_of(st.integers(0, SECOND), st.sampled_from([SECOND // 2, SECOND]))),
        st.tuples(st.just("die"), places, st.booleans(), st.sampled_from([0, LEASE_US])),
        st.just(("lose",)),
    ),
    min_size=5,
    max_size=50,
)
small_rates = st.builds(
    lambda amount, burst, period_s: Part("rate", "", LimitUnit.REQUESTS, amount, burst, period_s),
    amount=st.integers(1, 20),
    burst=st.integers(1, 20),
    period_s=st.sampled_from([1, 7, 60]),
)


@settings(max_examples=500, deadline=None)
@given(small_rates, spending)
def test_no_interval_sees_more_spent_than_burst_and_what_came_in(
    part: Part, history: list[tuple[object, ...]]
) -> None:
    """For each time that the store forgot everything in it, one burst more: what was granted of a bucket that
    seemed full before anybody had said what was in it. And if it was before, what has been in hands since then."""
    world = Spending(part)
    for move in history:
        world.move(move)
    period_us = part.period_s * SECOND
    for place, first in enumerate(world.spent):
        total = 0
        for last in world.spent[place:]:
            total += last.units
            units = part.burst * (1 + last.losses - first.losses) + first.owed
            assert total * period_us <= units * period_us + part.amount * (last.at_us - first.at_us)


few = st.integers(0, 8)
changing = st.lists(
    st.one_of(
        st.tuples(st.just("use"), places, few),
        st.tuples(st.just("use"), places, few),
        st.tuples(st.just("wait"), st.integers(0, 200_000)),
        st.tuples(st.just("speak"), places, few, few, few, st.sampled_from(["heard", "unheard", "lost"])),
    ),
    max_size=49,  # less than ten seconds
)


@settings(max_examples=200, deadline=None)
@given(small_rates, small_rates, changing)
def test_a_change_that_is_on_its_way_brings_in_no_more_than_the_larger_limit(
    old: Part, new: Part, history: list[tuple[object, ...]]
) -> None:
    """However often those who know of it and those who do not speak in turns."""
    new = replace(new, period_s=old.period_s)
    world = Spending(old, new)
    for move in history:
        world.move(move)
    burst, amount = max(old.burst, new.burst), max(old.amount, new.amount)
    total = sum(spent.units for spent in world.spent)
    assert total * old.period_s * SECOND <= burst * old.period_s * SECOND + amount * (world.clock_us - BEGIN_US)


@settings(max_examples=100, deadline=None)
@given(spending)
def test_of_a_budget_no_more_is_spent_than_there_is(history: list[tuple[object, ...]]) -> None:
    world = Spending(BUDGET)
    for move in history:
        world.move(move)
    assert sum(spent.units for spent in world.spent) <= BUDGET.amount * (1 + world.losses)

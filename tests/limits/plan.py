"""What is asked: who arrives when, what they reserve, what they use of it. Seeded: a plan is always the same.

Arrivals are open-loop: nobody waits for anybody's answer (a Poisson process for each worker). Workers do not get
equal parts, as the connections of real clients do not spread evenly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from gateway.exchange import Claim, Used
from gateway.quota import Quota
from tenants.ids import OrgId
from tenants.models import LimitUnit

ORG = OrgId("acme")

PROMPT = 600
"""Tokens of a prompt on average; of the longest it is half again."""

ANSWER = 256
"""Tokens that an answer may have, and what is reserved for it."""

SECOND_US = 1_000_000


class Arrival(NamedTuple):
    """`at_us`: after the beginning. `cost`: tokens to reserve. `prompt` and `answer`: tokens it uses if admitted,
    `lasts_us` after that; `sent` False: given up before anything went upstream, so that it is refunded."""

    at_us: int
    who: int
    cost: int
    prompt: int
    answer: int
    lasts_us: int
    sent: bool

    @property
    def used(self) -> int:
        """Tokens it is charged in the end."""
        return self.prompt + self.answer if self.sent else 0


class Bound(Struct, frozen=True):
    """One limit: `amount` per `period_s`, or a budget of `amount` in all (`budget`). `subjects`: how many buckets
    there are; whoever arrives has the one of his number, modulo."""

    limit: str
    scope: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int = 1
    budget: bool = False
    subjects: int = 1

    def subject(self, who: int) -> str:
        return "" if self.subjects == 1 else f"{self.scope}-{who % self.subjects}"

    @property
    def refills(self) -> bool:
        return not self.budget and self.unit is not LimitUnit.CONCURRENCY

    def reserved(self, cost: int) -> int:
        """Units of it for an arrival that reserves `cost` tokens."""
        return cost if self.unit is LimitUnit.TOKENS else 1

    def charged(self, used: int, *, sent: bool) -> int:
        """Units in the end; a slot comes back."""
        if self.unit is LimitUnit.CONCURRENCY:
            return 0
        return used if self.unit is LimitUnit.TOKENS else int(sent)


class Plan(Struct, frozen=True):
    """`requests` in all, `rate` of them a second over all `workers`, with `bounds` on all of them.

    `cancelled`: the part that is given up, half of it before anything was sent. `lasting`: reservations stay open
    while an answer streams; else they are settled at once. `outage_at`: the part of the run after which the store
    is killed, to begin again, empty, `outage_s` later; 0: never. `longest_s`: of answers.
    `bar_pct`: so much may be admitted too much, or refused wrongly.
    """

    name: str
    requests: int
    rate: int
    bounds: tuple[Bound, ...]
    seed: int = 0
    workers: int = 8
    cancelled: float = 0.0
    lasting: bool = False
    people: int = 1
    outage_at: float = 0.5
    outage_s: float = 1.0
    longest_s: float = 0.4
    bar_pct: float = 1.0

    @property
    def seconds(self) -> float:
        return self.requests / self.rate

    def shares(self) -> list[float]:
        """Of the arrivals, by worker: between half and one and a half times an equal part."""
        random_ = random.Random(f"{self.seed} {self.name} shares")
        parts = [random_.uniform(0.5, 1.5) for _ in range(self.workers)]
        return [part / sum(parts) for part in parts]

    def count(self, worker: int) -> int:
        """How many arrive at `worker`: the first few take what rounding leaves."""
        counts = [int(share * self.requests) for share in self.shares()]
        return counts[worker] + (worker < self.requests - sum(counts))

    def arrivals(self, worker: int) -> Iterator[Arrival]:
        random_ = random.Random(f"{self.seed} {self.name} {worker}")
        each_us = SECOND_US / (self.rate * self.shares()[worker])
        at = 0.0
        for _ in range(self.count(worker)):
            at += random_.expovariate(1) * each_us
            yield self._arrival(int(at), random_)

    def _arrival(self, at_us: int, random_: random.Random) -> Arrival:
        # The square makes a few people busy and many quiet.
        who = int(self.people * random_.random() ** 2)
        if not self.lasting:
            return Arrival(at_us, who, 1, 1, 0, 0, sent=True)
        prompt = int(PROMPT * (0.5 + random_.random()))
        lasts_us = int((0.05 + 0.95 * random_.random()) * self.longest_s * SECOND_US)
        cost = prompt + ANSWER
        chance = random_.random()
        if chance < self.cancelled / 2:
            return Arrival(at_us, who, cost, 0, 0, lasts_us // 4, sent=False)
        if chance < self.cancelled:
            return Arrival(at_us, who, cost, prompt, random_.randrange(ANSWER // 2), lasts_us // 2, sent=True)
        # Now and then a provider counts more than was reserved.
        answer = random_.randrange(ANSWER + ANSWER // 16)
        return Arrival(at_us, who, cost, prompt, answer, lasts_us, sent=True)

    def claims(self, arrival: Arrival, until_s: int) -> tuple[Claim, ...]:
        """`until_s` (Unix seconds): when the windows of budgets end, the same in all workers."""
        return tuple(
            [
                Claim(
                    Quota(
                        org=ORG,
                        limit=bound.limit,
                        scope=bound.scope,
                        subject=bound.subject(arrival.who),
                        unit=bound.unit,
                        amount=bound.amount,
                        burst=bound.burst,
                        period_s=bound.period_s,
                        starts_s=until_s - DAY_S if bound.budget else 0,
                        ends_s=until_s if bound.budget else 0,
                    ),
                    bound.reserved(arrival.cost),
                )
                for bound in self.bounds
            ]
        )


DAY_S = 86_400


def used_of(arrival: Arrival, part: float = 1.0) -> Used:
    """What `arrival` has used when `part` of its answer has come."""
    return Used(input_tokens=arrival.prompt, output_tokens=int(arrival.answer * part))

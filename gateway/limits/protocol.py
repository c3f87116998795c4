"""What a worker and the store of the limits say to each other, one organization at a time.

The store is the owner in the control process (`POST /bus/v1/slices`) or a function inside Redis. An *account* is
all of one organization's buckets; it is one hash slot of a Redis Cluster, and no message names two.

Every unit that has left a bucket is in the hands of a *session* (one worker's use of one account): lent to be
spent, or reserved by a request in flight. A worker says what was spent of it and what comes back; what is left in
its hands is never said, for both sides can tell. A message is sent again, word for word, until its answer is
here: the store remembers the last answer of each session, so that every message counts once.
"""

from __future__ import annotations

from msgspec import Struct

from tenants.ids import OrgId
from tenants.models import LimitUnit

LEASE_S = 3.0
"""A session that has said nothing for as long is over: what was reserved in it by requests in flight comes back,
what it was lent to spend counts as spent. A worker with anything in its hands speaks at least each second."""

REBUILD_S = 1.0
"""So long after a store has begun empty, a bucket of which no worker has said what was in it lends nothing ahead:
requests are granted one by one."""


class Part(Struct, frozen=True, array_like=True):
    """One bucket in a message; requests name it by its place in `SliceAsk.parts`.

    The first eight say which it is and how large, as in `Claim` (`burst` is never 0 unless `amount` is; a budget
    has `starts_s` and `ends_s`, Unix seconds; concurrency has neither period nor window).

    `spent` units were used since the last message, of those in this session's hands or, when those do not do,
    beyond them: a debt. `back` units return, a slot that came free among them. `open`: of what then remains in
    its hands, what requests in flight have reserved and not used yet. `want`: so many more to spend without
    asking; 0: none.
    `left` and `left_at_us` are what the store said of the bucket the last time and when, by the store's clock;
    -1 when it never did. `held`: what is in the worker's hands. These three count only where a store that has
    begun anew is told of the bucket for the first time: see `SliceAsk.rebuilds`.
    """

    limit: str
    subject: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int
    starts_s: int = 0
    ends_s: int = 0
    spent: int = 0
    back: int = 0
    open: int = 0
    want: int = 0
    left: int = -1
    left_at_us: int = -1
    held: int = 0


class Wish(Struct, frozen=True, array_like=True):
    """`part`: place in `SliceAsk.parts`. At least `least` and at most `cost` units of it."""

    part: int
    least: int
    cost: int


class SliceAsk(Struct, frozen=True, array_like=True):
    """`requests`: each all or nothing, judged in order after every `Part` has been applied.

    `session` is '' in the first message, else what the store gave; `epoch` is the store's as last known, '' at
    first. `seq` is 1 in the first message of a session and rises by one; the same `seq` again is the same message
    again. `workers`: how many share the account as far as the sender knows, so that the first to ask is not lent
    the others' part. `close`: the session ends with this message, and all that is left in its hands comes back.

    `rebuilds`: `held`, `left` and `left_at_us` count, of a store's epoch before; those of buckets of which this
    epoch has been told are 0, and -1. In a first message they do also when `epoch` is not '' and not the store's.
    What a worker knows may be in any number of messages of a session. Until its turn has come, a bucket is as
    one of which nobody knows: see `REBUILD_S`.
    """

    org: OrgId
    worker: str
    session: str
    epoch: str
    seq: int
    workers: int = 1
    parts: tuple[Part, ...] = ()
    requests: tuple[tuple[Wish, ...], ...] = ()
    close: bool = False
    rebuilds: bool = False


class Result(Struct, frozen=True, array_like=True):
    """One request. Granted: `granted`, units for each of its wishes. Refused: `granted` is empty, and `part` is
    the one that says no for longest, `wait_us` until it would say yes to one alone on it; -1: never.

    A request without wishes is not sent.
    """

    granted: tuple[int, ...] = ()
    part: int = -1
    wait_us: int = 0


class Slice(Struct, frozen=True, array_like=True):
    """One bucket, in the order of `SliceAsk.parts`. `lent`: units to spend without asking, on top of what is in
    the session's hands. `left`: whole units that the bucket has after this message, nobody's slices among them;
    negative in debt."""

    lent: int
    left: int


class SliceAnswer(Struct, frozen=True, array_like=True):
    """`known` False: `session` means nothing here, nothing was done, `results` and `slices` are empty.

    With the `epoch` the worker knew, its lease has run out: what it was lent has been counted as spent, what its
    requests in flight had reserved has come back and what they use is a debt. With another one the store has
    lost what it knew. Either way the worker opens a new session (`session` '', `seq` 1); in the second case it
    says `held`, `left` and `left_at_us` of all its buckets, in as many messages as it takes. `now_us`: the store's
    clock, Unix microseconds.
    `sessions`: how many workers have this account open.
    """

    session: str
    epoch: str
    now_us: int
    known: bool = True
    sessions: int = 1
    results: tuple[Result, ...] = ()
    slices: tuple[Slice, ...] = ()


class Standings(Struct, frozen=True, array_like=True):
    """One bucket as an admin sees it. `level`: whole units left in it, lent ones not among them; negative in debt.

    `lent`: units in workers' hands, `open` of those reserved by requests in flight. Used of a budget: `amount` -
    `level` - `lent`. `at_us`: when it was so, for `SliceAdmin.seed`, and `began_us`: when the store's epoch began;
    the store's clock, Unix microseconds.
    """

    limit: str
    subject: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int
    starts_s: int
    ends_s: int
    level: int
    lent: int
    open: int
    sessions: int
    at_us: int = 0
    began_us: int = 0

    @property
    def used(self) -> int:
        """Of a budget, in whole units; more than `amount` in debt."""
        return self.amount - self.level - self.lent

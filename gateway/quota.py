"""A limit as it applies to one caller: whose bucket it is, and what is never different from call to call.

Made once for many requests. What each of them would look up or work out again is kept ready here.
"""

from __future__ import annotations

from typing import NewType

from msgspec import Struct
from msgspec.structs import force_setattr

from tenants.amounts import dollars
from tenants.ids import OrgId
from tenants.models import LimitUnit, OnEnd, OnOutage

Key = NewType("Key", str)
"""A bucket's: organization, limit, subject, begin of its window and unit, spelt out. As a text, which keeps its
hash: a tuple's is worked out at each look."""


Header = tuple[bytes, bytes]


class Said(Struct, eq=False):
    """What was said of a bucket last: that `units` are left, in `headers`: its limit, what remains, its reset."""

    units: int | None = None
    headers: tuple[Header, ...] = ()

    def __eq__(self, other: object) -> bool:
        """It is no part of what a quota is."""
        return isinstance(other, Said)

    def __hash__(self) -> int:
        return 0


class Words(Struct, frozen=True):
    """What headers say of a quota (OpenAI API reference, "Rate limits"). `limit`: name and value; `remaining` and
    `reset` are names. `bit` stands for the unit where that is counted in whole numbers and the bucket refills, and
    nothing else is to be said of it; else 0. `cap`: of a full bucket. `said`: what is the same again is not made
    again."""

    limit: Header
    remaining: bytes
    reset: bytes
    bit: int
    cap: int
    period_ms: int
    amount: int
    said: Said


_UNSAID = Words((b"", b""), b"", b"", 0, 0, 0, 0, Said())
_UNITS = tuple(LimitUnit)


class Quota(Struct, frozen=True):
    """`limit` by its name, in whole units of `unit`: `amount` in `period_s`, at most `burst` of them at once.

    `subject` is whose bucket ('' for the organization's own). `starts_s` and `ends_s` (Unix seconds) are a
    budget's calendar window, 0 and 0 for a bucket that refills. `notify_at`: the lowest percent of a budget at
    which callers are told of it, 0: never. `key`, `metered` (a stream uses of it as it goes) and `words` follow
    from the others.
    """

    org: OrgId
    limit: str
    scope: str
    subject: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int
    starts_s: int = 0
    ends_s: int = 0
    on_outage: OnOutage = OnOutage.LOCAL
    on_end: OnEnd = OnEnd.FINISH
    notify_at: int = 0
    key: Key = Key("")
    metered: bool = False
    words: Words = _UNSAID

    def __post_init__(self) -> None:
        unit = self.unit
        parts = self.org, self.limit, self.subject, self.starts_s, unit.value
        force_setattr(self, "key", Key(repr(parts)))
        force_setattr(self, "metered", unit is not LimitUnit.REQUESTS and unit is not LimitUnit.CONCURRENCY)
        force_setattr(self, "words", _words(self))

    def same(self, other: Quota) -> bool:
        """Of one key: whether both say the same of their bucket; a changed limit is asked about before it is spent
        from."""
        return self is other or (
            self.amount == other.amount
            and self.burst == other.burst
            and self.period_s == other.period_s
            and self.ends_s == other.ends_s
        )


def _words(quota: Quota) -> Words:
    unit, amount = quota.unit, quota.amount
    of = unit.value.replace("_", "-").encode()
    spend = unit is LimitUnit.SPEND
    plain = amount > 0 and not (spend or unit is LimitUnit.CONCURRENCY or quota.ends_s)
    said = dollars(amount) if spend else str(amount)
    return Words(
        (b"x-ratelimit-limit-" + of, said.encode()),
        b"x-ratelimit-remaining-" + of,
        b"x-ratelimit-reset-" + of,
        1 << _UNITS.index(unit) if plain else 0,
        quota.burst or amount,
        (quota.period_s or 1) * 1_000,
        amount,
        Said(),
    )

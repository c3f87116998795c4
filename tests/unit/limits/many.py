"""More buckets than one message names: limits of each of many, and what was said of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from gateway.exchange import Claim, Used
from gateway.limits.protocol import Part, SliceAsk
from gateway.limits.slices import SlicedLimits
from tenants.models import OnOutage
from tests.contract.test_limit_store import slots as at_once
from tests.unit.limits.wire import budget

FEW = 8
MANY = 50
AMOUNT = 5_000


def of(who: int, cost: int = 1) -> Claim:
    return budget(cost, AMOUNT, limit=f"l{who}", on_outage=OnOutage.ALLOW)


def slot_of(who: int) -> Claim:
    return at_once(20, limit=f"s{who}")


async def use(limits: SlicedLimits, who: int, units: int) -> None:
    (await limits.reserve([of(who, units)])).settle(Used(units))


def spent(messages: list[SliceAsk]) -> Counter[str]:
    """Of each bucket, over all messages."""
    return Counter({p.limit: sum(q.spent for q in parts(messages, p.limit)) for m in messages for p in m.parts})


def parts(messages: list[SliceAsk], limit: str) -> Iterator[Part]:
    return (part for message in messages for part in message.parts if part.limit == limit)

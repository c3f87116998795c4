"""The rules that a limit keeps: what goes together with its unit, its window, its scope. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tenants.fieldrules import (
    MAX_IN_FLIGHT,
    MAX_PERIOD_S,
    Fault,
    each_once,
    identifier,
    in_range,
    named,
    plain_text,
)
from tenants.ids import PLATFORM, is_service_id, member_id, org_id, resource_name
from tenants.models import Limit, LimitScope, LimitUnit, OnEnd

MAX_AMOUNT: Final = 10**12
MAX_FINE: Final = 9 * 10**15
"""Of what is counted finely: nanodollars (nine million dollars) and bytes. Below 2⁵³: no store rounds it."""

_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")
_MOST: Final = {
    LimitUnit.SPEND: MAX_FINE,
    LimitUnit.BYTES: MAX_FINE,
    LimitUnit.CONCURRENCY: MAX_IN_FLIGHT,
}


def limit_faults(item: Limit) -> Iterator[Fault]:
    """Every fault of `item`, as `tenants.validate` says them."""
    if item.org == PLATFORM:
        yield from identifier("name", item.name, resource_name)
        if item.scope not in (LimitScope.ORG, LimitScope.UPSTREAM):
            yield "scope", "of the platform's limits is 'org' (one for each) or 'upstream' (one for each origin)"
    else:
        yield from named(item.org, item.name)
    yield from in_range("amount", item.amount, 1, _MOST.get(item.unit, MAX_AMOUNT))
    yield from _period(item)
    if not 0 <= item.burst <= max(item.amount, 0):
        yield "burst", "is 0 (as much as 'amount') to 'amount'"
    if item.on_end is not OnEnd.FINISH and item.unit in (LimitUnit.REQUESTS, LimitUnit.CONCURRENCY):
        yield "on_end", "is 'finish' for requests and concurrency: a request is one from its beginning"
    for percent in item.notify_at:
        if not 1 <= percent <= 100:
            yield "notify_at", "is percentages from 1 to 100"
    yield from each_once("notify_at", tuple(map(str, item.notify_at)))
    if item.notify_at and not item.window:
        yield "notify_at", "is for limits with a 'window': a bucket that refills has no end to warn of"
    yield from _subject(item)


def _period(item: Limit) -> Iterator[Fault]:
    if item.unit is LimitUnit.CONCURRENCY:
        if item.period_s != 0:
            yield "period_s", "is 0 for concurrency: it counts what is in flight"
        if item.window:
            yield "window", "is empty for concurrency: it counts what is in flight"
        if item.burst != 0:
            yield "burst", "is 0 for concurrency: as many as 'amount' may be in flight, and no more for a moment"
    elif item.window:
        if item.period_s != 0:
            yield "period_s", "is 0 with a 'window', which is the period"
        if item.burst != 0:
            yield "burst", "is 0 with a 'window': all of the amount may be used at once"
    else:
        yield from in_range("period_s", item.period_s, 1, MAX_PERIOD_S)


def _subject(item: Limit) -> Iterator[Fault]:
    if not item.subject and item.scope is not LimitScope.CLIENT:
        return
    match item.scope:
        case LimitScope.ORG if item.org == PLATFORM:
            yield from identifier("subject", item.subject, org_id)
        case LimitScope.ORG:
            yield "subject", "is empty: an organization has one bucket"
        case LimitScope.MEMBER if not is_service_id(item.subject):
            yield from identifier("subject", item.subject, member_id)
        case LimitScope.UPSTREAM if item.org == PLATFORM:
            if not _ORIGIN.fullmatch(item.subject):
                yield "subject", "is an origin in lower case: https://host or https://host:port"
        case LimitScope.TEAM | LimitScope.MODEL | LimitScope.UPSTREAM:
            yield from identifier("subject", item.subject, resource_name)
        case LimitScope.CLIENT:
            yield from plain_text("subject", item.subject)

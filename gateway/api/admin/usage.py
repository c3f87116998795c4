"""How much of each limit is used now, and setting it back: asked of whoever keeps the buckets."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from typing import Annotated, TypeVar

from litestar import get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, QueryParameter
from msgspec import Struct

from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import invalid
from gateway.api.admin.routing import operation
from gateway.errors import UnavailableError
from gateway.limits.keeper import runs
from gateway.limits.protocol import Standings
from gateway.limits.refusal import OF_PLATFORM
from tenants.ids import PLATFORM, OrgId
from tenants.models import Limit, LimitScope, LimitUnit
from tenants.roles import Operation

T = TypeVar("T")

MAX_ROWS = 1_000
RETRY_S = 1

Rows = Annotated[int, QueryParameter(ge=1, le=MAX_ROWS, description="So many at most, the most used first.")]
Subject = Annotated[
    str | None,
    QueryParameter(
        max_length=256,
        description="Only this member's, team's, client's, model's or upstream's bucket; for limits of the"
        " platform this organization's or origin's.",
    ),
]

Unit = Annotated[LimitUnit | None, QueryParameter(description="Only buckets of this unit.")]


class Bucket(Struct, frozen=True):
    """One bucket. `left` + `lent` + `used` is what it holds when full: the burst, or all of a budget or of the
    slots.

    `left` whole units that nobody has (negative: a debt), `lent` those in the workers' hands, `open` of them
    reserved by requests in flight. `used` of a bucket that refills is what has not come back yet. `resets_at`:
    when it is full again, or a budget's window ends; 0: it is full, or counts what is in flight. `platform`: its
    operators set it. Times are Unix seconds.
    """

    limit: str
    subject: str
    unit: LimitUnit
    amount: int
    burst: int
    period_s: int
    left: int
    used: int
    lent: int
    open: int
    workers: int
    starts_at: int
    resets_at: int
    platform: bool


class LimitUse(Struct, frozen=True):
    """`items`: the buckets in use, the fullest use first; `buckets`: how many there are of them in all."""

    items: tuple[Bucket, ...]
    buckets: int


class LimitReset(Struct, frozen=True):
    """How many buckets were set back: those of which something was used, as the limit is now."""

    buckets: int


@get(
    "/{key:str}/usage",
    **operation(Operation.LIMIT_READ, "getLimitUsage", query=True, summary="See how much of a limit is used"),
)
async def usage(
    *, caller: CallerDependency, key: FromPath[str], subject: Subject = None, top: Rows = 100
) -> LimitUse:
    """Buckets that nobody has drawn from, or that are full again, are not in it."""
    limit = await caller.store.limits.get(key)
    return in_use(caller, await _of_limit(caller, limit, subject), top)


@post(
    "/{key:str}/reset",
    status_code=200,
    **operation(Operation.LIMIT_RESET, "resetLimit", query=True, summary="Set a limit's buckets back"),
)
async def reset(caller: CallerDependency, key: FromPath[str], subject: Subject = None) -> LimitReset:
    """Full, and nobody's debt, at once on every worker. What requests in flight have reserved they keep. Harmless
    when repeated."""
    limit = await caller.store.limits.get(key)
    # Written down before anything is set back: nobody spends twice without an entry that says who let them.
    await caller.store.note("limit.reset", key, caller.actor, {} if subject is None else {"subject": subject})
    # Whoever keeps them counts those that are full too, and those of a limit that had this name before.
    buckets = in_use(caller, await _of_limit(caller, limit, subject), 0).buckets
    if caller.org != PLATFORM or limit.scope is LimitScope.UPSTREAM:
        await asked(caller.deps.limits.reset(caller.org, key, subject))
    else:
        for org in _orgs(caller, subject):
            await asked(caller.deps.limits.reset(org, OF_PLATFORM + key))
    return LimitReset(buckets)


@get(
    "/orgs/{org:str}/limits-usage",
    tags=["Limits"],
    **operation(Operation.LIMIT_READ, "getLimitsUsage", query=True, summary="See how much of all limits is used"),
)
async def all_usage(
    *, caller: CallerDependency, unit: Unit = None, subject: Subject = None, top: Rows = 100
) -> LimitUse:
    """Those that the platform's operators set for this organization among them (`platform/…`). A limit that is not
    there any more is not in it, though a bucket of its name may be remembered until it would be full."""
    limits = await _limits(caller)
    found = await asked(caller.deps.limits.usage(caller.org))
    rows = [*found, *(await _platform(caller, None, subject) if caller.org == PLATFORM else ())]
    rows = [one for one in rows if (limit := limits.get(one.limit)) is not None and is_of(one, limit)]
    return in_use(
        caller, (one for one in rows if unit in (None, one.unit) and subject in (None, one.subject)), top
    )


async def _limits(caller: Caller) -> dict[str, Limit]:
    """Those that apply here, by the names of their buckets."""
    own: dict[str, Limit] = {}
    after: str | None = None
    while after != "":
        page, after = await caller.store.limits.page(after=after or "")
        own |= {limit.name: limit for limit in page}
    platform = caller.deps.streams.snapshot.tenants.get(PLATFORM)
    return own | {OF_PLATFORM + limit.name: limit for limit in (platform.limits if platform else ())}


def is_of(one: Standings, limit: Limit) -> bool:
    """Whether it is a bucket of the limit as that is now: of one that counted something else under this name, what
    was used is remembered until it would be full."""
    return one.unit is limit.unit and bool(one.ends_s) == bool(limit.window)


async def asked(question: Awaitable[T]) -> T:
    """What the keeper of the buckets answers. It is asked again in a moment when it cannot."""
    try:
        return await question
    except UnavailableError as error:
        raise UnavailableError(
            f"No figures of limits can be had now: {error.message}.",
            retry_after_s=error.retry_after_s or RETRY_S,
        ) from None


async def _of_limit(caller: Caller, limit: Limit, subject: str | None) -> list[Standings]:
    if caller.org == PLATFORM and limit.scope is LimitScope.ORG:
        found: Iterable[Standings] = await _platform(caller, limit.name, subject)
    else:
        names = {limit.name, OF_PLATFORM + limit.name} if caller.org == PLATFORM else {limit.name}
        found = (one for one in await asked(caller.deps.limits.usage(caller.org)) if one.limit in names)
    return [one for one in found if is_of(one, limit) and subject in (None, one.subject)]


async def _platform(caller: Caller, name: str | None, subject: str | None) -> list[Standings]:
    """Every organization's buckets of the platform's limits of scope org: the organization becomes the subject."""
    found: list[Standings] = []
    for org in _orgs(caller, subject):
        found += [
            _renamed(one, org)
            for one in await asked(caller.deps.limits.usage(org))
            if one.limit.startswith(OF_PLATFORM) and name in (None, one.limit.removeprefix(OF_PLATFORM))
        ]
    return found


def _renamed(one: Standings, org: OrgId) -> Standings:
    fields = {name: getattr(one, name) for name in one.__struct_fields__}
    return Standings(**{**fields, "subject": org})


def _orgs(caller: Caller, subject: str | None) -> list[OrgId]:
    tenants = caller.deps.streams.snapshot.tenants
    if subject is None:
        return [org for org in tenants if org != PLATFORM]
    if subject not in tenants:
        raise invalid(("subject", f"unknown organization '{subject}'"))
    return [OrgId(subject)]


def in_use(caller: Caller, found: Iterable[Standings], top: int) -> LimitUse:
    """Those of `found` of which something is used, the fullest use first, `top` of them. Of a budget the window
    that runs."""
    now, world = int(caller.deps.clock()), caller.deps.streams.snapshot
    found = (one for one in found if runs(world, caller.org, one, now))
    buckets = [bucket for one in found if (bucket := _bucket(one, now, caller.org)).used > 0 or bucket.lent]
    buckets.sort(key=lambda one: (-_share(one), one.limit, one.subject))
    return LimitUse(tuple(buckets[:top]), len(buckets))


def _bucket(one: Standings, now: int, org: OrgId) -> Bucket:
    refills = one.unit is not LimitUnit.CONCURRENCY and not one.ends_s
    used = (one.burst if refills else one.amount) - one.level - one.lent
    resets_at = one.ends_s
    if refills and used > 0 and one.amount > 0:
        resets_at = now - (-used * one.period_s // one.amount)
    return Bucket(
        limit=one.limit.removeprefix(OF_PLATFORM) if org == PLATFORM else one.limit,
        subject=one.subject,
        unit=one.unit,
        amount=one.amount,
        burst=one.burst,
        period_s=one.period_s,
        left=one.level,
        used=used,
        lent=one.lent,
        open=one.open,
        workers=one.sessions,
        starts_at=one.starts_s,
        resets_at=resets_at,
        platform=org == PLATFORM or one.limit.startswith(OF_PLATFORM),
    )


def _share(one: Bucket) -> float:
    return (one.used + one.open) / max(one.left + one.lent + one.used, 1)


def below_limits() -> tuple[HTTPRouteHandler, ...]:
    """The handlers beneath `/orgs/{org}/limits`."""
    return usage, reset

"""What an audit log adds up to, and whether its days agree with what was counted elsewhere."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final

from litestar import get
from litestar.params import QueryParameter
from msgspec import Struct

from gateway.api.admin.audit import Index, Instant, milliseconds
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.routing import operation
from gateway.audit.daily import DAY_MS, day_of
from gateway.audit.reconcile import Reconciliation
from gateway.audit.stats import Stats
from tenants.roles import Operation

SCAN_MAX: Final = 20_000
"""Entries of one page: some tens of milliseconds of a thread."""


class AuditStats(Struct, frozen=True):
    """Sums over a page of the log; add those of the pages up. `next` is the `after` to go on with, the end is
    reached when it stays the same. `requests`: entries of requests. `actors` are members as readers see them:
    their ids, `erased`, or another organization's and its member parted by `/`. Times are Unix milliseconds, 0 for
    none."""

    next: int
    entries: int
    requests: int
    bytes_in: int
    bytes_out: int
    prompt_tokens: int
    completion_tokens: int
    cost_nanodollars: int
    first_at: int
    last_at: int
    actions: dict[str, int]
    outcomes: dict[str, int]
    models: dict[str, int]
    clients: dict[str, int]
    actors: dict[str, int]


@get(
    "/orgs/{org:str}/audit/stats",
    tags=["Audit"],
    **operation(Operation.AUDIT_READ, "getAuditStats", query=True, summary="Count entries"),
)
async def stats(
    *, caller: CallerDependency, after: Index = 0, since: Instant = "", until: Instant = ""
) -> AuditStats:
    """How many entries there are by action, outcome, model, client and actor, and their bytes, tokens and cost. A
    page is 20,000 entries of the log, counted where they are."""
    found = Stats(caller.org, after, milliseconds("since", since), milliseconds("until", until))
    async for piece in caller.deps.audit.raw(caller.org, after, after + SCAN_MAX):
        await asyncio.to_thread(found.feed, piece)
    return AuditStats(
        next=found.next,
        entries=found.entries,
        requests=found.requests,
        bytes_in=found.bytes_in,
        bytes_out=found.bytes_out,
        prompt_tokens=found.prompt_tokens,
        completion_tokens=found.completion_tokens,
        cost_nanodollars=found.nanodollars,
        first_at=found.first_at,
        last_at=found.last_at,
        actions=found.counts["action"],
        outcomes=found.counts["outcome"],
        models=found.counts["model"],
        clients=found.counts["client"],
        actors=await _shown(caller, found),
    )


async def _shown(caller: Caller, found: Stats) -> dict[str, int]:
    """Those who are erased come together in one."""
    actors = list(found.actors)
    asked = [{"actor": name, "actor_org": org} for org, name in actors]
    shown: dict[str, int] = {}
    for actor, entry in zip(actors, await caller.deps.people.show(caller.org, asked), strict=True):
        name = str(entry["actor"]) if actor[0] == caller.org else f"{actor[0]}/{entry['actor']}"
        shown[name] = shown.get(name, 0) + found.actors[actor]
    return shown


@get(
    "/orgs/{org:str}/audit/reconcile",
    tags=["Audit"],
    **operation(Operation.AUDIT_READ, "reconcileAudit", query=True, summary="Reconcile a day of the log"),
)
async def reconcile(
    caller: CallerDependency,
    day: Annotated[str, QueryParameter(max_length=32, description="A UTC day: 2026-01-31.")] = "",
) -> Reconciliation:
    """A UTC day's requests in the log beside what the workers counted of them and what budgets were charged.
    `day`: 2026-01-31; left out, the day before this one. `audit-log.md` says what has to be equal."""
    today = int(caller.deps.clock() * 1000) // DAY_MS
    try:
        wanted = day_of(day) if day else today - 1
    except ValueError:
        raise invalid(("day", "is a day: 2026-01-31")) from None
    if not 0 <= wanted <= today:
        raise invalid(("day", "is a day that has begun, by UTC"))
    if caller.deps.reconciling.locked():
        raise ProblemError(409, "busy", "Another day is being reconciled; try again when that has ended.")
    async with caller.deps.reconciling:
        return await caller.deps.reconciler.reconcile(caller.org, wanted)

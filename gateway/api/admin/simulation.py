"""What a proposed limit would have refused: the audit log replayed in this process, off its loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec
from litestar import post
from litestar.params import RequestBody
from litestar.response import Stream
from msgspec import Struct

from gateway.api.admin.audit import milliseconds
from gateway.api.admin.bodies import LimitBody
from gateway.api.admin.caller import Caller, CallerDependency
from gateway.api.admin.limits import known, make
from gateway.api.admin.problems import ProblemError, invalid
from gateway.api.admin.routing import operation
from gateway.audit.log import AuditReader
from gateway.limits.simulation import LATE_MS, Report, Simulation
from tenants.ids import PLATFORM, OrgId
from tenants.models import Limit, LimitScope
from tenants.roles import Operation
from tenants.validate import validate

DAY_MS: Final = 86_400_000
MAX_MS: Final = 31 * DAY_MS
CHUNK: Final = 2_000
"""Entries read and judged at one go: some tens of milliseconds of a thread."""


class SimulationBody(Struct, frozen=True, forbid_unknown_fields=True):
    """`limit` as it would be created. `since` and `until`: Unix seconds or RFC 3339; left out, the last day."""

    limit: LimitBody
    since: str = ""
    until: str = ""


class Progress(Struct, frozen=True):
    """So many entries of the log have been read, of so many."""

    read: int
    of: int


class Outcome(Struct, frozen=True):
    """The last line."""

    report: Report


@post(
    "/orgs/{org:str}/limits-simulation",
    tags=["Limits"],
    status_code=200,
    media_type="application/jsonl",
    **operation(
        Operation.LIMIT_SIMULATE, "simulateLimit", body=True, conflict=True, summary="Try a limit on the audit log"
    ),
)
async def simulate(caller: CallerDependency, data: RequestBody[SimulationBody]) -> Stream:
    """Nothing is changed. Lines of JSON: how far the log has been read (`read`, `of`), and at the end `report`:
    who would have been refused, how often and when first. An answer without `report` broke off. One runs at a
    time; 31 days at most."""
    if caller.org == PLATFORM:
        raise invalid(("", "the platform's own organization serves nothing: simulate in another one"))
    item = make(caller, data.limit, None)
    if faults := validate(item):
        raise invalid(*((f"limit.{field}", message) for field, message in faults))
    await known(caller, item)
    now = int(caller.deps.clock() * 1_000)
    until = min(milliseconds("until", data.until) or now, now)
    since = milliseconds("since", data.since) or until - DAY_MS
    if not until - MAX_MS <= since < until:
        raise invalid(("since", "is before 'until', and 31 days before it at most"))
    if caller.deps.simulating.locked():
        raise ProblemError(409, "busy", "Another simulation is running; try again when it has ended.")
    simulation = await _simulation(caller, item)
    detail: dict[str, str | int] = {"limit": item.name, "since": since // 1_000, "until": until // 1_000}
    # Written down before the first byte, as an export is: it reads what an export does.
    await caller.store.note("limit.simulate", caller.org, caller.actor, {**detail})
    return Stream(_lines(caller, simulation, since, until), media_type="application/jsonl")


async def _simulation(caller: Caller, item: Limit) -> Simulation:
    tenants = caller.deps.streams.snapshot.tenants
    tenant, platform = tenants.get(caller.org), tenants.get(PLATFORM)
    prices = {**(platform.prices if platform else {}), **(tenant.prices if tenant else {})}
    teams = await _teams(caller, item) if item.scope is LimitScope.TEAM else {}
    return Simulation(
        item,
        timezone=(await caller.deps.store.orgs.get(caller.org)).timezone,
        prices=prices,
        upstreams={model.name: model.upstream for model in tenant.models.values()} if tenant else {},
        teams=lambda member: teams.get(member, ()),
    )


async def _teams(caller: Caller, item: Limit) -> Mapping[str, Sequence[str]]:
    """Member → teams, of those that the limit is about."""
    names = [item.subject] if item.subject else []
    after = ""
    while not item.subject:
        found, after = await caller.store.teams.page(after=after, limit=500)
        names += [team.name for team in found]
        if not after:
            break
    teams: dict[str, list[str]] = {}
    for name in names:
        while True:
            members, after = await caller.store.teams.members(name, after=after, limit=500)
            for one in members:
                teams.setdefault(one.member, []).append(name)
            if not after:
                break
    return teams


async def _lines(caller: Caller, simulation: Simulation, since: int, until: int) -> AsyncIterator[bytes]:
    """The newest line whenever there is one. The replay waits for nobody: a caller who does not read would keep
    every organization from simulating. Whoever goes away ends it."""
    newest: list[bytes] = []
    more = asyncio.Event()

    async def run() -> None:
        try:
            async with caller.deps.simulating:
                async for line in _replayed(caller, simulation, since, until):
                    newest[:] = [line]
                    more.set()
        finally:
            more.set()

    running = asyncio.create_task(run())
    try:
        while newest or not running.done():
            await more.wait()
            more.clear()
            if newest:
                yield newest.pop()
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def _replayed(caller: Caller, simulation: Simulation, since: int, until: int) -> AsyncIterator[bytes]:
    audit, org = caller.deps.audit, caller.org
    at = start = await _position(audit, org, since - LATE_MS)
    end = await _position(audit, org, until + LATE_MS)
    while at < end:
        found, following = await audit.entries(org, after=at, limit=min(CHUNK, end - at), since=since, until=until)
        if following <= at:
            break
        at = following
        await asyncio.to_thread(simulation.feed, found)
        yield _line(Progress(min(at, end) - start, end - start))
    yield _line(Outcome(await asyncio.to_thread(simulation.report, since // 1_000, until // 1_000)))


async def _position(audit: AuditReader, org: OrgId, at_ms: int) -> int:
    """An entry before which nothing began at `at_ms` or later, but for what took longer than `LATE_MS` between its
    beginning and its end: entries stand in the order of their ends, and say when they began."""
    low, high = 0, int((await audit.checkpoint(org)).split("\n", 2)[1])
    while low < high:
        middle = (low + high) // 2
        found, _ = await audit.entries(org, after=middle, limit=1)
        written = found[0]["@timestamp"] if found else at_ms
        if isinstance(written, int) and written < at_ms:
            low = middle + 1
        else:
            high = middle
    return low


def _line(item: Struct) -> bytes:
    return msgspec.json.encode(item) + b"\n"

"""What of budgets outlives the store of limits: asked for, written down, and said again when it is lost.

Slots are said again within a second, and what is left of a rate, workers remember for a day; a month is longer.
Every `KEEP_S` seconds what is used of each is asked for and written into the control store, and what a store no
longer knows, because it was started again or came back empty, is seeded. When the control process and all workers
die at once, what was used since the last time is not counted, two seconds at most, and what workers had been lent
counts as used; while either lives, it knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from gateway.clock import Clock
from gateway.errors import UnavailableError
from gateway.limits.awaylog import AwayLog
from gateway.limits.protocol import LEASE_S, Standings
from gateway.limits.refusal import OF_PLATFORM
from gateway.limits.store import SlicePlace
from gateway.limits.windows import window_at
from gateway.limits.zones import messages, to_carry
from tenants.amounts import number, quantity
from tenants.budgets import BudgetKey, BudgetUse, Notice
from tenants.ids import PLATFORM, OrgId, is_member_id
from tenants.models import Limit, LimitScope, LimitUnit
from tenants.snapshot import Snapshot
from tenants.store import BudgetBook, StoreError

log = logging.getLogger("orgate.limits")

KEEP_S: Final = 2.0
KEPT_DAYS: Final = 400
"""Windows that ended longer ago are forgotten: a year of months can be compared with the one before."""

PRUNE_S: Final = 3_600.0
AT_ONCE: Final = 8
"""Organizations that the store is asked about at the same time."""

MANY: Final = 1_000
"""Buckets of one organization for which it is asked every `KEEP_S`; with more, it is asked as much less often."""

SEEDED: Final = 200
"""Budgets in one call of `seed`."""


_LEASE_US: Final = int(LEASE_S * 1_000_000)


class BudgetKeeper:
    """The `BudgetAdmin` of the admin API, which passes questions on and remembers resets; `await restore()` before
    any worker is served, then `run()`.

    `world`: the snapshot now. `told`: called once for each notice, after it is durable; it is quick and never
    raises. A crash between the two leaves the audit entry and what the webhook's deliveries find in the store.
    """

    def __init__(
        self,
        store: SlicePlace,
        book: BudgetBook,
        world: Callable[[], Snapshot],
        clock: Clock,
        told: Callable[[Notice], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._book = book
        self._world = world
        self._clock = clock
        self._told = told
        self._known: dict[OrgId, dict[BudgetKey, BudgetUse]] = {}
        self._written: dict[tuple[OrgId, str], LimitUnit] = {}  # of each limit, the unit that was written down
        self._said: set[tuple[BudgetKey, int]] = set()
        self._turn = asyncio.Lock()
        self._next_us: dict[OrgId, int] = {}
        self._zones: dict[OrgId, str] = {}  # where budgets began and ended when last looked at
        self._outages = AwayLog(
            log,
            "budgets are not written down for now: %s",
            "budgets are written down again",
            lambda: clock.monotonic_us() / 1_000_000,
            logging.INFO,
        )
        self._pruned_us = -1

    async def usage(self, org: OrgId) -> Sequence[Standings]:
        return await self._store.usage(org)

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        """What was written down is forgotten with it, or the next round would bring it back."""
        async with self._turn:
            count = await self._store.reset(org, limit, subject)
            mine = self._known.get(org, {})
            for key in [k for k in mine if k[1] == limit and subject in (None, k[2])]:
                del mine[key]
            await self._book.forget(org, limit, subject)
        return count

    async def seed(self, org: OrgId, used: Sequence[Standings]) -> None:
        await self._store.seed(org, used)

    async def carry(self, owner: OrgId, was: str, timezone: str) -> None:
        """Written down as well, when this returns. Errors: `UnavailableError`, `tenants.store.StoreError`; nothing
        or some of it is done then, and nobody has more because of that."""
        async with self._turn:
            await self._carry(owner, was, timezone)

    async def restore(self) -> None:
        """Seed what was written down before this process began. A store that cannot be asked now is seeded by
        `run`, as soon as it can. Errors: `tenants.store.StoreUnavailableError`."""
        async with self._turn:
            self._zones = {org: tenant.org.timezone for org, tenant in self._world().tenants.items()}
            for use in await self._book.current(int(self._clock.now())):
                self._known.setdefault(use.org, {})[use.key] = use
                self._written[use.org, use.limit] = use.unit
            _, failure = await self._look(list(self._known))
            self._failed(failure)

    async def run(self) -> None:
        """Keep until cancelled."""
        while True:
            await asyncio.sleep(KEEP_S)
            await self.round()

    async def round(self, *, last: bool = False) -> None:
        """Ask, seed what is lost, write down what has changed, tell what was crossed. Raises nothing for a store
        that cannot be asked or written: the next round does both. `last`: of organizations with very many buckets
        too, whose turn it is not."""
        async with self._turn:
            try:
                failure = await self._follow()
                now_us = self._clock.monotonic_us()
                due = [org for org in budgeted(self._world()) if last or self._next_us.get(org, 0) <= now_us]
                found, why = await self._look(due)
                failure = failure or why
                await self._write(found)
                await self._prune()
            except StoreError as error:
                failure = str(error)
            self._failed(failure)

    async def _follow(self) -> str:
        """Time zones that were changed: at another control process, which may have other buckets; or here, and
        more has been used meanwhile. Returns why not of all of them."""
        zones, failure = {}, ""
        for org, tenant in self._world().tenants.items():
            zones[org] = timezone = tenant.org.timezone
            if (was := self._zones.get(org, timezone)) != timezone:
                try:
                    await self._carry(org, was, timezone)
                except UnavailableError as error:
                    zones[org], failure = was, error.message
        self._zones = zones
        return failure

    async def _carry(self, owner: OrgId, was: str, timezone: str) -> None:
        world = self._world()
        found = await self._asked([org for org in budgeted(world) if owner in (org, PLATFORM)])
        about = [
            (use, limit)
            for use in found
            if owner == owner_of(use.org, use.limit) and (limit := limit_of(world, use.org, use.limit)) is not None
        ]
        parts = to_carry(about, was, timezone, self._clock.now())
        for org, some in parts.items():
            for message in messages(org, some):
                await self._store.ask(message)
        if parts:
            await self._write(await self._asked(list(parts)))

    async def _asked(self, orgs: Sequence[OrgId]) -> list[BudgetUse]:
        found, failure = await self._look(orgs)
        if failure:
            raise UnavailableError(failure, retry_after_s=1)
        return found

    async def _look(self, orgs: Sequence[OrgId]) -> tuple[list[BudgetUse], str]:
        """What is used in `orgs` now, of windows that somebody has used; and why not of all of them."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(org: OrgId) -> list[BudgetUse]:
            async with places:
                return await self._of(org)

        results = await asyncio.gather(*(one(org) for org in orgs), return_exceptions=True)
        found: list[BudgetUse] = []
        failure = ""
        for result in results:
            if isinstance(result, UnavailableError):
                failure = result.message
            elif isinstance(result, BaseException):
                raise result
            else:
                found += result
        return found, failure

    async def _of(self, org: OrgId) -> list[BudgetUse]:
        standings = await self._store.usage(org)
        pause_s = KEEP_S * (len(standings) // MANY)
        self._next_us[org] = self._clock.monotonic_us() + int(pause_s * 1_000_000)
        budgets = [standing for standing in standings if standing.ends_s > 0]
        found = self._uses(org, budgets)
        now, seen = self._clock.now(), {use.key: standing for use, standing in zip(found, budgets, strict=True)}
        lost = [
            use
            for use in self._known.get(org, {}).values()
            if use.ends_s > now and _is_lost(use, seen.get(use.key))
        ]
        if lost:
            for start in range(0, len(lost), SEEDED):
                await self._store.seed(org, [_remembered(use) for use in lost[start : start + SEEDED]])
            found = self._uses(org, await self._store.usage(org))
            log.info(
                "%s: budgets that the store of limits did not know any more are as they were: %d", org, len(lost)
            )
        return found

    def _uses(self, org: OrgId, all_of_it: Iterable[Standings]) -> list[BudgetUse]:
        now_us = int(self._clock.now() * 1_000_000)
        return [_use(org, standing, now_us) for standing in all_of_it if standing.ends_s > 0]

    async def _write(self, found: Sequence[BudgetUse]) -> None:
        known = {use: self._known.get(use.org, {}).get(use.key) for use in found}
        # What nobody has used is not worth a row; and that of a person who was erased must not come back.
        used = [use for use in self._counting(found) if use.used > 0 or known[use] is not None]
        changed = [use for use in used if not _same(use, known[use]) or self._turned(use)]
        crossed = [notice for notice in self._crossings(found) if _saying(notice) not in self._said]
        made: Sequence[Notice] = ()
        if changed or crossed:
            made = await self._book.write(changed, crossed)
        # Only what is durable is known: a write that failed is made again by the next round.
        self._written.update({(use.org, use.limit): use.unit for use in changed})
        fresh: dict[OrgId, dict[BudgetKey, BudgetUse]] = {}
        for use in found:
            fresh.setdefault(use.org, {})[use.key] = use
        self._known.update(fresh)
        self._said |= {_saying(notice) for notice in crossed}
        for notice in made:
            log.warning(
                "%s: %d %% of the limit '%s'%s are used, %s of %s",
                notice.org,
                notice.percent,
                notice.limit,
                _whose(notice.subject),
                number(notice.used, notice.unit),
                quantity(notice.amount, notice.unit),
            )
            self._told(notice)

    def _counting(self, found: Sequence[BudgetUse]) -> Iterator[BudgetUse]:
        """Those in the units that their limits have now. There is one row for a limit's window: what was used in
        the unit before a change is known as long as a store or this process does, and not written any more."""
        world = self._world()
        for use in found:
            limit = limit_of(world, use.org, use.limit)
            if limit is None or limit.unit is use.unit:
                yield use

    def _turned(self, use: BudgetUse) -> bool:
        """Whether what was written down is of another unit."""
        return self._written.get((use.org, use.limit), use.unit) is not use.unit

    def _crossings(self, found: Sequence[BudgetUse]) -> Iterator[Notice]:
        world = self._world()
        for use in found:
            limit = limit_of(world, use.org, use.limit)
            if limit is None or limit.unit is not use.unit or use.amount <= 0:
                continue
            for percent in sorted(limit.notify_at):
                if use.used * 100 >= percent * use.amount:
                    yield Notice(
                        org=use.org,
                        limit=use.limit,
                        subject=use.subject,
                        starts_s=use.starts_s,
                        percent=percent,
                        ends_s=use.ends_s,
                        unit=use.unit,
                        amount=use.amount,
                        used=use.used,
                        at=0,
                    )

    async def _prune(self) -> None:
        now_us = self._clock.monotonic_us()
        if self._pruned_us >= 0 and now_us - self._pruned_us < PRUNE_S * 1_000_000:
            return
        self._pruned_us = now_us
        now = int(self._clock.now())
        await self._book.prune(now - KEPT_DAYS * 86_400)
        for mine in self._known.values():
            for key in [key for key, use in mine.items() if use.ends_s < now - 86_400]:
                del mine[key]
        current = {key for mine in self._known.values() for key in mine}
        limits = {key[:2] for key in current}
        self._written = {limit: unit for limit, unit in self._written.items() if limit in limits}
        self._said = {said for said in self._said if said[0] in current}

    def _failed(self, why: str) -> None:
        if why:
            self._outages.failed(why)
        else:
            self._outages.worked()


def budgeted(world: Snapshot) -> Iterator[OrgId]:
    """The organizations that have a budget of their own, or of the platform's."""
    platform = world.tenants.get(PLATFORM)
    everybody = platform is not None and any(
        limit.window and limit.scope is LimitScope.ORG for limit in platform.limits
    )
    for org, tenant in world.tenants.items():
        if everybody or any(limit.window for limit in tenant.limits):
            yield org


def owner_of(org: OrgId, name: str) -> OrgId:
    """Whose limit it is that a bucket of `org` belongs to."""
    return PLATFORM if name.startswith(OF_PLATFORM) else org


def runs(world: Snapshot, org: OrgId, standing: Standings, now_s: float) -> bool:
    """Whether a budget is of the window that runs now; True for what is none. The others are remembered for a
    while: those that have ended, and those of a time zone or a window that the limit had before."""
    limit, tenant = limit_of(world, org, standing.limit), world.tenants.get(owner_of(org, standing.limit))
    if standing.ends_s <= 0 or limit is None or tenant is None:
        return True
    return standing.starts_s == window_at(limit.window, tenant.org.timezone, now_s)[0]


def limit_of(world: Snapshot, org: OrgId, name: str) -> Limit | None:
    """The limit that a bucket belongs to, as it stands now."""
    tenant = world.tenants.get(owner_of(org, name))
    wanted = name.removeprefix(OF_PLATFORM)
    return next((limit for limit in tenant.limits if limit.name == wanted), None) if tenant is not None else None


def _whose(subject: str) -> str:
    """Logs name no member: nobody erases them there. The audit entry does, by their pseudonym."""
    if is_member_id(subject):
        return " of a member"
    return f" of {subject}" if subject else ""


def _is_lost(use: BudgetUse, now: Standings | None) -> bool:
    """A store that knows nothing of it, or less and has begun since. In the epoch that `use` is of, what is used
    falls by `reset`, and when a stream settles below what it was charged on its way."""
    if now is None:
        return True
    return now.used < use.used and not 0 < now.began_us <= use.at_us <= now.at_us


def _saying(notice: Notice) -> tuple[BudgetKey, int]:
    return (notice.org, notice.limit, notice.subject, notice.starts_s, notice.unit), notice.percent


def _use(org: OrgId, standing: Standings, now_us: int) -> BudgetUse:
    return BudgetUse(
        org=org,
        limit=standing.limit,
        subject=standing.subject,
        starts_s=standing.starts_s,
        ends_s=standing.ends_s,
        unit=standing.unit,
        amount=standing.amount,
        used=standing.used,
        at_us=standing.at_us or now_us,
        lent=max(standing.lent - standing.open, 0),
    )


def _same(now: BudgetUse, before: BudgetUse | None) -> bool:
    """Whether there is nothing to write. When it was so does not count: it is so still."""
    return before is not None and (now.used, now.lent, now.amount) == (before.used, before.lent, before.amount)


def _remembered(use: BudgetUse) -> Standings:
    """For `seed`: what was lent counts as used, as with a worker that died. A worker that has something in its
    hands knows better, for it has spoken within the lease: what it says is to count as newer."""
    return Standings(
        limit=use.limit,
        subject=use.subject,
        unit=use.unit,
        amount=use.amount,
        burst=use.amount,
        period_s=0,
        starts_s=use.starts_s,
        ends_s=use.ends_s,
        level=use.amount - use.used - use.lent,
        lent=0,
        open=0,
        sessions=0,
        at_us=max(use.at_us - _LEASE_US, 0),
    )

"""What the control process does once a day for each audit log: counts it, and counts it again against the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Protocol

from gateway.audit.daily import Lines, count_days
from gateway.audit.reconcile import Reconciliation
from gateway.audit.reconciler import KEPT_DAYS, SETTLED_S, Reconciler
from gateway.audit.tallies import GONE_S
from tenants.auditdays import AuditDays, Verdict
from tenants.ids import OrgId
from tenants.store import StoreError

log = logging.getLogger("orgate.audit")

LOOK_S: Final = 60.0
BEGIN_S: Final = GONE_S * 2
"""After the start, before the first look: workers that live have said so by then."""

DAYS: Final = 7
"""So many days back are counted and reconciled when nobody did it on the day after."""

AGAIN_S: Final = 3_600
"""A day that differed is reconciled again so much later: a log that could not be written catches up."""

DAY_S: Final = 86_400
KIND: Final = "audit.difference"


class Shows(Protocol):
    """`ControlMetrics.show`."""

    def __call__(self, name: str, value: float, *labels: str) -> None: ...


class Tells(Protocol):
    """`Alarms.tell`."""

    async def __call__(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool: ...


class DailyAudit:
    """`await run()` beside the servers. `orgs`: whose logs there are; `clock`: Unix seconds."""

    def __init__(
        self,
        lines: Lines,
        days: AuditDays,
        reconciler: Reconciler,
        *,
        orgs: Callable[[], Iterable[OrgId]],
        clock: Callable[[], float],
        show: Shows,
        tell: Tells,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lines = lines
        self._days = days
        self._reconciler = reconciler
        self._orgs = orgs
        self._clock = clock
        self._show = show
        self._tell = tell
        self._sleep = sleep
        self._counted: dict[OrgId, int] = {}
        self._agreed: dict[tuple[OrgId, int], bool] = {}
        self._looked: dict[tuple[OrgId, int], float] = {}
        self._broken: dict[OrgId, float] = {}
        self._pruned = -1

    async def run(self) -> None:
        """Look for days that are over until cancelled."""
        await self._sleep(BEGIN_S)
        while True:
            await self.look()
            await self._sleep(LOOK_S)

    async def look(self) -> None:
        """Count and reconcile what is due. Raises nothing for a store or a log that cannot be read: the next look
        does both."""
        yesterday = int((self._clock() - SETTLED_S) // DAY_S) - 1
        for org in sorted(org for org in self._orgs() if self._broken.get(org, 0) <= self._clock()):
            try:
                if self._counted.get(org, -1) < yesterday:
                    await count_days(self._lines, self._days, org, yesterday)
                    self._counted[org] = yesterday
                for day in range(yesterday - DAYS + 1, yesterday + 1):
                    await self._reconcile(org, day)
            except (StoreError, OSError) as error:
                log.warning("audit: the days of %s are not counted for now: %s", org, error)
            except Exception:  # one log must not keep the others, or the process, from theirs
                log.exception("audit: the days of %s cannot be counted; they are tried again in an hour", org)
                self._broken[org] = self._clock() + AGAIN_S
        if yesterday != self._pruned:
            await self._prune(yesterday - KEPT_DAYS)
            self._pruned = yesterday
        self._agreed = {key: seen for key, seen in self._agreed.items() if key[1] > yesterday - DAYS}
        self._looked = {key: at for key, at in self._looked.items() if key[1] > yesterday - DAYS}

    async def _prune(self, before: int) -> None:
        try:
            await self._days.prune(before)
        except StoreError as error:
            log.warning("audit: what was counted long ago stays for now: %s", error)

    async def _reconcile(self, org: OrgId, day: int) -> None:
        key, now = (org, day), self._clock()
        if self._agreed.get(key) or now < self._looked.get(key, 0) + AGAIN_S:
            return
        before = await self._days.verdict(org, day)
        if before is not None and not before.differences:
            self._agree(key)
            return
        if before is None and not await self._reconciler.served(org, day):
            self._agreed[key] = True  # nobody served anything: every entry there is would be of a lost worker
            return
        found = await self._reconciler.reconcile(org, day)
        self._looked[key] = now
        await self._days.judged(Verdict(org, day, found.differences), detail(found))
        self._show("orgate_audit_reconcile_difference", found.differences, org)
        if found.ok:
            self._agree(key)
            if before is not None:
                log.info("audit: %s: the figures of %s agree now", org, found.day)
            return
        log.error("audit: %s: the figures of %s do not agree: %s", org, found.day, "; ".join(found.faults))
        after = await self._days.verdict(org, day)
        if after is not None and not after.told and await self._tell(org, KIND, found.day, told(found)):
            await self._days.told(org, day)

    def _agree(self, key: tuple[OrgId, int]) -> None:
        self._agreed[key] = True
        if all(day <= key[1] for org, day in self._agreed if org == key[0]):
            self._show("orgate_audit_reconcile_difference", 0, key[0])


def detail(found: Reconciliation) -> dict[str, str | int | bool]:
    """Of the entry `audit.reconcile`."""
    return {
        "day": found.day,
        "ok": found.ok,
        "entries": found.entries.requests,
        "counted": found.counted.requests,
        "unreported": found.unreported.requests,
        "unknown": found.unknown,
        "budgets": len([one for one in found.budgets if not one.remark]),
        "differences": found.differences,
        **({"fault": found.faults[0]} if found.faults else {}),
    }


def told(found: Reconciliation) -> dict[str, Any]:
    """What the webhook is told: numbers and words, nothing of a request."""
    return {
        "day": found.day,
        "differences": found.differences,
        "entries": found.entries.requests,
        "counted": found.counted.requests,
        "faults": list(found.faults),
        "text": f"The audit log's figures of {found.day} do not agree: {'; '.join(found.faults)}.",
    }

"""Days of an organization's requests, over a real log and a real control store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gateway.audit.reader import LogReader
from gateway.audit.reconcile import Reconciliation
from gateway.audit.reconciler import SETTLED_S, Reconciler
from gateway.audit.sequencer import Sequencer
from gateway.audit.tallies import Tallies
from gateway.bus.messages import MetricsUp
from gateway.counters import Counters
from gateway.daily import DAY_S, DailyAudit
from gateway.exchange import Receipt, SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tenants.sql.auditdays import day_text
from tenants.sql.store import SqlControlStore
from tenants.store import Actor
from tests.fakes.audit import ACME, SIGNER, receipt

DAY = 20_412
MIDNIGHT_US = (DAY + 1) * 86_400_000_000
BOOT, OTHER = "b" * 32, "c" * 32
BY = Actor(ACME, "system")


class Clock:
    """Time that a test moves: Unix seconds, at first ten minutes and a bit after the day."""

    def __init__(self) -> None:
        self.seconds = (DAY + 1) * DAY_S + SETTLED_S + 1.0

    def now(self) -> float:
        return self.seconds

    def monotonic_us(self) -> int:
        return int(self.seconds * 1_000_000)


class Bed:
    """A log, a control store and two workers' counters. `gauges` and `told` are what the daily chore said."""

    def __init__(self, store: SqlControlStore, folder: Path, clock: Clock) -> None:
        self.store, self.clock, self.days = store, clock, store.audit_days
        self.sequencer = Sequencer(folder, SIGNER)
        self.reader = LogReader(self.sequencer)
        self.tallies = Tallies(self.days, clock.now)
        self.slept: list[float] = []
        self.gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []
        self.refuses = False
        self.counters = {BOOT: Counters(), OTHER: Counters()}
        self._seq = {BOOT: 0, OTHER: 0}
        self.reconciler = Reconciler(
            self.reader, self.days, self.tallies, clock=clock.now, day_text=day_text, sleep=self._sleep
        )
        self.daily = DailyAudit(
            self.reader,
            self.days,
            self.reconciler,
            orgs=lambda: self.sequencer.orgs,
            clock=clock.now,
            show=self._show,
            tell=self._tell,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _show(self, name: str, value: float, *labels: str) -> None:
        self.gauges[name, labels] = value

    async def _tell(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool:
        self.told.append((org, kind, key, data))
        return not self.refuses

    async def serve(self, *receipts: Receipt, boot: str = BOOT, logged: bool = True) -> None:
        """A worker's requests: counted, and unless a test withholds them, entries."""
        for one in receipts:
            self.counters[boot].observe(one)
            if logged:
                await self.log(one, boot=boot)

    async def log(self, *receipts: Receipt, boot: str = BOOT) -> None:
        first = self._seq[boot] + 1
        self._seq[boot] += len(receipts)
        spooled = tuple(SpooledReceipt(first + n, one) for n, one in enumerate(receipts))
        await self.sequencer.append_receipts(SpoolUp(boot, spooled))

    def report(self, boot: str = BOOT, *, last: bool = False) -> MetricsUp:
        said = self.counters[boot].message(boot, boot)
        self.tallies.take(boot, said.days, last=last)
        return said

    async def entries(self, action: str, org: OrgId = ACME) -> list[dict[str, Any]]:
        await self.sequencer.drain_once(self.store)
        found, _ = await self.reader.entries(org, limit=1000, action=action)
        return [dict(one) for one in found]

    async def reconcile(self) -> Reconciliation:
        return await self.reconciler.reconcile(ACME, DAY)


def served(
    count: int = 1, day: int = DAY, *, at_us: int = 0, org: OrgId = ACME, **changes: object
) -> list[Receipt]:
    """Requests that began on `day`, at its noon or `at_us`."""
    noon = day * 86_400_000_000 + 43_200_000_000
    fields: dict[str, object] = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "cost_nanodollars": 7,
        "sent": True,
        "total_us": 1_000_000,
        **changes,
    }
    return [receipt(n, org, at_us=at_us or noon + n, **fields) for n in range(count)]

"""Puts together what counts the days of audit logs: part of the composition root."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from gateway.alarms import Alarms
from gateway.audit.reader import LogReader
from gateway.audit.reconciler import Reconciler
from gateway.audit.sequencer import Sequencer
from gateway.audit.tallies import Tallies
from gateway.bus.messages import MetricsUp
from gateway.clock import Clock
from gateway.control_metrics import ControlMetrics
from gateway.daily import DailyAudit
from gateway.refusals import RefusalLog
from gateway.webhooks import Webhooks
from tenants.sql.auditdays import day_text
from tenants.sql.store import SqlControlStore


@dataclass(frozen=True, slots=True)
class DayParts:
    """`absorb` takes what workers report, in place of `ControlMetrics.absorb`; `work` runs beside the servers."""

    tallies: Tallies
    reconciler: Reconciler
    daily: DailyAudit
    refusals: RefusalLog
    metrics: ControlMetrics

    def absorb(self, message: MetricsUp) -> None:
        self.metrics.absorb(message)
        self.tallies.take(message.boot, message.days, last=message.last)
        self.refusals.take(message.boot, message.refused)

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self.tallies.run(), self.daily.run(), self.refusals.run()


def day_parts(
    store: SqlControlStore, sequencer: Sequencer, *, metrics: ControlMetrics, webhooks: Webhooks, clock: Clock
) -> DayParts:
    now: Callable[[], float] = clock.now
    lines, days = LogReader(sequencer), store.audit_days
    tallies = Tallies(days, now)
    reconciler = Reconciler(lines, days, tallies, clock=now, day_text=day_text)
    daily = DailyAudit(
        lines,
        days,
        reconciler,
        orgs=lambda: sequencer.orgs,
        clock=now,
        show=metrics.show,
        tell=Alarms(webhooks, clock).tell,
    )
    return DayParts(tallies, reconciler, daily, RefusalLog(store.refusals, now), metrics)

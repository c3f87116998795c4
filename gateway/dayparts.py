"""What the control process does with audit logs beside writing them: counts their days, and sends them on. Part of
the composition root."""

from __future__ import annotations

from collections.abc import Coroutine
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
from gateway.secrets.sealed import SealedFile, SealedStreams
from gateway.settings import Settings
from gateway.streaming.parts import streams_of
from gateway.streaming.streams import Streams
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
    streams: Streams
    stream_secrets: SealedStreams
    metrics: ControlMetrics

    def absorb(self, message: MetricsUp) -> None:
        self.metrics.absorb(message)
        self.tallies.take(message.boot, message.days, last=message.last)
        self.refusals.take(message.boot, message.refused)

    def work(self) -> tuple[Coroutine[Any, Any, None], ...]:
        return self.tallies.run(), self.daily.run(), self.refusals.run(), self.streams.run()


def day_parts(
    settings: Settings,
    store: SqlControlStore,
    sequencer: Sequencer,
    *,
    sealed: SealedFile,
    metrics: ControlMetrics,
    webhooks: Webhooks,
    clock: Clock,
) -> DayParts:
    lines, days = LogReader(sequencer), store.audit_days
    tallies = Tallies(days, clock.now)
    alarms = Alarms(webhooks, clock)
    reconciler = Reconciler(
        lines,
        days,
        tallies,
        clock=clock.now,
        day_text=day_text,
        shared=settings.limits.store == "redis",
    )
    daily = DailyAudit(
        lines,
        days,
        reconciler,
        orgs=lambda: sequencer.orgs,
        clock=clock.now,
        show=metrics.show,
        tell=alarms.tell,
    )
    secrets = SealedStreams(sealed)
    streams = streams_of(settings, store, lines, secrets=secrets, metrics=metrics, tell=alarms.tell, clock=clock)
    refusals = RefusalLog(store.refusals, clock.now)
    return DayParts(tallies, reconciler, daily, refusals, streams, secrets, metrics)

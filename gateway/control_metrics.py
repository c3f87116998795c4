"""The control process's metrics: what workers report, what it counts itself, and when keys were last used."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from gateway.bus.messages import MetricsUp
from gateway.metrics import Counters, Metrics
from gateway.secrets.last_used import LastUsed
from tenants.ids import OrgId


class ControlMetrics(Metrics):
    """`clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._own = Counters()
        self._boot = secrets.token_hex(16)
        self.last_used = LastUsed(clock)

    def absorb(self, message: MetricsUp) -> None:
        super().absorb(message)
        self.last_used.note(message.boot, message.counters)

    def count_rotation(self, org: OrgId, upstream: str, outcome: str) -> None:
        """A rotation of an upstream's key has ended."""
        self._count("orgate_key_rotations_total", org, upstream, outcome)

    def count_threshold(self, org: OrgId, limit: str, percent: int) -> None:
        """So many percent of a budget are used."""
        self._count("orgate_limit_thresholds_total", org, limit, str(percent))

    def count_attempt(self, org: OrgId, outcome: str) -> None:
        """A webhook was told something, or was not."""
        self._count("orgate_webhook_attempts_total", org, outcome)

    def _count(self, name: str, *labels: str) -> None:
        self._own.add(name, labels)
        super().absorb(self._own.message("control", self._boot))

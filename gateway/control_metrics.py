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
        self._own.add("orgate_key_rotations_total", (org, upstream, outcome))
        super().absorb(self._own.message("control", self._boot))

"""The control process's metrics: what workers report, what it counts itself, and when keys were last used."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

from gateway.bus.hub import Hub
from gateway.bus.messages import MetricsUp
from gateway.clock import Clock
from gateway.counters import Counters
from gateway.metric_families import Key
from gateway.metrics import Metrics
from gateway.secrets.last_used import LastUsed
from tenants.ids import OrgId


def control_metrics(hub: Hub, clock: Clock) -> ControlMetrics:
    """Made, and told of workers that leave."""
    made = ControlMetrics(clock.now)
    hub.on_leave(made.last_used.left)
    return made


class ControlMetrics(Metrics):
    """`clock`: Unix seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._own = Counters()
        self._boot = secrets.token_hex(16)
        self._standing: dict[Key, float] = {}
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

    def count_witness(self, witness: str, outcome: str) -> None:
        """A witness of the settings was shown a checkpoint."""
        self._count("orgate_audit_witness_attempts_total", witness, outcome)

    def count_publication(self, place: str, outcome: str) -> None:
        """A checkpoint was published in a place of the settings, or was not."""
        self._count("orgate_audit_publications_total", place, outcome)

    def count_stream(self, org: OrgId, kind: str, entries: int) -> None:
        """A batch of a stream arrived; 0: an attempt failed."""
        if entries:
            self._own.add("orgate_audit_stream_entries_total", (org, kind), entries - 1)
            self._count("orgate_audit_stream_entries_total", org, kind)
        else:
            self._count("orgate_audit_stream_failures_total", org, kind)

    def show(self, name: str, value: float, *labels: str) -> None:
        """A gauge of the control process's own: it stands until it is shown anew, or `hide`."""
        self._standing[name, labels] = value

    def hide(self, name: str, *labels: str) -> None:
        """Its labels are gone."""
        self._standing.pop((name, labels), None)

    def _of_this_moment(self) -> Iterator[tuple[Key, float]]:
        yield from super()._of_this_moment()
        yield from self._standing.items()

    def _count(self, name: str, *labels: str) -> None:
        self._own.add(name, labels)
        super().absorb(self._own.message("control", self._boot))

"""What a worker's connections to upstreams add to its counters, each time these are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from gateway.bus.messages import MetricsUp
from gateway.counters import OTHER, Counters
from gateway.upstream.gauges import Gauges, growing, of_this_moment
from tenants.ids import OrgId

Samples = tuple[tuple[str, tuple[str, ...], float], ...]

UPSTREAMS_MAX: Final = 1_000
"""Names that a worker's counters tell apart, for each organization by itself: what they counted stays, so an
organization that makes and deletes upstreams without end would fill every worker and every report."""


class WorkerCounters(Counters):
    """`upstreams`: the gauges that are there now. What they counted stays when an upstream is deleted, but for
    what was counted since the last report."""

    __slots__ = ("_names", "_seen", "_upstreams")

    def __init__(self, upstreams: Callable[[], Iterable[tuple[OrgId, str, Gauges]]]) -> None:
        super().__init__()
        self._upstreams = upstreams
        self._names: dict[OrgId, set[str]] = {}
        self._seen: dict[tuple[OrgId, str], tuple[Gauges, dict[tuple[str, tuple[str, ...]], float]]] = {}

    def message(self, worker: str, boot: str, gauges: Samples = ()) -> MetricsUp:
        now = self._collect()
        return super().message(worker, boot, (*gauges, *now))

    def _collect(self) -> Samples:
        """Add what has grown since the last time; returns the values of this moment."""
        now: list[tuple[str, tuple[str, ...], float]] = []
        before, self._seen = self._seen, {}
        for org, upstream, gauges in self._upstreams():
            known, last = before.get((org, upstream), (None, {}))
            if known is not gauges:
                last = {}  # made anew under the same name: it counts from nothing
            for name, labels, value in growing(gauges):
                more = value - last.get((name, labels), 0)
                if more:
                    self.add(name, (org, self._name(org, upstream), *labels), more)
                    last[name, labels] = value
            self._seen[org, upstream] = (gauges, last)
            now += [(name, (org, upstream, *labels), value) for name, labels, value in of_this_moment(gauges)]
        return tuple(now)

    def _name(self, org: OrgId, upstream: str) -> str:
        known = self._names.setdefault(org, set())
        if upstream not in known:
            if len(known) >= UPSTREAMS_MAX:
                return OTHER
            known.add(upstream)
        return upstream

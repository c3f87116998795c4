"""What a metrics function may read: plain numbers, one set for each upstream of each organization."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from policies.lanes import LANE_NAMES


def _by_lane() -> list[float]:
    return [0] * len(LANE_NAMES)


@dataclass(slots=True)
class Gauges:
    """`connections`, `streams`, `waiting`, `queue` are of this moment; the others only ever grow.

    `resets_sent`: streams the gateway gave up (over HTTP/1.1: connections cut for that reason);
    `resets_received`: streams the upstream broke off; `refused`: requests it declined to process; `replaced`:
    connections that were given up for their age or their resets.

    By lane: `queue`, requests that wait for a stream or a connection; `queued`, how many have got one after
    waiting; `queued_s`, seconds that they waited; `shed`, requests refused because too many waited; `expired`,
    requests whose time ended while they waited.
    """

    connections: int = 0
    streams: int = 0
    waiting: int = 0
    requests: int = 0
    handshakes: int = 0
    dial_failures: int = 0
    resets_sent: int = 0
    resets_received: int = 0
    refused: int = 0
    timeouts: int = 0
    replaced: int = 0
    queue: list[float] = field(default_factory=_by_lane)
    queued: list[float] = field(default_factory=_by_lane)
    queued_s: list[float] = field(default_factory=_by_lane)
    shed: list[float] = field(default_factory=_by_lane)
    expired: list[float] = field(default_factory=_by_lane)


Sample = tuple[str, tuple[str, ...], float]
"""A metric's name, the values of its labels after `org` and `upstream`, its value."""


def of_this_moment(gauges: Gauges) -> Iterator[Sample]:
    """What rises and falls: Prometheus' gauges."""
    yield "orgate_upstream_connections", (), gauges.connections
    yield "orgate_upstream_streams", (), gauges.streams
    for lane, waiting in zip(LANE_NAMES, gauges.queue, strict=True):
        yield "orgate_upstream_queue", (lane,), waiting


def growing(gauges: Gauges) -> Iterator[Sample]:
    """What only grows: Prometheus' counters."""
    yield "orgate_upstream_requests_total", (), gauges.requests
    yield "orgate_upstream_handshakes_total", (), gauges.handshakes
    yield "orgate_upstream_dial_failures_total", (), gauges.dial_failures
    yield "orgate_upstream_replaced_total", (), gauges.replaced
    yield "orgate_upstream_resets_total", ("sent",), gauges.resets_sent
    yield "orgate_upstream_resets_total", ("received",), gauges.resets_received
    yield "orgate_upstream_refused_total", (), gauges.refused
    yield "orgate_upstream_timeouts_total", (), gauges.timeouts
    for name, values in (
        ("orgate_upstream_queued_total", gauges.queued),
        ("orgate_upstream_queued_seconds_total", gauges.queued_s),
        ("orgate_upstream_shed_total", gauges.shed),
        ("orgate_upstream_expired_total", gauges.expired),
    ):
        for lane, value in zip(LANE_NAMES, values, strict=True):
            yield name, (lane,), value

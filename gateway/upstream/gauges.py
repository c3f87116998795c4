"""What a metrics function may read: plain integers, one set for each upstream of each organization."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Gauges:
    """`connections`, `streams`, `waiting` are of this moment; the others only ever grow.

    `resets_sent`: streams the gateway gave up (over HTTP/1.1: connections cut for that reason);
    `resets_received`: streams the upstream broke off; `refused`: requests it declined to process.
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

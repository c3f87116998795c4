"""The messages of the bus, JSON. Down: one per line on a stream that stays open. Up: bodies of posts.

`GET /bus/v1/stream?worker=<id>` begins with a full `DeltaDown`, then deltas, resets, and a `Beat` every
250 ms so that a worker notices within a second that it has lost touch.
"""

from __future__ import annotations

from msgspec import Struct

from gateway.exchange import Claim, SpoolAck, SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tenants.snapshot import Delta

__all__ = [
    "AckUp",
    "Beat",
    "DeltaDown",
    "Down",
    "MetricsUp",
    "ResetDown",
    "SliceAsk",
    "SpoolAck",  # answers `POST /bus/v1/spool`, whose body is a `SpoolUp`
    "SpoolUp",
    "SpooledReceipt",
]


class DeltaDown(Struct, frozen=True, tag="delta"):
    delta: Delta


class ResetDown(Struct, frozen=True, tag="reset"):
    """End the streams in flight of `org`, or of one `member` of it, and reset them upstream."""

    org: OrgId
    member: str = ""


class Beat(Struct, frozen=True, tag="beat"):
    version: int


Down = DeltaDown | ResetDown | Beat


class AckUp(Struct, frozen=True):
    """`POST /bus/v1/ack`: this worker serves `version` now."""

    worker: str
    version: int


class SliceAsk(Struct, frozen=True):
    """Take `claims` (one atomic unit each) and, where there is plenty, more to spend locally.

    `returned` gives unused parts of earlier slices back: (bucket key parts, amount).
    """

    worker: str
    claims: tuple[Claim, ...]


class MetricsUp(Struct, frozen=True):
    """`POST /bus/v1/metrics`: cumulative counters of one worker since its boot, by (name, label values)."""

    worker: str
    boot: str
    counters: tuple[tuple[str, tuple[str, ...], float], ...]

"""The messages of the bus, JSON. Down: one per line on a stream that stays open. Up: bodies of posts.

`GET /bus/v1/stream?worker=<id>` begins with a full `DeltaDown`, then deltas, resets, and a `Beat` every
250 ms so that a worker notices within a second that it has lost touch. What `POST /bus/v1/slices` carries is
the limits' own (`gateway.limits.protocol`).
"""

from __future__ import annotations

from msgspec import Struct

from gateway.exchange import SpoolAck, SpooledReceipt, SpoolUp
from tenants.ids import OrgId
from tenants.snapshot import Delta

STREAM = "/bus/v1/stream"
ACK = "/bus/v1/ack"
SPOOL = "/bus/v1/spool"
SLICES = "/bus/v1/slices"
METRICS = "/bus/v1/metrics"
REFUSED = "/bus/v1/refused"
KEY_USES = "/bus/v1/key-uses"
PROMPT_KEY = "/bus/v1/prompt-key"

BEAT_S = 0.25
"""How long the stream is silent at most."""

TOUCH_S = 1.0
"""Silent for longer: out of touch. Unacknowledged for longer: fenced."""

__all__ = [
    "ACK",
    "BEAT_S",
    "KEY_USES",
    "METRICS",
    "PROMPT_KEY",
    "REFUSED",
    "SLICES",
    "SPOOL",
    "STREAM",
    "TOUCH_S",
    "AckUp",
    "Beat",
    "DeltaDown",
    "Down",
    "KeyUsesUp",
    "MetricsUp",
    "PromptKey",
    "PromptKeyAsk",
    "RefusedUp",
    "ResetDown",
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


class RefusedUp(Struct, frozen=True):
    """`POST /bus/v1/refused`: the upstream answered 401 or 403 to this version of its key, as the store counts."""

    worker: str
    org: OrgId
    upstream: str
    version: int


class KeyUsesUp(Struct, frozen=True):
    """`POST /bus/v1/key-uses`: personal tokens that this worker has seen, by organization and id, and when: to the
    minute, Unix seconds. Saying it again changes nothing."""

    worker: str
    uses: tuple[tuple[OrgId, str, int], ...]


class PromptKeyAsk(Struct, frozen=True):
    """`POST /bus/v1/prompt-key`: with what are the prompts of this organization hashed for its audit log?"""

    org: OrgId


class PromptKey(Struct, frozen=True):
    """The answer: the key itself. Of a worker, which sees every prompt, it is no secret."""

    key: bytes

    def __repr__(self) -> str:
        return "PromptKey(…)"


class MetricsUp(Struct, frozen=True):
    """`POST /bus/v1/metrics`: cumulative counters of one worker since its boot, by (name, label values), and
    `gauges`, its values of this moment. `days`: of the last UTC days (since 1970-01-01), for each organization:
    requests that began then and have ended, prompt tokens, completion tokens, nanodollars. `last`: the worker has
    settled everything and ends. `refused`: of the last minutes (since 1970-01-01), requests refused before anybody
    knew whose they were, by status and code."""

    worker: str
    boot: str
    counters: tuple[tuple[str, tuple[str, ...], float], ...]
    gauges: tuple[tuple[str, tuple[str, ...], float], ...] = ()
    days: tuple[tuple[OrgId, int, int, int, int, int], ...] = ()
    last: bool = False
    refused: tuple[tuple[int, int, str, int], ...] = ()

"""Bounds the frames that a peer may send without end and at no cost to itself."""

from __future__ import annotations

from gateway.upstream.frames import Code, Http2Error

BURST = 1_000.0
PER_S = 100.0


class Noise:
    """Counts what floods are made of: PING, SETTINGS, RST_STREAM, WINDOW_UPDATE, PRIORITY, empty DATA, interim
    heads and frames of unknown types.

    A bucket: `BURST` at once, `PER_S` in the long run; what we send ourselves makes room, because
    it is what an honest peer answers with such frames. The clock is asked only when the bucket is full.
    """

    __slots__ = ("level", "since")

    def __init__(self, now: float) -> None:
        self.level = 0.0
        self.since = now

    def quiet(self, amount: float) -> None:
        if self.level:
            self.level = max(0.0, self.level - amount)

    def add(self, amount: float, now: float) -> None:
        """Raises `Http2Error` (ENHANCE_YOUR_CALM) when it is too much."""
        self.level += amount
        if self.level > BURST:
            self.level = max(amount, self.level - (now - self.since) * PER_S)
            self.since = now
            if self.level > BURST:
                raise Http2Error(Code.ENHANCE_YOUR_CALM, "too many frames that carry nothing")

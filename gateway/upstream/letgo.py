"""Tells a peer's late frames from breaches, once a stream is over on our side (RFC 9113 section 5.1)."""

from __future__ import annotations

from gateway.upstream.frames import Code, Http2Error

KEPT = 1_000
"""Streams we have let go of which late frames are told from breaches. What is older gets the benefit of doubt."""
LATE_HEADS = 4


class LetGo:
    """Streams of one connection that we reset, or let go without a word: the peer may not know of it yet."""

    __slots__ = ("_forgotten", "_heads")

    def __init__(self) -> None:
        self._heads: dict[int, int] = {}
        """Stream id → heads that came late; oldest first."""
        self._forgotten = 0
        """The highest stream id that was dropped from `_heads`."""

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, stream_id: int) -> None:
        kept = self._heads
        kept[stream_id] = 0
        if len(kept) > KEPT:
            oldest = next(iter(kept))
            del kept[oldest]
            self._forgotten = max(self._forgotten, oldest)

    def late(self, stream_id: int, heads: int) -> float:
        """DATA or so many heads on a stream that is over: how much noise that is.

        Raises `Http2Error` (STREAM_CLOSED) when it was the peer who had ended it.
        """
        before = self._heads.get(stream_id)
        if before is not None:
            if heads:
                self._heads[stream_id] = before + heads
                if before >= LATE_HEADS:
                    return 10.0
            return 0.0
        if stream_id > self._forgotten:
            raise Http2Error(Code.STREAM_CLOSED, "more on a stream that the peer had ended")
        return float(heads)

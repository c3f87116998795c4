"""What sends batches to one receiver."""

from __future__ import annotations

from typing import Final, Protocol

from gateway.streaming.batch import Batch

TIMEOUT_S: Final = 30.0
"""For a batch, from the name to the answer."""


class SendError(Exception):
    """It did not arrive, as far as anybody knows. Says why in words that may be shown: none of them is the
    receiver's. `wait_s`: how long the receiver wants to be left alone; `too_large`: less at once may pass."""

    def __init__(self, message: str, *, wait_s: float = 0.0, too_large: bool = False) -> None:
        super().__init__(message)
        self.wait_s = wait_s
        self.too_large = too_large


class Sender(Protocol):
    """One receiver of one stream. Calls come one at a time; after a `SendError` the next one begins afresh.

    `certain`: what `send` returned from is with the receiver for good, for it said so. Otherwise it may be lost
    with the connection: `send` raises when the one that was used last has broken since, `alive` says whether it
    has.
    """

    certain: bool
    most: int
    """Entries in one batch."""
    most_bytes: int
    gather_s: float
    """How long to wait for more entries before less than `most` are sent."""

    async def send(self, batch: Batch) -> int:
        """Send all of it; how many the receiver took note of and did not want. Raises `SendError`."""

    async def alive(self) -> bool:
        """Whether the connection that `send` used last still stands: for what is not `certain`."""

    async def aclose(self) -> None:
        """Let go of connections."""

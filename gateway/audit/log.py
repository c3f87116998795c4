"""What the rest of the gateway knows of the audit log."""

from __future__ import annotations

from typing import Protocol

from gateway.exchange import Receipt


class ReceiptSink(Protocol):
    """Where stage 8 puts a receipt; a worker's own, written by one loop.

    When `append` returns, the entry survives kill -9 of the worker (it is in the kernel's page cache, group
    fsync follows within 50 ms). It never blocks and never fails while `ready` said yes at admission: room for
    every admitted request is allocated on disk beforehand. Each receipt becomes exactly one entry.
    """

    def admit(self) -> None:
        """Set room aside for one entry. Raises `UnavailableError` when the disk has no reserve left."""

    def append(self, receipt: Receipt) -> None:
        """Use the room that one `admit` set aside. Synchronous: settling cannot be cancelled."""

"""What a worker has admitted and not settled yet, on disk: an intent each, in a slot of a preallocated file.

`<spools>/<boot>/intents` is slots of INTENT_MAX bytes. Slot 0 says up to which number the worker's receipts are
entries whose intents are gone. Each other slot holds one record (`gateway.audit.record`).

Slots, and not records among the receipts: an intent that stays open for an hour holds nothing up and is never
copied. What a crash leaves at each step of an intent:

1. `put`     one pwrite of the slot. kill -9 before: no request was served. After: recovery finds it.
2. `secure`  fdatasync, for organizations that ask for it (`strict`): before a byte goes upstream. Everybody's
             are synced together, and with each group of receipts anyhow.
3. the receipt is appended to a segment, and names the intent's number. kill -9 from here on: recovery finds
             both, and takes the receipt.
4. `settle`  the slot becomes free once the receipt is synced: before, a power cut could take the receipt and
             leave the slot to somebody else's intent.
5. `put` or `wipe`  another intent or zeros stand there. `wipe` is durable before any receipt is destroyed, so
             whatever the crash: an intent whose receipt is gone is gone too.
6. `reach`   slot 0 says so, and never before: a wipe that the disk took in part would leave intents of receipts
             that are entries below a number that vouches for them.
"""

from __future__ import annotations

import asyncio
import os
import threading
from binascii import crc32
from collections import deque
from errno import EIO
from pathlib import Path
from struct import Struct as Packer

from gateway.audit.disk import Disk, sync_folder
from gateway.audit.record import INTENT_MAX, decode_intent, encode_intent
from gateway.exchange import Intent

NAME = "intents"
SLOTS = 256
"""The file grows by so many when all are taken."""
SLOTS_MAX = 65_536

_BASE = Packer(">IQ")  # CRC-32 of the number, and the number


class FullError(OSError):
    """All slots there may be are taken."""


class Intents:
    """Owned by one event loop, but for `sync`, which any thread may call."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        """Make the file in `folder`, which is there. Raises OSError."""
        self.stale = False
        """Whether intents may stand in the file whose slots are free."""
        self.base = 0
        """What `reach` wrote last."""
        self._disk = disk
        self._last = 0
        self._slots = 1
        self._used = 1  # slots from here on are zeros
        self._free: list[int] = []
        self._images: dict[int, bytes] = {}  # slot → what must stand there
        self._places: dict[int, int] = {}  # number → slot, of the intents that are open
        self._settled: deque[tuple[int, int]] = deque()  # receipts that may not be synced yet, and their slots
        self._dirty = False
        self._faults = 0  # what the disk refused the loop,
        self._syncs_failed = 0  # and what `sync`,
        self._mended = (0, 0)  # and of both how many the file was written afresh after
        self._synced = threading.Lock()
        self._waiters: list[asyncio.Future[None]] = []
        self._group: asyncio.Task[None] | None = None
        self._fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            self._grow()
            sync_folder(folder)
        except OSError:
            os.close(self._fd)
            (folder / NAME).unlink()
            raise

    @property
    def doubtful(self) -> bool:
        """Whether the disk refused something, so that the file may not hold what it should: `wipe` mends it."""
        return self._mended != (self._faults, self._syncs_failed)

    def make_room(self) -> None:
        """Have a slot for the next `put`. Raises `FullError`, OSError (ENOSPC)."""
        if not self._free:
            self._grow()

    def put(self, intent: Intent) -> int:
        """Write an intent; returns its number, rising from 1. Raises OSError: then it is none."""
        self.make_room()
        slot = self._free.pop()
        if slot >= self._used:
            self._used = slot + 1
        self._last += 1
        self._images[slot] = _image(self._last, intent)
        try:
            self._write(slot)
        except OSError:
            self._images[slot] = bytes(INTENT_MAX)
            self._settled.append((0, slot))
            raise
        self._places[self._last] = slot
        return self._last

    def rewrite(self, number: int, intent: Intent) -> None:
        """Say more of an open intent. Raises OSError: then it may stand there as before."""
        slot = self._places[number]
        self._images[slot] = _image(number, intent)
        self._write(slot)

    def settle(self, number: int, seq: int) -> None:
        """Its receipt is appended, with `seq`, rising. Raises KeyError for a number that is not open."""
        self._settled.append((seq, self._places.pop(number)))

    def free(self, upto: int) -> None:
        """Receipts up to `upto` are synced, or entries: no crash can take them any more."""
        while self._settled and self._settled[0][0] <= upto:
            slot = self._settled.popleft()[1]
            del self._images[slot]
            self._free.append(slot)
            self.stale = True

    def wipe(self) -> None:
        """Leave the intents that are open and nothing of others.

        Nothing to do is done fast. Raises OSError. Durable with the next `sync`; one that fails meanwhile, in its
        thread, leaves it in doubt.
        """
        if not (self.stale or self.doubtful):
            return
        faults = self._faults, self._syncs_failed
        # Zeros that were written before, and dropped by a sync that failed, are written again.
        used = self._slots if self.doubtful else self._used
        data = bytearray((used - 1) * INTENT_MAX)
        for slot, image in self._images.items():
            data[(slot - 1) * INTENT_MAX : slot * INTENT_MAX] = image
        self.stale = True
        try:
            self._disk.write(self._fd, bytes(data), INTENT_MAX)
        finally:
            self._dirty = True
        self.stale = False
        self._mended = faults
        self._used = max(self._images, default=0) + 1

    def reach(self, base: int) -> None:
        """All receipts up to `base` are entries, and their intents are gone for good: wiped, and synced since.

        Not synced itself: an older number makes recovery look for what it need not. Raises OSError.
        """
        if base > self.base:
            self._disk.write(self._fd, _BASE.pack(crc32(base.to_bytes(8)), base), 0)
            self.base = base

    def sync(self) -> None:
        """Everything written is on storage when it returns. Raises OSError: then what was written is in doubt,
        and it goes on to raise until `wipe` has written all afresh, for a later sync says nothing of it."""
        with self._synced:
            if self.doubtful:
                raise OSError(EIO, os.strerror(EIO))
            if not self._dirty:
                return
            self._dirty = False
            try:
                self._disk.sync(self._fd)
            except OSError:
                self._syncs_failed += 1
                raise

    async def secure(self) -> None:
        """What `sync` does, for many who wait together: whoever comes while a sync runs is in the next one.

        Cancelled: the others wait on.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        if self._group is None:
            self._group = asyncio.create_task(self._sync_groups())
        await waiter

    async def aclose(self) -> None:
        """Nothing is open any more. A sync of somebody who was cancelled may still run."""
        if self._group is not None:
            await self._group
        os.close(self._fd)

    async def _sync_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiters:
            group, self._waiters = self._waiters, []
            fault = None
            try:
                await loop.run_in_executor(None, self.sync)
            except OSError as error:
                fault = error
            for waiter in group:
                if waiter.done():
                    continue
                if fault is None:
                    waiter.set_result(None)
                else:
                    waiter.set_exception(fault)
        self._group = None

    def _write(self, slot: int) -> None:
        try:
            self._disk.write(self._fd, self._images[slot], slot * INTENT_MAX)
        except OSError:
            self._faults += 1
            raise
        finally:
            self._dirty = True  # said before, a sync that ends before the write would take it back

    def _grow(self) -> None:
        """More slots, written and synced: a sync of one of them has no allocation to make durable. Rare."""
        if self._slots > SLOTS_MAX:
            raise FullError(EIO, "all slots are taken")
        begin = self._slots if self._slots > 1 else 0
        self._disk.allocate(self._fd, (self._slots + SLOTS) * INTENT_MAX)
        self._disk.write(self._fd, bytes((self._slots + SLOTS - begin) * INTENT_MAX), begin * INTENT_MAX)
        with self._synced:  # a kernel says once that it failed: not beside somebody who would not hear it
            try:
                self._disk.sync(self._fd)
            except OSError:
                self._faults += 1
                raise
        self._free += reversed(range(self._slots, self._slots + SLOTS))
        self._slots += SLOTS


def _image(number: int, intent: Intent) -> bytes:
    """All of a slot: nothing of the intent before is left behind this one."""
    return encode_intent(number, intent).ljust(INTENT_MAX, b"\0")


def read(folder: Path) -> tuple[int, dict[int, Intent]]:
    """What a dead worker left: up to which number its receipts are entries whose intents are gone, and its
    intents by number, rising.

    Some of them may have receipts. A slot that is not whole was never told of.
    """
    try:
        data = (folder / NAME).read_bytes()
    except FileNotFoundError:  # a spool of the release before this file
        return 0, {}
    base = 0
    if len(data) >= INTENT_MAX:
        crc, number = _BASE.unpack_from(data)
        base = number if crc == crc32(number.to_bytes(8)) else 0
    whole = [decode_intent(data, at) for at in range(INTENT_MAX, len(data), INTENT_MAX)]
    return base, dict(sorted(found for found in whole if found))

"""A worker's write-ahead spool: where receipts wait, on disk, until the sequencer has made them entries.

Order of events for one request, and what a crash leaves behind at each:

1. `admit`    room for its receipt is set aside in preallocated segments, and its intent written
              (`gateway.audit.intents`). Crash before: nothing, no request was served. kill -9 from here on:
              `recover` finds the intent, and makes it an entry with the outcome `unknown`.
2. `secure`   where the organization is `strict`, the intent is synced before anything goes upstream. Power cut
              from here on: as above. Others' intents are synced with the next group.
3. `append`   one pwrite of the receipt into the page cache. kill -9 from here on: the receipt is there, `recover`
              drains it and leaves its intent out. Power cut before 4: it is lost with the (at most `fsync_ms` old)
              rest of the group, and its intent stands for it if that was synced.
4. sync       group fdatasync in a thread. Power cut from here on: the receipt is there. Its intent's slot is free.
5. send       the sequencer syncs the entry and acknowledges. Crash before the receipt is destroyed: it is sent
              again and known by (boot, seq).
6. wipe       intents that are settled are wiped, and that is synced; then the number is written up to which all
              are entries. Crash: receipts without intents, which are repeats.
7. remove     a segment whose receipts are all acknowledged is deleted; the one in use is wiped and begun anew as
              soon as nothing waits: a receipt names its member, who may have to be erased. Power cut right then:
              old receipts come back whole or torn, and are known as repeats.

Open intents hold nothing up: a stream of an hour keeps its slot, and segments come and go.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from errno import EIO
from pathlib import Path

from gateway.audit.disk import Disk
from gateway.audit.intents import FullError, Intents
from gateway.audit.log import Send
from gateway.audit.record import RECORD_MAX, decode, fitted
from gateway.audit.segments import Segment, make_folder, remove_folder
from gateway.errors import UnavailableError
from gateway.exchange import Intent, Receipt, SpooledReceipt, SpoolUp

log = logging.getLogger(__name__)

BATCH_BYTES = 256 * 1024
RECENT_BYTES = 256 * 1024
"""Records whose receipts are kept in memory too, to be sent from there while the sequencer keeps up."""
RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)


class Spool:
    """Implements `ReceiptSink`. Owned by one event loop; only syncs and allocations leave it for a thread.

    `folder` holds the spools of all workers, `boot` names this one: never used before, 16 or more random
    characters. `size` is one segment in bytes; at most `segments_max` of them are allocated, then new work is
    refused until the sequencer is back. `fsync_ms` is the longest that
    a record waits to be synced and sent.
    """

    def __init__(
        self,
        folder: Path,
        boot: str,
        size: int,
        fsync_ms: int,
        *,
        disk: Disk | None = None,
        segments_max: int = 32,
    ) -> None:
        """Make the folder and the first segment. Raises OSError when not even that fits the disk."""
        if size < RECORD_MAX:
            raise ValueError(f"a segment has room for one record at least: {RECORD_MAX} bytes")
        self.boot = boot
        self._folder, self._lock = make_folder(folder, boot)
        self._size = size
        self._fsync_s = fsync_ms / 1000
        self._disk = disk or Disk()
        self._segments_max = segments_max
        self._numbers = 0
        self._seq = 0
        self._acked = 0
        self._reserved = 0
        self._sure = 0  # so many more are admitted without looking
        self._segments: deque[Segment] = deque()  # the forwarder reads [0], `append` writes [_at]
        self._at = 0
        self._recent: deque[tuple[SpooledReceipt, Segment, int, int]] = deque()  # the newest: end and size of each
        self._recent_bytes = 0
        self._stuck: dict[tuple[int, int], bytes] = {}  # (segment, offset) → a record that a write refused
        self._fault = ""
        self._fault_seq = 0
        self._written = asyncio.Event()
        self._unsynced: set[Segment] = set()
        self._doubtful: set[Segment] = set()  # a sync of them failed: they may have gaps, whatever later ones say
        self._stopping = False
        self._segments.append(self._allocate())
        self._intents = Intents(self._folder, self._disk)

    @property
    def pending(self) -> int:
        """Receipts that are not known to be entries yet."""
        return self._seq - self._acked

    @property
    def healthy(self) -> bool:
        return not self._fault

    # -- the request path: no await unless asked to be strict, no system call but two pwrites -----------------

    def admit(self, intent: Intent) -> int:
        """Set room aside for one entry and write down who asks. Returns the intent's number.

        Raises `UnavailableError`; allocates when the thread has not yet.
        """
        if self._stopping:
            raise UnavailableError("the gateway is shutting down", retry_after_s=1)
        if self._fault:
            raise UnavailableError(f"the audit log cannot be written ({self._fault})", retry_after_s=5)
        try:
            if self._sure <= 0:
                self._make_room()
            self._intents.make_room()
        except FullError:
            raise UnavailableError("the audit log's spool is full", retry_after_s=5) from None
        except OSError as error:
            if self._intents.doubtful:
                raise self._failed(error) from None
            raise UnavailableError(
                f"the audit log has no reserve on disk ({error.strerror})", retry_after_s=5
            ) from None
        try:
            number = self._intents.put(intent)
        except OSError as error:
            raise self._failed(error) from None
        self._reserved += 1
        self._sure -= 1
        if not self._written.is_set():
            self._written.set()
        return number

    async def secure(self, number: int, intent: Intent) -> None:
        """Have an intent on stable storage, with what is known by now. Raises `UnavailableError`: it may not be.

        Many who wait at a time share a sync. Cancelled: the request settles as ever.
        """
        try:
            self._intents.rewrite(number, intent)
            await self._intents.secure()
        except OSError as error:
            raise self._failed(error) from None

    def append(self, receipt: Receipt, number: int) -> None:
        """Use the room that `admit` set aside with the intent `number`.

        Should the disk refuse even an allocated write, the record stays in memory, is sent from there and
        written again later, and `admit` says no until it is safe: the request at hand has been served.
        """
        try:
            self._intents.settle(number, self._seq + 1)
        except KeyError:
            raise RuntimeError("append without admit: no room was set aside for this receipt") from None
        self._seq += 1
        self._reserved -= 1
        spooled, record = fitted(SpooledReceipt(self._seq, receipt, number))
        segment = self._segments[self._at]
        if segment.sealed or segment.size - segment.end < len(record):
            segment.sealed = True
            self._at += 1
            segment = self._segments[self._at]
        try:
            if self._stuck:  # behind a record that is not on disk yet: what recovery reads has no holes
                self._stuck[segment.number, segment.end] = record
            else:
                self._disk.write(segment.fd, record, segment.end)
        except OSError as error:
            self._stuck[segment.number, segment.end] = record
            self._fail(error)
        segment.end += len(record)
        self._recent_bytes += len(record)
        if self._recent_bytes > RECENT_BYTES:  # the sequencer is slow: read back from disk until it has caught up
            self._recent.clear()
            self._recent_bytes = 0
        else:
            self._recent.append((spooled, segment, segment.end, len(record)))
        self._unsynced.add(segment)
        if not self._written.is_set():
            self._written.set()

    def _make_room(self) -> None:
        """Count how many more may be admitted for certain: behind the segment in use all are empty. Raises
        `UnavailableError`, OSError.

        A receipt takes no more than was set aside for it, so none of these is lost until it is used.
        """
        behind = len(self._segments) - self._at - 1
        room = self._segments[self._at].room + behind * (self._size // RECORD_MAX)
        if room <= self._reserved:
            if len(self._segments) >= self._segments_max:
                raise UnavailableError("the audit log's spool is full", retry_after_s=5)
            self._segments.append(self._allocate())
            room += self._size // RECORD_MAX
        self._sure = room - self._reserved

    def _allocate(self) -> Segment:
        self._numbers += 1
        return Segment(self._folder, self._numbers, self._size, self._disk)

    def _fail(self, error: OSError) -> None:
        self._fault = error.strerror or "input/output error"
        self._fault_seq = self._seq
        self._written.set()
        log.error("audit spool: %s; new requests are refused until it is writable again", self._fault)

    def _failed(self, error: OSError) -> UnavailableError:
        self._fail(error)
        return UnavailableError(f"the audit log cannot be written ({self._fault})", retry_after_s=5)

    # -- beside it ------------------------------------------------------------------------------------------

    async def run(self, send: Send) -> None:
        """Sync and forward until `stop`; then until every admitted request has settled and everything is
        sent, and the folder is removed.

        One cadence for both: each round waits `fsync_ms` for receipts to gather, so that a busy worker makes
        one sync and one post of many. Cancelled: what is on disk stays for `recover`.
        """
        attempt = 0
        while self.pending or self._reserved or not self._stopping:
            if not self.pending and not self._fault:
                await self._written.wait()
            self._written.clear()
            if not self._stopping:
                await asyncio.sleep(self._fsync_s)
            await self._sync()
            await self._keep_a_spare()
            if await self._forward(send):
                attempt = 0
            elif self.pending or self._fault:
                await asyncio.sleep(RETRY_S[min(attempt, len(RETRY_S) - 1)])
                attempt += 1
            well = await self._destroy()
            if well and self._acked >= self._fault_seq and not self._stuck and not self._intents.doubtful:
                self._fault = ""
        await self._close()

    def stop(self) -> None:
        """Admit nothing more: `run` ends when what was admitted has settled and is sent."""
        self._stopping = True
        self._written.set()

    async def _sync(self) -> None:
        """One sync for all records of a group. When it fails its pages are in doubt, and a later success says
        nothing of them: `admit` refuses until the sequencer has acknowledged every record until now. Nor does it
        of what stands behind them, which recovery may not get to: for as long as such a segment is in use,
        receipts have their intents until they are entries."""
        unsynced, self._unsynced = self._unsynced, set()
        settled = self._seq
        try:
            if self._intents.doubtful:
                self._intents.wipe()
            await asyncio.to_thread(self._write_back, tuple(self._segments), tuple(unsynced))
        except OSError as error:
            self._unsynced |= unsynced
            self._doubtful |= unsynced
            self._fail(error)
        else:
            self._intents.free(self._acked if self._doubtful else settled)

    def _write_back(self, segments: tuple[Segment, ...], unsynced: tuple[Segment, ...]) -> None:
        """In a thread; the loop removes no segment meanwhile, and only adds to `_stuck` and behind `segments`."""
        numbers = {segment.number: segment for segment in segments}
        for (number, offset), record in list(self._stuck.items()):
            if number > segments[-1].number:
                break  # of a segment that is newer than this call
            if number in numbers:
                self._disk.write(numbers[number].fd, record, offset)
            del self._stuck[number, offset]
        for segment in unsynced:
            self._disk.sync(segment.fd)
        self._intents.sync()

    async def _keep_a_spare(self) -> None:
        """Have room ahead of need, so that `admit` rarely allocates. A full disk is `admit`'s to report."""
        last = self._at + 1 == len(self._segments) < self._segments_max
        if not last or self._segments[self._at].end <= self._size // 2:
            return
        self._numbers += 1
        number = self._numbers
        try:
            spare = await asyncio.to_thread(Segment, self._folder, number, self._size, self._disk)
        except OSError as error:
            log.warning("audit spool: no spare segment (%s)", error.strerror)
            return
        if self._numbers == number:
            self._segments.append(spare)
        else:  # `admit` was faster; files are read in the order of their numbers, so this one is too late
            spare.remove()

    async def _forward(self, send: Send) -> bool:
        """Send one batch of what is not acknowledged. Whether anything was."""
        batch, ends = self._batch()
        if not batch:
            return False
        try:
            upto = await send(SpoolUp(self.boot, tuple(batch)))
        except Exception as error:  # noqa: BLE001  # whatever the bus says, receipts stay spooled and are sent again
            log.warning("audit spool: %d receipts wait for the sequencer (%s)", self.pending, type(error).__name__)
            return False
        for seq, segment, end in ends:
            if seq > upto:
                break
            self._acked = max(self._acked, seq)
            segment.read = end
        return upto >= batch[0].seq

    async def _destroy(self) -> bool:
        """Let go of receipts that are entries, once their intents are gone for good: see steps 6 and 7 above.

        False when the disk refuses.
        """
        behind = 0
        while behind < self._at and self._segments[behind].forwarded:
            behind += 1
        idle = not self.pending and not self._stuck
        left = self._segments[0].end or self._intents.stale or self._intents.base < self._acked
        if not behind and not (idle and left):
            return True
        self._intents.free(self._acked)
        try:
            self._intents.wipe()
            await asyncio.to_thread(self._intents.sync)
            self._intents.reach(self._acked)
        except OSError as error:
            self._fail(error)
            return False
        for _ in range(behind):
            segment = self._segments.popleft()
            self._unsynced.discard(segment)
            self._doubtful.discard(segment)
            segment.remove()
            self._at -= 1
        if not self.pending and not self._stuck and self._segments[0].end:
            self._begin_anew()
        return True

    def _begin_anew(self) -> None:
        """Everything is an entry: wipe the segment in use. Synchronous, so that nothing is appended meanwhile."""
        segment = self._segments[0]
        try:
            self._disk.write(segment.fd, bytes(segment.end), 0)
        except OSError as error:
            # New records go to the front all the same: behind a wiped one recovery would not find them.
            log.warning("audit spool: what was sent cannot be wiped (%s)", error.strerror)
        self._unsynced.add(segment)
        self._doubtful.discard(segment)
        segment.end = segment.read = 0
        self._recent.clear()
        self._recent_bytes = 0

    def _batch(self) -> tuple[list[SpooledReceipt], list[tuple[int, Segment, int]]]:
        """What comes next: from memory while the sequencer keeps up, else read back from the page cache, so that
        memory stays flat however long the outage."""
        recent = self._recent
        while recent and recent[0][0].seq <= self._acked:
            self._recent_bytes -= recent.popleft()[3]
        if recent and recent[0][0].seq == self._acked + 1:
            return [item[0] for item in recent], [
                (spooled.seq, segment, end) for spooled, segment, end, _ in recent
            ]
        return self._read_back()

    def _read_back(self) -> tuple[list[SpooledReceipt], list[tuple[int, Segment, int]]]:
        batch: list[SpooledReceipt] = []
        ends: list[tuple[int, Segment, int]] = []
        size = 0
        for segment in self._segments:
            at = segment.read
            while at < segment.end and size < BATCH_BYTES:
                begin = at
                for spooled, end in decode(self._read(segment, at)):
                    batch.append(spooled)
                    ends.append((spooled.seq, segment, begin + end))
                    at = begin + end
                if at == begin:
                    self._fail(OSError(EIO, "a record reads back broken"))
                    return batch, ends
                size += at - begin
        return batch, ends

    def _read(self, segment: Segment, at: int) -> bytes:
        if stuck := self._stuck.get((segment.number, at)):
            return stuck
        try:
            return os.pread(segment.fd, min(segment.end - at, BATCH_BYTES), at)
        except OSError:
            return b""

    async def _close(self) -> None:
        """All receipts are entries, and no intent is open. Crash within: what is left is all repeats."""
        await self._intents.aclose()
        for segment in self._segments:
            os.close(segment.fd)
        remove_folder(self._folder)
        os.close(self._lock)

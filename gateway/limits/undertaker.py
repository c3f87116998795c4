"""Says for a worker that could not what it had spent, and gives back the rest: it was killed, or was stopped while
the store could not be told.

Runs in the control process. A worker's book whose lock can be taken has no worker any more.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from msgspec import structs

from gateway.errors import UnavailableError
from gateway.limits.book import WrittenAccount, WrittenBucket, note, written
from gateway.limits.protocol import LEASE_S, Part, SliceAsk
from gateway.limits.session import NAMED
from gateway.limits.store import SliceStore

log = logging.getLogger(__name__)


LOOK_S = 0.25
"""A worker leaves the bus a little before the kernel has closed its book; within a lease of that it is looked for
so often, else now and then, for books of before this process began."""

NOW_AND_THEN_S = 5.0


class Undertaker:
    """`folder`: where the workers' books are. `left` is told of each worker that has left the bus."""

    def __init__(self, folder: Path, store: SliceStore) -> None:
        self._folder = folder
        self._store = store
        self._left = asyncio.Event()

    def left(self, worker: str) -> None:
        self._left.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._left.clear()
            try:
                await bury(self._folder, self._store)
            except OSError as error:
                log.warning("limits: the books of dead workers cannot be read: %s", type(error).__name__)
            with suppress(TimeoutError):
                async with asyncio.timeout(NOW_AND_THEN_S):
                    await self._left.wait()
                for _ in range(round(LEASE_S / LOOK_S)):
                    if await bury(self._folder, self._store):
                        break
                    await asyncio.sleep(LOOK_S)


async def bury(folder: Path, store: SliceStore) -> int:
    """Settle for all workers whose books are in `folder` and that are dead. Returns how many that were.

    A book is removed when all in it has been said, and kept for the next time when the store cannot be asked.
    Crash at any point: the store has counted a message or not, and the next call says it again as it was.
    What has been out of touch for longer than a lease is settled already, and left as it is.
    """
    count = 0
    for path in await asyncio.to_thread(_books, folder):
        held = _take_over(path)
        if held is None:
            continue
        try:
            accounts = list(written(await asyncio.to_thread(path.read_bytes)))
            settled = [await _settled(account, store, held) for account in accounts]
            path.unlink(missing_ok=True)
        except UnavailableError as error:
            log.warning("limits: what worker %s had spent waits: %s", path.name, error)
            continue
        finally:
            os.close(held)
        count += 1
        if any(settled):
            log.warning("limits: settled for worker %s, which ended unheard: %d accounts", path.name, sum(settled))
    return count


async def _settled(account: WrittenAccount, store: SliceStore, book: int) -> bool:
    """Whether there was anything to settle, and it counts.

    The message under way, if there was one, is said again with the same spending. Has it been counted already,
    its answer comes again and nothing else happens; in either case the one after it says the rest and ends the
    session, so that all that is still in its hands comes back: what was granted in an answer that nobody saw, too.
    Of more buckets than one message names it says some in messages before, and each of these is written into the
    book as the worker wrote its own.
    """
    line, seq = account.line, account.acked
    pending = account.sent > account.acked
    if not line.session and not pending:
        return False
    ask = SliceAsk(line.org, line.worker, line.session, line.epoch, seq)
    if pending:
        seq = account.sent
        said = tuple(structs.replace(b.part, spent=b.sent - b.acked) for b in account.buckets if b.sent != b.acked)
        answer = await store.ask(line.opening or structs.replace(ask, seq=seq, parts=said))
        if not answer.known:
            return False
        ask = structs.replace(ask, session=answer.session, epoch=answer.epoch)
    rest = [(b, b.total - (b.sent if pending else b.acked)) for b in account.buckets]
    rest = [(bucket, spent) for bucket, spent in rest if spent]
    if pending and len(rest) > NAMED and line.session:
        _note_answer(book, account, account.buckets, seq)
    while len(rest) > NAMED:
        some, rest = rest[:NAMED], rest[NAMED:]
        seq += 1
        if line.session:  # else it says all of it once more, as the debts of another
            _note_message(book, account, [bucket for bucket, _ in some], seq)
        answer = await store.ask(structs.replace(ask, seq=seq, parts=_parts(some)))
        if not answer.known:
            return False
        if line.session:
            _note_answer(book, account, [structs.replace(bucket, sent=bucket.total) for bucket, _ in some], seq)
    answer = await store.ask(structs.replace(ask, seq=seq + 1, parts=_parts(rest), close=True))
    return answer.known


def _parts(said: Sequence[tuple[WrittenBucket, int]]) -> tuple[Part, ...]:
    return tuple(structs.replace(bucket.part, spent=spent) for bucket, spent in said)


def _note_message(book: int, account: WrittenAccount, buckets: Sequence[WrittenBucket], seq: int) -> None:
    for bucket in buckets:
        note(book, bucket.at, 2, bucket.total)
    note(book, account.at, 1, seq)


def _note_answer(book: int, account: WrittenAccount, buckets: Sequence[WrittenBucket], seq: int) -> None:
    for bucket in buckets:
        note(book, bucket.at, 3, bucket.sent)
    note(book, account.at, 2, seq)


def _books(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.name[0] != ".") if folder.is_dir() else []


def _take_over(path: Path) -> int | None:
    """The lock of a book, None when its worker lives or somebody else has it."""
    try:
        held = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(held)
        return None
    return held

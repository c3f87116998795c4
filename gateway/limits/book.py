"""What a worker has spent, in a mapped file that the kernel keeps when the process is killed.

Numbers are written in place, one aligned 64-bit word each: none is ever half there, and no call of the system is
made. Only the machine can lose the file, and then the lease decides of what was spent since the last message.

A file of `SLOT` bytes a slot, each of an account or of one of its buckets:

    word 0  what it is: 0 nothing (or being written), 1 an account, 2 a bucket
    word 1  account: `seq` of the last message sent        bucket: units spent in all
    word 2  account: `seq` of the last one answered        bucket: of these, said in messages
    word 3                                                 bucket: of these, said in messages that were answered
    word 4  length of the JSON that follows: `AccountLine`, `BucketLine`

A message is begun by writing its buckets' word 2 and then the account's word 1; its answer is noted by bringing
word 3 up to word 2 and then the account's word 2. Killed in between, `gateway.limits.undertaker` finds either a
message that has not been begun, or one that may or may not have been counted, and which it can send again.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from gateway.limits.protocol import Part, SliceAsk
from tenants.ids import OrgId

log = logging.getLogger("orgate.limits")

SLOT = 1024
WORDS = SLOT // 8
FIRST = 64
"""Slots of a new file; it doubles."""

ACCOUNT, BUCKET = 1, 2
_TEXT = 5 * 8
_ROOM = SLOT - _TEXT


class AccountLine(Struct, frozen=True, array_like=True):
    """`opening`: the first message of a session, as long as it is under way; a store knows it again only whole."""

    org: OrgId
    worker: str
    session: str = ""
    epoch: str = ""
    opening: SliceAsk | None = None


class BucketLine(Struct, frozen=True, array_like=True):
    account: int
    part: Part


class WrittenBucket(Struct, frozen=True):
    """`total` units spent, `sent` of them said, `acked` of those counted for sure. `at`: its place."""

    part: Part
    total: int
    sent: int
    acked: int
    at: int = 0


class WrittenAccount(Struct, frozen=True):
    line: AccountLine
    sent: int
    acked: int
    buckets: tuple[WrittenBucket, ...]
    at: int = 0


class Book:
    """One process's own. `path` None: nothing is kept (tests, and programs that no undertaker looks after).

    `words` is written to directly, at the places that `account` and `bucket` give: it is another object after
    either of them. The file is locked as long as the process lives.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = -1
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = path.with_name(f".{path.name}")  # nobody takes it for a dead worker's before it is locked
            self._file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            new.rename(path)
        self._slots = 0
        self._free: list[int] = []
        self._map = self._mapped(FIRST)
        self.words = memoryview(self._map).cast("q")

    def account(self, org: OrgId, worker: str) -> int:
        """The place of a new account, which has no session yet."""
        at = self._take()
        self.session(at, AccountLine(org, worker))
        return at

    def session(self, at: int, line: AccountLine, sent: int = 0, acked: int = 0) -> None:
        """The account is in another session, which has sent message `sent`, and was answered `acked` last."""
        text = msgspec.json.encode(line)
        if len(text) > _ROOM:  # without it what was lent in the very first answer may count as spent
            text = msgspec.json.encode(structs.replace(line, opening=None))
        self._write(at, ACCOUNT, text, (sent, acked, 0))

    def bucket(self, account: int, part: Part) -> int:
        """The place of a new bucket, of which nothing is spent yet."""
        at = self._take()
        self.rename(at, account, part)
        return at

    def rename(self, at: int, account: int, part: Part) -> None:
        """The bucket's limit has changed; its figures stay."""
        words = self.words
        line = msgspec.json.encode(BucketLine(account, part))
        self._write(at, BUCKET, line, (words[at + 1], words[at + 2], words[at + 3]))

    def free(self, at: int) -> None:
        self.words[at : at + 5] = _NOTHING
        self._text(at)
        self._free.append(at)

    def close(self, *, keep: bool) -> None:
        """`keep`: not everything in it has been said, and the undertaker is to say it."""
        self.words.release()
        self._map.close()
        if self._path is not None:
            if not keep:
                self._path.unlink(missing_ok=True)
            os.close(self._file)

    def _write(self, at: int, kind: int, text: bytes, figures: tuple[int, int, int]) -> None:
        words = self.words
        words[at] = 0
        words[at + 1], words[at + 2], words[at + 3] = figures
        if len(text) > _ROOM:
            self._text(at)
            return  # of names as long as no limit's are: left to the lease
        self._text(at, text)
        words[at + 4] = len(text)
        words[at] = kind

    def _text(self, at: int, text: bytes = b"") -> None:
        """Nothing stays of what stood there before: it may have named a member who is erased since."""
        begin = at * 8 + _TEXT
        self._map[begin : begin + _ROOM] = text.ljust(_ROOM, b"\0")

    def _take(self) -> int:
        if not self._free:
            self._grow()
        return self._free.pop()

    def _grow(self) -> None:
        """Twice as many slots; those of before stay where they are."""
        count = max(self._slots * 2, FIRST)
        if self._slots:
            before, self._map = self._map, self._mapped(count)
            if self._file < 0:
                self._map[: len(before)] = before[:]
            self.words.release()
            before.close()
            self.words = memoryview(self._map).cast("q")
        self._free.extend(range((count - 1) * WORDS, (self._slots - 1) * WORDS, -WORDS))
        self._slots = count

    def _mapped(self, slots: int) -> mmap.mmap:
        if self._file >= 0:
            try:
                # Not only made longer: a page that the disk has no room for would kill whoever writes to it.
                os.posix_fallocate(self._file, 0, slots * SLOT)
            except OSError as error:
                log.warning("limits: what this worker spends is not written down any more: %s", error.strerror)
                self._give_up()
            else:
                return mmap.mmap(self._file, slots * SLOT)
        return mmap.mmap(-1, slots * SLOT)

    def _give_up(self) -> None:
        """Without its book a dead worker is charged what it was lent, after its lease."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        os.close(self._file)
        self._path, self._file = None, -1


_NOTHING = memoryview(bytes(5 * 8)).cast("q")


def written(data: bytes) -> Iterator[WrittenAccount]:
    """What a book says. Slots that were being written are as if they were not there."""
    words = memoryview(data[: len(data) // SLOT * SLOT]).cast("q")
    lines: dict[int, AccountLine] = {}
    buckets: dict[int, list[WrittenBucket]] = {}
    for at in range(0, len(words), WORDS):
        kind, total, sent, acked, length = words[at : at + 5]
        if kind not in (ACCOUNT, BUCKET) or not 0 < length <= _ROOM:
            continue
        text = data[at * 8 + _TEXT : at * 8 + _TEXT + length]
        with suppress(msgspec.DecodeError):
            if kind == ACCOUNT:
                lines[at] = msgspec.json.decode(text, type=AccountLine)
            else:
                one = msgspec.json.decode(text, type=BucketLine)
                buckets.setdefault(one.account, []).append(WrittenBucket(one.part, total, sent, acked, at))
    for at, account in lines.items():
        yield WrittenAccount(account, words[at + 1], words[at + 2], tuple(buckets.get(at, ())), at)


def note(file: int, at: int, word: int, value: int) -> None:
    """In a dead worker's book, as it would have."""
    os.pwrite(file, value.to_bytes(8, sys.byteorder, signed=True), (at + word) * 8)

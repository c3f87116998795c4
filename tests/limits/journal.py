"""What one worker wrote down of its requests: a mapped file of fixed records, there also after a SIGKILL."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HEAD = 8
"""Numbers before the first record; the first of them counts the requests that have been answered."""

PENDING, ADMITTED, REFUSED, UNAVAILABLE = range(4)
"""Verdicts. PENDING: asked, and never answered."""

REFUNDED = -1
"""`would_use` of who gives up before anything is sent."""


class Record(NamedTuple):
    """One request. Times in microseconds of CLOCK_MONOTONIC, which all processes share; 0: not come to that.

    `called` and `answered`: around the question whether it is admitted. `ended`: settled or refunded, `charged`
    tokens then (`sent`: and itself); up to then `charged` is what it had used as far as the limits were told.
    `lasts_us` and `would_use`: as planned, for who is admitted; `who`, `cost`: as it arrived.
    """

    called: int
    answered: int
    ended: int
    verdict: int
    who: int
    cost: int
    charged: int
    sent: int
    lasts_us: int
    would_use: int


FIELDS = len(Record._fields)
_CALLED, _ANSWERED, _ENDED, _VERDICT, _WHO, _COST, _CHARGED, _SENT, _LASTS, _WOULD = range(FIELDS)


class Journal:
    """Of one worker, with room for `count` records. A record is written in place: it is there when the call
    returns, whatever becomes of the process; only the machine may lose it."""

    def __init__(self, path: Path, count: int) -> None:
        size = (HEAD + count * FIELDS) * 8
        with path.open("w+b") as file:
            file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._words = memoryview(self._map).cast("q")

    def called(self, number: int, now_us: int, who: int, cost: int, lasts_us: int, would_use: int) -> None:
        at, words = HEAD + number * FIELDS, self._words
        words[at + _CALLED] = now_us
        words[at + _WHO] = who
        words[at + _COST] = cost
        words[at + _LASTS] = lasts_us
        words[at + _WOULD] = would_use

    def answered(self, number: int, now_us: int, verdict: int) -> None:
        at, words = HEAD + number * FIELDS, self._words
        words[at + _ANSWERED] = now_us
        words[at + _VERDICT] = verdict
        words[0] += 1

    def spending(self, number: int, used: int) -> None:
        at = HEAD + number * FIELDS
        self._words[at + _CHARGED] = used
        self._words[at + _SENT] = 1

    def ended(self, number: int, now_us: int, used: int, *, sent: bool) -> None:
        at, words = HEAD + number * FIELDS, self._words
        words[at + _ENDED] = now_us
        words[at + _CHARGED] = used
        words[at + _SENT] = int(sent)

    def close(self) -> None:
        self._words.release()
        self._map.close()


def answered(path: Path) -> int:
    """How many requests of a journal have been answered so far."""
    with path.open("rb") as file:
        return int.from_bytes(file.read(8), "little")


def read(path: Path) -> Iterator[Record]:
    """The records of requests that were asked about, in the order of their numbers."""
    words = memoryview(path.read_bytes()).cast("q")
    for at in range(HEAD, len(words), FIELDS):
        if words[at]:
            yield Record(*words[at : at + FIELDS])

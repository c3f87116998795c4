"""Where an organization's log is kept: its lines, its newest checkpoint, and what saves reading all at a start.

`gateway.audit.orglog.OrgLog` writes through this and knows nothing of files or databases; every implementation
passes `tests/contract/test_log_store.py`. Synchronous: the sequencer calls it in threads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from errno import EIO
from typing import NamedTuple, Protocol

from gateway.audit.blobs import Blobs
from tenants.ids import OrgId


class DamagedError(Exception):
    """A store does not hold what was written: entries are missing or changed. Nothing is appended to such a
    log.

    What to do: keep what is there as evidence, put back a copy of it, or move it away to begin a new log.
    """

    def __init__(
        self, where: object, what: str, remedy: str = "restore this folder from a copy, or move it away"
    ) -> None:
        super().__init__(f"{where}: {what}; the audit log is damaged: {remedy}")


class StoreAwayError(OSError):
    """A store cannot be asked now, or not as it is set up: `strerror` says why, without any secret."""

    def __init__(self, what: str) -> None:
        super().__init__(EIO, what)

    def __str__(self) -> str:
        return str(self.strerror)


class InUseError(Exception):
    """Another process writes these logs: two writers would fork them."""


class FencedError(OSError):
    """Another process has taken the logs over since this one opened them: this one never writes again."""


class Rule(NamedTuple):
    """For how long the entries of one organization are kept, in milliseconds from the time that they bear;
    `held`: none of them is dropped, however old."""

    keep_ms: int
    held: bool


class LogStore(Protocol):
    """One organization's log. Written by one thread at a time, read by any number meanwhile.

    Durable: what `append` and `save` wrote outlives a power cut once they return. Atomic: a failed `append`
    leaves nothing that a reader sees, and the next one writes in the same place. One writer: a second process
    is refused (`InUseError`) when it opens the store, or shuts the first one out for good (`FencedError`); no
    place in the log ever has two different lines. Calls raise OSError, its `strerror` in words, when the store
    cannot be asked now; nothing is retried here.

    Trusted: whoever can write it can make the log unreadable, but not change it unseen: lines are chained, and
    checkpoints over them signed.
    """

    @property
    def blobs(self) -> Blobs:
        """Where the full hash tiles of this log are kept."""

    @property
    def begin(self) -> int:
        """The index of the first line that is still kept: all before it are past their retention."""

    @property
    def size(self) -> int:
        """How many entries there are, dropped ones counted: what is durable, and no more."""

    def checkpoint(self) -> bytes:
        """The checkpoint that was saved last; b'' for none."""

    def state(self) -> bytes:
        """The state that was saved last, perhaps older than the checkpoint; b'' for none."""

    def place(self) -> Mapping[str, int]:
        """Where `size` stands in this store: goes into the state."""

    def base(self) -> bytes:
        """What was given with the last `drop`; b'' when nothing was dropped."""

    def replay(self, size: int, place: Mapping[str, int]) -> Iterator[bytes]:
        """Begin: the lines from entry `size` on, without newlines, `place` being what `place()` said when that
        was next ({}: not known, `size` is `begin`). To be read to its end before `ready`. Raises
        `DamagedError`, OSError."""

    def ready(self) -> None:
        """The lines replayed are a log that may be gone on with: from now on they are durable, and what stands
        behind them (a write that was torn) is gone."""

    def damaged(self, what: str) -> DamagedError:
        """What is wrong with what `replay` gave last, or with the log as a whole."""

    def append(self, lines: Sequence[bytes]) -> None:
        """Make these the next lines (without newlines). Raises OSError: then none of them counts."""

    def save(self, checkpoint: bytes, state: bytes) -> None:
        """Replace the checkpoint, then the state, each as a whole; a crash between leaves the older state."""

    def due(self, before_ms: int) -> int:
        """The first entry of all that `drop` could keep, if every entry older than `before_ms` (Unix
        milliseconds) may go: lines go in whole segments, from the beginning, never the newest."""

    def drop(self, begin: int, base: bytes) -> None:
        """Let all lines before `begin` go, which `due` has named. `base` is what the log goes on from without
        them. Crash: `begin` says already that they are gone; what is left of them goes the next time."""

    def adopt(self, begin: int, base: bytes) -> None:
        """Make an empty log that begins with entry `begin`, as if `drop` had been there. Repeating it is
        harmless as long as nothing was appended."""

    def tend(self, rule: Rule, checkpoint: bytes, now_ms: int) -> None:
        """What a store does in its own time, beside everything else: move lines to where they stay, lock them
        for as long as `rule` says, let go of what was dropped. `checkpoint` is one that was saved. To be called
        again and again; raises OSError, and goes on where it was."""

    def lines(self, start: int, end: int) -> Iterator[bytes]:
        """Lines [start, end) with their newlines, from `begin` on and as far as they are durable at the first
        step. The iterator may be left unfinished."""

    def close(self) -> None: ...


class LogStores(Protocol):
    """The logs of all organizations in one place."""

    def orgs(self) -> Sequence[OrgId]:
        """Whose logs there are. Raises `InUseError`, OSError."""

    def open(self, org: OrgId) -> LogStore:
        """The log of `org`; nothing is made for an empty one. Raises `InUseError`, `DamagedError`, OSError."""

    def close(self) -> None:
        """Let go of what keeps other writers away."""

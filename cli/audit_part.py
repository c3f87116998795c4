"""A file that is being exported: `FILE.part`, beside it how far it is; `FILE` and `FILE.sha256` when it is whole.

Order of what is written, and what a crash at each step leaves:

1. `FILE.part` grows. Crash: bytes behind the last saved state, which `resume` cuts off.
2. every SAVE_BYTES it is synced, then `FILE.part.json` says so (written beside, synced, renamed). Crash between:
   the older state, the same again.
3. when all is there, `FILE.part` is synced, and `FILE.sha256` put in its place. Crash: a sum without a file;
   `resume` does this step again.
4. `FILE.part` becomes `FILE`, and the state goes. Crash in between: a whole file, and a state that nothing belongs
   to.

So whatever is called `FILE` is whole, and nothing that is there already is ever written over.
"""

from __future__ import annotations

import fcntl
import os
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from msgspec import Struct, json, structs

from cli.errors import NOT_READABLE, RefusedError, UsageError

SAVE_BYTES: Final = 8 * 1024 * 1024
_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class State(Struct, frozen=True, forbid_unknown_fields=True):
    """What is exported, and how far it is: the part's first `bytes` hold `count` entries, and those from `next` up
    to `end` are still wanted. `host` and `enterprise` are those of the format's context."""

    org: str
    format: str
    filter: dict[str, str | int]
    end: int
    host: str
    enterprise: int
    next: int = 0
    bytes: int = 0
    count: int = 0


class SpoiledError(RefusedError):
    """What is there cannot be gone on with."""


class Part:
    """Made by `begin` or `resume`; used in a `with`, which saves the state whatever ends it."""

    def __init__(self, target: Path, state: State, descriptor: int) -> None:
        self.target = target
        self.path = _beside(target, ".part")
        self.state = state
        self._fd = descriptor
        self._hash = sha256()
        self._unsaved = 0
        self._ended = False

    @classmethod
    def begin(cls, target: Path, state: State, head: bytes = b"") -> Self:
        """Raises `UsageError` when there is something of that name, whole or not; OSError."""
        for path in (target, _beside(target, ".sha256"), _beside(target, ".part")):
            if os.path.lexists(path):
                raise _taken(target, path)
        descriptor = os.open(_beside(target, ".part"), _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        part = cls(target, state, descriptor)
        part._lock()
        part.write(head, state.next, 0)
        part.save()
        return part

    @classmethod
    def resume(cls, target: Path) -> Self:
        """Raises `UsageError` when nothing is to be continued, `SpoiledError` when it cannot be; OSError."""
        if os.path.lexists(target):
            raise UsageError(f"{target} is there, and whole", "there is nothing to resume")
        if not cls.unfinished(target):
            raise UsageError(f"there is no export to {target} that was cut off", "leave out `--resume`")
        anew = f"remove {_beside(target, '.part')}, and export again"
        try:
            state = json.decode(_read(_beside(target, ".part.json")), type=State)
            descriptor = os.open(_beside(target, ".part"), _FLAGS)
        except (*NOT_READABLE, FileNotFoundError):
            raise SpoiledError(f"how far the export to {target} came cannot be read", anew) from None
        part = cls(target, state, descriptor)
        try:
            part._lock()
            part._take_back(anew)
        except BaseException:
            os.close(descriptor)
            raise
        return part

    @staticmethod
    def unfinished(target: Path) -> bool:
        return os.path.lexists(_beside(target, ".part"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        try:
            if not self._ended:
                self.save()
        except OSError:
            # Where the disk is full there is the state of before, which is as good.
            if kind is None:
                raise
        finally:
            os.close(self._fd)

    def write(self, data: bytes, following: int, count: int) -> None:
        """Add the records of `count` entries; `following` is the index that entries are wanted from then on."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._hash.update(data)
        state = self.state
        self.state = structs.replace(
            state, next=following, bytes=state.bytes + len(data), count=state.count + count
        )
        self._unsaved += len(data)
        if self._unsaved >= SAVE_BYTES:
            self.save()

    def save(self) -> None:
        os.fsync(self._fd)
        path, fresh = _beside(self.target, ".part.json"), _beside(self.target, ".part.json.new")
        _put(fresh, json.encode(self.state))
        fresh.replace(path)
        self._unsaved = 0

    def finish(self, made: Path | None = None) -> str:
        """Give the part its name; instead of it `made`, a file that was made from it. Returns its SHA-256."""
        source = made or self.path
        digest = self._hash.hexdigest() if made is None else _sum(made)
        os.fsync(self._fd)
        fresh = _beside(self.target, ".sha256.new")
        _put(fresh, f"{digest}  {self.target.name}\n".encode())
        if os.path.lexists(self.target):
            raise _taken(self.target, self.target)
        fresh.replace(_beside(self.target, ".sha256"))
        source.rename(self.target)
        self._ended = True
        if made is not None:
            self.path.unlink()
        _beside(self.target, ".part.json").unlink()
        _sync_folder(self.target.parent)
        return digest

    def drop(self) -> None:
        """Take away what is there of it: nothing has arrived."""
        self._ended = True
        for suffix in (".part.json.new", ".part.json", ".part"):
            _beside(self.target, suffix).unlink(missing_ok=True)

    def _lock(self) -> None:
        """One writer. The kernel lets go when the process ends, however it ends."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another export is writing {self.path}", "let it end") from None

    def _take_back(self, anew: str) -> None:
        left = self.state.bytes
        while left and (piece := os.read(self._fd, min(left, 1 << 20))):
            self._hash.update(piece)
            left -= len(piece)
        if left:
            raise SpoiledError(f"{self.path} is shorter than it was: {left} bytes are missing", anew)
        os.truncate(self._fd, self.state.bytes)


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(target.name + suffix)


def _taken(target: Path, path: Path) -> UsageError:
    if path.name.endswith(".part"):
        return UsageError(f"an export to {target} was cut off", f"go on with `--resume`, or remove {path}")
    return UsageError(f"{path} exists; an export is never written over", "name another file")


def _read(path: Path) -> bytes:
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read(1 << 20)


def _put(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sum(path: Path) -> str:
    hashed = sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hashed.update(piece)
    return hashed.hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""The connections of one worker, as the kernel sees them: how long each has been silent, and how to end one.

Granian accepts connections, reads TLS and HTTP, and tells the application of requests only. What never becomes
a request (an idle connection, a preface that drips, a peer that is gone) is seen here: from /proc and TCP_INFO
(Linux). Ending is `shutdown(2)`, after which Granian reads an end and cleans up as after any client that left.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("orgate.connections")

Peer = tuple[str, str]
"""A client's address and port, as ASGI's `client` has them from Granian."""

asked: set[Peer] = set()
"""This process's connections that have made a request. Granian's thread adds them (`gateway.admission`), and
`keep_house` forgets those that are gone: it holds as many as are open, and what closed within a second."""

LOOK_S = 1.0
FULL = 0.9
"""From this share of `most` on, silent connections give way."""

SPARE_S = 1.0
"""A connection that spoke this lately is never the one to give way."""

_FDS = Path("/proc/self/fd")
# struct tcp_info of linux/tcp.h: 8 bytes of flags, then 32-bit words; times in milliseconds.
_TCP_INFO_BYTES = 60
_LAST_DATA_SENT, _LAST_DATA_RECEIVED = 44, 52
_CLOSED = 7  # TCP_CLOSE


@dataclass(frozen=True, slots=True)
class Connection:
    """One accepted connection. `silent_s`: since data went either way; `heard_s`: since data came in."""

    fd: int
    peer: Peer
    silent_s: float
    heard_s: float


def listening(port: int) -> list[int]:
    """Descriptors of this process that listen on TCP port `port`."""
    return [fd for fd, sock in _sockets(port) if _listens(sock)]


def accepted(port: int) -> list[Connection]:
    """The connections of this process that came in on TCP port `port`. Costs about 10 µs each."""
    found = []
    for fd, sock in _sockets(port):
        if _listens(sock):
            continue
        try:
            peer = sock.getpeername()
            info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        except OSError:  # it ended while we looked
            continue
        if info[0] == _CLOSED:
            continue
        (sent_ms,) = struct.unpack_from("=I", info, _LAST_DATA_SENT)
        (heard_ms,) = struct.unpack_from("=I", info, _LAST_DATA_RECEIVED)
        silent_s = min(sent_ms, heard_ms) / 1000
        found.append(Connection(fd, (peer[0], str(peer[1])), silent_s, heard_ms / 1000))
    return found


def cut(connections: Iterable[Connection]) -> int:
    """End them in both directions; returns how many were still there.

    The descriptor may have been closed and given to another socket since it was seen: the peer is compared first.
    """
    count = 0
    for connection in connections:
        with contextlib.suppress(OSError), _held(connection.fd) as sock:
            host, port = sock.getpeername()[:2]
            if (host, str(port)) == connection.peer:
                sock.shutdown(socket.SHUT_RDWR)
                count += 1
    return count


def beginning(found: list[Connection], asked: set[Peer], *, patience_s: float) -> list[Connection]:
    """Which connections may be on their way to a first request, handshake and all: a rule.

    Those that have made one are past it, however long ago; of the others, those that are silent for `patience_s`
    are not on their way. The kernel can't tell a client that is slow from one that has nothing to say.
    """
    return [c for c in found if c.peer not in asked and c.silent_s < patience_s]


class Unlistened:
    """A listening descriptor made to accept nothing more, without Granian's accepting loop noticing.

    Another process of the tree may hold the same listening socket, and connections that are queued on it are for
    that one: so the socket is not shut but taken from under the descriptor. What takes its place is a Unix socket
    that nobody can connect to: its name in `folder` is gone before it is used.
    """

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._public = socket.socket(fileno=os.dup(fd))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as nowhere:
            name = folder / f"nowhere-{os.getpid()}"
            name.unlink(missing_ok=True)
            nowhere.bind(str(name))
            name.unlink()
            nowhere.listen(1)
            nowhere.setblocking(False)
            self._inode = os.fstat(nowhere.fileno()).st_ino
            os.dup2(nowhere.fileno(), fd, inheritable=False)

    @property
    def dropped(self) -> bool:
        """Granian has left its accepting loop and closed what it listened on."""
        try:
            return os.fstat(self._fd).st_ino != self._inode
        except OSError:
            return True

    def refuse(self) -> None:
        """Shut the real socket for everybody: new connections are refused. Only once it is `dropped`: a loop that
        still waits for it would wake up, and go on waking."""
        with contextlib.suppress(OSError):
            self._public.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._public.close()


def to_end(found: list[Connection], busy: set[Peer], *, idle_s: float, most: int) -> list[Connection]:
    """Which of the connections a worker should end: pure, so that it can be read and tested as a rule.

    Those silent for `idle_s`; and when nearly `most` are open, the longest silent ones until a tenth is free, so
    that idle connections can't keep anybody out. One with a request in flight (`busy`) is never chosen.
    """
    free = sorted((c for c in found if c.peer not in busy), key=lambda c: c.silent_s, reverse=True)
    chosen = [c for c in free if c.silent_s >= idle_s]
    surplus = len(found) - len(chosen) - int(FULL * most)
    if surplus > 0:
        surplus += max(most // 10, 1)
        chosen += [c for c in free[len(chosen) :] if c.silent_s >= SPARE_S][:surplus]
    return chosen


async def keep_house(port: int, busy: Callable[[], set[Peer]], *, idle_s: float, most: int) -> None:
    """Look once a second, for ever. The look is taken beside the loop: thousands of them take milliseconds."""
    while True:
        await asyncio.sleep(LOOK_S)
        before = asked.copy()
        try:
            found = await asyncio.to_thread(accepted, port)
        except OSError as error:  # out of descriptors, say: nothing can be looked at now
            log.warning("connections cannot be looked at: %s", error.strerror)
            continue
        # Whoever asked since the look began may not have been there for it.
        asked.difference_update(before.difference(c.peer for c in found))
        # Who is busy is asked after the look: a request that came meanwhile keeps its connection.
        if chosen := to_end(found, busy(), idle_s=idle_s, most=most):
            log.info("%d of %d connections were silent and are ended", cut(chosen), len(found))


def _sockets(port: int) -> Iterator[tuple[int, socket.socket]]:
    for entry in os.listdir(_FDS):  # names are all that is wanted, and there may be thousands
        fd = int(entry)
        try:
            if not os.readlink(_FDS / entry).startswith("socket:"):
                continue
            with _held(fd) as sock:
                if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getsockname()[1] == port:
                    yield fd, sock
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            # it was closed while we looked


@contextlib.contextmanager
def _held(fd: int) -> Iterator[socket.socket]:
    with socket.socket(fileno=os.dup(fd)) as sock:
        yield sock


def _listens(sock: socket.socket) -> bool:
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

"""One organization's log in PostgreSQL, its older part in objects. Implements `LogStore`.

Order of one append, and what a crash at each step leaves:

1. one statement moves `logs.size` on and adds a row of lines, if the log still has this writer and this size.
   Crash before its COMMIT: nothing.
2. COMMIT, synced. From here on the entries exist; crash, or an answer that is lost: they were not acknowledged.
   The next start counts them; a process that lives on takes them back first (`_settle`), and writes afresh.
3. `size` moves on in memory: readers see them.

Each process that opens a log writes its own name into `logs.writer`, before it reads how far the log goes: from
then on the one before it is fenced, whatever it still had under way. A server that was set back to an older
copy is told from the sizes: this process knows what was acknowledged, and the next start knows the newest
checkpoint, which is kept in a file of this machine (`mark`) and among the objects too.

How lines become objects is in `gateway.audit.mover`.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from gateway.audit.disk import Disk, replace_file
from gateway.audit.log_store import DamagedError, FencedError, InUseError, Rule, StoreAwayError
from gateway.audit.mover import CHECKPOINTS, Mover, Sizes
from gateway.audit.note import NoteError, parse_checkpoint
from gateway.audit.objects import Objects, ObjectsError
from gateway.audit.postgres_server import PostgresServer
from gateway.audit.postgres_tiles import PostgresTiles
from tenants.ids import OrgId

log = logging.getLogger(__name__)

ROWS: Final = 64
"""Rows of lines that are read at a time."""
OBJECTS: Final = 2
"""Objects whose lines are remembered: readers go through them page by page."""

_APPEND: Final = """
WITH mine AS (
    UPDATE orgate_audit.logs SET size = size + %(count)s
    WHERE org = %(org)s AND writer = %(writer)s AND size = %(size)s RETURNING org
)
INSERT INTO orgate_audit.lines (org, first, count, bytes, lines)
SELECT org, %(size)s, %(count)s, %(bytes)s, %(lines)b FROM mine
"""
_READ: Final = """
SELECT first, count, lines FROM orgate_audit.lines
WHERE org = %(org)s AND first < %(end)s AND first >= (
    SELECT max(first) FROM orgate_audit.lines WHERE org = %(org)s AND first <= %(at)s)
ORDER BY first LIMIT %(rows)s
"""
_OBJECT: Final = """
SELECT name, version, sha256, first FROM orgate_audit.objects
WHERE org = %(org)s AND first <= %(at)s AND first + count > %(at)s
"""


class Place(NamedTuple):
    """An object of lines, from entry `first` on."""

    name: str
    version: str
    sha256: bytes
    first: int


class PostgresLog:
    """`writer` is this process' name, never used before; `mark` the file that remembers the newest checkpoint;
    `now` gives Unix seconds."""

    def __init__(
        self,
        server: PostgresServer,
        objects: Objects,
        org: OrgId,
        *,
        writer: str,
        mark: Path,
        sizes: Sizes,
        now: Callable[[], float],
    ) -> None:
        self.org = org
        self.server = server
        self.objects = objects
        self.writer = writer
        self.blobs = PostgresTiles(server, objects, org, writer)
        self._mark = mark
        self._disk = Disk()
        self._now = now
        self._mover = Mover(server, objects, org, writer, sizes)
        self._begin = self._size = self._found = 0
        self._exists = False
        self._doubtful = False
        self._fenced = ""
        self._lines: OrderedDict[int, list[bytes]] = OrderedDict()

    @property
    def begin(self) -> int:
        return self._begin

    @property
    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self._lines.clear()

    # -- append ---------------------------------------------------------------------------------------------

    def append(self, lines: Sequence[bytes]) -> None:
        self.check_writer()
        if self._doubtful:
            self._settle()
        data = b"".join([line + b"\n" for line in lines])
        told = {
            "org": self.org,
            "writer": self.writer,
            "size": self._size,
            "count": len(lines),
            "bytes": len(data),
            "lines": data,
        }
        self._doubtful = True
        if not self._exists:
            self._make(0, b"")
        with self.server.use(self.org) as connection:
            done = connection.execute(_APPEND, told).rowcount
        if done != 1:
            raise self.usurped()
        self._doubtful = False
        self._size += len(lines)

    def _make(self, begin: int, base: bytes) -> None:
        """The log's row. Crash after it: an empty log. Somebody else's row is seen by what follows."""
        with self.server.use(self.org) as connection, connection.transaction():
            connection.execute("INSERT INTO orgate_audit.names VALUES (%s) ON CONFLICT DO NOTHING", (self.org,))
            connection.execute(
                "INSERT INTO orgate_audit.logs (org, writer, begin, size, base) VALUES (%s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                (self.org, self.writer, begin, begin, base),
            )
        self._exists = True

    def _settle(self) -> None:
        """Take back what an append may have written whose answer never came: nobody was told of it."""
        with self.server.use(self.org) as connection, connection.transaction():
            told = (self.org, self.writer)
            row = connection.execute(
                "SELECT size FROM orgate_audit.logs WHERE org = %s AND writer = %s FOR UPDATE", told
            ).fetchone()
            if row is not None and row[0] > self._size:
                connection.execute(
                    "DELETE FROM orgate_audit.lines WHERE org = %s AND first >= %s", (self.org, self._size)
                )
                connection.execute("UPDATE orgate_audit.logs SET size = %s WHERE org = %s", (self._size, self.org))
        if row[0] < self._size if row is not None else self._exists:
            raise self.usurped()
        self._doubtful = False

    def check_writer(self) -> None:
        """Raise `FencedError` once this process is known to be shut out."""
        if self._fenced:
            raise FencedError(5, self._fenced)

    def usurped(self) -> FencedError:
        """Why a statement that names this writer and this size met no row. This process writes no more."""
        with self.server.use(self.org) as connection:
            row = connection.execute(
                "SELECT writer, size FROM orgate_audit.logs WHERE org = %s", (self.org,)
            ).fetchone()
        if row is None:
            self._fenced = "PostgreSQL does not have this log any more: another copy has taken its place"
        elif row[0] != self.writer:
            self._fenced = "another process has taken this log over"
        else:
            self._fenced = (
                f"PostgreSQL has {row[1]} entries of this log, {self._size} were acknowledged:"
                " an older copy has taken its place"
            )
        return FencedError(5, self._fenced)

    # -- checkpoint and state -------------------------------------------------------------------------------

    def checkpoint(self) -> bytes:
        """The newest that is known: of the database, of this machine, of the objects. Whichever is ahead of the
        lines shows that they were set back."""
        saved = self._row("checkpoint")
        newest = max([saved, self._marked(), *self._kept(_size_of(saved))], key=_size_of)
        return newest if _size_of(newest) > _size_of(saved) else saved

    def state(self) -> bytes:
        return self._row("state")

    def place(self) -> Mapping[str, int]:
        return {}

    def save(self, checkpoint: bytes, state: bytes) -> None:
        self.check_writer()
        with self.server.use(self.org) as connection:
            done = connection.execute(
                "UPDATE orgate_audit.logs SET checkpoint = %b, state = %b WHERE org = %s AND writer = %s",
                (checkpoint, state, self.org, self.writer),
            ).rowcount
        if done != 1:
            raise self.usurped()
        self._mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(self._mark, checkpoint, self._disk)

    def _row(self, column: str) -> bytes:
        with self.server.use(self.org) as connection:
            row = connection.execute(
                "SELECT checkpoint, state FROM orgate_audit.logs WHERE org = %s", (self.org,), binary=True
            ).fetchone()
        return b"" if row is None else bytes(row[column == "state"])

    def _marked(self) -> bytes:
        with suppress(FileNotFoundError):
            return self._mark.read_bytes()
        return b""

    def _kept(self, size: int) -> Iterator[bytes]:
        """Checkpoints over more than `size` entries among the objects: none, unless the database was set
        back."""
        try:
            names = self.objects.after(f"{self.org}/{CHECKPOINTS}/", f"{self.org}/{CHECKPOINTS}/{size:016}")
            if names:
                yield self.objects.newest(names[-1])
        except ObjectsError as error:
            log.warning(
                "audit: checkpoints of %s among the objects were not looked at: %s", self.org, error.strerror
            )

    # -- recovery -------------------------------------------------------------------------------------------

    def learn(self) -> None:
        """Where it begins."""
        with self.server.use(self.org) as connection:
            row = connection.execute("SELECT begin FROM orgate_audit.logs WHERE org = %s", (self.org,)).fetchone()
        self._begin = 0 if row is None else row[0]

    def base(self) -> bytes:
        with self.server.use(self.org) as connection:
            row = connection.execute(
                "SELECT base FROM orgate_audit.logs WHERE org = %s", (self.org,), binary=True
            ).fetchone()
        return b"" if row is None else bytes(row[0])

    def replay(self, size: int, place: Mapping[str, int]) -> Iterator[bytes]:
        with self.server.use(self.org) as connection:
            # First this: whoever wrote before does so no more, and what is counted then is all there is.
            row = connection.execute(
                "UPDATE orgate_audit.logs SET writer = %s WHERE org = %s RETURNING size, begin",
                (self.writer, self.org),
            ).fetchone()
        if row is None:
            if size:
                raise self.damaged("it is not there any more")
            return
        self._exists = True
        self._found, self._begin = row
        if size > self._found:
            raise self.damaged(f"it holds {self._found} entries, and {size} were there before")
        for line in self._between(max(size, self._begin), self._found):
            yield line[:-1]

    def ready(self) -> None:
        self._size = self._found

    def damaged(self, what: str) -> DamagedError:
        where = f"the log of {self.org} in PostgreSQL"
        return DamagedError(where, what, "restore the database from a newer copy, or begin with a new one")

    def adopt(self, begin: int, base: bytes) -> None:
        self.check_writer()
        self._make(begin, base)
        with self.server.use(self.org) as connection:
            done = connection.execute(
                "UPDATE orgate_audit.logs SET begin = %(begin)s, size = %(begin)s, base = %(base)b"
                " WHERE org = %(org)s AND writer = %(writer)s AND size IN (0, %(begin)s)",
                {"begin": begin, "base": base, "org": self.org, "writer": self.writer},
            ).rowcount
        if done != 1:
            raise self.usurped()
        self._begin = self._size = begin

    # -- retention ------------------------------------------------------------------------------------------

    def due(self, before_ms: int) -> int:
        """Objects alone: what has not become one is young. Their locks have to be over, too."""
        begin = self._begin
        with self.server.use(self.org) as connection:
            rows = connection.execute(
                "SELECT first, count, newest_ms < %s AND until <= %s FROM orgate_audit.objects"
                " WHERE org = %s AND first >= %s ORDER BY first LIMIT 1000",
                (before_ms, int(self._now()), self.org, begin),
            ).fetchall()
        for first, count, old in rows:
            if first != begin or not old or first + count >= self._size:
                break
            begin = first + count
        return begin

    def drop(self, begin: int, base: bytes) -> None:
        self.check_writer()
        with self.server.use(self.org) as connection:
            done = connection.execute(
                "UPDATE orgate_audit.logs SET begin = %s, base = %b"
                " WHERE org = %s AND writer = %s AND begin <= %s",
                (begin, base, self.org, self.writer, begin),
            ).rowcount
        if done != 1:
            raise self.usurped()
        self._begin = begin

    def tend(self, rule: Rule, checkpoint: bytes, now_ms: int) -> None:
        self.check_writer()
        try:
            self.server.take()
        except InUseError as error:  # the lock went with its connection, and somebody else was faster
            self._fenced = str(error)
            self.check_writer()
        self._mover.move(rule, checkpoint, now_ms, self._begin, self._size)

    # -- reading, in any thread -----------------------------------------------------------------------------

    def lines(self, start: int, end: int) -> Iterator[bytes]:
        return self._between(max(start, self._begin), min(end, self._size))

    def _between(self, start: int, end: int) -> Iterator[bytes]:
        at = start
        while at < end:
            first, found = self._chunk(at, end)
            for line in islice(found, at - first, end - first):
                at += 1
                yield line

    def _chunk(self, at: int, end: int) -> tuple[int, list[bytes]]:
        """Some lines with that of entry `at` among them: the index of the first, and they."""
        for _ in range(3):  # lines may become an object between one look and the other
            with self.server.use(self.org) as connection:
                told = {"org": self.org, "at": at, "end": end, "rows": ROWS}
                rows = connection.execute(_READ, told, binary=True).fetchall()
                if rows and rows[0][0] + rows[0][1] > at:
                    return rows[0][0], [line + b"\n" for row in rows for line in row[2].split(b"\n")[:-1]]
                row = connection.execute(_OBJECT, told, binary=True).fetchone()
            if row is not None:
                return row[3], self._object(Place(*row))
        raise StoreAwayError(f"entry {at} is neither in PostgreSQL nor among the objects")

    def _object(self, place: Place) -> list[bytes]:
        found = self._lines.get(place.first)
        if found is None:
            data = self.objects.get(f"{self.org}/{place.name}", place.version)
            if sha256(data).digest() != place.sha256:
                raise StoreAwayError(f"object {place.name} is not what was written")
            found = [line + b"\n" for line in data.split(b"\n")[:-1]]
            self._lines[place.first] = found
            while len(self._lines) > OBJECTS:
                with suppress(KeyError):  # another reader was faster
                    self._lines.popitem(last=False)
        return found


def _size_of(note: bytes) -> int:
    """-1 for none, and for what is no checkpoint: that is told from the database's own."""
    with suppress(NoteError, UnicodeDecodeError):
        text, gap, _ = note.decode("utf-8").partition("\n\n")
        return parse_checkpoint(text + gap[:1]).size
    return -1


def mark_of(folder: Path, org: OrgId) -> Path:
    return folder / "marks" / os.fspath(org)

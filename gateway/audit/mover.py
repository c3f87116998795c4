"""How an organization's log goes from PostgreSQL into objects that nobody can change, and what is done with
those.

Order of one move, and what a crash at each step leaves:

1. a segment of lines is read and its chain checked. Crash: nothing.
2. the newest checkpoint, then the segment, become objects, locked until the newest entry is as old as the
   organization keeps its entries, and are read back. Crash: objects that no row names. The next time the same
   bytes are put once more, as versions of the same names; the first ones stay until their time.
3. one transaction adds the rows that name them and removes the lines. Crash before its COMMIT: as 2. After it:
   done.

Readers look in the lines first, then among the objects, and again if they met the moment in between. Full tiles
go the same way. A writer that has been fenced may still do 2, with bytes that are right; 3 asks for its name.

Names say the organization, an index and nothing else: `<org>/log/<first>-<count>.jsonl`, `<org>/tile/…` as C2SP
tlog-tiles has it, `<org>/checkpoint/<size>`.
"""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final, LiteralString, NamedTuple

from psycopg import Connection

from gateway.audit.log_store import FencedError, Rule
from gateway.audit.note import parse_checkpoint
from gateway.audit.objects import Objects
from gateway.audit.postgres_server import PostgresServer
from tenants.ids import OrgId

CHECKPOINTS: Final = "checkpoint"
BATCH: Final = 256
"""Objects that one call changes at most: of tiles, of holds, of times."""
AHEAD_MS: Final = 86_400_000
"""A time in an entry that is further ahead than this does not count: its clock was wrong, and a lock is for
ever."""
LEAST_S: Final = 86_400
"""The shortest lock: of entries that were old already when they came here."""

_ENTRY: Final = re.compile(rb'\{"@timestamp":(\d+)')
_INDEX: Final = re.compile(rb'"index":(\d+)[,}]')
_PREV: Final = re.compile(rb'"prev":"([0-9a-f]{64})"')

_NAME: Final = """
INSERT INTO orgate_audit.objects (org, name, version, sha256, first, count, newest_ms, until, held)
SELECT org, %(name)s, %(version)s, %(sha256)b, %(first)s, %(count)s, %(newest_ms)s, %(until)s, %(held)s
FROM orgate_audit.logs WHERE org = %(org)s AND writer = %(writer)s
ON CONFLICT (org, name) DO UPDATE SET version = excluded.version, sha256 = excluded.sha256,
    newest_ms = excluded.newest_ms, until = excluded.until, held = excluded.held
"""


class Sizes(NamedTuple):
    """When lines become an object: so many bytes of them, or this old."""

    segment_bytes: int
    segment_age_s: int


class Segment(NamedTuple):
    """Lines of entries [first, first + entries)."""

    first: int
    entries: int
    data: bytes
    newest_ms: int

    @property
    def name(self) -> str:
        return f"log/{self.first:016}-{self.entries}.jsonl"


class Mover:
    """Called by one thread at a time, beside writers and readers. Raises OSError, and goes on where it was."""

    def __init__(self, server: PostgresServer, objects: Objects, org: OrgId, writer: str, sizes: Sizes) -> None:
        self._server = server
        self._objects = objects
        self._org = org
        self._writer = writer
        self._sizes = sizes
        self._applied: Rule | None = None

    def move(self, rule: Rule, checkpoint: bytes, now_ms: int, begin: int, size: int) -> None:
        """What is due of a log whose entries [begin, size) are kept."""
        if rule != self._applied:  # what is written from then on has it from the beginning
            self._applied = None
            self._hold(rule)
            self._lengthen(rule, begin)
            self._applied = rule
        while (segment := self._due(size)) is not None:
            if checkpoint:
                self._keep_checkpoint(rule, checkpoint, now_ms)
            self._keep_segment(rule, segment, now_ms)
        self._keep_tiles(rule, now_ms)
        if not rule.held:
            self._remove(begin)

    # -- lines ----------------------------------------------------------------------------------------------

    def _due(self, size: int) -> Segment | None:
        """The oldest lines, if they are many or old enough."""
        with self._server.use(self._org) as connection:
            rows = connection.execute(
                "SELECT first, count, sum(bytes) OVER (ORDER BY first),"
                " at < clock_timestamp() - %s * interval '1 second' FROM orgate_audit.lines"
                " WHERE org = %s AND first + count <= %s ORDER BY first LIMIT 20000",
                (self._sizes.segment_age_s, self._org, size),
            ).fetchall()
            if not rows or not (rows[-1][2] >= self._sizes.segment_bytes or rows[0][3]):
                return None
            end = next((row for row in rows if row[2] >= self._sizes.segment_bytes), rows[-1])[0]
            found = connection.execute(
                "SELECT lines FROM orgate_audit.lines WHERE org = %s AND first <= %s ORDER BY first",
                (self._org, end),
                binary=True,
            ).fetchall()
        first, data = rows[0][0], b"".join([row[0] for row in found])
        return Segment(first, data.count(b"\n"), data, _checked(data, first))

    def _keep_segment(self, rule: Rule, segment: Segment, now_ms: int) -> None:
        newest_ms = min(segment.newest_ms, now_ms + AHEAD_MS)
        kept = self._put(rule, segment.name, segment.data, _until(rule, newest_ms, now_ms))
        kept |= {"first": segment.first, "count": segment.entries, "newest_ms": newest_ms}
        with self._server.use(self._org) as connection, connection.transaction():
            self._name(connection, kept)
            gone = connection.execute(
                "DELETE FROM orgate_audit.lines WHERE org = %s AND first >= %s AND first < %s",
                (self._org, segment.first, segment.first + segment.entries),
            ).rowcount
            if not gone:
                raise FencedError(5, "lines that became an object were removed by somebody else")

    # -- tiles and checkpoints ------------------------------------------------------------------------------

    def _keep_checkpoint(self, rule: Rule, checkpoint: bytes, now_ms: int) -> None:
        text, gap, _ = checkpoint.decode().partition("\n\n")
        name = f"{CHECKPOINTS}/{parse_checkpoint(text + gap[:1]).size:016}"
        with self._server.use(self._org) as connection:
            told = (self._org, name, sha256(checkpoint).digest())
            if connection.execute(
                "SELECT 1 FROM orgate_audit.objects WHERE org = %s AND name = %s AND sha256 = %b", told
            ).fetchone():
                return
        kept = self._put(rule, name, checkpoint, _until(rule, now_ms, now_ms)) | {"newest_ms": now_ms}
        with self._server.use(self._org) as connection:
            self._name(connection, kept)

    def _keep_tiles(self, rule: Rule, now_ms: int) -> None:
        with self._server.use(self._org) as connection:
            rows = connection.execute(
                "SELECT path, hashes FROM orgate_audit.tiles WHERE org = %s ORDER BY path LIMIT %s",
                (self._org, BATCH),
                binary=True,
            ).fetchall()
        for path, hashes in rows:
            kept = self._put(rule, path, hashes, _until(rule, now_ms, now_ms)) | {"newest_ms": now_ms}
            with self._server.use(self._org) as connection, connection.transaction():
                self._name(connection, kept)
                connection.execute(
                    "DELETE FROM orgate_audit.tiles WHERE org = %s AND path = %s AND hashes = %b",
                    (self._org, path, hashes),
                )

    def _put(self, rule: Rule, name: str, data: bytes, until: int) -> dict[str, object]:
        """Make the object; its row, as far as every object has it."""
        locked = self._objects.put(f"{self._org}/{name}", data, until, held=rule.held)
        digest = sha256(data).digest()
        row: dict[str, object] = {"name": name, "version": locked.version, "sha256": digest, "until": locked.until}
        return row | {"held": rule.held, "first": None, "count": None}

    def _name(self, connection: Connection, kept: dict[str, object]) -> None:
        if connection.execute(_NAME, kept | {"org": self._org, "writer": self._writer}).rowcount != 1:
            raise FencedError(5, "another process has taken this log over")

    # -- holds, times, removal ------------------------------------------------------------------------------

    def _hold(self, rule: Rule) -> None:
        """Crash between the bucket and the row: it is done once more."""
        while rows := self._rows("held <> %(held)s", held=rule.held):
            for name, version, _ in rows:
                self._objects.hold(f"{self._org}/{name}", version, on=rule.held)
                self._change("UPDATE orgate_audit.objects SET held = %s", rule.held, name)

    def _lengthen(self, rule: Rule, begin: int) -> None:
        """Locks are as long as entries are kept now; those that are longer already stay so."""
        keep_s = rule.keep_ms // 1000
        wanted = "until < newest_ms / 1000 + %(keep)s AND (first IS NULL OR first >= %(begin)s)"
        while rows := self._rows(wanted, keep=keep_s, begin=begin):
            for name, version, newest_ms in rows:
                until = newest_ms // 1000 + keep_s
                self._objects.retain(f"{self._org}/{name}", version, until)
                self._change("UPDATE orgate_audit.objects SET until = %s", until, name)

    def _remove(self, begin: int) -> None:
        """Lines that were dropped. The bucket refuses while a lock holds: then they are asked for again
        later."""
        for name, version, _ in self._rows("first < %(begin)s", begin=begin):
            self._objects.delete(f"{self._org}/{name}", version)
            with self._server.use(self._org) as connection:
                connection.execute(
                    "DELETE FROM orgate_audit.objects WHERE org = %s AND name = %s", (self._org, name)
                )

    def _rows(self, condition: LiteralString, **told: object) -> list[tuple[str, str, int]]:
        query: LiteralString = "SELECT name, version, newest_ms FROM orgate_audit.objects WHERE org = %(org)s AND "
        with self._server.use(self._org) as connection:
            return connection.execute(
                query + condition + " ORDER BY name LIMIT %(rows)s", {"org": self._org, "rows": BATCH, **told}
            ).fetchall()

    def _change(self, setting: LiteralString, value: object, name: str) -> None:
        with self._server.use(self._org) as connection:
            connection.execute(setting + " WHERE org = %s AND name = %s", (value, self._org, name))


def _until(rule: Rule, newest_ms: int, now_ms: int) -> int:
    """Unix seconds."""
    return max((newest_ms + rule.keep_ms) // 1000, now_ms // 1000 + LEAST_S)


def _checked(data: bytes, first: int) -> int:
    """The newest time in these lines. Raises OSError unless each is the next one after the other: what stood in
    the database was changed there, and is not made to last."""
    newest, before = 0, ""
    for index, line in enumerate(data.split(b"\n")[:-1], first):
        at, place, prev = _ENTRY.match(line), _INDEX.search(line), _PREV.search(line)
        if not at or not place or not prev or int(place[1]) != index or before not in ("", prev[1].decode()):
            raise OSError(5, f"entry {index} in PostgreSQL is not what was written: it does not become an object")
        newest, before = max(newest, int(at[1])), sha256(line).hexdigest()
    return newest

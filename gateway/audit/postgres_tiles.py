"""Full hash tiles in PostgreSQL until they are objects. Implements `Blobs`."""

from __future__ import annotations

from gateway.audit.log_store import FencedError
from gateway.audit.objects import Objects
from gateway.audit.postgres_server import PostgresServer
from tenants.ids import OrgId

_PUT = """
INSERT INTO orgate_audit.tiles (org, path, hashes)
SELECT org, %(path)s, %(hashes)b FROM orgate_audit.logs WHERE org = %(org)s AND writer = %(writer)s
ON CONFLICT (org, path) DO UPDATE SET hashes = excluded.hashes
"""


class PostgresTiles:
    """A tile that is an object already and is put once more, because that one was damaged, stays a row."""

    def __init__(self, server: PostgresServer, objects: Objects, org: OrgId, writer: str) -> None:
        self._server = server
        self._objects = objects
        self._org = org
        self._writer = writer

    def get(self, path: str) -> bytes | None:
        with self._server.use(self._org) as connection:
            row = connection.execute(
                "SELECT hashes FROM orgate_audit.tiles WHERE org = %s AND path = %s",
                (self._org, path),
                binary=True,
            ).fetchone()
            if row is not None:
                return bytes(row[0])
            kept = connection.execute(
                "SELECT version FROM orgate_audit.objects WHERE org = %s AND name = %s", (self._org, path)
            ).fetchone()
        return None if kept is None else self._objects.get(f"{self._org}/{path}", kept[0])

    def put(self, path: str, data: bytes) -> None:
        told = {"path": path, "hashes": data, "org": self._org, "writer": self._writer}
        with self._server.use(self._org) as connection:
            if connection.execute(_PUT, told).rowcount != 1:
                raise FencedError(5, "another process has taken this log over")

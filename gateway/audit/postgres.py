"""The logs of all organizations in one PostgreSQL database and one bucket. Implements `LogStores`."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.audit.mover import Sizes
from gateway.audit.objects import BucketError, Objects, ObjectsError
from gateway.audit.postgres_log import PostgresLog, mark_of
from gateway.audit.postgres_server import PostgresServer
from tenants.ids import OrgId, org_id

log = logging.getLogger(__name__)


class PostgresLogs:
    """`folder` is `<audit>` of this machine: it remembers the newest checkpoints there.

    A lock in the database keeps a second process out for as long as this one's connection lives; should it take
    the logs over after that, this one is fenced.
    """

    def __init__(
        self,
        server: PostgresServer,
        objects: Objects,
        folder: Path,
        sizes: Sizes,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._server = server
        self._objects = objects
        self._folder = folder
        self._sizes = sizes
        self._now = now
        self._writer = secrets.token_hex(16)
        self._opened = False

    def orgs(self) -> Sequence[OrgId]:
        self._open()
        with self._server.use(None) as connection:
            rows = connection.execute("SELECT org FROM orgate_audit.names ORDER BY org").fetchall()
        return [org_id(row[0]) for row in rows]

    def open(self, org: OrgId) -> PostgresLog:
        self._open()
        found = PostgresLog(
            self._server,
            self._objects,
            org,
            writer=self._writer,
            mark=mark_of(self._folder, org),
            sizes=self._sizes,
            now=self._now,
        )
        found.learn()
        return found

    def close(self) -> None:
        self._server.close()
        self._objects.close()

    def _open(self) -> None:
        """Raises `BucketError` for a bucket that keeps nothing; one that cannot be asked now does not stop a
        start: the database takes lines until it can."""
        if self._opened:
            return
        self._server.take()
        try:
            self._objects.check()
        except BucketError:
            self._server.close()
            raise
        except ObjectsError as error:
            log.warning("audit: lines stay in PostgreSQL: %s", error.strerror)
        self._opened = True

"""What a worker reads while the bus is down: the same file, read-only, without an event loop's help."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from msgspec import Struct

from tenants.models import Limit, Member, ModelAlias, Org, OrgRule, Price, Revocation, Service, State, Upstream
from tenants.snapshot import TenantRecord
from tenants.sql import rows
from tenants.sql.version import refuse_newer
from tenants.statickeys import Owner, ServedKey, StaticKey, served
from tenants.store import StoreUnavailableError

S = TypeVar("S", bound=Struct)

_PRICES: Final = """
SELECT prices.* FROM prices
JOIN (SELECT org, MAX(version) AS version FROM price_imports GROUP BY org) AS newest USING (org, version)
ORDER BY prices.org, prices.model
"""

_STATIC_KEYS: Final = """
SELECT static_keys.* FROM static_keys JOIN orgs ON orgs.id = static_keys.org AND orgs.personal_tokens = 1
ORDER BY static_keys.org, static_keys.id
"""
_PEOPLE: Final = """
SELECT members.* FROM members JOIN
(SELECT DISTINCT org, subject FROM static_keys) AS owned
ON owned.org = members.org AND owned.subject = members.id
"""
_SERVICES: Final = """
SELECT services.* FROM services JOIN
(SELECT DISTINCT org, subject FROM static_keys) AS owned
ON owned.org = services.org AND owned.subject = services.id
"""

_BUSY_MS: Final = 100
"""In WAL a reader waits for nobody but a recovery after a crash; it runs in the serving loop, so not long."""


class StoreReader:
    """A read-only connection to an embedded control store. For one thread. Errors: `StoreUnavailableError`."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        with _unavailable():
            self._connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=_BUSY_MS / 1000
            )
            self._connection.row_factory = sqlite3.Row
            try:
                refuse_newer(int(self._connection.execute("SELECT version FROM control_schema").fetchone()[0]))
            except BaseException:
                self._connection.close()
                raise

    def data_version(self) -> int:
        """A number that differs from the last one when somebody else has committed since. Costs 3 µs."""
        with _unavailable():
            return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    def load(self) -> tuple[int, tuple[TenantRecord, ...], tuple[Revocation, ...]]:
        """(the store's version, every organization, the revocations that still count), all of one instant."""
        with _unavailable():
            self._connection.execute("BEGIN")
            try:
                version = int(self._connection.execute("SELECT version FROM control_counters").fetchone()[0])
                return version, tuple(self._records()), self._revocations()
            finally:
                self._connection.execute("ROLLBACK")

    def close(self) -> None:
        self._connection.close()

    def _records(self) -> Iterator[TenantRecord]:
        upstreams = self._by_org(Upstream, "SELECT * FROM upstreams ORDER BY org, name")
        models = self._by_org(ModelAlias, "SELECT * FROM models ORDER BY org, name")
        limits = self._by_org(Limit, "SELECT * FROM limits ORDER BY org, name")
        rules = self._by_org(OrgRule, "SELECT * FROM rules ORDER BY org, name")
        prices = self._by_org(Price, _PRICES)
        keys = self._static_keys()
        for org in self._all(Org, "SELECT * FROM orgs ORDER BY id"):
            yield TenantRecord(
                org=org,
                upstreams=tuple(upstreams.get(org.id, ())),
                models=tuple(models.get(org.id, ())),
                limits=tuple(limits.get(org.id, ())),
                rules=tuple(rules.get(org.id, ())),
                prices=tuple(prices.get(org.id, ())),
                static_keys=keys.get(org.id, ()),
            )

    def _static_keys(self) -> dict[str, tuple[ServedKey, ...]]:
        found: dict[str, list[tuple[str, StaticKey]]] = {}
        for row in self._connection.execute(_STATIC_KEYS):
            found.setdefault(row["org"], []).append((row["digest"], _struct(StaticKey, row)))
        if not found:
            return {}
        teams: dict[tuple[str, str], list[str]] = {}
        for row in self._connection.execute("SELECT org, member, team FROM team_members ORDER BY org, team"):
            teams.setdefault((row["org"], row["member"]), []).append(row["team"])
        owners: dict[str, dict[str, Owner]] = {}
        for one in self._all(Member, _PEOPLE):
            mine = tuple(teams.get((one.org, one.id), ()))
            owners.setdefault(one.org, {})[one.id] = Owner(one.roles, one.state is State.ACTIVE, mine)
        for account in self._all(Service, _SERVICES):
            active = account.state is State.ACTIVE
            owners.setdefault(account.org, {})[account.id] = Owner(account.roles, active)
        return {org: served(keys, owners.get(org, {}), self._clock()) for org, keys in found.items()}

    def _by_org(self, kind: type[S], statement: str) -> dict[str, list[S]]:
        found: dict[str, list[S]] = {}
        for row in self._connection.execute(statement):
            found.setdefault(row["org"], []).append(_struct(kind, row))
        return found

    def _revocations(self) -> tuple[Revocation, ...]:
        statement = "SELECT * FROM revocations WHERE expires_at > ? ORDER BY org, member, token_id"
        return tuple(self._all(Revocation, statement, int(self._clock())))

    def _all(self, kind: type[S], statement: str, *values: int) -> Iterator[S]:
        return (_struct(kind, row) for row in self._connection.execute(statement, values))


def _struct(kind: type[S], row: sqlite3.Row) -> S:
    return rows.decode(kind, dict(row))


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreUnavailableError(f"the control store cannot be read now: {error}") from error

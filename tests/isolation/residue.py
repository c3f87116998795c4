"""What is left behind: whose canaries lie in whose rows, files, keys, log lines and metrics; and that there is a
canary in every field to begin with."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path

import sqlalchemy

from tests.isolation.fields import EXEMPT
from tests.isolation.matrix import Matrix
from tests.isolation.names import secret
from tests.kit.redis import RedisServer

TEXTS = (sqlalchemy.String, sqlalchemy.Text)


def tables() -> dict[str, sqlalchemy.Table]:
    """Every table of every part that stores anything."""
    from gateway.oauth import tables as oauth
    from tenants.sql import tables as control

    return {**control.metadata.tables, **oauth.metadata.tables}


def rows(database: Path, table: sqlalchemy.Table) -> Iterator[tuple[str, dict[str, object]]]:
    """(organization, row) of each row; '' where a table knows none."""
    whose = "org" if "org" in table.c else "id" if table.name == "orgs" else ""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        for row in connection.execute(f'SELECT * FROM "{table.name}"'):
            yield str(row[whose]) if whose else "", dict(row)


def stored(matrix: Matrix) -> None:
    """No row of one organization holds anything of another's, and no row at all a secret."""
    world = matrix.world
    database = world.gateway.home / "control.db"
    for table in tables().values():
        for org, row in rows(database, table):
            text = repr(sorted(row.items()))
            for other, planted in world.orgs.items():
                found = [canary for canary in planted.canaries if canary in text]
                if (found and org and org != other) or secret(other) in text:
                    matrix.ledger.canary_bytes += sum(map(len, found))
                    matrix.ledger.fault("bytes", f"table {table.name}, a row of {org or 'nobody'}", text)


def planted(matrix: Matrix, org: str = "acme") -> None:
    """Every column that holds text has something of `org` in it that is `org`'s alone, or says why it has not."""
    world = matrix.world
    database = world.gateway.home / "control.db"
    for table in tables().values():
        held = [row for whose, row in rows(database, table) if whose == org]
        for column in table.columns:
            name = f"{table.name}.{column.name}"
            if name in EXEMPT or not isinstance(column.type, TEXTS) or column.name in {"org", "id"}:
                continue
            if not any(_own(matrix, org, str(row[column.name])) for row in held):
                matrix.ledger.fault(
                    "gap", name, f"holds no canary of {org}: plant one, or say in fields.py why not"
                )


def _own(matrix: Matrix, org: str, text: str) -> bool:
    """Whether nobody else could have this there: a canary, an id, a host name, a path outside."""
    known = matrix.world.orgs[org]
    people = [person.member for person in known.people.values()]
    ids = [one for one in known.ids.values() if len(one) > 16]
    marks = [f"zqid{org}", f"{org}.", f"/{org}", known.member, *people, *ids, *known.canaries]
    return text == org or any(mark in text for mark in marks)


def files(matrix: Matrix) -> None:
    """A folder or file that is named after one organization holds nothing of another's; none holds a secret."""
    world = matrix.world
    for path in sorted(world.gateway.home.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        inside = path.relative_to(world.gateway.home)
        whose = next((part for part in inside.parts if part in world.orgs), "")
        for other, planted_there in world.orgs.items():
            if secret(other).encode() in content:
                matrix.ledger.fault("bytes", f"file {inside}", f"a secret of {other}")
            if whose and whose != other and any(one.encode() in content for one in planted_there.canaries):
                matrix.ledger.fault("bytes", f"file {inside}", f"something of {other}")


def told(matrix: Matrix, log: Path) -> None:
    """A line of the log, or of the metrics, that says something of an organization's names that organization."""
    world = matrix.world
    metrics = world.operator.admin("GET", "/metrics").text
    matrix.ledger.requests += 1
    for name, text in (("log", log.read_text()), ("metrics", metrics)):
        for line in text.splitlines():
            for org, planted_there in world.orgs.items():
                if secret(org) in line:
                    matrix.ledger.fault("bytes", name, f"a secret of {org}: {line[:200]}")
                stripped = line.replace(f"zqcan{org}", "").replace(f"zqid{org}", "")
                if any(one in line for one in planted_there.canaries) and org not in stripped:
                    matrix.ledger.fault("bytes", name, f"something of {org}, and not whose it is: {line[:200]}")


def redis(matrix: Matrix, server: RedisServer) -> None:
    """Every key is of one organization by its hash tag, and neither it nor its value tells of another."""
    seen: set[str] = set()
    with server.client() as client:
        keys: Iterable[bytes] = client.scan_iter(count=1_000)
        for raw in keys:
            key = raw.decode()
            whose = key[key.find("{") + 1 : key.find("}")] if "{" in key else ""
            if not whose:
                matrix.ledger.fault("bytes", f"Redis key {key}", "has no organization's hash tag")
                continue
            seen.add(whose)
            text = key + repr(client.dump(raw))
            for other, planted_there in matrix.world.orgs.items():
                marks = [f"zqid{other}", planted_there.people["member"].member, *planted_there.canaries]
                if other != whose and any(mark in text for mark in marks):
                    matrix.ledger.fault("bytes", f"Redis key {key}", f"tells of {other}")
    if not seen >= set(matrix.world.orgs):
        matrix.ledger.fault("gap", "Redis", f"has keys of {sorted(seen)} alone")

"""Where a control store can live, and things to put into one. A further backend is a further class here."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from policies.facts import Action, Role
from policies.rules import Effect
from tenants.budgets import BudgetUse, Notice
from tenants.clients import OAuthClient
from tenants.ids import PLATFORM, MemberId, OrgId, ServiceId
from tenants.models import (
    Limit,
    LimitScope,
    LimitUnit,
    Member,
    ModelAlias,
    Org,
    OrgRule,
    Price,
    Service,
    Team,
    Upstream,
)
from tenants.sql.store import SqlControlStore, open_store, sqlite_url
from tenants.store import Actor
from tests.kit.postgres_store import empty_control_database

OPERATOR = Actor(org=PLATFORM, member="mem_op", client="orgate-cli", request_id="req-1")
NOW = 1_800_000_000.25


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Backend(Protocol):
    """One empty database, which may be opened again and again."""

    @property
    def url(self) -> str: ...

    async def open(self, clock: Clock) -> SqlControlStore: ...


_made: dict[float, bytes] = {}
"""New databases by the time at which they were made; 0: at some time of this run."""


async def new_store(path: Path, clock: Callable[[], float] = time.time) -> SqlControlStore:
    """The SQLite database at `path`, which is new unless it is there.

    Its forty tables are made once for each time that a clock stands at, and copied: that is most of what a test of
    the store would wait for. `tests/unit/tenants/sql/test_sqlite.py` has them made where they are.
    """
    now = 0.0 if clock is time.time else clock()
    if not path.exists() and (known := _made.get(now)) is not None:
        path.touch(mode=0o600)
        path.write_bytes(known)
    elif not path.exists():
        await (await open_store(sqlite_url(path), clock=clock)).close()
        _made[now] = path.read_bytes()
    return await open_store(sqlite_url(path), clock=clock)


class SqliteBackend:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "control.db"

    @property
    def url(self) -> str:
        return sqlite_url(self.path)

    async def open(self, clock: Clock) -> SqlControlStore:
        return await new_store(self.path, clock)


class PostgresBackend:
    def __init__(self, folder: Path) -> None:
        self.database = empty_control_database()

    @property
    def url(self) -> str:
        return self.database.url

    async def open(self, clock: Clock) -> SqlControlStore:
        return await open_store(self.url, clock=clock)


BACKENDS: dict[str, Callable[[Path], Backend]] = {"sqlite": SqliteBackend, "postgres": PostgresBackend}


def in_process(script: str, *arguments: str) -> int:
    """Run `script` in a Python of its own, which may kill itself. Returns its exit status."""
    return subprocess.run([sys.executable, "-c", script, *arguments], check=False, timeout=60).returncode


def org(name: str, **changes: object) -> Org:
    return Org(**{"id": OrgId(name), "name": name.title(), **changes})  # type: ignore[arg-type]


def member(of: str, key: str = "mem_1", **changes: object) -> Member:
    values = {"email": f"{key}@{of}.example", "name": "A Person", "roles": (Role.MEMBER, Role.ADMIN), **changes}
    return Member(org=OrgId(of), id=MemberId(key), **values)  # type: ignore[arg-type]


def team(of: str, name: str = "core", **changes: object) -> Team:
    return Team(org=OrgId(of), name=name, **{"title": "The Core", **changes})  # type: ignore[arg-type]


def service(of: str, key: str = "svc_1", **changes: object) -> Service:
    values = {"name": "ci", "roles": (Role.MEMBER, Role.AUDITOR), **changes}
    return Service(org=OrgId(of), id=ServiceId(key), **values)  # type: ignore[arg-type]


def client(of: str, name: str = "ide", **changes: object) -> OAuthClient:
    values = {"title": "An Editor", "redirect_uris": ("http://127.0.0.1/cb",), **changes}
    return OAuthClient(org=OrgId(of), name=name, **values)  # type: ignore[arg-type]


def upstream(of: str, name: str = "main", **changes: object) -> Upstream:
    values = {"base_url": f"https://{of}.example", **changes}
    return Upstream(org=OrgId(of), name=name, **values)  # type: ignore[arg-type]


def model(of: str, name: str = "code", **changes: object) -> ModelAlias:
    values = {"upstream": "main", "model": "vendor/code-7b", **changes}
    return ModelAlias(org=OrgId(of), name=name, **values)  # type: ignore[arg-type]


def limit(of: str, name: str = "each", **changes: object) -> Limit:
    values = {"scope": LimitScope.MEMBER, "unit": LimitUnit.REQUESTS, "amount": 60, **changes}
    return Limit(org=OrgId(of), name=name, **values)  # type: ignore[arg-type]


def rule(of: str, name: str = "no-embeddings", **changes: object) -> OrgRule:
    values = {
        "effect": Effect.DENY,
        "roles": (Role.MEMBER,),
        "actions": (Action.EMBED,),
        "models": ("code-*",),
        **changes,
    }
    return OrgRule(org=OrgId(of), name=name, **values)  # type: ignore[arg-type]


def price(of: str, name: str = "gpt-code", **changes: int) -> Price:
    return Price(OrgId(of), name, **{"input": 150_000_000, "output": 600_000_000, **changes})


def use(of: str, name: str = "month", **changes: Any) -> BudgetUse:
    """Half of a budget, in a window that holds `NOW`."""
    values = {"subject": "mem_1", "unit": LimitUnit.TOKENS, "amount": 100, "used": 50, "at_us": int(NOW * 1e6)}
    window = {"starts_s": int(NOW) - 1000, "ends_s": int(NOW) + 1000}
    return BudgetUse(OrgId(of), name, **{**values, **window, **changes})


def notice(of: str, name: str = "month", **changes: Any) -> Notice:
    window = {"starts_s": int(NOW) - 1000, "ends_s": int(NOW) + 1000}
    values = {"subject": "mem_1", "percent": 80, "unit": LimitUnit.TOKENS, "amount": 100, "used": 82, "at": 0}
    return Notice(OrgId(of), name, **{**values, **window, **changes})

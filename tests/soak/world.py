"""The gateway of the soak: several organizations with two people each, and the upstream they all share."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tests.integration.gateway.invariants import Budget
from tests.integration.gateway.world import bind, family, invite
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.soak.storm import Principal

ORGS = ("globex", "initech")
"""Besides acme, which is there from the start."""

CONNECTIONS = 4
"""That a worker may hold to the upstream, for each organization."""

BUDGET = Budget(requests=60_000, tokens=20_000_000)


@dataclass(frozen=True)
class Tenant:
    """One organization: its owner, who reads its log, and its model with a budget from `laid_at` on."""

    owner: Session
    model: str
    laid_at: float
    people: tuple[Principal, ...]


def populate(gateway: RunningGateway, pki: Pki, url: str) -> list[Tenant]:
    """Sign everybody in and bind a model to `url` in each organization. Seconds, for passwords are hashed."""
    operator, owners = gateway.operator(), [gateway.owner()]
    for org in ORGS:
        operator.admin("POST", "/admin/v1/orgs", json={"id": org, "name": org.title()})
        owners.append(invite(gateway, operator, org, "owner", "owner").session)
    tenants = []
    for owner in owners:
        member = invite(gateway, owner, owner.org, "member", "member").session
        laid_at = time.monotonic()
        limits = [{"unit": "concurrency", "amount": 200, "period_s": 0}, *BUDGET.limits()]
        model = bind(owner, pki, url, limits=limits, connections=CONNECTIONS, protocol="h2")
        people = tuple(Principal(session.access_token, model) for session in (owner, member))
        tenants.append(Tenant(owner, model, laid_at, people))
    return tenants


def worker(gateway: RunningGateway) -> int:
    """The process id of the one worker: of all that descends from the server the one with no children that
    listens where clients come in."""
    port = f":{gateway.public_port:04X}"
    for pid in reversed(family(gateway)):
        if not _children(pid) and port in _listening(pid):
            return pid
    raise AssertionError("the server has no worker")


def anonymous_mb(pid: int) -> float:
    """Resident memory of its own, in MB: files it has mapped, the audit spool among them, left out (proc(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"/proc/{pid}/status has no RssAnon")


def _children(pid: int) -> bool:
    return any((task / "children").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir())


def _listening(pid: int) -> str:
    """The local addresses of TCP sockets that listen and are open in `pid`."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue  # closed since the folder was listed
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return " ".join(row[1] for row in rows if row[3] == "0A" and row[9] in inodes)

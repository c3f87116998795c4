"""A running gateway with people in it, and how a test binds a model to its own upstream.

The gateway is shared by many tests, so each makes an alias of its own: nobody else's traffic comes there.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.h2client import H2Client

KEY = "sk-upstream-5e1f0c3b9a"
"""The upstreams' key. It goes to them, and may be seen nowhere else."""

READ_S = 60.0

_numbers = itertools.count(1)

Entry = dict[str, Any]


def new_request_id() -> str:
    """Unique in this test run, so that an audit entry can be told apart."""
    return f"req-test-{next(_numbers):06}"


@dataclass
class Member:
    """A person, their id, and their session."""

    id: str
    session: Session


@dataclass
class World:
    """`owner`, `ada` and `ben` are of acme; `eve` owns globex."""

    gateway: RunningGateway
    pki: Pki
    operator: Session
    owner: Session
    ada: Member
    ben: Member
    eve: Session

    async def connect(self, *, window: int = 65_535) -> H2Client:
        return await connect(self.gateway, window=window)


def populate(gateway: RunningGateway, pki: Pki) -> World:
    """Sign everybody in. Seconds, for passwords are hashed."""
    operator, owner = gateway.operator(), gateway.owner()
    operator.admin("POST", "/admin/v1/orgs", json={"id": "globex", "name": "Globex"})
    eve = invite(gateway, operator, "globex", "eve", "owner").session
    ada, ben = (invite(gateway, owner, "acme", name, "member") for name in ("ada", "ben"))
    return World(gateway, pki, operator, owner, ada, ben, eve)


def invite(gateway: RunningGateway, by: Session, org: str, name: str, role: str) -> Member:
    email = f"{name}@{org}.test"
    made = by.admin(
        "POST", f"/admin/v1/orgs/{org}/members", json={"email": email, "name": name, "roles": [role]}
    ).json()
    session = gateway.sign_in(org, email, invitation=made["invitation"]["code"])
    return Member(made["member"]["id"], session)


async def connect(gateway: RunningGateway, *, window: int = 65_535) -> H2Client:
    """One HTTP/2 connection to the public listener."""
    context = Pki(_development(gateway)).client_context()
    return await H2Client.connect("127.0.0.1", gateway.public_port, context, window=window)


def _development(gateway: RunningGateway) -> Any:
    installed = gateway.installed
    from gateway.pki import DevelopmentTls

    return DevelopmentTls(installed.ca, installed.certificate, installed.key)


def bind(
    admin: Session,
    pki: Pki,
    url: str,
    *,
    key: str = KEY,
    limits: Iterable[Entry] = (),
    tasks: Sequence[str] = ("completions", "chat", "embeddings"),
    **upstream: Any,
) -> str:
    """An upstream at `url` with its key, and an alias for it, in the organization of `admin`. Returns the alias.

    `limits` are for this alias alone (`unit`, `amount`, ...). Live on every worker when it returns.
    """
    name = f"m{next(_numbers)}"
    fields = {"connections": 1, "protocol": "auto", **upstream}
    admin.create("upstreams", name=name, base_url=url, ca_pem=pki.ca_pem, **fields)
    if key:
        admin.admin("PUT", f"/admin/v1/orgs/{admin.org}/upstreams/{name}/key", json={"key": key})
    admin.create("models", name=name, upstream=name, model="real-model", tasks=list(tasks))
    for number, limit in enumerate(limits):
        admin.create("limits", name=f"{name}-{number}", scope="model", subject=name, **limit)
    return name


def log_size(session: Session) -> int:
    """How many entries the organization's audit log has now. Its checkpoint says so too, once in a second."""
    nothing = {"action": "is.none", "limit": 1}
    page = session.admin("GET", f"/admin/v1/orgs/{session.org}/audit/entries", params=nothing).json()
    assert page["items"] == []
    size: int = page["next"]
    return size


class Log:
    """The audit log of an organization from this moment on, read as an auditor reads it: over the admin API."""

    def __init__(self, session: Session, after: int | None = None) -> None:
        """`session` must be allowed to read it and to list models."""
        self._session = session
        if after is None:
            after = log_size(session)
        self._after = after
        self.entries: list[Entry] = []

    async def of(self, request_ids: Sequence[str]) -> dict[str, Entry]:
        """The entries of requests that are over; exactly one each.

        A worker's entries come in order: a listing asked for now fences off what was settled before it.
        Workers take turns, so with several of them each must have said its part.
        """
        missing = set(request_ids)
        end = time.monotonic() + READ_S
        while missing:
            assert time.monotonic() < end, f"no entry for {sorted(missing)}"
            await self._read()
            missing -= {entry.get("request_id") for entry in self.entries}
        await self._fence()
        found: dict[str, Entry] = {}
        for request_id in request_ids:
            entries = [entry for entry in self.entries if entry.get("request_id") == request_id]
            assert len(entries) == 1, f"{request_id} has {len(entries)} entries: {entries}"
            found[request_id] = entries[0]
        return found

    async def _fence(self) -> None:
        fence = new_request_id()
        gateway = self._session.gateway
        headers = {**self._session.bearer, "x-request-id": fence}
        answer = await asyncio.to_thread(gateway.http.get, gateway.url + "/v1/models", headers=headers)
        assert answer.status_code == 200, answer.text
        end = time.monotonic() + READ_S
        while not any(entry.get("request_id") == fence for entry in self.entries):
            assert time.monotonic() < end, "the fence never came"
            await self._read()

    async def _read(self) -> None:
        path = f"/admin/v1/orgs/{self._session.org}/audit/entries"
        query = {"after": self._after, "limit": 1000, "wait_s": 2}
        page = (await asyncio.to_thread(self._session.admin, "GET", path, params=query)).json()
        self.entries += page["items"]
        self._after = page["next"]


def family(gateway: RunningGateway) -> list[int]:
    """The process ids of a running server: the supervisor and everything that descends from it."""
    assert gateway.process is not None
    found = [gateway.process.pid]
    for parent in found:
        with suppress(FileNotFoundError, ProcessLookupError):  # it, or a thread of it, has just ended
            for task in sorted(Path(f"/proc/{parent}/task").iterdir()):
                found += map(int, (task / "children").read_text().split())
    return found


def stored(home: Path, org: str) -> list[Entry]:
    """All entries of `org` as they lie on disk."""
    files = sorted((home / "audit/orgs" / org).glob("log-*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_bytes().splitlines()]


def sse(text: str) -> bytes:
    """One event of a completion stream."""
    return b'data: {"choices":[{"index":0,"text":"%s"}]}\n\n' % text.encode()


SSE_HEAD = [("content-type", "text/event-stream")]
DONE = b"data: [DONE]\n\n"

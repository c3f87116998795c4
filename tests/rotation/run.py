"""Rotations under load: a whole gateway with two workers, a model that takes only the keys of the moment, and
completions all the while. `python -m tests.rotation [COUNT] [sealed|fake|real]` prints the figures and exits 1
when a request failed."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import ssl
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from msgspec import Struct

from gateway.pki import DevelopmentTls
from tests.integration.gateway.world import bind
from tests.kit.certs import Pki
from tests.kit.gateway import RunningGateway, Session
from tests.kit.scripts import openai
from tests.kit.upstream import RecordingUpstream, Request
from tests.kit.vault import vault_place

COUNT = 10_000
AT_ONCE = 8
PATIENCE_S = 60.0
SWITCHED_S = 5.0
PREFIX = "sk-PLANTED-rotation-"


class Figures(Struct, frozen=True):
    """`retried`: requests that the model refused with one key and answered with another. `slowest_switch_s`: from
    the order to rotate to the last request with the key before."""

    backend: str
    requests: int
    failures: int
    statuses: dict[str, int]
    rotations: int
    turned_away: int
    rolled_back: int
    retried: int
    slowest_switch_s: float
    slowest_request_ms: float
    seconds: float

    @property
    def faults(self) -> list[str]:
        found = [] if not self.failures else [f"{self.failures} requests failed: {self.statuses}"]
        if self.slowest_switch_s > SWITCHED_S:
            found.append(f"a switch took {self.slowest_switch_s:.1f} s")
        if not self.retried:
            found.append("no request met a dead key: nothing was shown")
        return found


class Provider:
    """A model that takes the keys in `good`. A key in `fading` is taken for as many completions as it says, and is
    dead then."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.fading: dict[str, int] = {}
        self.refused = 0
        self.last_seen: dict[str, float] = {}
        self._answer = openai(chunks=2)

    def __call__(self, request: Request) -> Coroutine[Any, Any, None] | None:
        key = request.headers["authorization"].removeprefix("Bearer ")
        if request.method == "POST":
            self.last_seen[key] = time.monotonic()
        if key in self.good or self._fades(key, request.method):
            return self._answer(request)
        self.refused += request.method == "POST"
        request.respond(401, [("content-type", "application/json")])
        request.send(b"{}", end=True)
        return None

    def _fades(self, key: str, method: str) -> bool:
        left = self.fading.get(key, 0)
        if method == "POST" and left:
            self.fading[key] = left - 1
        return left > 0


class Load:
    """Completions, `AT_ONCE` at a time, until the block ends."""

    def __init__(self, client: httpx.AsyncClient, session: Session, model: str) -> None:
        self.statuses: Counter[int] = Counter()
        self.slowest_s = 0.0
        self._client, self._session, self._model = client, session, model
        self._enough = False

    async def __aenter__(self) -> Load:
        self._tasks = [asyncio.create_task(self._run()) for _ in range(AT_ONCE)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        wanted = self.statuses.total() + count
        while self.statuses.total() < wanted and not any(task.done() for task in self._tasks):
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        body = {"model": self._model, "prompt": "def fib(n):", "max_tokens": 5}
        while not self._enough:
            began = time.monotonic()
            answer = await self._client.post("/v1/completions", headers=self._session.bearer, json=body)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.statuses[answer.status_code] += 1


@contextmanager
def gateway_on(backend: str, home: Path) -> Iterator[RunningGateway]:
    """`backend`: `sealed`, or a kind of Vault."""
    if backend == "sealed":
        with RunningGateway(home, workers=2, settings={"ORGATE_SERVER__LOG_LEVEL": "debug"}) as gateway:
            yield gateway
        return
    with vault_place(backend, home) as place:
        vault = place.prepare("acme")
        settings = {
            "ORGATE_SECRETS__UPSTREAM_KEYS": "vault",
            "ORGATE_VAULT__ADDRESS": vault.address,
            "ORGATE_VAULT__MOUNT": vault.mount,
            "ORGATE_VAULT__ROLE": vault.role,
            "ORGATE_SERVER__LOG_LEVEL": "debug",
        }
        with RunningGateway(home, workers=2, settings=settings) as gateway:
            yield gateway


async def rotate_under_load(gateway: RunningGateway, owner: Session, backend: str, count: int) -> Figures:
    """Rounds, one at least, until `count` requests have been answered. In each: a rotation whose old key dies at
    once; one key that never passes; one that passes, serves a while and dies within its overlap; one whose overlap
    ends."""
    installed = gateway.installed
    pki = Pki(DevelopmentTls(installed.ca, installed.certificate, installed.key))
    names = (f"{PREFIX}{number}" for number in itertools.count())
    key = next(names)
    provider = Provider(key)
    began = time.monotonic()
    rotations = turned_away = rolled_back = 0
    slowest = 0.0
    context = ssl.create_default_context(cafile=str(gateway.ca))
    limits = httpx.Limits(max_connections=AT_ONCE)
    async with (
        RecordingUpstream(tls=pki.server_context(), script=provider) as upstream,
        httpx.AsyncClient(
            verify=context, base_url=gateway.url, timeout=60, trust_env=False, limits=limits
        ) as client,
    ):
        model = await asyncio.to_thread(bind, owner, pki, upstream.url, key=key)
        where = f"/admin/v1/orgs/acme/upstreams/{model}/key"

        async def rotate(new: str, overlap_s: int = 600, expect: int | None = None) -> None:
            body = {"key": new, "overlap_s": overlap_s}
            await asyncio.to_thread(owner.admin, "POST", where, json=body, expect=expect)

        async def state() -> dict[str, Any]:
            items = (await asyncio.to_thread(owner.admin, "GET", "/admin/v1/orgs/acme/keys")).json()["items"]
            found: dict[str, Any] = next(item for item in items if item["upstream"] == model)
            return found

        step = max(count // 32, 3 * AT_ONCE)
        async with Load(client, owner, model) as load:
            await load.more(step)
            while load.statuses.total() < count:
                # The old key is dead the moment that the new one is everywhere.
                new = next(names)
                provider.good.add(new)
                ordered = time.monotonic()
                await rotate(new)
                provider.good.discard(key)
                await load.more(step)
                slowest = max(slowest, provider.last_seen[key] - ordered)
                key, rotations = new, rotations + 1
                # One that never passes.
                await rotate(next(names), expect=409)
                turned_away += 1
                await load.more(step)
                # One that passes its canaries, serves a while, and is refused then.
                bad = next(names)
                provider.good.add(bad)
                await rotate(bad)
                provider.fading[bad] = step
                provider.good.discard(bad)
                await load.more(step)
                await until(state, lambda now: "was refused" in now["failure"])
                rolled_back += 1
                await load.more(step)
                # One whose overlap ends under load.
                new = next(names)
                provider.good.add(new)
                ordered = time.monotonic()
                await rotate(new, overlap_s=1)
                await until(state, lambda now: now["state"] == "set")
                provider.good.discard(key)
                await load.more(step)
                slowest = max(slowest, provider.last_seen[key] - ordered)
                key, rotations = new, rotations + 1
                await until(state, lambda now: now["used_at"] > 0)
    total = load.statuses.total()
    return Figures(
        backend=backend,
        requests=total,
        failures=total - load.statuses[200],
        statuses={str(status): number for status, number in sorted(load.statuses.items())},
        rotations=rotations,
        turned_away=turned_away,
        rolled_back=rolled_back,
        retried=provider.refused,
        slowest_switch_s=round(slowest, 3),
        slowest_request_ms=round(load.slowest_s * 1000, 1),
        seconds=round(time.monotonic() - began, 1),
    )


async def until(look: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds(now := await look()):
        assert time.monotonic() < end, now
        await asyncio.sleep(0.05)


def planted(home: Path) -> list[Path]:
    """Files below `home` that hold a key."""
    return [path for path in home.rglob("*") if path.is_file() and PREFIX.encode() in path.read_bytes()]


def main() -> int:
    parser = argparse.ArgumentParser(description="Rotate keys under load; exits 1 when a request failed.")
    parser.add_argument("count", type=int, nargs="?", default=COUNT, help="Requests, at least.")
    parser.add_argument("backend", nargs="?", default="sealed", choices=("sealed", "fake", "real"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        home.mkdir(mode=0o700)
        with gateway_on(given.backend, home) as gateway:
            figures = asyncio.run(rotate_under_load(gateway, gateway.owner(), given.backend, given.count))
        found = planted(home)
    for name in figures.__struct_fields__:
        print(f"{name:20} {getattr(figures, name)}")
    faults = [*figures.faults, *(f"a key is in {path.name}" for path in found)]
    for fault in faults:
        print(f"FAULT: {fault}")
    return 1 if faults else 0

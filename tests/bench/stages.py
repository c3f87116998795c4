"""What each stage of one JSON request costs, with its real code and real objects, in a process of its own.

    python -m tests.bench.stages <folder> <upstream's port> <its CA>

Prints one line of JSON: stage → microseconds of CPU a request, the least of several rounds. The stages that only
compute run in a loop; the limits ask a real owner in this process; the transport asks the rig's upstream over
TLS, 32 at a time; the audit spool writes to disk. What this cannot see (the bus, a loop and caches that have many
things to do) is the rest in the benchmark's table.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import uvloop

from gateway.api.data.openai import decoder
from gateway.audit.spool import Spool
from gateway.authn.verify import Authenticator
from gateway.authorize.stage import authorize, resolve
from gateway.clock import SystemClock
from gateway.counters import Counters
from gateway.exchange import (
    Claim,
    Credential,
    Hold,
    Permit,
    Receipt,
    Reservation,
    Route,
    SpoolUp,
    Usage,
    Used,
)
from gateway.ledger import Ledger
from gateway.limits.accounts import LimitOwner
from gateway.limits.claims import limits_for
from gateway.limits.protocol import REBUILD_S
from gateway.limits.slices import SlicedLimits
from gateway.limits.tokens import EXACT, Tokens
from gateway.secret import Secret
from gateway.secrets.lease import KeyLeases
from gateway.upstream.relay import Progress, Relay, read_answer
from gateway.upstream.transport import TransportPool
from policies.facts import Action, Role
from policies.rules import Effect
from tenants.ids import OrgId
from tenants.models import Limit, LimitScope, LimitUnit, ModelAlias, Org, OrgRule, Upstream, WireProtocol
from tenants.snapshot import Snapshot, TenantRecord
from tests.bench.rig import JSON
from tests.unit.authn import tokens

ROUNDS = 5
COUNT = 1_000
STAGES = ("token", "decode", "policy", "limit", "route", "transport", "ledger", "audit", "metrics")

_ACME = OrgId("acme")
_USAGE = Usage(300, 20, counted=False)


class _Keys:
    async def get(self, org: OrgId, upstream: str) -> Credential:
        return Credential(1, Secret(b"sk-bench-upstream"))

    async def get_before(self, org: OrgId, upstream: str, version: int) -> Credential:
        raise NotImplementedError


class _NoTokens:
    """The rig's upstream takes its key as it is."""

    def peek(self, upstream: Upstream, credential: Credential) -> Credential | None:
        raise NotImplementedError

    async def lease(self, upstream: Upstream, credential: Credential) -> Credential:
        raise NotImplementedError

    def refused(self, upstream: Upstream, token: Credential) -> None:
        raise NotImplementedError


class Stages:
    """One organization as the benchmark's gateway has it: a model, a rule, limits on requests and tokens."""

    def __init__(self, folder: Path, upstream_port: int, ca_pem: str) -> None:
        clock = self._clock = SystemClock()
        self._folder = folder
        url = f"https://127.0.0.1:{upstream_port}"
        record = TenantRecord(
            org=Org(_ACME, "Acme"),
            upstreams=(Upstream(_ACME, "rig", url, protocol=WireProtocol.H2, ca_pem=ca_pem, key_version=1),),
            models=(ModelAlias(_ACME, "bench", "rig", "bench"),),
            rules=(OrgRule(_ACME, "all", Effect.ALLOW, (Role.MEMBER,), (Action.CHAT,), ("*",)),),
            limits=tuple(
                Limit(_ACME, unit.value, LimitScope.MEMBER, unit, 2_000_000_000)
                for unit in (LimitUnit.REQUESTS, LimitUnit.TOKENS)
            ),
        )
        self._snapshot = Snapshot(1, (record,), (), tokens.jwks("server"))
        self._authn = Authenticator(tokens.ISSUER, tokens.AUDIENCE, lambda: float(tokens.NOW))
        self._bearer = f"Bearer {tokens.token()}".encode()
        self._body = JSON.body()
        self._decode = decoder(Action.CHAT)
        owner = LimitOwner(lambda: int(clock.now() * 1_000_000))
        self._limits = SlicedLimits("bench", owner, clock=clock, folder=folder / "limits")
        self._keys = KeyLeases(_Keys(), time.monotonic)
        self._transports = TransportPool(allowed=(IPv4Network("127.0.0.0/8"),))
        self._relay = Relay(self._transports, _NoTokens(), clock.now)
        self._counters = Counters()
        self._tokens = Tokens()

    async def measure(self) -> dict[str, float]:
        principal = self._authn.authenticate(self._bearer, "gateway.example", self._snapshot)
        tenant = resolve(principal, self._snapshot)
        call = self._decode(self._body)
        permit = authorize(principal, tenant, call)
        for _ in range(EXACT):  # as after a worker's first few requests
            self._tokens.learn(permit, _USAGE, 0)
        await self._served_for_a_while(permit)
        hold = await self._limits.reserve(self._claims(permit))
        await self._keys.lease(_ACME, "rig", 1)
        route = self._route(Reservation(permit=permit, hold=hold))
        receipt = self._receipt(permit, hold, route)
        costs = {
            "token": _least(lambda: self._authn.authenticate(self._bearer, "gateway.example", self._snapshot)),
            "decode": _least(lambda: self._decode(self._body)),
            "policy": _least(lambda: authorize(principal, resolve(principal, self._snapshot), call)),
            "route": _least(lambda: self._route(Reservation(permit=permit, hold=hold))),
            "ledger": _least(lambda: self._receipt(permit, hold, route)),
            "metrics": _least(lambda: self._counters.observe(receipt)),
            "limit": await _least_async(lambda: self._limit(permit), streams=1),
            "transport": await _least_async(lambda: self._ask_upstream(route), streams=32),
            "audit": await self._audit(receipt, permit),
        }
        hold.settle(Used(10))
        await self._transports.aclose()
        durability = await self._durability(receipt, permit, route)
        return {stage: round(costs[stage], 2) for stage in STAGES} | durability

    async def _limit(self, permit: Permit) -> None:
        """Mostly out of a slice; now and then the owner is asked, which here is in the same process."""
        claims = self._claims(permit)
        hold = self._limits.take(claims) or await self._limits.reserve(claims)
        hold.headers()
        hold.settle(Used(20))

    async def _served_for_a_while(self, permit: Permit) -> None:
        """A store that has just begun lends nothing ahead, and is asked each time."""
        ends = time.monotonic() + 1.5 * REBUILD_S
        while time.monotonic() < ends:
            await self._limit(permit)
            await asyncio.sleep(0.01)

    def _claims(self, permit: Permit) -> tuple[Claim, ...]:
        return limits_for(permit, None, self._clock.now).claims(permit, None, self._tokens)

    def _route(self, reservation: Reservation) -> Route:
        permit = reservation.permit
        upstream = permit.tenant.upstreams[permit.alias.upstream]
        credential = self._keys.peek(permit.tenant.id, upstream.name, upstream.key_version)
        if credential is None:
            raise RuntimeError("the key is leased before anything is measured")
        return Route(reservation=reservation, upstream=upstream, model=permit.alias.model, credential=credential)

    def _receipt(self, permit: Permit, hold: Hold, route: Route) -> Receipt:
        """Everything a ledger is told of a request that is served."""
        ledger = self._ledger()
        ledger.entered(permit.principal, "bench/1", 1)
        ledger.decoded(permit.call)
        ledger.permitted(permit)
        ledger.admitted(permit, hold)
        ledger.routed(route)
        ledger.sending()
        ledger.progress.note_sent()
        ledger.head_arrived()
        ledger.progress.usage = _USAGE
        ledger.body_arrived(600)
        ledger.split()
        ledger.served()
        return ledger.receipt()

    async def _ask_upstream(self, route: Route) -> None:
        progress = Progress(self._clock.monotonic_us)
        answer = await self._relay.open(route, progress)
        await read_answer(answer, progress)
        answer.cancel()

    def _ledger(self) -> Ledger:
        return Ledger("req_0123456789abcdef01234567", "", Action.CHAT, self._clock, self._tokens)

    async def _audit(self, receipt: Receipt, permit: Permit) -> float:
        """From the intent to the message for the sequencer; sending that is not in it."""
        ledger = self._ledger()
        spool = Spool(self._folder, "bench-0123456789abcdef", 4 * 1024 * 1024, 25)
        running = asyncio.create_task(spool.run(_encoded))
        least = float("inf")
        for _ in range(ROUNDS):
            begin = time.process_time_ns()
            for n in range(COUNT):
                number = spool.admit(ledger.intended(permit.principal, "bench/1", permit.tenant))
                spool.append(receipt, number)
                if n % 100 == 99:  # as a worker's loop would, which has other things to do
                    await asyncio.sleep(0.01)
            while spool.pending:
                await asyncio.sleep(0.01)
            least = min(least, (time.process_time_ns() - begin) / COUNT / 1000)
        spool.stop()
        await running
        return least

    async def _durability(self, receipt: Receipt, permit: Permit, route: Route) -> dict[str, float]:
        """What intent and receipt cost on the request's path, CPU a request: of an organization that is
        `buffered`, and of one that is `strict`, with the time that one waits, alone and among 32."""
        ledger = self._ledger()
        spool = Spool(self._folder, "strict-0123456789abcdef", 4 * 1024 * 1024, 25)
        running = asyncio.create_task(spool.run(_encoded))
        waits: list[float] = []

        def admit() -> int:
            return spool.admit(ledger.intended(permit.principal, "bench/1", permit.tenant))

        async def many(streams: int) -> float:
            async def in_turn() -> None:
                for _ in range(COUNT // streams):
                    number = admit()
                    began = time.perf_counter()
                    await spool.secure(number, ledger.to_send(permit.principal, route))
                    waits.append(time.perf_counter() - began)
                    spool.append(receipt, number)

            begin = time.process_time_ns()
            await asyncio.gather(*(in_turn() for _ in range(streams)))
            return (time.process_time_ns() - begin) / (COUNT // streams * streams) / 1000

        found: dict[str, float] = {}
        for streams in (1, 32):
            waits.clear()
            cost = min([await many(streams) for _ in range(ROUNDS)])
            middle = sorted(waits)[len(waits) // 2]
            found |= {f"audit_strict_{streams}_us": cost, f"audit_strict_{streams}_wait_us": middle * 1_000_000}
        while spool.pending:
            await asyncio.sleep(0.01)
        buffered = []
        for _ in range(ROUNDS):
            begin = time.process_time_ns()
            for _ in range(COUNT):
                spool.append(receipt, admit())
            buffered.append((time.process_time_ns() - begin) / COUNT / 1000)
            await asyncio.sleep(0.1)  # what a group of them costs is in the stage `audit`
        found["audit_buffered_us"] = min(buffered)
        spool.stop()
        await running
        return {name: round(value, 2) for name, value in found.items()}


async def _encoded(up: SpoolUp) -> int:
    msgspec.json.encode(up)
    return up.receipts[-1].seq


def _least(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        for _ in range(COUNT):
            work()
        best = min(best, (time.process_time_ns() - begin) / COUNT / 1000)
    return best


async def _least_async(work: Callable[[], Awaitable[None]], *, streams: int) -> float:
    """`streams` at a time."""
    each = COUNT // streams

    async def one_after_the_other() -> None:
        for _ in range(each):
            await work()

    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.process_time_ns()
        await asyncio.gather(*(one_after_the_other() for _ in range(streams)))
        best = min(best, (time.process_time_ns() - begin) / (each * streams) / 1000)
    return best


def main() -> None:
    folder, port, ca = Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    costs = uvloop.run(Stages(folder, port, ca.read_text()).measure())
    sys.stdout.write(json.dumps(costs) + "\n")


if __name__ == "__main__":
    main()

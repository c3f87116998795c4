"""The bus over a real Unix socket: Granian embedded in this process, two clients."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send

from gateway.api.bus import bus_routes, slices_over
from gateway.bus.client import BusClient
from gateway.bus.hub import Hub
from gateway.bus.messages import MetricsUp, SpooledReceipt, SpoolUp
from gateway.bus.publisher import Publisher
from gateway.clock import SystemClock
from gateway.errors import UnavailableError
from gateway.exchange import Claim, Outcome, Receipt
from gateway.limits.accounts import LimitOwner
from gateway.limits.slices import SlicedLimits
from gateway.quota import Quota
from policies.facts import Action
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, Org
from tenants.snapshot import Delta, Snapshot, TenantRecord
from tenants.sql.dialect import sqlite_url
from tenants.sql.reader import StoreReader
from tenants.sql.store import open_store
from tenants.store import Actor

CLOCK = SystemClock()
ACME = OrgId("acme")
PATIENCE_S = 60


class Watcher:
    """Sees what a client tells, and waits for it."""

    def __init__(self) -> None:
        self.snapshots: list[Snapshot] = []
        self.resets: list[tuple[OrgId, str]] = []
        self._changed = asyncio.Event()

    def on_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshots.append(snapshot)
        self._changed.set()

    def on_reset(self, org: OrgId, member: str) -> None:
        self.resets.append((org, member))
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class FakeReader:
    """The control store as a worker would read it; says when it has been read."""

    def __init__(self) -> None:
        self.snapshot = Snapshot()
        self.reads = 0

    def data_version(self) -> int:
        return self.snapshot.version

    def load(self) -> Snapshot:
        self.reads += 1
        return self.snapshot


class Control:
    """The control side: the hub, the owner of the limits, and sinks that remember."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.hub = Hub(CLOCK)
        self.owner = LimitOwner(CLOCK.monotonic_us)
        self.spools: list[SpoolUp] = []
        self.metrics: list[MetricsUp] = []
        self.left: asyncio.Queue[str] = asyncio.Queue()
        self.hub.on_leave(self.left.put_nowait)

    async def _spool(self, spool: SpoolUp) -> int:
        self.spools.append(spool)
        return spool.receipts[-1].seq

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        routes = bus_routes(self.hub, self.owner, self._spool, self.metrics.append)
        app = Litestar([*routes, echo], openapi_config=None)
        server = Server(app, uds=self.socket, interface=Interfaces.ASGINL, websockets=False, log_enabled=False)
        server.uds_permissions = 0o600
        serving = asyncio.ensure_future(server.serve())
        try:
            await self._listening()
            yield
        finally:
            self.hub.close()
            server.stop()  # type: ignore[no-untyped-call]
            await serving

    async def _listening(self) -> None:
        async with asyncio.timeout(60):
            while True:
                try:
                    _, writer = await asyncio.open_unix_connection(self.socket)
                except OSError:
                    await asyncio.sleep(0.01)
                else:
                    writer.close()
                    return


@asgi("/oauth/token", copy_scope=False)
async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with what it was sent."""
    body = (await receive())["body"]  # type: ignore[typeddict-item]
    seen = [b"%s: %s" % (name, value) for name, value in scope["headers"] if name.startswith(b"x-")]
    await send({"type": "http.response.start", "status": 418, "headers": [(b"set-cookie", b"a=b")]})
    answer = b"\n".join([scope["query_string"], *sorted(seen), body])
    await send({"type": "http.response.body", "body": answer, "more_body": False})


def record(name: str) -> TenantRecord:
    return TenantRecord(Org(id=ACME, name=name))


def kind(client: BusClient) -> str:
    return client.state.kind


def client(control: Control, name: str, watcher: Watcher, reader: FakeReader | None = None) -> BusClient:
    return BusClient(
        control.socket, name, watcher.on_snapshot, watcher.on_reset, clock=CLOCK, reader=reader, max_staleness_s=60
    )


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path / "bus.sock")


async def test_a_snapshot_a_change_and_a_reset_reach_both_workers(control: Control) -> None:
    control.hub.publish(Delta(1, full=True, orgs=(record("Acme"),), jwks="{}"))
    one, two = Watcher(), Watcher()
    async with control.served(), client(control, "w1", one) as first, client(control, "w2", two) as second:
        await one.until(lambda: first.snapshot.version == 1)
        await two.until(lambda: second.snapshot.version == 1)
        assert stat.S_IMODE(control.socket.stat().st_mode) == 0o600
        assert first.accepting
        assert second.state.kind == "live"

        control.hub.publish(Delta(2, full=False, orgs=(record("Acme Corp"),)))
        assert await control.hub.live(2, timeout=PATIENCE_S) == ()
        assert [s.tenants[ACME].org.name for s in one.snapshots] == ["Acme", "Acme Corp"]
        assert second.snapshot.tenants[ACME].org.name == "Acme Corp"
        assert second.snapshot.jwks == "{}"
        assert {(w.worker, w.version, w.state) for w in control.hub.workers()} == {
            ("w1", 2, "live"),
            ("w2", 2, "live"),
        }

        control.hub.reset(ACME, "mem_1")
        await one.until(lambda: one.resets == [(ACME, "mem_1")])
        await two.until(lambda: two.resets == [(ACME, "mem_1")])


async def test_a_worker_that_goes_away_is_noticed(control: Control) -> None:
    control.hub.publish(Delta(1, full=True))
    async with control.served():
        async with client(control, "w1", watcher := Watcher()) as worker:
            await watcher.until(lambda: worker.snapshot.version == 1)
        async with asyncio.timeout(PATIENCE_S):
            assert await control.left.get() == "w1"
        assert control.hub.workers() == ()
        assert await control.hub.live(7) == ()


async def test_without_the_control_process_a_worker_reads_the_store_and_comes_back(control: Control) -> None:
    control.hub.publish(Delta(1, full=True, orgs=(record("Acme"),), jwks='{"keys":[]}'))
    reader, watcher = FakeReader(), Watcher()
    async with client(control, "w1", watcher, reader) as worker:
        async with control.served():
            await watcher.until(lambda: worker.snapshot.version == 1)
        reader.snapshot = Snapshot(2, [record("Acme, changed meanwhile")])
        await watcher.until(lambda: worker.snapshot.version == 2)
        assert kind(worker) == "polling"
        assert worker.accepting
        assert worker.snapshot.jwks == '{"keys":[]}'  # keys are not in the store: those known stay

        again = Control(control.socket)
        again.hub.publish(Delta(3, full=True, orgs=(record("Acme, once more"),)))
        async with again.served():
            await watcher.until(lambda: worker.snapshot.version == 3)
            assert kind(worker) == "live"
            again.hub.publish(Delta(4, full=False))
            assert await again.hub.live(4, timeout=PATIENCE_S) == ()
            assert worker.snapshot.tenants[ACME].org.name == "Acme, once more"


class LazyReader:
    """The real reader, opened by whoever first reads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened: StoreReader | None = None

    def _reader(self) -> StoreReader:
        self._opened = self._opened or StoreReader(self._path)
        return self._opened

    def data_version(self) -> int:
        return self._reader().data_version()

    def load(self) -> Snapshot:
        return Snapshot(*self._reader().load())


async def test_changes_of_the_real_store_arrive_with_and_without_the_bus(control: Control, tmp_path: Path) -> None:
    path, watcher, by = tmp_path / "control.db", Watcher(), Actor(PLATFORM, "mem_op")
    store = await open_store(sqlite_url(path))
    publisher = Publisher(store, control.hub, CLOCK, lambda: "{}")
    store.subscribe(publisher.wake)
    publishing = asyncio.ensure_future(publisher.run())

    def name(worker: BusClient) -> str:
        return worker.snapshot.tenants[ACME].org.name if ACME in worker.snapshot.tenants else ""

    async def rename(to: str) -> None:
        org = await store.orgs.get(ACME)
        await store.orgs.replace(msgspec.structs.replace(org, name=to), org.version, by)

    reader = LazyReader(path)
    worker = BusClient(
        control.socket, "w1", watcher.on_snapshot, watcher.on_reset, clock=CLOCK, reader=reader, max_staleness_s=60
    )
    async with worker:
        async with control.served():
            await store.orgs.create(Org(ACME, "Acme"), by)
            await watcher.until(lambda: name(worker) == "Acme")
            await rename("Acme Corp")
            await watcher.until(lambda: name(worker) == "Acme Corp")
        for number in range(8):  # the bus is down; each change is a read of its own
            await rename(f"Acme {number}")
            await watcher.until(lambda wanted=f"Acme {number}": name(worker) == wanted)  # type: ignore[misc]
        assert kind(worker) == "polling"
        assert worker.snapshot.jwks == "{}"
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    await store.close()


async def test_what_workers_send_up_arrives(control: Control) -> None:
    receipt = Receipt(
        org=ACME,
        request_id="req_1",
        at_us=1,
        member="m",
        client="c",
        action=Action.CHAT,
        outcome=Outcome.SERVED,
        status=200,
    )
    spool = SpoolUp(boot="b", receipts=(SpooledReceipt(seq=9, receipt=receipt),))
    metrics = MetricsUp(worker="w1", boot="b", counters=(("requests", ("acme",), 3.0),))
    async with control.served(), client(control, "w1", Watcher()) as worker:
        assert (await worker.send_spool(spool)).upto == 9
        await worker.send_metrics(metrics)
    assert control.spools == [spool]
    assert control.metrics == [metrics]


async def test_a_request_is_relayed_with_its_status_headers_and_body(control: Control) -> None:
    async with control.served(), client(control, "w1", Watcher()) as worker:
        answer = await worker.relay("POST", "/oauth/token?a=1", [("x-request-id", "req_12345678")], b"grant=x")
    assert answer.status == 418
    assert (b"set-cookie", b"a=b") in answer.headers
    assert answer.body == b"a=1\nx-request-id: req_12345678\ngrant=x"


async def test_an_unreachable_control_process_is_said(control: Control) -> None:
    async with client(control, "w1", Watcher()) as worker:
        with pytest.raises(UnavailableError) as refusal:
            await worker.relay("GET", "/oauth/device", [], b"")
        assert refusal.value.retry_after_s == 1
        assert not worker.accepting
        assert worker.state.kind == "stale"


async def test_malformed_posts_are_refused_and_the_bus_lives_on(control: Control) -> None:
    async with control.served(), client(control, "w1", Watcher()) as worker:
        for body in (b"{", b"[]", msgspec.json.encode({"worker": 7})):
            answer = await worker.relay("POST", "/bus/v1/slices", [("content-type", "application/json")], body)
            assert answer.status == 400
        assert (await worker.relay("GET", "/bus/v1/stream", [], b"")).status == 400
        assert (await worker.relay("POST", "/oauth/token", [], b"")).status == 418


async def test_limits_are_shared_over_the_wire(control: Control) -> None:
    claim = Claim(
        Quota(
            org=ACME,
            limit="per-minute",
            scope="org",
            subject="",
            unit=LimitUnit.REQUESTS,
            amount=10,
            burst=10,
            period_s=3600,
        ),
        1,
    )
    async with (
        control.served(),
        client(control, "w1", Watcher()) as one,
        client(control, "w2", Watcher()) as two,
    ):
        stores = [SlicedLimits("w1", slices_over(one)), SlicedLimits("w2", slices_over(two))]
        attempts = [stores[i % 2].reserve([claim]) for i in range(40)]
        results = await asyncio.gather(*attempts, return_exceptions=True)
        assert sum(not isinstance(result, BaseException) for result in results) == 10
        for store in stores:
            await store.close()

"""Two control processes on one PostgreSQL: what one commits the other publishes, and one of them has the turn."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.audit.files import FileLogs
from gateway.audit.sequencer import Sequencer
from gateway.audit.signer import Signer
from gateway.bus.hub import Hub
from gateway.bus.publisher import Publisher
from gateway.clock import SystemClock
from tenants.ids import OrgId
from tenants.revocations import revoke_tokens
from tenants.sql.nodes import Nodes
from tenants.sql.store import SqlControlStore, open_store
from tests.contract.control_store import OPERATOR, limit, member, org
from tests.kit.postgres_store import ControlDatabase, empty_control_database

ACME = OrgId("acme")


class Node:
    """What `gateway.control` makes of these."""

    def __init__(self, database: ControlDatabase, store: SqlControlStore) -> None:
        self.store = store
        self.turn = Nodes(database.url, None, store, store.tell)
        self.hub = Hub(SystemClock())
        self.publisher = Publisher(store, self.hub, SystemClock(), lambda: "")
        store.subscribe(self.publisher.wake)

    @property
    def limits(self) -> set[str]:
        tenant = self.hub.snapshot.tenants.get(ACME)
        return set() if tenant is None else {one.name for one in tenant.limits}


@pytest.fixture
def database() -> ControlDatabase:
    return empty_control_database()


@asynccontextmanager
async def node(database: ControlDatabase, *, listens: bool = True) -> AsyncIterator[Node]:
    store = await open_store(database.url)
    made = Node(database, store)
    work = [made.publisher.run, *([made.turn.run] if listens else [])]
    tasks = [asyncio.create_task(one()) for one in work]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await store.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():
            await asyncio.sleep(0.01)


async def test_a_change_on_one_node_is_published_by_the_other(database: ControlDatabase) -> None:
    async with node(database) as first, node(database) as second:
        await first.store.orgs.create(org("acme"), OPERATOR)
        await first.store.for_org(ACME).members.create(member("acme"), OPERATOR)
        await until(lambda: ACME in second.hub.snapshot.tenants)
        await second.store.for_org(ACME).limits.create(limit("acme"), OPERATOR)
        await until(lambda: first.limits == {"each"})
        await first.store.for_org(ACME).revoke(revoke_tokens(ACME, time.time(), member="mem_1"), OPERATOR)
        await until(lambda: len(second.hub.snapshot.revocations) == 1)
        await until(lambda: first.hub.snapshot.version == second.hub.snapshot.version)


async def test_polling_does_it_where_nothing_is_heard(database: ControlDatabase) -> None:
    async with node(database, listens=False) as deaf, node(database) as other:
        await other.store.orgs.create(org("acme"), OPERATOR)
        await until(lambda: ACME in deaf.hub.snapshot.tenants)


async def test_it_is_the_notification_that_wakes_the_other(database: ControlDatabase) -> None:
    heard = asyncio.Event()
    async with node(database) as first, node(database, listens=False) as second:
        second.turn = Nodes(database.url, None, second.store, heard.set)
        listening = asyncio.create_task(second.turn.run())
        await asyncio.wait_for(heard.wait(), 60)  # whoever begins to listen looks
        await until(lambda: first.turn.leads)
        for tells in (True, False):
            heard.clear()
            if tells:
                await first.store.orgs.create(org("acme"), OPERATOR)
                await asyncio.wait_for(heard.wait(), 60)
            else:  # an outbox that is emptied is nobody's news
                await first.store.outbox_done(1)
                await first.store.orgs.create(org("globex"), OPERATOR)
                await asyncio.wait_for(heard.wait(), 60)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def test_one_has_the_turn_and_it_passes_on(database: ControlDatabase) -> None:
    done: list[str] = []

    async def work(name: str) -> None:
        done.append(f"{name} begins")
        try:
            await asyncio.Event().wait()
        finally:
            done.append(f"{name} ends")

    async with node(database) as first:
        await until(lambda: first.turn.leads)
        async with node(database) as second:
            await first.store.orgs.create(org("acme"), OPERATOR)
            await until(lambda: ACME in second.hub.snapshot.tenants)
            assert (first.turn.leads, second.turn.leads) == (True, False)
            assert len(await first.turn.outbox()) == len(await second.store.outbox()) == 2
            assert await second.turn.outbox() == ()
            tasks = [
                asyncio.create_task(one.turn.while_leading(partial(work, name)))
                for name, one in (("first", first), ("second", second))
            ]
            await until(lambda: done == ["first begins"])
            with database.server.admin(database.name) as admin:  # as when its machine is gone
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
                )
            await until(lambda: first.turn.leads or second.turn.leads)
            await until(lambda: done[:2] == ["first begins", "first ends"] and len(done) == 3)
            assert first.turn.leads != second.turn.leads
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def test_work_that_ends_or_fails_is_not_hidden(database: ControlDatabase) -> None:
    async def fail() -> None:
        raise RuntimeError("it broke")

    async with node(database) as only:
        with pytest.raises(RuntimeError, match="it broke"):
            await only.turn.while_leading(fail)


async def test_no_change_is_sequenced_twice_or_never(database: ControlDatabase, tmp_path: Path) -> None:
    """Logs are files of each node: what one has written the other does not write again."""
    async with node(database) as first, node(database) as second:
        await until(lambda: first.turn.leads or second.turn.leads)
        sequencers = [
            Sequencer(FileLogs(tmp_path / name), Signer("gateway.test", Ed25519PrivateKey.generate()))
            for name in ("one", "two")
        ]
        draining = [
            asyncio.create_task(sequencer.drain_outbox(one.turn))
            for sequencer, one in zip(sequencers, (first, second), strict=True)
        ]
        await first.store.orgs.create(org("acme"), OPERATOR)
        for number in range(10):
            for one in (first, second):
                await one.store.for_org(ACME).limits.create(limit("acme", f"l{number}-{id(one)}"), OPERATOR)
        left = 1
        async with asyncio.timeout(60):
            while left:
                left = len(await first.store.outbox())
                await asyncio.sleep(0.01)
        sizes = [(await sequencer.opened(ACME)).log.size for sequencer in sequencers]
        assert sorted(sizes) == [0, 21]
        for task in draining:
            task.cancel()
        await asyncio.gather(*draining, return_exceptions=True)
        for sequencer in sequencers:
            await sequencer.close()

"""The order of an erasure: what is asked first, what goes with it, and what stops it in time."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from msgspec import Struct

from gateway.audit.erase import Erasure
from gateway.audit.persons import Persons
from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.secrets.datakeys import DataKeys
from policies.facts import Role
from tenants.ids import PLATFORM, MemberId, OrgId
from tenants.models import Member, Org
from tenants.persons import WaitingError
from tenants.sql.store import SqlControlStore
from tenants.store import Actor, InUseError, StoreUnavailableError
from tests.contract.control_store import new_store

ACME = OrgId("acme")
ANN = MemberId("mem_0annannannannannanna")
BY = Actor(PLATFORM, "mem_0operator", "orgate-cli", "req-1")


class Standing(Struct, frozen=True):
    limit: str
    subject: str


@dataclass
class World:
    """Everything that an erasure asks, and in which order it asked."""

    store: SqlControlStore
    people: Persons
    standings: list[Standing] = field(default_factory=list)
    asked: list[object] = field(default_factory=list)
    away: bool = False

    async def drop_member(self, org: OrgId, member_id: MemberId) -> None:
        self.asked.append(("drop", member_id))

    async def usage(self, org: OrgId) -> Sequence[Standing]:
        if self.away:
            raise UnavailableError("the store of limits is away")
        return self.standings

    async def reset(self, org: OrgId, limit: str, subject: str | None = None) -> int:
        self.asked.append(("reset", limit, subject))
        return 1

    def nudge(self) -> None:
        self.asked.append("nudge")

    def for_org(self, org: OrgId):  # type: ignore[no-untyped-def]  # the store's own
        return self.store.for_org(org)

    async def entries_are_written(self) -> None:
        await self.store.outbox_done(10**9)

    def erasure(self, now: float = 1_800_000_000.0) -> Erasure:
        return Erasure(
            book=self.store.persons,
            people=self.people,
            queue=self,
            store=self,
            accounts=self,
            buckets=self,
            clock=lambda: now,
        )


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    store = await new_store(tmp_path / "control.db", lambda: 1_800_000_000.0)
    people = Persons(store.persons, DataKeys(store.persons, Secret(b"w" * 32), lambda: 0.0), lambda: 0.0)
    made = World(store, people)
    await store.orgs.create(Org(id=ACME, name="Acme"), BY)
    await made.entries_are_written()
    await people.of({(ACME, ANN)})
    yield made
    await store.close()


async def join(world: World) -> Member:
    item = Member(org=ACME, id=ANN, email="ann@acme.example", name="Ann", roles=(Role.MEMBER,))
    return await world.store.for_org(ACME).members.create(item, BY)


async def test_buckets_with_their_id_go_before_their_key_does(world: World) -> None:
    world.standings = [Standing("month", ANN), Standing("month", "mem_0bob"), Standing("platform/day", ANN)]
    erased = await world.erasure().erase(ACME, ANN, BY)
    assert erased.person.startswith("per_")
    assert world.asked == [("drop", ANN), ("reset", "month", ANN), ("reset", "platform/day", ANN)]


async def test_a_store_of_limits_that_is_away_stops_it_before_anything_is_destroyed(world: World) -> None:
    world.away = True
    with pytest.raises(UnavailableError):
        await world.erasure().erase(ACME, ANN, BY)
    assert len(await world.people.known(ACME, [(await world.people.of({(ACME, ANN)}))[ACME, ANN]])) == 1


async def test_a_member_keeps_their_account_and_their_buckets(world: World) -> None:
    await join(world)
    world.standings = [Standing("month", ANN)]
    with pytest.raises(InUseError, match="a member still"):
        await world.erasure().erase(ACME, ANN, BY)
    assert world.asked == []


async def test_it_waits_for_what_is_queued_about_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await join(world)
    await world.store.for_org(ACME).members.delete(ANN, made.version, BY)
    pauses = 0

    async def pause(_: float) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 3:
            await world.entries_are_written()

    monkeypatch.setattr("gateway.audit.erase.asyncio.sleep", pause)
    erased = await world.erasure().erase(ACME, ANN, BY)
    assert erased.person
    assert erased.held_until > 1_800_000_000
    assert (pauses, world.asked.count("nudge")) == (3, 3)


async def test_it_gives_up_on_a_queue_that_does_not_move(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await join(world)
    await world.store.for_org(ACME).members.delete(ANN, made.version, BY)

    async def pause(_: float) -> None:
        return

    monkeypatch.setattr("gateway.audit.erase.asyncio.sleep", pause)
    with pytest.raises(WaitingError, match="try again"):
        await world.erasure().erase(ACME, ANN, BY)
    assert len(await world.people.known(ACME, [(await world.people.of({(ACME, ANN)}))[ACME, ANN]])) == 1


async def test_what_has_ended_goes_later_and_a_store_that_is_away_is_asked_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = await join(world)
    await world.store.for_org(ACME).members.delete(ANN, made.version, BY)
    await world.entries_are_written()
    until = (await world.erasure().erase(ACME, ANN, BY)).held_until

    async def away(_: int) -> bool:
        raise StoreUnavailableError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(world.store.persons, "purge", away)
        await world.erasure(until).clean()
    assert "not forgotten yet" in caplog.text
    assert await world.store.persons.held_until(ACME, ANN) == until
    await world.erasure(until).clean()
    assert await world.store.persons.held_until(ACME, ANN) == 0

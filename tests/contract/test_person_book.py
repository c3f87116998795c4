"""`tenants.persons.PersonBook`: wrapped keys that outlive their organization, and rows that go without a trace."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tenants.ids import OrgId
from tenants.models import LimitScope
from tenants.persons import Person, WaitingError, WrappedDataKey
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S
from tenants.sql.persons import LATE_S
from tenants.sql.store import SqlControlStore, open_store
from tenants.store import InUseError, NotFoundError, StoreUnavailableError
from tests.contract.control_store import NOW, OPERATOR, Backend, Clock, SqliteBackend, limit, member, org, team

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ANN = "mem_0annannannann"


def person(of: OrgId, n: int) -> Person:
    return Person(of, f"per_{n:04}", f"finder-{n}", f"key-{n}", f"box-{n}", int(NOW))


@pytest.fixture
async def acme(store: SqlControlStore) -> SqlControlStore:
    await store.orgs.create(org("acme"), OPERATOR)
    await store.outbox_done(10**9)
    return store


async def test_the_first_data_key_of_an_organization_stands(store: SqlControlStore) -> None:
    first, second = WrappedDataKey(ACME, "a", "wrapped", 1), WrappedDataKey(ACME, "b", "other", 2)
    assert await store.persons.any_data_key() is None
    assert await store.persons.add_data_key(first) == first
    assert await store.persons.add_data_key(second) == first
    assert await store.persons.data_key(ACME) == first == await store.persons.any_data_key()
    assert await store.persons.data_key(GLOBEX) is None


async def test_people_are_found_in_their_own_organization_alone(store: SqlControlStore) -> None:
    book = store.persons
    many = [person(ACME, n) for n in range(1_200)]
    await book.add(many)
    await book.add([])
    await book.add([person(GLOBEX, 0)])
    assert set(await book.by_finder(ACME, [one.finder for one in many])) == set(many)
    assert await book.by_id(ACME, ["per_0000", "per_9999"]) == (many[0],)
    assert await book.by_id(GLOBEX, ["per_0001"]) == ()
    first, following = await book.page(ACME, limit=700)
    rest, end = await book.page(ACME, after=following, limit=700)
    assert [*first, *rest] == many
    assert end == ""


async def test_they_outlive_the_organization_as_its_log_does(acme: SqlControlStore) -> None:
    await acme.persons.add([person(ACME, 1)])
    await acme.persons.add_data_key(WrappedDataKey(ACME, "a", "wrapped", 1))
    await acme.orgs.delete("acme", 1, OPERATOR)
    assert await acme.persons.by_id(ACME, ["per_0001"])
    assert await acme.persons.data_key(ACME) is not None


async def test_erasing_takes_the_row_and_tells_of_the_pseudonym_alone(acme: SqlControlStore) -> None:
    book = acme.persons
    await book.add([person(ACME, 1), person(ACME, 2)])
    assert await book.erase(ACME, ANN, "finder-1", OPERATOR) == "per_0001"
    assert await book.by_finder(ACME, ["finder-1", "finder-2"]) == (person(ACME, 2),)
    assert await book.erased(ACME, ["finder-1", "finder-2"]) == {"finder-1"}
    assert await book.erased(GLOBEX, ["finder-1"]) == frozenset()
    (change,) = await acme.outbox()
    assert (change.action, change.target, change.detail) == ("person.erase", "per_0001", {})
    assert await book.erase(ACME, ANN, "finder-1", OPERATOR) == ""  # again: nothing left to do
    with pytest.raises(NotFoundError):
        await book.erase(GLOBEX, ANN, "finder-1", OPERATOR)
    with pytest.raises(NotFoundError):
        await book.erase(ACME, ANN, "finder-3", OPERATOR)


async def test_who_is_still_named_somewhere_is_not_erased(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    await acme.persons.add([person(ACME, 1)])
    made = await mine.members.create(member("acme", ANN), OPERATOR)
    await mine.limits.create(limit("acme", "anns", scope=LimitScope.MEMBER, subject=ANN), OPERATOR)

    async def refused() -> str:
        with pytest.raises(InUseError) as caught:
            await acme.persons.erase(ACME, ANN, "finder-1", OPERATOR)
        return str(caught.value)

    assert "a member still" in await refused()
    with pytest.raises(InUseError):  # a limit names her: it would keep her id
        await mine.members.delete(ANN, made.version, OPERATOR)
    await mine.limits.delete("anns", 1, OPERATOR)
    await mine.members.delete(ANN, made.version, OPERATOR)
    with pytest.raises(WaitingError):
        await acme.persons.erase(ACME, ANN, "finder-1", OPERATOR)
    await acme.outbox_done(10**9)
    assert await acme.persons.erase(ACME, ANN, "finder-1", OPERATOR) == "per_0001"


async def test_changes_of_another_organization_are_not_told_of_a_stranger(acme: SqlControlStore) -> None:
    """Whether a change about them waits there must not show in the answer to somebody else's question."""
    await acme.orgs.create(org("globex"), OPERATOR)
    await acme.outbox_done(10**9)
    await acme.for_org(ACME).note("member.invite", ANN, OPERATOR, {})
    with pytest.raises(NotFoundError):
        await acme.persons.erase(GLOBEX, ANN, "finder-1", OPERATOR)
    with pytest.raises(WaitingError):
        await acme.persons.erase(ACME, ANN, "finder-1", OPERATOR)


async def test_what_has_ended_is_forgotten(acme: SqlControlStore, clock: Clock) -> None:
    mine, book = acme.for_org(ACME), acme.persons
    await book.add([person(ACME, 1)])
    made = await mine.members.create(member("acme", ANN), OPERATOR)
    await mine.members.delete(ANN, made.version, OPERATOR)
    await acme.outbox_done(10**9)
    await book.erase(ACME, ANN, "finder-1", OPERATOR)
    until = await book.held_until(ACME, ANN)
    assert until == int(NOW) + 1 + LONGEST_TOKEN_S + LEEWAY_S
    assert await book.held_until(GLOBEX, ANN) == 0
    assert not await book.purge(until - 1)
    assert await book.purge(until)
    assert await book.held_until(ACME, ANN) == 0
    assert not await book.purge(until)
    assert await book.purge(int(NOW) + LATE_S)
    assert await book.erased(ACME, ["finder-1"]) == frozenset()
    assert not await book.purge(int(NOW) + 10 * LATE_S)


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_scrubbing_waits_for_others_only_so_long(backend: Backend) -> None:
    assert isinstance(backend, SqliteBackend)
    hasty = await open_store(backend.url, busy_timeout_ms=50)
    other = sqlite3.connect(backend.path, isolation_level=None)
    for statement in ("BEGIN IMMEDIATE", "BEGIN"):  # a writer, and a reader of what was before
        other.execute(statement)
        other.execute("SELECT * FROM orgs").fetchall()
        if statement == "BEGIN":
            await hasty.orgs.create(org("acme"), OPERATOR)
        with pytest.raises(StoreUnavailableError):
            await hasty.persons.scrub()
        other.execute("ROLLBACK")
        await hasty.persons.scrub()
    other.close()
    await hasty.close()


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_scrubbing_leaves_no_byte_of_them_in_any_file(acme: SqlControlStore, backend: Backend) -> None:
    assert isinstance(backend, SqliteBackend)
    folder, mine = backend.path.parent, acme.for_org(ACME)
    # Pages are split and joined around them.
    for n in range(300):
        await mine.members.create(member("acme", f"mem_other{n:04}", name="o" * (n % 90)), OPERATOR)
    made = await mine.members.create(member("acme", ANN, email="ann@people.example", name="Ann Thrope"), OPERATOR)
    await mine.teams.create(team("acme", "core"), OPERATOR)
    await mine.teams.add("core", made.id, OPERATOR)
    await acme.persons.add([person(ACME, 1)])
    for n in range(0, 300, 3):
        await mine.members.delete(f"mem_other{n:04}", 1, OPERATOR)
    words = (ANN.encode(), b"ann@people.example", b"Ann Thrope", b"box-1", b"key-1")
    assert all(word in bytes_of(folder) for word in words)
    await mine.members.delete(ANN, made.version, OPERATOR)
    await acme.outbox_done(10**9)
    await acme.persons.erase(ACME, ANN, "finder-1", OPERATOR)
    await acme.persons.purge(await acme.persons.held_until(ACME, ANN))
    await acme.persons.scrub()
    left = bytes_of(folder)
    assert [word for word in words if word in left] == []
    assert b"mem_other0001" in left
    await mine.members.create(member("acme", "mem_later"), OPERATOR)  # it is the same database still

"""People under pseudonyms: who is found again, who is shown, and what is left of whom was erased."""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Collection, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from sqlalchemy import update

from gateway.audit.entry import from_change, from_receipt, people_in, person_in
from gateway.audit.orglog import OrgLog
from gateway.audit.persons import Persons
from gateway.audit.pseudonym import ERASED
from gateway.audit.reader import LogReader
from gateway.audit.sequencer import Sequencer
from gateway.errors import UnavailableError
from gateway.exchange import SpooledReceipt, SpoolUp
from gateway.secret import Secret
from gateway.secrets.datakeys import DataKeys
from tenants.ids import PLATFORM, OrgId
from tenants.persons import Person
from tenants.sql import tables
from tenants.sql.store import SqlControlStore
from tenants.store import Actor, Change, NotFoundError, StoreUnavailableError
from tests.contract.control_store import new_store
from tests.fakes.audit import SIGNER, receipt

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ANN, BOB, OPERATOR = "mem_0annannannannannanna", "mem_0bobbobbobbobbobbobb", "mem_0operatoroperatorop"
BY = Actor(PLATFORM, OPERATOR, "orgate-cli", "req-9")


def now() -> float:
    return 1_800_000_000.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqlControlStore]:
    opened = await new_store(tmp_path / "control.db")
    await opened.outbox_done(10**9)
    yield opened
    await opened.close()


def persons(store: SqlControlStore, **more: Any) -> Persons:
    return Persons(store.persons, DataKeys(store.persons, Secret(b"w" * 32), now), now, **more)


async def one(people: Persons, org: OrgId, member: str) -> str:
    return (await people.of({(org, member)}))[org, member]


def change(seq: int, actor: Actor, target: str, action: str = "member.update", **detail: Any) -> Change:
    return Change(seq, 1_763_690_000, ACME, action, target, actor, detail)


# -- pseudonyms -----------------------------------------------------------------------------------------------


async def test_a_member_has_one_pseudonym_for_good(store: SqlControlStore) -> None:
    people = persons(store)
    ann = await one(people, ACME, ANN)
    assert ann == await one(people, ACME, ANN) == await one(persons(store), ACME, ANN)
    assert len({ann, await one(people, ACME, BOB), await one(people, GLOBEX, ANN)}) == 3
    assert ann.startswith("per_")
    assert len(ann) == 31


async def test_who_is_no_member_keeps_their_name(store: SqlControlStore) -> None:
    people = persons(store)
    found = await people.of({(ACME, ""), (PLATFORM, "system"), (ACME, ANN)})
    assert set(found) == {(ACME, ANN)}


async def test_many_at_once_are_made_in_one_go(store: SqlControlStore) -> None:
    many = {(ACME, f"mem_{n}") for n in range(1_500)}
    found = await persons(store).of(many)
    assert len({found[pair] for pair in many}) == 1_500
    assert await persons(store).of(many) == found


async def test_only_so_many_are_remembered_and_those_asked_for_are_there_all_the_same(
    store: SqlControlStore,
) -> None:
    people = persons(store, most=3)
    first = {pair: (await people.of({pair}))[pair] for pair in [(ACME, f"mem_{n}") for n in range(10)]}
    found = await people.of(set(first))
    assert {pair: found[pair] for pair in first} == first


async def test_the_key_proves_who_was_meant(store: SqlControlStore) -> None:
    """With the standard library alone, as somebody with a pack would do it."""
    people = persons(store)
    ann = await one(people, ACME, ANN)
    ((person, member, key), *_), following = await people.page(ACME, "", 10)
    mac = hmac.new(bytes.fromhex(key), f"acme\n{ANN}".encode(), "sha256").digest()[:20]
    assert (person, member, following) == (ann, ANN, "")
    assert "per_" + urlsafe_b64encode(mac).decode().rstrip("=") == ann


async def test_nothing_of_them_lies_in_the_store_in_clear(store: SqlControlStore, tmp_path: Path) -> None:
    await one(persons(store), ACME, ANN)
    assert ANN.encode() not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


async def test_a_row_that_was_given_to_somebody_else_is_not_believed(store: SqlControlStore) -> None:
    people = persons(store)
    ann, bob = await one(people, ACME, ANN), await one(people, ACME, BOB)
    rows = {row.id: row for row in await store.persons.by_id(ACME, [ann, bob])}
    for changes in (
        {"member": rows[bob].member},
        {"key": rows[bob].key},
        {"key": rows[bob].key, "member": rows[bob].member},
        {"member": "no base64"},
    ):
        async with store.engine.begin() as connection:
            mine = tables.persons.c.id == ann
            await connection.execute(update(tables.persons).where(mine).values(**changes))
        fresh = persons(store)
        # A reader sees the pseudonym, and everybody else's name; nothing is written until it is seen to.
        assert [(known.member, known.key) for known in (await fresh.known(ACME, [ann])).values()] == [(ann, "")]
        assert (await fresh.known(ACME, [ann, bob]))[bob].member == BOB
        assert [known.member for known in (await fresh.page(ACME, "", 10))[0]] == [BOB]
        with pytest.raises(UnavailableError, match="tampered with"):
            await one(fresh, ACME, ANN)
        assert await one(fresh, ACME, BOB) == bob
        async with store.engine.begin() as connection:
            restored = {"key": rows[ann].key, "member": rows[ann].member}
            await connection.execute(update(tables.persons).where(mine).values(**restored))


async def test_finders_that_were_swapped_lead_nowhere(store: SqlControlStore) -> None:
    people = persons(store)
    ann, bob = await one(people, ACME, ANN), await one(people, ACME, BOB)
    (row,) = await store.persons.by_id(ACME, [bob])
    async with store.engine.begin() as connection:
        of = tables.persons
        await connection.execute(update(of).where(of.c.id == bob).values(finder="elsewhere"))
        await connection.execute(update(of).where(of.c.id == ann).values(finder=row.finder))
    with pytest.raises(UnavailableError, match="tampered with"):
        await one(persons(store), ACME, BOB)


# -- entries --------------------------------------------------------------------------------------------------


async def test_no_entry_holds_the_id_of_a_member_wherever_it_stood(store: SqlControlStore) -> None:
    people = persons(store)
    asked = receipt(1, member=ANN)
    more: dict[str, Any] = {
        "members": [ANN, BOB, "core"],
        "why": f"team core: {BOB}, {ANN}.",
        "like": "mem_, member_1",
    }
    made = change(1, BY, ANN, subject=BOB, count=2, on=True, **more)
    found = await people.of({person_in(asked), *people_in(made)})
    ann, bob, operator = found[ACME, ANN], found[ACME, BOB], found[PLATFORM, OPERATOR]
    fields = from_change(made, found).fields
    assert (fields["actor"], fields["target"]) == (operator, ann)
    assert fields["detail"] == {
        "subject": bob,
        "members": [ann, bob, "core"],
        "count": 2,
        "on": True,
        "why": f"team core: {bob}, {ann}.",
        "like": "mem_, member_1",
    }
    (shown,) = await people.show(ACME, [fields])
    assert (shown["actor"], shown["target"], shown["detail"]) == (OPERATOR, ANN, made.detail)
    written = json.dumps([fields, from_receipt(asked, "boot", 1, found).fields])
    assert [name for name in (ANN, BOB, OPERATOR) if name in written] == []


async def test_the_document_s_id_is_no_digest_of_a_member(store: SqlControlStore) -> None:
    """Whoever knows an id could try it out on a digest, also after the person was erased."""
    people = persons(store)
    made = change(1, BY, ANN)
    found = dict(await people.of(people_in(made)))
    again = from_change(
        structs.replace(
            made, target=found[ACME, ANN], actor=Actor(PLATFORM, found[PLATFORM, OPERATOR], "", "req-9")
        )
    )
    assert from_change(made, found).id == again.id
    assert from_change(made, found).id != from_change(made).id


class Log:
    """A sequencer with people, and what it wrote."""

    def __init__(self, store: SqlControlStore, folder: Path) -> None:
        self.store = store
        self.folder = folder / "audit"
        self.people = persons(store)
        self.sequencer = Sequencer(self.folder, SIGNER, people=self.people)
        self.reader = LogReader(self.sequencer, self.people)
        self.seq = 0

    async def write(self, *members: str, org: OrgId = ACME) -> None:
        receipts = []
        for member in members:
            self.seq += 1
            receipts.append(SpooledReceipt(self.seq, receipt(self.seq, org, member=member)))
        await self.sequencer.append_receipts(SpoolUp("boot", tuple(receipts)))

    async def actors(self, org: OrgId = ACME, **filters: Any) -> list[object]:
        entries, _ = await self.reader.entries(org, limit=1000, **filters)
        return [entry["actor"] for entry in entries]

    def bytes(self) -> bytes:
        return b"".join(path.read_bytes() for path in sorted(self.folder.rglob("*")) if path.is_file())


@pytest.fixture
async def log(store: SqlControlStore, tmp_path: Path) -> AsyncIterator[Log]:
    made = Log(store, tmp_path)
    yield made
    await made.sequencer.close()


async def test_a_reader_sees_members_and_asks_for_them(log: Log) -> None:
    await log.write(ANN, BOB, ANN, "")
    assert await log.actors() == [ANN, BOB, ANN, ""]
    assert await log.actors(actor=ANN) == [ANN, ANN]
    assert await log.actors(actor=await one(log.people, ACME, BOB)) == [BOB]
    assert await log.actors(actor="mem_0nobody") == []
    assert [name for name in (ANN, BOB) if name.encode() in log.bytes()] == []


async def test_entries_from_before_there_were_pseudonyms_are_found_too(log: Log) -> None:
    before = (await log.sequencer.opened(ACME)).log
    assert isinstance(before, OrgLog)
    before.append([from_receipt(receipt(9, member=ANN), "before", 1)])
    await log.write(ANN)
    assert await log.actors(actor=ANN) == [ANN, ANN]


class Queue:
    """An outbox with these changes in it."""

    def __init__(self, *changes: Change) -> None:
        self.changes = changes

    async def outbox(self, limit: int = 500) -> tuple[Change, ...]:
        return self.changes

    async def outbox_done(self, upto: int) -> None:
        self.changes = tuple(change for change in self.changes if change.seq > upto)


async def test_an_operator_is_the_platform_s_in_every_log(log: Log) -> None:
    theirs = structs.replace(BY, org=ACME, member=ANN)
    await log.sequencer.drain_once(Queue(change(1, BY, ANN), change(2, theirs, BOB)))
    entries, _ = await log.reader.entries(ACME)
    assert [(entry["actor"], entry["target"]) for entry in entries] == [(OPERATOR, ANN), (ANN, BOB)]
    assert await log.actors(actor=OPERATOR) == [OPERATOR]
    assert await log.actors(actor=ANN) == [ANN]


async def test_a_repeat_from_the_outbox_is_one_entry_also_after_a_restart(log: Log, tmp_path: Path) -> None:
    queue = Queue(change(1, BY, ANN), change(2, BY, BOB))
    await log.sequencer.drain_once(queue)
    queue.changes = (change(1, BY, ANN), change(2, BY, BOB), change(3, BY, ANN))
    again = Log(log.store, tmp_path)
    await again.sequencer.drain_once(queue)
    assert len(await again.actors()) == 3
    await again.sequencer.close()


async def test_entries_wait_while_nobody_can_be_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.write(ANN)

    async def away(*_: object) -> Mapping[str, object]:
        raise StoreUnavailableError("locked")

    with monkeypatch.context() as patched:
        patched.setattr(log.store.persons, "by_finder", away)
        with pytest.raises(UnavailableError, match="asked for people"):
            await log.write(BOB)
        log.seq -= 1
        assert log.sequencer.reason == "the control store cannot be asked for people"
    await log.write(BOB)
    assert log.sequencer.reason == ""
    assert await log.actors() == [ANN, BOB]


async def test_who_is_known_is_written_while_the_store_is_away(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    await log.write(ANN)

    async def away(*_: object) -> Mapping[str, object]:
        raise StoreUnavailableError("locked")

    monkeypatch.setattr(log.store.persons, "by_finder", away)
    await log.write(ANN, ANN)
    assert (await log.sequencer.opened(ACME)).log.size == 3


# -- erasing --------------------------------------------------------------------------------------------------


async def test_an_erased_person_is_shown_to_nobody_and_the_log_stays_as_it_is(log: Log) -> None:
    await log.write(ANN, BOB, ANN)
    person = await one(log.people, ACME, ANN)
    root, before = await log.reader.checkpoint(ACME), log.bytes()
    assert await log.people.erase(ACME, ANN, BY) == person
    for people in (log.people, persons(log.store)):  # what is in memory, and what is not
        log.reader = LogReader(log.sequencer, people)
        assert await log.actors() == [ERASED, BOB, ERASED]
        assert await log.actors(actor=ANN) == []
        assert await people.known(ACME, [person]) == {}
        assert [known.member for known in (await people.page(ACME, "", 10))[0]] == [BOB]
    assert (log.bytes(), await log.reader.checkpoint(ACME)) == (before, root)


async def test_a_reader_who_looked_just_before_keeps_nobody_alive(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is read, then destroyed, then what was read is remembered: it must not be."""
    await log.write(ANN)
    person = await one(log.people, ACME, ANN)
    by_id = log.store.persons.by_id
    erasing: list[asyncio.Task[str]] = []

    async def read_then_erase(org: OrgId, ids: Collection[str]) -> tuple[Person, ...]:
        rows = await by_id(org, ids)
        erasing.append(asyncio.create_task(log.people.erase(ACME, ANN, BY)))
        await asyncio.wait(erasing, timeout=0.5)  # it must wait for this reader; if it does not, it ends here
        return rows

    with monkeypatch.context() as patched:
        patched.setattr(log.store.persons, "by_id", read_then_erase)
        await log.people.known(ACME, [person])
    assert await erasing[0] == person
    assert await log.people.known(ACME, [person]) == {}


async def test_what_comes_late_of_them_brings_nobody_back(log: Log) -> None:
    await log.write(ANN)
    await log.people.erase(ACME, ANN, BY)
    await log.write(ANN)
    log.people = persons(log.store)
    restarted = Sequencer(log.folder.with_name("other"), SIGNER, people=log.people)
    await restarted.append_receipts(SpoolUp("late", (SpooledReceipt(1, receipt(1, member=ANN)),)))
    await restarted.close()
    assert await log.actors() == [ERASED, ERASED]
    assert b'"actor":"erased"' in (log.folder.with_name("other") / "orgs/acme/log-00000000.jsonl").read_bytes()
    assert (await log.people.page(ACME, "", 10))[0] == []


async def test_erasing_in_one_organization_says_nothing_of_another(log: Log) -> None:
    await log.write(ANN)
    await log.write(ANN, org=GLOBEX)
    await log.people.erase(ACME, ANN, BY)
    assert await log.actors(GLOBEX) == [ANN]
    with pytest.raises(NotFoundError):
        await log.people.erase(PLATFORM, ANN, BY)
    assert await log.people.erase(ACME, ANN, BY) == ""

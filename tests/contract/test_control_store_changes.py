"""`tenants.store.ControlStore`: versions, the outbox, revocations: what follows from a write."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import msgspec
import pytest
from msgspec import structs
from sqlalchemy import event

from policies.facts import Role
from tenants.ids import PLATFORM, OrgId
from tenants.models import Member, Revocation, State, Window
from tenants.revocations import LEEWAY_S, LONGEST_TOKEN_S
from tenants.sql.store import SqlControlStore
from tenants.store import InvalidItemError, InvalidQueryError, NotFoundError, VersionMismatchError
from tests.contract.control_store import (
    NOW,
    OPERATOR,
    Backend,
    Clock,
    in_process,
    limit,
    member,
    model,
    org,
    rule,
    upstream,
)

ACME = OrgId("acme")
BARRED = int(NOW) + 1
FORGOTTEN = BARRED + LONGEST_TOKEN_S + LEEWAY_S


@pytest.fixture
async def acme(store: SqlControlStore) -> SqlControlStore:
    await store.orgs.create(org("acme"), OPERATOR)
    await store.outbox_done(10**9)
    return store


async def test_each_write_the_data_plane_reads_raises_the_version(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    seen = await acme.version()
    for written in (
        lambda: mine.upstreams.create(upstream("acme"), OPERATOR),
        lambda: mine.models.create(model("acme"), OPERATOR),
        lambda: mine.limits.create(limit("acme"), OPERATOR),
        lambda: mine.rules.create(rule("acme"), OPERATOR),
        lambda: mine.rules.replace(rule("acme"), 1, OPERATOR),
        lambda: mine.rules.delete("no-embeddings", 2, OPERATOR),
        lambda: acme.orgs.replace(org("acme", hosts=("a.example.com",)), 1, OPERATOR),
    ):
        await written()
        assert await acme.changed_since(seen) == (seen + 1, (ACME,), ())
        seen += 1
    assert await acme.changed_since(seen) == (seen, (), ())


async def test_what_the_data_plane_does_not_read_does_not(acme: SqlControlStore) -> None:
    seen = await acme.version()
    mine = acme.for_org(ACME)
    await mine.members.create(member("acme"), OPERATOR)
    await mine.members.replace(member("acme", name="Other"), 1, OPERATOR)
    await mine.note("key.set", "main", OPERATOR, {"version": 1})
    assert await acme.version() == seen


async def test_changed_since_names_every_org_once_and_the_removed(acme: SqlControlStore) -> None:
    start = await acme.version()
    for name in ("globex", "initech"):
        await acme.orgs.create(org(name), OPERATOR)
    await acme.for_org(OrgId("globex")).limits.create(limit("globex"), OPERATOR)
    await acme.orgs.delete("initech", 1, OPERATOR)
    now = await acme.version()
    assert await acme.changed_since(start) == (now, ("globex",), ("initech",))
    assert await acme.changed_since(0) == (now, ("acme", "globex", PLATFORM), ("initech",))
    assert await acme.changed_since(now) == (now, (), ())


async def test_every_write_queues_one_change_in_order(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    await mine.upstreams.create(upstream("acme"), OPERATOR)
    await mine.upstreams.replace(upstream("acme", connections=8, idle_timeout_ms=5), 1, OPERATOR)
    await mine.note("key.set", "main", OPERATOR, {"version": 1, "by_file": True, "of": ["a", "b"]})
    await mine.upstreams.delete("main", 2, OPERATOR)
    first, second, third, fourth = await acme.outbox()
    assert [c.seq for c in (first, second, third, fourth)] == list(range(first.seq, first.seq + 4))
    assert {(c.at, c.org, c.target, c.actor) for c in (first, second, third, fourth)} == {
        (int(NOW), ACME, "main", OPERATOR)
    }
    assert (first.action, first.detail["base_url"]) == ("upstream.create", "https://acme.example")
    assert (second.action, second.detail) == (
        "upstream.update",
        {"changed": ["connections", "idle_timeout_ms"], "connections": 8, "idle_timeout_ms": 5},
    )
    assert (third.action, third.detail) == ("key.set", {"version": 1, "by_file": True, "of": ["a", "b"]})
    assert (fourth.action, fourth.detail) == ("upstream.delete", {"version": 2})


async def test_a_change_says_nothing_of_a_person_but_the_id(acme: SqlControlStore) -> None:
    members = acme.for_org(ACME).members
    await members.create(member("acme", email="ann@secret.example", name="Ann Canary"), OPERATOR)
    await members.replace(member("acme", email="bob@secret.example", name="Bob Canary"), 1, OPERATOR)
    await members.delete("mem_1", 2, OPERATOR)
    queued = await acme.outbox()
    assert [(change.action, change.target) for change in queued] == [
        ("member.create", "mem_1"),
        ("member.update", "mem_1"),
        ("member.delete", "mem_1"),
    ]
    assert queued[1].detail["changed"] == ["email", "name"]
    text = msgspec.json.encode(queued).decode().lower()
    assert "secret.example" not in text
    assert "canary" not in text


async def test_a_list_of_numbers_is_text_in_a_change(acme: SqlControlStore) -> None:
    """An entry's lists are of text: one that cannot be read back would hold up all that come after it."""
    budget = limit("acme", amount=100, period_s=0, window=Window.DAY, notify_at=(80, 95))
    await acme.for_org(ACME).limits.create(budget, OPERATOR)
    await acme.for_org(ACME).limits.replace(structs.replace(budget, notify_at=(50,)), 1, OPERATOR)
    made, changed = (await acme.outbox())[-2:]
    assert (made.detail["notify_at"], changed.detail["notify_at"]) == (["80", "95"], ["50"])


async def test_a_change_names_a_ca_and_does_not_quote_it(acme: SqlControlStore) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nQUJD\n-----END CERTIFICATE-----\n"
    upstreams = acme.for_org(ACME).upstreams
    await upstreams.create(upstream("acme"), OPERATOR)
    await upstreams.replace(upstream("acme", ca_pem=pem), 1, OPERATOR)
    assert (await upstreams.get("main")).ca_pem == pem
    assert (await acme.outbox())[-1].detail == {"changed": ["ca_pem"]}


async def test_a_refused_write_queues_nothing(acme: SqlControlStore) -> None:
    await acme.for_org(ACME).members.create(member("acme"), OPERATOR)
    queued = await acme.outbox()
    for attempt in (
        acme.for_org(ACME).members.replace(member("acme", roles=(Role.MEMBER,)), 7, OPERATOR),
        acme.for_org(ACME).members.create(member("acme", "mem_2", email="mem_1@acme.example"), OPERATOR),
        acme.for_org(OrgId("nobody")).members.create(member("nobody"), OPERATOR),
    ):
        with pytest.raises(Exception, match=r"version is 1|e-mail|nobody"):
            await attempt
    assert await acme.outbox() == queued
    assert await acme.revocations(0) == ()


async def test_the_outbox_is_read_in_parts_and_forgets_what_is_done(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    for number in range(5):
        await mine.note("thing.done", str(number), OPERATOR, {})
    first, second = await acme.outbox(2)
    assert (first.target, second.target) == ("0", "1")
    await acme.outbox_done(second.seq)
    await acme.outbox_done(second.seq)
    assert [change.target for change in await acme.outbox()] == ["2", "3", "4"]
    await acme.outbox_done(second.seq + 3)
    await mine.note("thing.done", "5", OPERATOR, {})
    assert (await acme.outbox())[0].seq == second.seq + 4  # a number once given is never given again
    with pytest.raises(InvalidQueryError):
        await acme.outbox(0)


async def test_a_note_on_an_org_that_is_gone_is_kept(acme: SqlControlStore) -> None:
    await acme.orgs.delete("acme", 1, OPERATOR)
    await acme.for_org(ACME).note("session.refused", "mem_1", OPERATOR, {"reason": "no such org"})
    assert (await acme.outbox())[-1].action == "session.refused"


@pytest.mark.parametrize(
    "changes", [{"roles": (Role.MEMBER,)}, {"roles": (Role.AUDITOR,)}, {"state": State.SUSPENDED}]
)
async def test_what_is_taken_from_a_member_ends_its_tokens(acme: SqlControlStore, changes: dict[str, Any]) -> None:
    members = acme.for_org(ACME).members
    await members.create(member("acme"), OPERATOR)
    version = await acme.version()
    taken = await members.replace(member("acme", **changes), 1, OPERATOR)
    assert taken.not_before == BARRED
    assert await acme.revocations(int(NOW)) == (Revocation(ACME, BARRED, FORGOTTEN, member="mem_1"),)
    assert await acme.version() == version + 1
    assert (await acme.outbox())[-1].detail["not_before"] == BARRED


async def test_what_is_given_to_a_member_ends_nothing(acme: SqlControlStore, clock: Clock) -> None:
    members = acme.for_org(ACME).members
    await members.create(member("acme", state=State.SUSPENDED, not_before=5), OPERATOR)
    roles = (Role.OWNER, Role.ADMIN, Role.MEMBER)
    given = await members.replace(member("acme", roles=roles, not_before=99), 1, OPERATOR)
    assert given.not_before == 0  # set here, whatever the item says
    assert await acme.revocations(0) == ()
    await members.replace(member("acme"), 2, OPERATOR)
    clock.now += 100
    kept = await members.replace(member("acme", name="Other"), 3, OPERATOR)
    assert kept.not_before == BARRED


async def test_a_deleted_member_and_a_suspended_or_deleted_org_end_their_tokens(acme: SqlControlStore) -> None:
    members = acme.for_org(ACME).members
    await members.create(member("acme"), OPERATOR)
    await members.delete("mem_1", 1, OPERATOR)
    assert await acme.revocations(0) == (Revocation(ACME, BARRED, FORGOTTEN, member="mem_1"),)
    await acme.orgs.replace(org("acme", state=State.SUSPENDED), 1, OPERATOR)
    whole = Revocation(ACME, BARRED, FORGOTTEN)
    assert await acme.revocations(0) == (whole, Revocation(ACME, BARRED, FORGOTTEN, member="mem_1"))
    await acme.orgs.replace(org("acme"), 2, OPERATOR)
    await acme.orgs.delete("acme", 3, OPERATOR)
    assert await acme.revocations(0) == (whole,)


async def test_a_later_revocation_strengthens_the_one_that_stands(acme: SqlControlStore, clock: Clock) -> None:
    clock.now = 200
    mine = acme.for_org(ACME)
    await mine.members.create(member("acme"), OPERATOR)
    await mine.revoke(Revocation(ACME, 100, 100, member="mem_1"), OPERATOR)
    await mine.revoke(Revocation(ACME, 50, 50, member="mem_1"), OPERATOR)
    least = 100 + LONGEST_TOKEN_S + LEEWAY_S  # whatever was asked: no token may outlive it
    assert await acme.revocations(200) == (Revocation(ACME, 100, least, member="mem_1"),)
    assert (await mine.members.get("mem_1")).not_before == 100
    await mine.revoke(Revocation(ACME, 200, 9_999, member="mem_1"), OPERATOR)
    assert await acme.revocations(200) == (Revocation(ACME, 200, 9_999, member="mem_1"),)


async def test_expired_revocations_are_forgotten(acme: SqlControlStore, clock: Clock) -> None:
    mine = acme.for_org(ACME)
    token = Revocation(ACME, 0, int(NOW) + 60, token_id="jti-1")
    await mine.revoke(token, OPERATOR)
    assert await acme.revocations(int(NOW) + 59) == (token,)
    assert await acme.revocations(int(NOW) + 60) == ()
    clock.now += 60
    other = Revocation(ACME, 0, int(NOW) + 120, token_id="jti-2")
    await mine.revoke(other, OPERATOR)
    assert await acme.revocations(0) == (other,)


async def test_a_revocation_is_a_change_of_its_own(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    await mine.members.create(member("acme"), OPERATOR)
    version = await acme.version()
    await mine.revoke(Revocation(ACME, 7, 8, member="mem_1"), OPERATOR)
    await mine.revoke(Revocation(ACME, 7, FORGOTTEN, token_id="jti-1"), OPERATOR)
    await mine.revoke(Revocation(ACME, 7, FORGOTTEN), OPERATOR)
    assert [(change.action, change.target) for change in (await acme.outbox())[1:]] == [
        ("member.revoke", "mem_1"),
        ("token.revoke", "jti-1"),
        ("org.revoke", "acme"),
    ]
    assert await acme.version() == version + 3
    assert (await mine.members.get("mem_1")).version == 2
    with pytest.raises(NotFoundError):
        await mine.revoke(Revocation(ACME, 7, 8, member="mem_9"), OPERATOR)
    with pytest.raises(NotFoundError):
        await acme.for_org(OrgId("nobody")).revoke(Revocation(OrgId("nobody"), 7, 8), OPERATOR)
    with pytest.raises(InvalidItemError):
        await mine.revoke(Revocation(OrgId("globex"), 7, 8), OPERATOR)


async def test_subscribers_hear_of_commits_only(acme: SqlControlStore) -> None:
    heard: list[int] = []
    end = acme.subscribe(lambda: heard.append(1))
    mine = acme.for_org(ACME)
    await mine.limits.create(limit("acme"), OPERATOR)
    await mine.note("thing.done", "x", OPERATOR, {})
    assert len(heard) == 2
    with pytest.raises(VersionMismatchError):
        await mine.limits.delete("each", 9, OPERATOR)
    await mine.limits.page()
    await acme.outbox_done(10**9)
    assert len(heard) == 2
    end()
    await mine.limits.delete("each", 1, OPERATOR)
    assert len(heard) == 2


async def test_a_write_whose_caller_is_cancelled_ends_well_and_blocks_nobody(acme: SqlControlStore) -> None:
    """Cancelled at its first statement, its second, …, and at the commit: it is written and subscribers know."""
    limits = acme.for_org(ACME).limits
    told: list[int] = []
    acme.subscribe(lambda: told.append(1))
    cancelled: list[asyncio.CancelledError] = []  # kept: a traceback must not keep a transaction open
    while True:
        cancel = CancelAt(len(cancelled))
        event.listen(acme.engine.sync_engine, "before_cursor_execute", cancel)
        event.listen(acme.engine.sync_engine, "commit", cancel)
        name = f"l{len(cancelled):03}"
        cancel.task = asyncio.create_task(limits.create(limit("acme", name), OPERATOR))
        answer: object = (await asyncio.gather(cancel.task, return_exceptions=True))[0]
        event.remove(acme.engine.sync_engine, "before_cursor_execute", cancel)
        event.remove(acme.engine.sync_engine, "commit", cancel)
        assert len(told) == len(cancelled) + 1
        assert (await limits.get(name)).name == name
        if not isinstance(answer, asyncio.CancelledError):
            break
        cancelled.append(answer)
    assert len(cancelled) >= 6
    assert [change.target for change in await acme.outbox()] == [item.name for item in (await limits.page())[0]]


async def test_a_refusal_nobody_waits_for_is_quiet(acme: SqlControlStore) -> None:
    limits = acme.for_org(ACME).limits
    cancel = CancelAt(2)
    event.listen(acme.engine.sync_engine, "before_cursor_execute", cancel)
    cancel.task = asyncio.create_task(limits.replace(limit("acme"), 1, OPERATOR))
    with pytest.raises(asyncio.CancelledError):
        await cancel.task
    assert (await limits.page())[0] == ()


class CancelAt:
    """A listener that cancels `task` at its n-th call."""

    task: asyncio.Task[Any]

    def __init__(self, step: int) -> None:
        self._left = step

    def __call__(self, *_: object) -> None:
        if self._left == 0:
            self.task.cancel()
        self._left -= 1


async def test_what_was_written_is_there_after_reopening(backend: Backend, clock: Clock) -> None:
    store = await backend.open(clock)
    await store.orgs.create(org("acme"), OPERATOR)
    await store.orgs.create(org("globex"), OPERATOR)
    await store.for_org(ACME).members.create(member("acme"), OPERATOR)
    await store.orgs.delete("globex", 1, OPERATOR)
    before = (
        await store.changed_since(0),
        await store.outbox(),
        await store.revocations(0),
        await store.for_org(ACME).record(),
        await store.for_org(ACME).members.get("mem_1"),
    )
    await store.close()
    store = await backend.open(clock)
    assert before == (
        await store.changed_since(0),
        await store.outbox(),
        await store.revocations(0),
        await store.for_org(ACME).record(),
        await store.for_org(ACME).members.get("mem_1"),
    )
    with pytest.raises(Exception, match="did once"):
        await store.orgs.create(org("globex"), OPERATOR)
    await store.close()


KILLED = """
import asyncio, os, signal, sys
from tenants.sql.database import Transaction
from tenants.sql.store import open_store
from tests.contract.control_store import OPERATOR, limit, org
from tenants.ids import OrgId

async def main(url, when):
    store = await open_store(url)
    await store.orgs.create(org("acme"), OPERATOR)
    async def die(self):
        await finish(self)
        os.kill(os.getpid(), signal.SIGKILL)
    finish = Transaction.finish
    if when == "before":
        Transaction.finish = die
    await store.for_org(OrgId("acme")).limits.create(limit("acme"), OPERATOR)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_leaves_the_write_and_its_change_or_neither(
    backend: Backend, clock: Clock, when: str
) -> None:
    """Just before the commit: nothing. Between the commit and `outbox_done`: both, and in the outbox still."""
    assert in_process(KILLED, backend.url, when) == -signal.SIGKILL
    store = await backend.open(clock)
    names = [item.name for item in (await store.for_org(ACME).limits.page())[0]]
    actions = [change.action for change in await store.outbox()]
    assert names == ([] if when == "before" else ["each"])
    assert actions == ["org.create", "org.create"] + ([] if when == "before" else ["limit.create"])
    assert await store.version() == (2 if when == "before" else 3)
    await store.close()


async def test_a_member_as_stored_is_what_comes_back(acme: SqlControlStore) -> None:
    members = acme.for_org(ACME).members
    made = await members.create(member("acme", name="Zoë \u201cQuote\u201d ' ; --"), OPERATOR)
    assert isinstance(made, Member)
    assert await members.get("mem_1") == made == structs.replace(made, version=1)

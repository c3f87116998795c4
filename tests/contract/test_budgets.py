"""`tenants.store.BudgetBook` and `WebhookBook`: what of budgets is still known after a restart."""

from __future__ import annotations

import pytest
from msgspec import structs

from gateway.deliveries import message_id
from tenants.budgets import NoticeState, Webhook
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tenants.sql.store import SqlControlStore
from tenants.store import InvalidItemError, NotFoundError
from tests.contract.control_store import NOW, OPERATOR, Backend, Clock, notice, org, use

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
HOOK = Webhook(ACME, "https://hooks.example/in?token=t0p")


@pytest.fixture
async def two(store: SqlControlStore) -> SqlControlStore:
    await store.orgs.create(org("acme"), OPERATOR)
    await store.orgs.create(org("globex"), OPERATOR)
    return store


async def test_what_is_used_is_there_after_a_restart(two: SqlControlStore, backend: Backend, clock: Clock) -> None:
    mine, theirs = use("acme"), use("globex", "platform/month", used=3)
    assert await two.budgets.write([mine, theirs], []) == ()
    more = structs.replace(mine, used=10**15, at_us=mine.at_us + 1)
    await two.budgets.write([more], [])
    again = await backend.open(clock)
    assert sorted(await again.budgets.current(int(NOW)), key=lambda item: item.org) == [more, theirs]
    assert await again.budgets.current(mine.ends_s) == ()
    await again.close()


async def test_nobody_is_woken_by_what_is_used(two: SqlControlStore) -> None:
    told: list[int] = []
    two.subscribe(lambda: told.append(1))
    version, queued = await two.version(), await two.outbox()
    await two.budgets.write([use("acme")], [])
    assert (await two.version(), await two.outbox(), told) == (version, queued, [])


async def test_a_threshold_is_said_once(two: SqlControlStore, backend: Backend, clock: Clock) -> None:
    queued = len(await two.outbox())
    (first,) = await two.budgets.write([], [notice("acme")])
    assert first == structs.replace(notice("acme"), at=int(NOW), next_at=int(NOW), state=NoticeState.NONE)
    assert await two.budgets.write([], [notice("acme")]) == ()
    again = await backend.open(clock)
    assert await again.budgets.write([], [notice("acme", used=90)]) == ()
    other = notice("acme", percent=90), notice("acme", subject="mem_2"), notice("globex")
    assert len(await again.budgets.write([], other)) == 3
    entries = (await again.outbox())[queued:]
    assert [(entry.org, entry.action, entry.target) for entry in entries] == [
        ("acme", "limit.threshold", "month"),
        ("acme", "limit.threshold", "month"),
        ("acme", "limit.threshold", "month"),
        ("globex", "limit.threshold", "month"),
    ]
    assert entries[0].detail["percent"] == 80
    await again.close()


async def test_a_threshold_of_another_unit_is_said_anew(two: SqlControlStore) -> None:
    """The limit counts tokens, then spend: what was said of tokens says nothing of it."""
    await two.webhooks.put(HOOK, OPERATOR)
    await two.budgets.write([], [notice("acme")])
    (made,) = await two.budgets.write([], [notice("acme", unit=LimitUnit.SPEND)])
    assert await two.budgets.write([], [notice("acme", unit=LimitUnit.SPEND)]) == ()
    assert await two.budgets.due(int(NOW)) == (made,)
    assert message_id(made) != message_id(notice("acme"))


async def test_a_notice_waits_for_the_webhook_until_it_is_settled(two: SqlControlStore, clock: Clock) -> None:
    await two.webhooks.put(HOOK, OPERATOR)
    await two.budgets.write([], [notice("acme"), notice("globex")])
    (due,) = await two.budgets.due(int(NOW))
    assert (due.org, due.state, due.attempts) == ("acme", NoticeState.PENDING, 0)
    tried = structs.replace(due, attempts=1, next_at=int(NOW) + 30)
    await two.budgets.settle(tried, failure="it answered 500")
    assert await two.budgets.due(int(NOW)) == ()
    assert await two.budgets.due(int(NOW) + 30) == (tried,)
    found = await two.webhooks.get(ACME)
    assert found is not None
    assert (found.failure, found.delivered_at) == ("it answered 500", 0)
    clock.now += 31
    await two.budgets.settle(structs.replace(tried, state=NoticeState.SENT))
    found = await two.webhooks.get(ACME)
    assert found is not None
    assert (found.failure, found.delivered_at) == ("", int(clock.now))
    assert await two.budgets.due(2**40) == ()


async def test_no_organization_waits_for_anothers_notices(two: SqlControlStore) -> None:
    for org_id in (ACME, GLOBEX):
        await two.webhooks.put(Webhook(org_id, "https://hooks.example"), OPERATOR)
    many = [notice("acme", subject=f"mem_{n}", percent=50 + n) for n in range(5)]
    await two.budgets.write([], [*reversed(many), notice("globex")])
    due = await two.budgets.due(int(NOW), limit=2)
    assert [(item.org, item.percent) for item in due] == [("acme", 50), ("globex", 80)]


async def test_without_the_webhook_nothing_waits_any_more(two: SqlControlStore) -> None:
    await two.webhooks.put(HOOK, OPERATOR)
    (made,) = await two.budgets.write([], [notice("acme")])
    await two.webhooks.delete(ACME, OPERATOR)
    assert await two.budgets.due(2**40) == ()
    await two.budgets.settle(made)  # an attempt that was under way
    await two.webhooks.put(HOOK, OPERATOR)
    assert await two.budgets.due(2**40) == ()
    with pytest.raises(NotFoundError):
        await two.webhooks.delete(GLOBEX, OPERATOR)


async def test_a_reset_is_forgotten_and_old_windows_are_pruned(two: SqlControlStore) -> None:
    everything = [use("acme"), use("acme", subject="mem_2"), use("acme", "week"), use("globex")]
    await two.budgets.write(everything, [notice("acme")])
    await two.budgets.forget(ACME, "month", "mem_2")
    assert len(await two.budgets.current(0)) == 3
    await two.budgets.forget(ACME, "month")
    assert {(item.org, item.limit) for item in await two.budgets.current(0)} == {
        ("acme", "week"),
        ("globex", "month"),
    }
    assert await two.budgets.prune(use("acme").ends_s) == 0
    assert await two.budgets.prune(use("acme").ends_s + 1) == 2
    assert len(await two.budgets.write([], [notice("acme")])) == 1


async def test_what_belongs_to_an_organization_that_is_gone_is_left_out(two: SqlControlStore) -> None:
    await two.webhooks.put(HOOK, OPERATOR)
    await two.budgets.write([use("acme")], [notice("acme")])
    await two.orgs.delete("acme", 1, OPERATOR)
    assert await two.budgets.write([use("acme"), use("globex")], [notice("acme", percent=90)]) == ()
    assert [item.org for item in await two.budgets.current(0)] == ["globex"]
    assert await two.budgets.due(2**40) == ()
    assert await two.webhooks.get(ACME) is None
    with pytest.raises(NotFoundError):
        await two.webhooks.put(HOOK, OPERATOR)


async def test_a_webhook_is_judged_counted_and_audited_without_its_path(two: SqlControlStore) -> None:
    made = await two.webhooks.put(HOOK, OPERATOR)
    assert made == structs.replace(HOOK, set_at=int(NOW), version=1) == await two.webhooks.get(ACME)
    assert (await two.webhooks.put(HOOK, OPERATOR)).version == 2
    entry = (await two.outbox())[-1]
    assert entry.action == "webhook.set"
    assert dict(entry.detail) == {"origin": "https://hooks.example", "version": 2, "ca_pem": False}
    for wrong in (
        "ftp://x.example",
        "https://",
        "https://u:p@x.example/",
        "https://x.example/#a",
        "x",
        "http://a b",
    ):
        with pytest.raises(InvalidItemError, match="url"):
            await two.webhooks.put(structs.replace(HOOK, url=wrong), OPERATOR)
    with pytest.raises(InvalidItemError, match="ca_pem"):
        await two.webhooks.put(structs.replace(HOOK, ca_pem="x"), OPERATOR)
    assert await two.webhooks.get(GLOBEX) is None

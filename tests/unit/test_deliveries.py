"""Notices on their way: in order, retried with growing pauses, given up at last; none waits for another's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.deliveries import PAUSES_S, Deliveries, body, message_id
from gateway.secret import Secret
from gateway.secrets.store import NoSuchSecretError
from gateway.webhooks import DeliveryError, Webhooks
from tenants.budgets import NoticeState, Webhook
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tenants.sql.store import SqlControlStore
from tenants.store import StoreUnavailableError
from tests.contract.control_store import NOW, OPERATOR, SqliteBackend, notice, org
from tests.kit.wait import eventually

ACME, GLOBEX = OrgId("acme"), OrgId("globex")


class Time:
    def __init__(self) -> None:
        self.seconds = NOW

    def now(self) -> float:
        return self.seconds

    def __call__(self) -> float:
        return self.seconds

    def monotonic_us(self) -> int:
        return int(self.seconds * 1e6)


class Secrets:
    def __init__(self) -> None:
        self.held: dict[OrgId, Secret] = {}

    async def get(self, org: OrgId) -> Secret:
        if org not in self.held:
            raise NoSuchSecretError(org)
        return self.held[org]

    async def put(self, org: OrgId, secret: Secret) -> None:
        self.held[org] = secret

    async def delete(self, org: OrgId) -> None:
        await self.get(org)
        del self.held[org]


class Bed:
    def __init__(self, store: SqlControlStore, time: Time) -> None:
        self.store = store
        self.time = time
        self.got: list[tuple[str, str, int]] = []
        """(organization, message id, percent)"""
        self.failing: dict[str, int] = {}
        """Organization → the status of all its answers."""
        self.hanging: set[str] = set()
        self.counted: list[tuple[str, str]] = []
        self.secrets = Secrets()
        self.webhooks = Webhooks(store.webhooks, self.secrets, self.post, time, lambda count: b"r" * count)
        self.deliveries = Deliveries(
            store.budgets, self.webhooks, time, lambda: 0.0, lambda *said: self.counted.append(said)
        )

    async def post(self, hook: Webhook, secret: Secret, message_id: str, body: bytes) -> int:
        self.got.append((hook.org, message_id, json.loads(body)["data"]["percent"]))
        if hook.org in self.hanging:
            await asyncio.Event().wait()
        if status := self.failing.get(hook.org):
            raise DeliveryError(f"the receiver answered status {status}", status)
        return 200

    async def pass_time(self, seconds: float) -> None:
        """And one attempt, if it is time for one."""
        self.time.seconds += seconds
        for item in await self.store.budgets.due(int(self.time.now())):
            await self.deliveries.deliver(item)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    time = Time()
    store = await SqliteBackend(tmp_path).open(time)  # type: ignore[arg-type]
    made = Bed(store, time)
    for name in (ACME, GLOBEX):
        await store.orgs.create(org(name), OPERATOR)
        await made.webhooks.put(Webhook(name, f"https://{name}.example"), OPERATOR)
    yield made
    await store.close()


async def test_all_that_waits_is_told_in_order_once(bed: Bed) -> None:
    await bed.store.budgets.write([], [notice("acme", percent=95), notice("acme"), notice("globex")])
    running = asyncio.create_task(bed.deliveries.run())
    try:
        await eventually(lambda: len(bed.counted) == 3, "three deliveries")
        await bed.store.budgets.write([], [notice("acme", subject="mem_2")])
        bed.deliveries.wake()
        await eventually(lambda: len(bed.counted) == 4, "the fourth")
    finally:
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert [percent for who, _, percent in bed.got if who == "acme"] == [80, 95, 80]
    assert set(bed.counted) == {("acme", "sent"), ("globex", "sent")}
    assert await bed.store.budgets.due(2**40) == ()
    assert len({message for _, message, _ in bed.got}) == 4


async def test_a_receiver_that_hangs_delays_its_own_messages_only(bed: Bed) -> None:
    bed.hanging = {"acme"}
    await bed.store.budgets.write([], [notice("acme"), notice("acme", percent=95)])
    running = asyncio.create_task(bed.deliveries.run())
    try:
        await eventually(lambda: len(bed.got) == 1, "acme is asked")
        await bed.store.budgets.write([], [notice("globex")])
        bed.deliveries.wake()
        await eventually(lambda: bed.counted == [("globex", "sent")], "globex is told")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [who for who, *_ in bed.got] == ["acme", "globex"]
    assert [item.percent for item in await bed.store.budgets.due(2**40)] == [80], "it is told after a restart"


async def test_it_is_tried_again_with_growing_pauses_and_given_up_at_last(
    bed: Bed, caplog: pytest.LogCaptureFixture
) -> None:
    bed.failing["acme"] = 500
    await bed.store.budgets.write([], [notice("acme")])
    await bed.pass_time(0)
    for number, pause in enumerate(PAUSES_S, 1):
        assert len(bed.got) == number
        await bed.pass_time(pause - 2)
        assert len(bed.got) == number, "not before the pause is over"
        await bed.pass_time(2)
    assert len(bed.got) == len(PAUSES_S) + 1
    assert {message for _, message, _ in bed.got} == {message_id(notice("acme"))}, "the same message each time"
    assert await bed.store.budgets.due(2**40) == ()
    assert bed.counted[-2:] == [("acme", "retried"), ("acme", "failed")]
    assert "the webhook was not told of 'month'" in caplog.text
    found = await bed.webhooks.get(ACME)
    assert found is not None
    assert found.failure == "the receiver answered status 500"


async def test_a_later_attempt_that_succeeds_is_the_last(bed: Bed) -> None:
    bed.failing["acme"] = 503
    await bed.store.budgets.write([], [notice("acme")])
    await bed.pass_time(0)
    bed.failing.clear()
    await bed.pass_time(PAUSES_S[0])
    assert bed.counted == [("acme", "retried"), ("acme", "sent")]
    assert await bed.store.budgets.due(2**40) == ()


async def test_who_is_gone_is_not_asked_again(bed: Bed) -> None:
    bed.failing["acme"] = 410
    await bed.store.budgets.write([], [notice("acme")])
    await bed.pass_time(0)
    assert (len(bed.got), bed.counted) == (1, [("acme", "failed")])
    assert await bed.store.budgets.due(2**40) == ()


async def test_a_webhook_whose_secret_is_gone_says_so(bed: Bed) -> None:
    bed.secrets.held.clear()
    await bed.store.budgets.write([], [notice("acme")])
    await bed.pass_time(0)
    found = await bed.webhooks.get(ACME)
    assert found is not None
    assert "set the webhook again" in found.failure
    assert bed.got == []


async def test_a_webhook_that_was_taken_away_meanwhile_is_not_told(bed: Bed) -> None:
    await bed.store.budgets.write([], [notice("acme")])
    (due,) = await bed.store.budgets.due(int(NOW))
    await bed.webhooks.delete(ACME, OPERATOR)
    await bed.deliveries.deliver(due)
    assert bed.got == []


async def test_a_store_that_cannot_be_read_is_asked_again(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.Event()

    async def locked(*_: object) -> tuple[()]:
        asked.set()
        raise StoreUnavailableError("locked")

    await bed.store.budgets.write([], [notice("acme")])
    with monkeypatch.context() as patch:
        patch.setattr(bed.store.budgets, "due", locked)
        running = asyncio.create_task(bed.deliveries.run())
        await asked.wait()
    bed.deliveries.wake()
    try:
        await eventually(lambda: bed.counted == [("acme", "sent")], "it is told")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_what_cannot_be_written_down_is_delivered_again(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The receiver took it, and this process does not get to write that: it knows the second by its id."""

    async def full(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    await bed.store.budgets.write([], [notice("acme")])
    with monkeypatch.context() as patch:
        patch.setattr(bed.store.budgets, "settle", full)
        running = asyncio.create_task(bed.deliveries.run())
        await eventually(lambda: "was not delivered" in caplog.text, "it is said")
    bed.deliveries.wake()
    try:
        await eventually(lambda: bed.counted == [("acme", "sent")], "it is told again")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(bed.got) == 2
    assert len({message for _, message, _ in bed.got}) == 1


def test_the_body_says_it_to_programs_and_to_people() -> None:
    spend = notice(
        "acme", unit=LimitUnit.SPEND, amount=200 * 10**9, used=160_500_000_000, state=NoticeState.PENDING
    )
    found = json.loads(body(spend))
    assert found["type"] == "limit.threshold"
    assert found["data"]["text"] == "80 % of the limit 'month' of mem_1 are used: $160.5 of $200."
    assert (found["data"]["amount"], found["data"]["used"]) == (200 * 10**9, 160_500_000_000)
    assert found["data"]["window_ends_at"].endswith("Z")

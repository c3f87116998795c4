"""The figures of a day beside each other: what the log has, what workers counted, what budgets were charged."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from gateway.alarms import Alarms
from gateway.audit.daily import DAY_MS
from gateway.audit.reconciler import LOOKS, SETTLED_S, Reconciler
from gateway.audit.tallies import GONE_S
from gateway.daily import AGAIN_S, DAY_S, KIND
from gateway.exchange import Outcome
from gateway.webhooks import DeliveryError
from tenants.auditdays import Verdict
from tenants.budgets import BudgetUse, Webhook
from tenants.ids import OrgId
from tenants.models import LimitUnit
from tenants.sql.auditdays import day_text
from tests.fakes.audit import ACME
from tests.unit.audit.daily import BY, DAY, MIDNIGHT_US, OTHER, Bed, Clock, served


async def test_a_day_agrees_when_every_request_is_an_entry(bed: Bed) -> None:
    await bed.serve(*served(5))
    await bed.serve(*served(2, outcome=Outcome.REFUSED, sent=False), boot=OTHER)
    bed.report()
    bed.report(OTHER, last=True)
    found = await bed.reconcile()
    assert (found.ok, found.judged, found.differences, found.faults, found.remarks) == (True, True, 0, (), ())
    assert found.entries == found.counted
    assert (found.entries.requests, found.entries.prompt_tokens, found.entries.nanodollars) == (7, 70, 49)
    assert [one.state for one in found.workers] == ["alive", "ended"]


async def test_an_entry_that_is_withheld_raises_the_alarm_once(bed: Bed) -> None:
    await bed.serve(*served(4))
    await bed.serve(*served(2), logged=False)
    bed.report(last=True)
    await bed.daily.look()
    assert bed.gauges == {("orgate_audit_reconcile_difference", (ACME,)): 2}
    ((org, kind, key, data),) = bed.told
    assert (org, kind, key, data["differences"]) == (ACME, KIND, day_text(DAY), 2)
    assert "counted 6 requests, the log has 4: 2 missing" in data["text"]
    (entry,) = await bed.entries("audit.reconcile")
    assert (entry["detail"]["ok"], entry["detail"]["entries"], entry["detail"]["counted"]) == (False, 4, 6)
    bed.clock.seconds += AGAIN_S
    await bed.daily.look()
    assert (len(bed.told), len(await bed.entries("audit.reconcile"))) == (1, 1)


async def test_the_alarm_ends_when_what_was_missing_has_come(bed: Bed) -> None:
    await bed.serve(*served(1), logged=False)
    bed.report(last=True)
    bed.refuses = True
    await bed.sequencer.opened(ACME)
    for _ in range(2):  # the webhook is told until it has heard
        await bed.daily.look()
        bed.clock.seconds += AGAIN_S
    assert len(bed.told) == 2
    await bed.log(*served(1))
    await bed.daily.look()
    assert bed.gauges == {("orgate_audit_reconcile_difference", (ACME,)): 0}
    assert [one["detail"]["ok"] for one in await bed.entries("audit.reconcile")] == [False, True]
    verdict = await bed.days.verdict(ACME, DAY)
    assert verdict is not None
    assert verdict.differences == 0


async def test_an_entry_that_nobody_served_is_too_many(bed: Bed) -> None:
    await bed.serve(*served(1))
    bed.report(last=True)
    await bed.log(*served(1))
    found = await bed.reconcile()
    assert (found.ok, found.differences) == (False, 1)
    assert "1 too many" in found.faults[0]


async def test_tokens_and_cost_have_to_be_the_same_too(bed: Bed) -> None:
    await bed.serve(*served(1), logged=False)
    await bed.log(*served(1, completion_tokens=4))
    bed.report(last=True)
    found = await bed.reconcile()
    assert (found.ok, found.differences) == (False, 1)
    assert "completion_tokens 4 in the log, 3 counted" in found.faults[0]


async def test_a_worker_that_was_killed_may_have_more_in_the_log_and_never_less(bed: Bed) -> None:
    await bed.serve(*served(3))
    bed.report()
    await bed.serve(*served(2))  # and killed before the next report
    bed.clock.seconds += GONE_S + 1
    found = await bed.reconcile()
    assert (found.ok, found.unreported.requests) == (True, 2)
    assert "2 requests that it had not reported" in found.remarks[0]
    await bed.serve(*served(1), boot=OTHER, logged=False)
    bed.report(OTHER)
    bed.clock.seconds += GONE_S + 1
    assert not (await bed.reconcile()).ok


async def test_what_was_under_way_when_its_worker_was_killed_is_no_difference(bed: Bed) -> None:
    await bed.serve(*served(1))
    await bed.log(*served(1, outcome=Outcome.UNKNOWN, prompt_tokens=0, completion_tokens=0))
    bed.report(last=True)
    found = await bed.reconcile()
    assert (found.ok, found.unknown, found.entries.requests) == (True, 1, 1)


async def test_what_lives_is_looked_at_again_before_it_is_said_to_differ(bed: Bed) -> None:
    await bed.serve(*served(1), logged=False)
    bed.report()
    assert not (await bed.reconcile()).ok
    assert len(bed.slept) == LOOKS - 1


async def test_a_day_that_is_not_over_is_shown_and_not_judged(bed: Bed) -> None:
    bed.clock.seconds = (DAY + 1) * DAY_S + SETTLED_S - 1
    await bed.serve(*served(1), logged=False)
    bed.report()
    found = await bed.reconcile()
    assert (found.judged, found.ok, found.counted.requests, found.entries.requests) == (False, True, 1, 0)


def month(used: int, unit: LimitUnit = LimitUnit.TOKENS) -> BudgetUse:
    """A budget whose window ends with the day."""
    starts, ends = (DAY - 1) * DAY_S, (DAY + 1) * DAY_S
    return BudgetUse(ACME, "two-days", "", starts, ends, unit, 10**9, used, 0)


@pytest.mark.parametrize(
    ("unit", "used"),
    [
        (LimitUnit.TOKENS, 6 * 13),
        (LimitUnit.INPUT_TOKENS, 60),
        (LimitUnit.OUTPUT_TOKENS, 18),
        (LimitUnit.SPEND, 42),
        (LimitUnit.REQUESTS, 6),
    ],
)
async def test_a_budget_has_what_the_log_says(bed: Bed, unit: LimitUnit, used: int) -> None:
    await bed.serve(*served(2, DAY - 1), *served(4), *served(1, sent=False, prompt_tokens=0, completion_tokens=0))
    bed.report(last=True)
    await bed.store.budgets.write([month(used, unit)], [])
    found = await bed.reconcile()
    assert (found.ok, [(one.least, one.most) for one in found.budgets]) == (True, [(used, used)])
    await bed.store.budgets.write([month(used + 1, unit)], [])
    found = await bed.reconcile()
    assert (found.ok, found.differences) == (False, 1)
    assert f"{used + 1} {unit.value} used in its window, the log says {used}" in found.faults[0]


async def test_a_budget_that_other_gateways_draw_from_is_not_compared(bed: Bed) -> None:
    await bed.serve(*served(1))
    bed.report(last=True)
    await bed.store.budgets.write([month(999)], [])
    shared = Reconciler(bed.reader, bed.days, bed.tallies, clock=bed.clock.now, day_text=day_text, shared=True)
    found = await shared.reconcile(ACME, DAY)
    assert (found.ok, "counted in Redis" in found.remarks[-1]) == (True, True)


async def test_what_crosses_a_windows_end_may_be_in_either(bed: Bed) -> None:
    await bed.serve(*served(1), *served(1, at_us=MIDNIGHT_US - 1, total_us=5_000_000))
    bed.report(last=True)
    for used in (13, 26):
        await bed.store.budgets.write([month(used)], [])
        assert (await bed.reconcile()).ok
    await bed.store.budgets.write([month(12)], [])
    assert not (await bed.reconcile()).ok


async def test_a_budget_that_was_reset_or_lost_a_worker_is_not_compared(bed: Bed) -> None:
    await bed.serve(*served(1))
    bed.report()
    bed.clock.seconds += GONE_S + 1
    await bed.store.budgets.write([month(999)], [])
    found = await bed.reconcile()
    assert (found.ok, "a worker was killed" in found.remarks[-1]) == (True, True)
    bed.report(last=True)
    assert not (await bed.reconcile()).ok
    bed.clock.seconds = DAY * DAY_S + 5
    await bed.store.for_org(ACME).note("limit.reset", "two-days", BY, {})
    await bed.sequencer.drain_once(bed.store)
    bed.clock.seconds += 2 * DAY_S
    found = await bed.reconcile()
    assert (found.ok, "limit.reset" in found.remarks[-1]) == (True, True)


async def test_a_verdict_that_says_the_same_is_no_second_entry(bed: Bed) -> None:
    for _ in range(2):
        await bed.days.judged(Verdict(ACME, DAY, 3), {"ok": False})
    assert len(await bed.entries("audit.reconcile")) == 1
    assert DAY_MS == DAY_S * 1000


class Hooks:
    """`Webhooks` with a receiver that answers as it is told to."""

    def __init__(self, hook: Webhook | None, *statuses: int) -> None:
        self.hook, self.statuses = hook, list(statuses)
        self.sent: list[tuple[str, bytes]] = []

    async def get(self, _: OrgId) -> Webhook | None:
        return self.hook

    async def send(self, _: Webhook, message_id: str, body: bytes) -> int:
        self.sent.append((message_id, body))
        status = self.statuses.pop(0)
        if status >= 300:
            raise DeliveryError("no", status)
        return status


@pytest.mark.parametrize(
    ("statuses", "done"), [([204], [True]), ([500, 500, 204], [False, False, True]), ([410], [True])]
)
async def test_a_webhook_is_told_until_it_has_heard(statuses: Sequence[int], done: Sequence[bool]) -> None:
    hooks = Hooks(Webhook(ACME, "https://hooks.example"), *statuses)
    alarms = Alarms(hooks, Clock())  # type: ignore[arg-type]  # the part that is asked
    assert [await alarms.tell(ACME, KIND, "2026-01-01", {"text": "x"}) for _ in done] == list(done)
    assert len({message_id for message_id, _ in hooks.sent}) == 1
    assert await Alarms(Hooks(None), Clock()).tell(ACME, KIND, "k", {})  # type: ignore[arg-type]  # as above

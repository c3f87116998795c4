"""The daily count, and the figures of a day beside each other, over a real log and a real control store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from gateway.alarms import Alarms
from gateway.audit.daily import DAY_MS, count_days, day_of
from gateway.audit.days import Days
from gateway.audit.reader import LogReader
from gateway.audit.reconcile import Reconciliation
from gateway.audit.reconciler import LOOKS, SETTLED_S, Reconciler
from gateway.audit.sequencer import Sequencer
from gateway.audit.tallies import GONE_S, Tallies
from gateway.bus.messages import MetricsUp
from gateway.counters import DAYS_KEPT, Counters
from gateway.daily import AGAIN_S, DAY_S, KIND, DailyAudit
from gateway.exchange import Outcome, Receipt, SpooledReceipt, SpoolUp
from gateway.webhooks import DeliveryError
from tenants.auditdays import Verdict
from tenants.budgets import BudgetUse, Webhook
from tenants.ids import OrgId
from tenants.models import LimitUnit, Org
from tenants.sql.auditdays import day_text
from tenants.sql.store import SqlControlStore, open_store, sqlite_url
from tenants.store import Actor
from tests.contract.control_store import new_store
from tests.fakes.audit import ACME, GLOBEX, SIGNER, receipt

DAY = 20_412
MIDNIGHT_US = (DAY + 1) * 86_400_000_000
BOOT, OTHER = "b" * 32, "c" * 32
BY = Actor(ACME, "system")


class Clock:
    """Time that a test moves: Unix seconds, at first ten minutes and a bit after the day."""

    def __init__(self) -> None:
        self.seconds = (DAY + 1) * DAY_S + SETTLED_S + 1.0

    def now(self) -> float:
        return self.seconds

    def monotonic_us(self) -> int:
        return int(self.seconds * 1_000_000)


class Bed:
    """A log, a control store and two workers' counters. `gauges` and `told` are what the daily chore said."""

    def __init__(self, store: SqlControlStore, folder: Path, clock: Clock) -> None:
        self.store, self.clock, self.days = store, clock, store.audit_days
        self.sequencer = Sequencer(folder, SIGNER)
        self.reader = LogReader(self.sequencer)
        self.tallies = Tallies(self.days, clock.now)
        self.slept: list[float] = []
        self.gauges: dict[tuple[str, tuple[str, ...]], float] = {}
        self.told: list[tuple[str, str, str, dict[str, Any]]] = []
        self.refuses = False
        self.counters = {BOOT: Counters(), OTHER: Counters()}
        self._seq = {BOOT: 0, OTHER: 0}
        self.reconciler = Reconciler(
            self.reader, self.days, self.tallies, clock=clock.now, day_text=day_text, sleep=self._sleep
        )
        self.daily = DailyAudit(
            self.reader,
            self.days,
            self.reconciler,
            orgs=lambda: self.sequencer.orgs,
            clock=clock.now,
            show=self._show,
            tell=self._tell,
            sleep=self._sleep,
        )

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def _show(self, name: str, value: float, *labels: str) -> None:
        self.gauges[name, labels] = value

    async def _tell(self, org: OrgId, kind: str, key: str, data: dict[str, Any]) -> bool:
        self.told.append((org, kind, key, data))
        return not self.refuses

    async def serve(self, *receipts: Receipt, boot: str = BOOT, logged: bool = True) -> None:
        """A worker's requests: counted, and unless a test withholds them, entries."""
        for one in receipts:
            self.counters[boot].observe(one)
            if logged:
                await self.log(one, boot=boot)

    async def log(self, *receipts: Receipt, boot: str = BOOT) -> None:
        first = self._seq[boot] + 1
        self._seq[boot] += len(receipts)
        spooled = tuple(SpooledReceipt(first + n, one) for n, one in enumerate(receipts))
        await self.sequencer.append_receipts(SpoolUp(boot, spooled))

    def report(self, boot: str = BOOT, *, last: bool = False) -> MetricsUp:
        said = self.counters[boot].message(boot, boot)
        self.tallies.take(boot, said.days, last=last)
        return said

    async def entries(self, action: str, org: OrgId = ACME) -> list[dict[str, Any]]:
        await self.sequencer.drain_once(self.store)
        found, _ = await self.reader.entries(org, limit=1000, action=action)
        return [dict(one) for one in found]

    async def reconcile(self) -> Reconciliation:
        return await self.reconciler.reconcile(ACME, DAY)


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    clock = Clock()
    store = await new_store(tmp_path / "control.db", clock.now)
    for org in (ACME, GLOBEX):
        await store.orgs.create(Org(id=org, name=org), BY)
    await store.outbox_done(10**6)
    made = Bed(store, tmp_path / "audit", clock)
    yield made
    await made.sequencer.close()
    await store.close()


def served(
    count: int = 1, day: int = DAY, *, at_us: int = 0, org: OrgId = ACME, **changes: object
) -> list[Receipt]:
    """Requests that began on `day`, at its noon or `at_us`."""
    noon = day * 86_400_000_000 + 43_200_000_000
    fields: dict[str, object] = {
        "prompt_tokens": 10,
        "completion_tokens": 3,
        "cost_nanodollars": 7,
        "sent": True,
        "total_us": 1_000_000,
        **changes,
    }
    return [receipt(n, org, at_us=at_us or noon + n, **fields) for n in range(count)]


# -- the daily count ---------------------------------------------------------------------------------------


async def test_a_day_is_counted_once_however_often_it_is_looked_for(bed: Bed) -> None:
    await bed.serve(*served(5))
    for _ in range(3):
        await count_days(bed.reader, bed.days, ACME, DAY)
    (entry,) = await bed.entries("audit.day")
    assert entry["detail"] == {"day": day_text(DAY), "start": 0, "end": 5, "requests": 5}
    assert (entry["target"], entry["actor"], entry["actor_org"]) == (day_text(DAY), "system", "platform")


async def test_days_that_were_missed_are_counted_apart_and_join_on(bed: Bed) -> None:
    await bed.serve(*served(2, DAY - 3), *served(4, DAY - 1))
    await bed.store.for_org(ACME).note("webhook.test", "acme", BY, {"ok": True})
    await bed.sequencer.drain_once(bed.store)
    assert await count_days(bed.reader, bed.days, ACME, DAY) == 2
    found = [entry["detail"] for entry in await bed.entries("audit.day")]
    assert [(one["start"], one["end"], one["requests"]) for one in found] == [(0, 2, 2), (2, 6, 4)]
    judged = Days()
    everything, _ = await bed.reader.entries(ACME, limit=1000)
    assert [fault for one in everything for fault in judged.take(int(str(one["index"])), one)] == []
    assert judged.counted == [day_text(DAY - 3), day_text(DAY - 1)]


async def test_a_day_that_has_nothing_but_counts_is_not_counted(bed: Bed) -> None:
    await bed.serve(*served(1))
    for day in range(DAY, DAY + 5):
        await count_days(bed.reader, bed.days, ACME, day)
        await bed.sequencer.drain_once(bed.store)
        bed.clock.seconds += DAY_S
    assert len(await bed.entries("audit.day")) == 1


async def test_what_is_late_belongs_to_the_next_count(bed: Bed) -> None:
    await bed.serve(*served(2))
    await count_days(bed.reader, bed.days, ACME, DAY)
    await bed.serve(*served(1), *served(2, DAY + 1))  # the first of them had waited in a spool
    await bed.sequencer.drain_once(bed.store)
    await count_days(bed.reader, bed.days, ACME, DAY + 1)
    first, second = [entry["detail"] for entry in await bed.entries("audit.day")]
    assert (first["end"], second["start"], second["requests"]) == (2, 2, 3)


async def test_a_count_that_was_committed_before_a_crash_becomes_an_entry_after_it(bed: Bed) -> None:
    await bed.serve(*served(2))
    await count_days(bed.reader, bed.days, ACME, DAY)  # in the outbox: killed before it was an entry
    assert await count_days(bed.reader, bed.days, ACME, DAY) == 0
    for _ in range(2):
        assert len(await bed.entries("audit.day")) == 1


async def test_a_store_that_was_put_back_believes_the_counts_in_the_log(bed: Bed, tmp_path: Path) -> None:
    await bed.serve(*served(2))
    await count_days(bed.reader, bed.days, ACME, DAY)
    await bed.entries("audit.day")
    older = await open_store(sqlite_url(tmp_path / "older.db"), clock=bed.clock.now)
    assert await count_days(bed.reader, older.audit_days, ACME, DAY) == 0
    await bed.serve(*served(1, DAY + 1))
    assert await count_days(bed.reader, older.audit_days, ACME, DAY + 1) == 1
    last = await older.audit_days.last(ACME)
    assert last is not None
    assert (last.day, last.start, last.end, last.requests) == (DAY + 1, 2, 4, 1)
    await older.close()


async def test_organizations_are_counted_by_themselves(bed: Bed) -> None:
    await bed.serve(*served(1), *served(3, org=GLOBEX))
    await bed.daily.look()
    assert [one["detail"]["requests"] for one in await bed.entries("audit.day")] == [1]
    assert [one["detail"]["requests"] for one in await bed.entries("audit.day", GLOBEX)] == [3]


@pytest.mark.parametrize("text", ["", "2026-1-1", "2026-02-30", "20260101", "2026-W01-1", "yesterday"])
def test_a_day_has_one_spelling(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        day_of(text)
    assert day_text(day_of("2026-11-21")) == "2026-11-21"


# -- what workers say --------------------------------------------------------------------------------------


def test_a_worker_counts_by_the_day_on_which_a_request_began() -> None:
    counters = Counters()
    for one in (*served(2), *served(1, at_us=MIDNIGHT_US - 1, total_us=10**9), *served(1, DAY + 1)):
        counters.observe(one)
    assert counters.message("w", "w").days == ((ACME, DAY, 3, 30, 9, 21), (ACME, DAY + 1, 1, 10, 3, 7))
    for day in range(DAY + 2, DAY + 9):
        counters.observe(served(1, day)[0])
    assert [one[1] for one in counters.message("w", "w").days] == list(range(DAY + 9 - DAYS_KEPT, DAY + 9))


async def test_tallies_are_states_and_survive_the_control_process(bed: Bed) -> None:
    await bed.serve(*served(3))
    for _ in range(2):
        bed.report()
        await bed.tallies.save()
    assert [one.requests for one in await bed.days.tallies(ACME, DAY, DAY)] == [3]
    again = Tallies(bed.days, bed.clock.now)
    await bed.serve(*served(1))
    again.take(BOOT, bed.counters[BOOT].message(BOOT, BOOT).days)
    again.take(OTHER, [(OrgId(""), DAY, 9, 9, 9, 9)])  # who never said who they were is in nobody's log
    await again.save()
    assert [(one.requests, one.ended) for one in await bed.days.tallies(ACME, DAY, DAY)] == [(4, False)]
    assert await bed.days.tallies(OrgId(""), DAY, DAY) == ()


# -- reconciliation ----------------------------------------------------------------------------------------


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


async def test_days_that_nobody_reconciled_are_made_good(bed: Bed) -> None:
    await bed.serve(*served(1, DAY - 2))
    await bed.serve(*served(1, DAY - 1), logged=False)
    bed.report(last=True)
    await bed.tallies.save()
    await bed.daily.look()
    assert [one["detail"]["day"] for one in await bed.entries("audit.reconcile")] == [
        day_text(DAY - 2),
        day_text(DAY - 1),
    ]
    assert bed.gauges["orgate_audit_reconcile_difference", (ACME,)] == 1


async def test_old_tallies_are_forgotten_and_daily_counts_are_not(bed: Bed) -> None:
    await bed.serve(*served(1))
    bed.report(last=True)
    await bed.tallies.save()
    await bed.daily.look()
    bed.clock.seconds += 60 * DAY_S
    await bed.daily.look()
    assert await bed.days.tallies(ACME, 0, DAY) == ()
    assert await bed.days.verdict(ACME, DAY) is None
    assert (await bed.days.last(ACME)) is not None


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


async def test_a_log_that_cannot_be_read_keeps_no_other_from_being_counted(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bed.serve(*served(1), *served(1, org=GLOBEX))
    size = bed.reader.size

    async def broken(org: OrgId) -> int:
        if org == ACME:
            raise ValueError("a line of another program")
        return await size(org)

    monkeypatch.setattr(bed.reader, "size", broken)
    await bed.daily.look()
    assert (await bed.days.last(ACME), (await bed.days.last(GLOBEX)) is not None) == (None, True)


async def test_a_verdict_that_says_the_same_is_no_second_entry(bed: Bed) -> None:
    for _ in range(2):
        await bed.days.judged(Verdict(ACME, DAY, 3), {"ok": False})
    assert len(await bed.entries("audit.reconcile")) == 1
    assert DAY_MS == DAY_S * 1000

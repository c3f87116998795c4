"""The daily count, and the chore that counts and reconciles."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.audit.daily import count_days, day_of
from gateway.audit.days import Days
from gateway.audit.tallies import Tallies
from gateway.counters import DAYS_KEPT, Counters
from gateway.daily import DAY_S
from tenants.ids import OrgId
from tenants.sql.auditdays import day_text
from tenants.sql.store import open_store, sqlite_url
from tests.fakes.audit import ACME, GLOBEX
from tests.unit.audit.daily import BOOT, BY, DAY, MIDNIGHT_US, OTHER, Bed, served


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

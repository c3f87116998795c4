"""Requests refused before anybody knew whose they were: an entry a minute of the platform, each count once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from msgspec import structs

from gateway.audit.entry import from_change
from gateway.counters import MINUTE_US, REFUSED_MINUTES, Counters
from gateway.exchange import Outcome, Receipt
from gateway.refusals import GRACE_S, RefusalLog
from policies.facts import Action
from tenants.ids import PLATFORM, OrgId
from tenants.refusals import Counts
from tenants.sql.store import SqlControlStore
from tenants.store import StoreUnavailableError

MINUTE = 29_395_000
NOBODYS = Receipt(
    OrgId(""), "req_1", MINUTE * MINUTE_US, "", "", Action.CHAT, Outcome.REFUSED, 401, error="invalid_token"
)


async def details(store: SqlControlStore) -> list[dict[str, object]]:
    found = [change for change in await store.outbox() if change.action == "request.refused"]
    assert all((change.org, change.actor.member) == (PLATFORM, "system") for change in found)
    return [dict(change.detail) for change in found]


def counters(*codes: str) -> Counters:
    made = Counters()
    for code in codes:
        made.observe(structs.replace(NOBODYS, error=code))
    return made


async def test_a_minute_is_one_entry_of_all_workers_once_it_is_over(store: SqlControlStore) -> None:
    now = [MINUTE * 60.0 + 59]
    log = RefusalLog(store.refusals, lambda: now[0])
    first, second = counters("invalid_token", "invalid_token", "no_token"), counters("invalid_token")
    for boot, one in (("a", first), ("b", second)):
        log.take(boot, one.message(boot, boot).refused)
    await log.round()
    now[0] += 1 + GRACE_S / 2
    await log.round()
    assert await details(store) == []
    log.take("a", first.message("a", "a").refused)
    now[0] += GRACE_S
    await log.round()
    entry = {"minute": "2025-11-21T04:40Z", "401.invalid_token": 3, "401.no_token": 1}
    assert await details(store) == [entry]
    log.take("a", first.message("a", "a").refused)
    await log.round()
    assert await details(store) == [entry]


async def test_what_was_written_is_known_after_a_restart(store: SqlControlStore) -> None:
    said = counters("invalid_token").message("a", "a").refused
    for _ in range(2):
        log = RefusalLog(store.refusals, lambda: MINUTE * 60.0 + 300)
        log.take("a", said)
        await log.round()
    later = RefusalLog(store.refusals, lambda: MINUTE * 60.0 + 300)
    later.take("a", said)
    later.take("b", counters("no_token").message("b", "b").refused)
    await later.round()
    assert [list(one)[1:] for one in await details(store)] == [["401.invalid_token"], ["401.no_token"]]


async def test_what_is_not_over_is_written_at_the_end(store: SqlControlStore) -> None:
    log = RefusalLog(store.refusals, lambda: MINUTE * 60.0 + 1)
    log.take("a", counters("invalid_token").message("a", "a").refused)
    await log.round(last=True)
    assert len(await details(store)) == 1


async def test_it_goes_on_while_the_store_is_away_and_writes_the_rest_when_it_ends(
    store: SqlControlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.refusals.ROUND_S", 0.001)
    tried = asyncio.Event()

    class Away:
        async def add(self, minute: int, counted: Mapping[str, Counts]) -> None:
            if not tried.is_set():
                tried.set()
                raise StoreUnavailableError("locked")
            await store.refusals.add(minute, counted)

    log = RefusalLog(Away(), lambda: MINUTE * 60.0 + 300)
    log.take("a", counters("invalid_token").message("a", "a").refused)
    running = asyncio.create_task(log.run())
    await tried.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(await details(store)) == 1


async def test_it_is_an_entry_with_nothing_of_a_request_in_it(store: SqlControlStore) -> None:
    log = RefusalLog(store.refusals, lambda: MINUTE * 60.0 + 300)
    log.take("a", counters("invalid_token").message("a", "a").refused)
    await log.round()
    (change,) = [change for change in await store.outbox() if change.action == "request.refused"]
    fields = from_change(change).fields
    assert (fields["operation_type"], fields["actor"], fields["target"]) == (
        "access",
        "system",
        "2025-11-21T04:40Z",
    )
    assert fields["detail"] == {"minute": "2025-11-21T04:40Z", "401.invalid_token": 1}


def test_a_worker_counts_nobodys_requests_by_the_minute_and_forgets_old_minutes() -> None:
    made = counters("invalid_token")
    made.observe(structs.replace(NOBODYS, org=OrgId("acme")))
    made.observe(structs.replace(NOBODYS, error="", outcome=Outcome.CANCELLED_BY_CLIENT, status=499))
    assert made.message("w", "b").refused == (
        (MINUTE, 401, "invalid_token", 1),
        (MINUTE, 499, "cancelled_by_client", 1),
    )
    made.observe(structs.replace(NOBODYS, at_us=(MINUTE + REFUSED_MINUTES) * MINUTE_US))
    assert made.message("w", "b").refused == ((MINUTE + REFUSED_MINUTES, 401, "invalid_token", 1),)

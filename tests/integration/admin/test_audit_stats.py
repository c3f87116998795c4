"""What the log adds up to, over the admin API; and a day's figures beside each other."""

from __future__ import annotations

import pytest

from gateway.api.admin import audit_stats
from gateway.audit.daily import DAY_MS
from gateway.audit.reader import LogReader
from gateway.audit.reconciler import Reconciler
from gateway.audit.tallies import Tallies
from gateway.counters import Counters
from gateway.exchange import Outcome, SpooledReceipt, SpoolUp
from policies.facts import Role
from tenants.ids import PLATFORM
from tenants.sql.auditdays import day_text
from tests.fakes.audit import receipt
from tests.integration.admin.world import ACME, GLOBEX, World

STATS = "/orgs/acme/audit/stats"
RECONCILE = "/orgs/acme/audit/reconcile"
BOOT = "b" * 32


async def serve(world: World, count: int) -> Counters:
    """Requests of acme's member, now."""
    member, counters = world.members[ACME, Role.MEMBER].id, Counters()
    at = int(world.clock.seconds * 1_000_000)
    made = [
        receipt(
            n,
            member=member,
            at_us=at + n,
            outcome=Outcome.REFUSED if n % 2 else Outcome.SERVED,
            bytes_in=5,
            bytes_out=7,
        )
        for n in range(count)
    ]
    for one in made:
        counters.observe(one)
    await world.sequencer.append_receipts(
        SpoolUp(BOOT, tuple(SpooledReceipt(n + 1, one) for n, one in enumerate(made)))
    )
    return counters


async def test_entries_are_counted_where_they_are(world: World) -> None:
    await serve(world, 4)
    answer = await world.ask("GET", STATS, Role.AUDITOR)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["entries"], found["requests"], found["next"]) == (4, 4, 4)
    assert found["actions"] == {"completion.create": 4}
    assert found["outcomes"] == {"served": 2, "refused": 2}
    assert (found["models"], found["clients"]) == ({"code": 4}, {"orgate-editor": 4})
    assert found["actors"] == {world.members[ACME, Role.MEMBER].id: 4}
    assert (found["bytes_in"], found["bytes_out"], found["prompt_tokens"]) == (20, 28, 0 + 1 + 2 + 3)
    assert found["first_at"] == found["last_at"] == int(world.clock.seconds * 1000)
    await world.sequencer.drain_once(world.store)
    more = (await world.ask("GET", STATS, Role.AUDITOR)).json()
    assert (more["entries"], more["actions"]["audit.read"]) == (more["next"], 1)


async def test_pages_are_bounded_and_add_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_stats, "SCAN_MAX", 3)
    await serve(world, 7)
    pages, after, following = [], -1, 0
    while following != after:
        after = following
        pages.append((await world.ask("GET", STATS, params={"after": after})).json())
        following = pages[-1]["next"]
    assert [page["requests"] for page in pages] == [3, 3, 1, 0]


async def test_only_entries_of_the_time_asked_for_count(world: World) -> None:
    await serve(world, 2)
    now = int(world.clock.seconds)
    for params, count in (({"since": now}, 2), ({"since": now + 1}, 0), ({"until": now}, 0)):
        assert (await world.ask("GET", STATS, params=params)).json()["entries"] == count
    assert (await world.ask("GET", STATS, params={"since": "yesterday"})).status_code == 422


async def test_an_operators_entries_are_not_the_organizations_members(world: World) -> None:
    await world.ask("GET", "/orgs/acme/members", Role.OPERATOR)
    await world.sequencer.drain_once(world.store)
    found = (await world.ask("GET", STATS)).json()
    assert found["actors"][f"platform/{world.members[PLATFORM, Role.OPERATOR].id}"] == 1


async def test_a_day_is_reconciled_for_who_may_read(world: World) -> None:
    counters = await serve(world, 3)
    today = int(world.clock.seconds * 1000) // DAY_MS
    tallies = Tallies(world.store.audit_days, world.clock.now)
    reconciler = Reconciler(
        LogReader(world.sequencer), world.store.audit_days, tallies, clock=world.clock.now, day_text=day_text
    )
    app = world.replaced(reconciler=reconciler)
    async with world.client_from("127.0.0.1", app) as client:

        async def ask(role: Role, **params: str) -> tuple[int, dict[str, object]]:
            answer = await client.get(f"/admin/v1{RECONCILE}", headers=world.bearer(role), params=params)
            return answer.status_code, answer.json()

        tallies.take(BOOT, counters.message(BOOT, BOOT).days, last=True)
        world.clock.seconds += 86_400 + 3_600
        status, found = await ask(Role.AUDITOR, day=day_text(today))
        assert (status, found["ok"], found["judged"]) == (200, True, True)
        assert found["entries"] == found["counted"]
        assert (await ask(Role.AUDITOR))[1]["day"] == day_text(today)
        for wrong in ("2026-02-30", "tomorrow", day_text(today + 9)):
            status, found = await ask(Role.AUDITOR, day=wrong)
            assert (status, [one["field"] for one in found["errors"]]) == (422, ["day"])  # type: ignore[attr-defined]
        assert (await ask(Role.MEMBER))[0] == 403
        other = await client.get(f"/admin/v1{RECONCILE}", headers=world.bearer(Role.AUDITOR, GLOBEX))
        assert other.status_code == 404


async def test_where_nobody_counts_it_says_so(world: World) -> None:
    answer = await world.ask("GET", RECONCILE)
    assert (answer.status_code, "nobody counts" in answer.text) == (503, True)

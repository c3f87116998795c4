"""`tenants.store.PriceBook`: every backend keeps every version, whole."""

from __future__ import annotations

import pytest
from msgspec import structs

from tenants.ids import PLATFORM, OrgId
from tenants.models import Price
from tenants.prices import MAX_PRICES, PriceImport
from tenants.sql.store import SqlControlStore
from tenants.store import InvalidItemError, InvalidQueryError, NotFoundError, VersionMismatchError
from tests.contract.control_store import NOW, OPERATOR, Clock, org, price

ACME = OrgId("acme")


def imported(version: int, count: int, at: int = int(NOW)) -> PriceImport:
    return PriceImport(ACME, version, at, OPERATOR.member, OPERATOR.org, count)


@pytest.fixture
async def acme(store: SqlControlStore) -> SqlControlStore:
    await store.orgs.create(org("acme"), OPERATOR)
    return store


async def test_before_the_first_import_the_table_is_empty_and_of_version_0(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    assert (await mine.prices.table()).imported == PriceImport(ACME)
    assert await mine.prices.versions() == ()
    assert (await mine.record()).prices == ()
    with pytest.raises(NotFoundError):
        await mine.prices.table(1)


async def test_an_import_is_the_whole_table_and_the_ones_before_stay(acme: SqlControlStore, clock: Clock) -> None:
    mine = acme.for_org(ACME)
    before = await acme.version()
    assert await mine.prices.put([price("acme", "b"), price("acme", "a")], 0, OPERATOR) == imported(1, 2)
    assert await acme.version() == before + 1
    clock.now += 60
    later = int(clock.now)
    dearer = price("acme", "a", input=7)
    assert await mine.prices.put([dearer], 1, OPERATOR) == imported(2, 1, later)

    assert (await mine.prices.table()).prices == (structs.replace(dearer, version=2),)
    assert (await mine.record()).prices == (structs.replace(dearer, version=2),)
    first = await mine.prices.table(1)
    assert first.imported == imported(1, 2)
    assert [p.model for p in first.prices] == ["a", "b"]
    assert {p.version for p in first.prices} == {1}
    assert await mine.prices.versions() == (imported(2, 1, later), imported(1, 2))
    assert await mine.prices.versions(before=2, limit=1) == (imported(1, 2),)

    entry = (await acme.outbox())[-1]
    assert (entry.action, entry.target, entry.org) == ("price.import", "v2", "acme")
    assert dict(entry.detail) == {
        "version": 2, "prices": 1, "added": 0, "removed": 1, "changed": 1, "models": ["a", "b"],
    }  # fmt: skip


async def test_an_empty_import_takes_all_prices_away(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    await mine.prices.put([price("acme")], 0, OPERATOR)
    await mine.prices.put([], 1, OPERATOR)
    assert (await mine.record()).prices == ()
    assert (await mine.prices.table()).imported.version == 2


async def test_the_same_table_again_is_no_new_version(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    both = [price("acme", "a"), price("acme", "b")]
    first = await mine.prices.put(both, 0, OPERATOR)
    queued = await acme.outbox()
    assert await mine.prices.put(list(reversed(both)), 1, OPERATOR) == first
    assert await acme.outbox() == queued


async def test_a_stale_or_invalid_import_changes_nothing(acme: SqlControlStore) -> None:
    mine = acme.for_org(ACME)
    await mine.prices.put([price("acme")], 0, OPERATOR)
    stood, queued, version = await mine.prices.table(), await acme.outbox(), await acme.version()
    for stale in (0, 2):
        with pytest.raises(VersionMismatchError) as refused:
            await mine.prices.put([], stale, OPERATOR)
        assert refused.value.current == 1
    bad = [
        price("acme", ""),
        price("acme", "a", input=-1),
        price("acme", "a", output=10**16),
        price("globex", "c"),
    ]
    with pytest.raises(InvalidItemError) as invalid:
        await mine.prices.put(bad, 1, OPERATOR)
    assert [field for field, _ in invalid.value.faults] == [
        "prices[3].org", "prices[0].model", "prices[1].input", "prices[2].output", "prices[2].model",
    ]  # fmt: skip
    with pytest.raises(InvalidItemError, match=str(MAX_PRICES)):
        await mine.prices.put([price("acme", f"m{n}") for n in range(MAX_PRICES + 1)], 1, OPERATOR)
    for limit in (0, 501):
        with pytest.raises(InvalidQueryError):
            await mine.prices.versions(limit=limit)
    assert (await mine.prices.table(), await acme.outbox(), await acme.version()) == (stood, queued, version)


async def test_one_organizations_prices_are_not_anothers(acme: SqlControlStore) -> None:
    await acme.orgs.create(org("globex"), OPERATOR)
    await acme.for_org(ACME).prices.put([price("acme")], 0, OPERATOR)
    other = acme.for_org(OrgId("globex"))
    assert (await other.prices.table()).imported.version == 0
    assert await other.prices.versions() == ()
    with pytest.raises(NotFoundError):
        await other.prices.table(1)
    await other.prices.put([price("globex", input=3)], 0, OPERATOR)
    assert (await acme.for_org(ACME).prices.table()).prices == (price("acme"),)
    with pytest.raises(NotFoundError):
        await acme.for_org(OrgId("nobody")).prices.put([], 0, OPERATOR)


async def test_the_platforms_prices_are_published_and_a_deleted_orgs_are_gone(acme: SqlControlStore) -> None:
    seen = await acme.version()
    await acme.for_org(PLATFORM).prices.put([Price(PLATFORM, "gpt", 1, 2)], 0, OPERATOR)
    _, changed, _ = await acme.changed_since(seen)
    assert changed == (PLATFORM,)
    assert (await acme.for_org(PLATFORM).record()).prices == (Price(PLATFORM, "gpt", 1, 2),)
    await acme.for_org(ACME).prices.put([price("acme")], 0, OPERATOR)
    await acme.orgs.delete("acme", 1, OPERATOR)
    assert await acme.for_org(ACME).prices.versions() == ()

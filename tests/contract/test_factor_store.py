"""One suite for every `FactorStore`: what is conditional has one winner; members and organizations are apart."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.oauth.factors_store import MAX_FACTORS, Factor, FactorKind, FactorStore, NoRoomError
from gateway.oauth.sql import SqlOAuthStore
from tenants.ids import MemberId, OrgId

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ADA, BOB = MemberId("mem_ada"), MemberId("mem_bob")
NOW = 1_800_000_000


@pytest.fixture
def store(oauth_store: SqlOAuthStore) -> FactorStore:
    return oauth_store.factors


def factor(id_: str = "f1", **changes: object) -> Factor:
    made = Factor(ACME, ADA, id_, FactorKind.TOTP, "Phone", "sealed", id_, mark=5, created_at=NOW)
    return replace(made, **changes)


async def test_factors_come_back_as_they_went_the_oldest_first(store: FactorStore) -> None:
    later = factor("f0", kind=FactorKind.PASSKEY, credential="c", sign_count=2**31, created_at=NOW + 1)
    first = factor(name="日本 \"' x", mark=2**52)
    await store.add(later)
    await store.add(first)
    assert await store.all(ACME, ADA) == (first, later)


async def test_recovery_codes_come_with_the_first_one_alone(store: FactorStore) -> None:
    await store.add(factor(), ("a", "b"))
    await store.add(factor("f2"), ("c", "d", "e"))
    assert await store.recovery_left(ACME, ADA) == 2
    assert not await store.use_recovery(ACME, ADA, "c")


async def test_a_member_has_only_so_many(store: FactorStore) -> None:
    for n in range(MAX_FACTORS):
        await store.add(factor(f"f{n}"))
    with pytest.raises(NoRoomError):
        await store.add(factor("more"))
    await store.add(factor("f1", member=BOB, credential="of-bob"))
    assert len(await store.all(ACME, ADA)) == MAX_FACTORS


async def test_a_credential_is_of_one_member_of_an_organization(store: FactorStore) -> None:
    await store.add(factor(credential="same"))
    with pytest.raises(NoRoomError):
        await store.add(factor("f2", member=BOB, credential="same"))
    await store.add(factor(org=GLOBEX, credential="same"))
    assert await store.all(ACME, BOB) == ()


async def test_a_use_has_one_winner_and_its_mark_only_rises(store: FactorStore) -> None:
    made = factor()
    await store.add(made)
    won = await asyncio.gather(*(store.use(made, 6, 0, NOW + 9) for _ in range(10)))
    assert sum(won) == 1
    assert (await store.all(ACME, ADA))[0] == replace(made, mark=6, used_at=NOW + 9)
    assert not await store.use(made, 6, 0, NOW)
    assert not await store.use(made, 5, 0, NOW)
    assert await store.use(made, 7, 0, NOW)


async def test_a_use_holds_against_the_count_that_was_read(store: FactorStore) -> None:
    made = factor(kind=FactorKind.PASSKEY, credential="c", sign_count=3)
    await store.add(made)
    assert not await store.use(replace(made, sign_count=2), 9, 4, NOW)
    assert await store.use(made, 9, 4, NOW)
    assert not await store.use(made, 10, 5, NOW)


async def test_nothing_is_used_of_another_member_or_organization(store: FactorStore) -> None:
    made = factor()
    await store.add(made, ("a",))
    for other in (replace(made, member=BOB), replace(made, org=GLOBEX), replace(made, id="f2")):
        assert not await store.use(other, 6, 0, NOW)
    assert not await store.use_recovery(GLOBEX, ADA, "a")
    assert not await store.use_recovery(ACME, BOB, "a")
    assert not await store.remove(GLOBEX, ADA, "f1")
    assert not await store.remove(ACME, BOB, "f1")
    assert await store.reset(GLOBEX, ADA) == 0
    assert await store.all(ACME, ADA) == (made,)
    assert await store.recovery_left(ACME, ADA) == 1


async def test_a_recovery_code_is_good_once(store: FactorStore) -> None:
    await store.add(factor(), ("a", "b"))
    assert sum(await asyncio.gather(*(store.use_recovery(ACME, ADA, "a") for _ in range(10)))) == 1
    assert await store.recovery_left(ACME, ADA) == 1


async def test_new_recovery_codes_void_those_of_before(store: FactorStore) -> None:
    await store.add(factor(), ("a", "b"))
    await store.set_recovery(ACME, ADA, ("c",))
    assert not await store.use_recovery(ACME, ADA, "a")
    assert await store.use_recovery(ACME, ADA, "c")


async def test_the_last_one_takes_the_recovery_codes_with_it(store: FactorStore) -> None:
    await store.add(factor(), ("a",))
    await store.add(factor("f2"))
    assert await store.remove(ACME, ADA, "f1")
    assert await store.recovery_left(ACME, ADA) == 1
    assert await store.remove(ACME, ADA, "f2")
    assert not await store.remove(ACME, ADA, "f2")
    assert await store.recovery_left(ACME, ADA) == 0


async def test_a_reset_forgets_it_all(store: FactorStore) -> None:
    await store.add(factor(), ("a",))
    await store.add(factor("f2"))
    assert await store.reset(ACME, ADA) == 2
    assert await store.all(ACME, ADA) == ()
    assert await store.recovery_left(ACME, ADA) == 0
    assert await store.reset(ACME, ADA) == 0

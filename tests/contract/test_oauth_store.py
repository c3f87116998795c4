"""One suite for every `OAuthStore`: what is conditional has one winner, and organizations are apart."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from gateway.oauth.sql import SqlOAuthStore
from gateway.oauth.store import (
    Attempts,
    AuthorizationCode,
    Consumed,
    DeviceGrant,
    DeviceStatus,
    DuplicateUserCodeError,
    Family,
    OAuthStore,
    StoredInvitation,
)
from tenants.ids import MemberId, OrgId

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ADA = MemberId("mem_ada")
NOW = 1_800_000_000.0


@pytest.fixture
async def store(oauth_store: SqlOAuthStore) -> OAuthStore:
    return oauth_store


def grant(**changes: object) -> DeviceGrant:
    made = DeviceGrant("d1", "u1", "orgate-cli", "https://x/v1", "", expires_at=NOW + 600, interval=5)
    return replace(made, **changes)


def family(**changes: object) -> Family:
    made = Family("f1", ACME, ADA, "orgate-cli", "t0", created_at=NOW, expires_at=NOW + 3600)
    return replace(made, **changes)


async def _begin(store: OAuthStore, made: Family) -> None:
    await store.add_device(grant(digest=f"d-{made.id}", user_code_digest=f"u-{made.id}"), NOW)
    assert await store.decide(f"u-{made.id}", DeviceStatus.APPROVED, made.org, made.member, NOW)
    assert await store.redeem(f"d-{made.id}", made)


async def test_an_invitation_has_one_winner_and_sets_the_password(store: OAuthStore) -> None:
    invitation = StoredInvitation("i1", ACME, ADA, int(NOW) + 10)
    await store.invite(invitation)
    await _begin(store, family())
    assert await store.invitation("i1", NOW) == invitation
    assert await store.invitation("i1", NOW + 10) is None
    won = await asyncio.gather(*(store.accept(invitation, f"hash-{n}", NOW) for n in range(10)))
    assert sum(won) == 1
    assert await store.password(ACME, ADA) == f"hash-{won.index(True)}"
    assert await store.password(GLOBEX, ADA) is None
    ended = await store.family("f1")
    assert ended is not None
    assert ended.ended_at == NOW


async def test_a_later_invitation_voids_the_earlier_of_that_member_only(store: OAuthStore) -> None:
    await store.invite(StoredInvitation("i1", ACME, ADA, int(NOW) + 10))
    await store.invite(StoredInvitation("i2", GLOBEX, ADA, int(NOW) + 10))
    await store.invite(StoredInvitation("i3", ACME, ADA, int(NOW) + 10))
    assert [await store.invitation(f"i{n}", NOW) is not None for n in (1, 2, 3)] == [False, True, True]


async def test_a_voided_invitation_is_that_member_s_only(store: OAuthStore) -> None:
    for code, org in (("i1", ACME), ("i2", GLOBEX)):
        await store.invite(StoredInvitation(code, org, ADA, int(NOW) + 10))
    for _ in range(2):  # harmless when there is none
        await store.uninvite(ACME, ADA)
    assert [await store.invitation(code, NOW) is not None for code in ("i1", "i2")] == [False, True]


async def test_rehashing_does_not_undo_a_change(store: OAuthStore) -> None:
    for code, password in (("i1", "old"), ("i2", "new")):
        invitation = StoredInvitation(code, ACME, ADA, int(NOW) + 10)
        await store.invite(invitation)
        assert await store.accept(invitation, password, NOW)
    await store.rehash(ACME, ADA, "old", "old with other costs")
    assert await store.password(ACME, ADA) == "new"
    await store.rehash(ACME, ADA, "new", "new with other costs")
    assert await store.password(ACME, ADA) == "new with other costs"


async def test_of_charges_that_saw_the_same_one_wins(store: OAuthStore) -> None:
    assert await store.attempts("a") == Attempts()
    for failures in (0, 1):
        seen, then = await store.attempts("a"), Attempts(failures + 1, NOW + failures)
        won = await asyncio.gather(*(store.charge("a", seen, then, NOW) for _ in range(10)))
        assert sum(won) == 1
        assert await store.attempts("a") == then
    assert await store.attempts("b") == Attempts()
    await store.forgive("a")
    assert await store.attempts("a") == Attempts()


async def test_old_attempts_are_forgotten(store: OAuthStore) -> None:
    assert await store.charge("a", Attempts(), Attempts(1), NOW)
    assert await store.charge("b", Attempts(), Attempts(1), NOW + 2 * 86_400)
    assert await store.attempts("a") == Attempts()


async def test_pending_devices_are_counted_for_each_client_and_organization(store: OAuthStore) -> None:
    for number, client in enumerate(("orgate-cli", "orgate-editor", "acme.one", "acme.two", "acme-x.one")):
        await store.add_device(grant(digest=f"d{number}", user_code_digest=f"u{number}", client=client), NOW)
    assert await store.pending_devices(NOW) == 5
    for client, waiting in (("orgate-cli", 1), ("acme.one", 2), ("acme.new", 2), ("acme-x.one", 1), ("a.one", 0)):
        assert await store.pending_devices(NOW, client) == waiting, client
    assert await store.pending_devices(NOW + 600, "acme.one") == 0


async def test_a_device_grant_is_decided_once_and_redeemed_once(store: OAuthStore) -> None:
    await store.add_device(grant(), NOW)
    assert await store.device("d1") == grant()
    assert await store.pending_devices(NOW) == 1
    assert await store.pending_devices(NOW + 600) == 0
    assert await store.device_of("u1", NOW) == grant()
    assert await store.device_of("u1", NOW + 600) is None
    assert await store.device_of("u2", NOW) is None
    assert not await store.redeem("d1", family())
    assert await store.decide("u1", DeviceStatus.APPROVED, ACME, ADA, NOW + 600) is None
    decided = await asyncio.gather(
        *(store.decide("u1", DeviceStatus.APPROVED, ACME, ADA, NOW + 1) for _ in range(10))
    )
    assert [one for one in decided if one] == [grant(status=DeviceStatus.APPROVED, org=ACME, member=ADA)]
    assert await store.device_of("u1", NOW) is None
    assert not await store.redeem("d1", family(org=GLOBEX))  # nobody but who approved it
    won = await asyncio.gather(*(store.redeem("d1", family(id=f"f{n}")) for n in range(10)))
    assert sum(won) == 1
    assert sum([await store.family(f"f{n}") is not None for n in range(10)]) == 1
    assert await store.pending_devices(NOW) == 0


async def test_a_user_code_is_unique_and_polling_is_remembered(store: OAuthStore) -> None:
    await store.add_device(grant(), NOW)
    with pytest.raises(DuplicateUserCodeError):
        await store.add_device(grant(digest="d2"), NOW)
    await store.polled("d1", NOW + 3, 10)
    found = await store.device("d1")
    assert found is not None
    assert (found.polled_at, found.interval) == (NOW + 3, 10)
    await store.add_device(grant(digest="d3", user_code_digest="u3"), NOW + 3 * 86_400)
    assert await store.device("d1") is None


async def test_of_fifty_rotations_of_one_token_one_wins(store: OAuthStore) -> None:
    await _begin(store, family())
    found = await store.family("f1")
    assert found == family()
    consumed = (Consumed("t0", NOW),)
    won = await asyncio.gather(*(store.rotate(family(), f"t1-{n}", consumed) for n in range(50)))
    assert sum(won) == 1
    assert await store.family("f1") == family(current=f"t1-{won.index(True)}", recent=consumed)


async def test_an_ended_family_does_not_rotate(store: OAuthStore) -> None:
    await _begin(store, family())
    assert await store.end_family("f1", NOW + 1)
    assert not await store.end_family("f1", NOW + 2)
    assert not await store.rotate(family(), "t1", ())
    assert await store.family("f1") == family(ended_at=NOW + 1)


async def test_ending_families_stays_within_member_and_organization(store: OAuthStore) -> None:
    await _begin(store, family())
    await _begin(store, family(id="f2"))
    await _begin(store, family(id="f3", org=GLOBEX))
    await _begin(store, family(id="f4", member=MemberId("mem_bob")))
    await store.add_device(grant(), NOW)
    await store.decide("u1", DeviceStatus.APPROVED, ACME, ADA, NOW)
    assert await store.end_families(ACME, ADA, NOW + 1) == 2
    assert not await store.redeem("d1", family(id="f5"))
    alive = [found.id for n in range(1, 6) if (found := await store.family(f"f{n}")) and not found.ended_at]
    assert alive == ["f3", "f4"]


async def test_a_dropped_member_is_forgotten_there_and_only_there(store: OAuthStore) -> None:
    for org, name in ((ACME, "f1"), (GLOBEX, "f2")):
        invitation = StoredInvitation(f"i-{name}", org, ADA, int(NOW) + 10)
        await store.invite(invitation)
        assert await store.accept(invitation, "hash", NOW)
        await _begin(store, family(id=name, org=org))
    await store.drop_member(ACME, ADA)
    assert (await store.password(ACME, ADA), await store.family("f1")) == (None, None)
    assert await store.device("d-f1") is None
    assert await store.password(GLOBEX, ADA) == "hash"
    assert await store.family("f2") is not None


def code(**changes: object) -> AuthorizationCode:
    made = AuthorizationCode(
        "c1", "orgate-cli", "http://127.0.0.1:1/callback", "https://x/v1", "inference", "ch", ACME, ADA, NOW + 60
    )
    return replace(made, **changes)


async def test_a_code_has_one_winner_and_remembers_what_it_brought(store: OAuthStore) -> None:
    await store.add_code(code(), NOW)
    assert await store.code("c1") == code()
    won = await asyncio.gather(*(store.redeem_code("c1", family(id=f"f{n}"), f"t{n}") for n in range(10)))
    assert sum(won) == 1
    first = won.index(True)
    assert await store.code("c1") == code(family=f"f{first}", token_id=f"t{first}")
    begun = [await store.family(f"f{n}") for n in range(10)]
    assert [one is not None for one in begun] == won


async def test_a_code_begins_a_family_of_its_own_member_only(store: OAuthStore) -> None:
    await store.add_code(code(), NOW)
    for strange in (family(org=GLOBEX), family(member=MemberId("mem_bob"))):
        assert not await store.redeem_code("c1", strange, "t")
    assert await store.code("unknown") is None
    assert await store.code("c1") == code()


async def test_a_code_not_used_yet_ends_with_the_members_sessions(store: OAuthStore) -> None:
    await store.add_code(code(), NOW)
    await store.add_code(code(digest="c2", org=GLOBEX), NOW)
    await store.end_families(ACME, ADA, NOW)
    assert [await store.code("c1"), await store.code("c2")] == [None, code(digest="c2", org=GLOBEX)]
    await store.drop_member(GLOBEX, ADA)
    assert await store.code("c2") is None


async def test_codes_long_past_are_forgotten(store: OAuthStore) -> None:
    await store.add_code(code(), NOW)
    await store.add_code(code(digest="c2"), NOW + 86_400)
    assert await store.code("c1") == code()
    await store.add_code(code(digest="c3"), NOW + 86_461)
    assert await store.code("c1") is None


async def test_sessions_are_listed_by_organization_and_member_while_they_live(store: OAuthStore) -> None:
    gus = MemberId("mem_gus")
    for name, org, member in (("a", ACME, ADA), ("b", ACME, gus), ("c", ACME, ADA), ("d", GLOBEX, ADA)):
        await _begin(store, family(id=name, org=org, member=member, current=f"t-{name}"))
    sessions = store.sessions

    async def ids(member: str = "") -> list[str]:
        return [one.id for one in (await sessions.page(ACME, NOW, member=member))[0]]

    assert await ids() == ["a", "b", "c"]
    assert await ids(member=ADA) == ["a", "c"]
    assert await sessions.page(ACME, NOW, member="mem_\0") == ((), "")
    first, after = await sessions.page(ACME, NOW, limit=2)
    assert ([one.id for one in first], after) == (["a", "b"], "b")
    assert (await sessions.page(ACME, NOW, after=after, limit=2))[1] == ""
    await store.end_family("c", NOW)
    assert await ids(member=ADA) == ["a"]
    assert (await sessions.page(ACME, NOW + 3_600))[0] == ()
    assert await sessions.find(ACME, "d", NOW) is None
    found = await sessions.find(GLOBEX, "d", NOW)
    assert found is not None
    assert (found.client, found.created_at, found.last_used) == ("orgate-cli", int(NOW), int(NOW))


async def test_the_last_use_of_a_session_is_its_last_rotation(store: OAuthStore) -> None:
    await _begin(store, family())
    begun = await store.family("f1")
    assert begun is not None
    assert await store.rotate(begun, "t1", (Consumed("t0", NOW + 60),))
    found = await store.sessions.find(ACME, "f1", NOW)
    assert found is not None
    assert found.last_used == int(NOW) + 60


async def test_an_organizations_sessions_end_together_with_what_would_begin_one(store: OAuthStore) -> None:
    for name, org in (("a", ACME), ("b", ACME), ("c", GLOBEX)):
        await _begin(store, family(id=name, org=org, current=f"t-{name}"))
        await store.invite(StoredInvitation(f"i-{name}", org, MemberId(f"mem_{name}"), int(NOW) + 10))
        await store.add_code(
            AuthorizationCode(f"c-{name}", "cli", "u", "r", "s", "h", org, ADA, expires_at=NOW + 60), NOW
        )
    await store.add_device(grant(digest="pending", user_code_digest="u-pending"), NOW)
    assert await store.decide("u-pending", DeviceStatus.APPROVED, ACME, ADA, NOW)
    assert await store.sessions.end_org(ACME, NOW) == 2
    assert await store.sessions.end_org(ACME, NOW) == 0
    assert [await store.invitation(f"i-{name}", NOW) is not None for name in "abc"] == [False, False, True]
    assert [await store.code(f"c-{name}") is not None for name in "abc"] == [False, False, True]
    assert not await store.redeem("pending", family(id="late", current="late"))
    assert [one.id for one in (await store.sessions.page(GLOBEX, NOW))[0]] == ["c"]

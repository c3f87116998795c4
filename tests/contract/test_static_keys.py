"""Personal tokens as the control store promises them: whose they are, how many, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from policies.facts import Action, Role
from tenants.ids import MemberId, OrgId, ServiceId, new_static_key_id
from tenants.models import Service, State
from tenants.opaque import digest_of
from tenants.sql.store import SqlControlStore
from tenants.statickeys import DAY_S, KeyScope, ServedKey, StaticKey
from tenants.store import (
    InUseError,
    InvalidItemError,
    InvalidReferenceError,
    KeysOffError,
    NotFoundError,
)
from tests.contract.control_store import NOW, OPERATOR, member, org, team

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ANN, BOB, BOT = MemberId("mem_ann"), MemberId("mem_bob"), ServiceId("svc_00000000000000000000")


def key(owner: str = ANN, where: OrgId = ACME, **more: Any) -> StaticKey:
    made = StaticKey(
        org=where,
        id=new_static_key_id(),
        subject=owner,
        name="ci",
        created_by=owner,
        created_at=int(NOW),
        expires_at=int(NOW) + 90 * DAY_S,
    )
    return structs.replace(made, **more)


async def stock(store: SqlControlStore) -> None:
    """Two organizations that have turned personal tokens on, a member in each and a service in one."""
    for name, person in (("acme", ANN), ("globex", BOB)):
        await store.orgs.create(structs.replace(org(name), personal_tokens=True), OPERATOR)
        await store.for_org(OrgId(name)).members.create(member(name, person), OPERATOR)
        await store.for_org(OrgId(name)).teams.create(team(name), OPERATOR)
    await store.for_org(ACME).services.create(
        Service(org=ACME, id=BOT, name="bot", roles=(Role.MEMBER,)), OPERATOR
    )


@pytest.fixture
async def stocked(store: SqlControlStore) -> SqlControlStore:
    await stock(store)
    return store


async def served(store: SqlControlStore, where: OrgId = ACME) -> tuple[ServedKey, ...]:
    return (await store.for_org(where).record()).static_keys


async def make(store: SqlControlStore, item: StaticKey) -> StaticKey:
    return await store.for_org(item.org).static_keys.create(item, digest_of(item.id), OPERATOR)


async def test_a_key_is_served_with_what_its_owner_may_do_now(stocked: SqlControlStore) -> None:
    mine = stocked.for_org(ACME)
    before = await stocked.version()
    made = await make(stocked, key(actions=(Action.CHAT,), models=("code",)))
    assert await stocked.version() > before
    told = ServedKey(
        digest=digest_of(made.id),
        id=made.id,
        subject=ANN,
        roles=(Role.MEMBER, Role.ADMIN),
        teams=(),
        scope=KeyScope((Action.CHAT,), ("code",)),
        created_at=int(NOW),
        expires_at=made.expires_at,
    )
    assert await served(stocked) == (told,)
    seen = await stocked.version()
    await mine.teams.add("core", ANN, OPERATOR)
    ann = await mine.members.get(ANN)
    await mine.members.replace(structs.replace(ann, roles=(Role.MEMBER,)), 1, OPERATOR)
    assert await served(stocked) == (structs.replace(told, roles=(Role.MEMBER,), teams=("core",)),)
    assert ACME in (await stocked.changed_since(seen))[1]
    await mine.teams.delete("core", 1, OPERATOR)
    assert (await served(stocked))[0].teams == ()


async def test_nothing_that_could_be_used_is_stored(stocked: SqlControlStore) -> None:
    made = await make(stocked, key())
    assert await stocked.for_org(ACME).static_keys.get(made.id) == made
    change = (await stocked.outbox())[-1]
    assert (change.action, change.target, change.detail["subject"]) == ("personal_token.create", made.id, ANN)
    assert digest_of(made.id) not in repr(change)


async def test_a_service_may_have_one(stocked: SqlControlStore) -> None:
    await make(stocked, key(BOT))
    assert [one.subject for one in await served(stocked)] == [BOT]
    mine = stocked.for_org(ACME).services
    bot = await mine.get(BOT)
    await mine.replace(structs.replace(bot, state=State.SUSPENDED), bot.version, OPERATOR)
    assert await served(stocked) == ()


async def test_what_is_revoked_is_gone(stocked: SqlControlStore) -> None:
    made, other = await make(stocked, key()), await make(stocked, key())
    keys = stocked.for_org(ACME).static_keys
    seen = await stocked.version()
    await keys.revoke(made.id, OPERATOR)
    assert [one.id for one in await served(stocked)] == [other.id]
    assert ACME in (await stocked.changed_since(seen))[1]
    with pytest.raises(NotFoundError):
        await keys.revoke(made.id, OPERATOR)
    assert await keys.revoke_all(ANN, OPERATOR) == 1
    assert await keys.revoke_all(ANN, OPERATOR) == 0
    actions = [(change.action, change.target) for change in await stocked.outbox()]
    assert actions[-2:] == [("personal_token.revoke", made.id), ("personal_token.revoke", ANN)]


async def suspend_member(store: SqlControlStore, state: State) -> None:
    mine = store.for_org(ACME).members
    ann = await mine.get(ANN)
    await mine.replace(structs.replace(ann, state=state), ann.version, OPERATOR)


async def suspend_org(store: SqlControlStore, state: State) -> None:
    acme = await store.orgs.get(ACME)
    await store.orgs.replace(structs.replace(acme, state=state), acme.version, OPERATOR)


async def turn_off(store: SqlControlStore, state: State) -> None:
    acme = await store.orgs.get(ACME)
    on = state is State.ACTIVE
    await store.orgs.replace(structs.replace(acme, personal_tokens=on), acme.version, OPERATOR)


@pytest.mark.parametrize("end", [suspend_member, suspend_org, turn_off])
async def test_a_key_dies_with_what_it_hangs_on_and_stays_dead(stocked: SqlControlStore, end: Any) -> None:
    made = await make(stocked, key())
    theirs = await make(stocked, key(BOB, GLOBEX))
    seen = await stocked.version()
    await end(stocked, State.SUSPENDED)
    assert ACME in (await stocked.changed_since(seen))[1]
    assert await served(stocked) == ()
    await end(stocked, State.ACTIVE)
    assert await served(stocked) == ()
    with pytest.raises(NotFoundError):
        await stocked.for_org(ACME).static_keys.get(made.id)
    assert [one.id for one in await served(stocked, GLOBEX)] == [theirs.id]


async def test_who_becomes_an_owner_has_none_of_before(stocked: SqlControlStore) -> None:
    mine = stocked.for_org(ACME)
    await make(stocked, key(created_by="mem_admin"))
    bots = await make(stocked, key(BOT))
    ann = await mine.members.get(ANN)
    ann = await mine.members.replace(structs.replace(ann, roles=(Role.MEMBER, Role.ADMIN)), ann.version, OPERATOR)
    assert len(await served(stocked)) == 2
    seen = await stocked.version()
    owner = await mine.members.replace(structs.replace(ann, roles=(Role.OWNER,)), ann.version, OPERATOR)
    assert ACME in (await stocked.changed_since(seen))[1]
    assert [one.id for one in await served(stocked)] == [bots.id]
    made = await make(stocked, key())
    await mine.members.replace(structs.replace(owner, name="Ann"), owner.version, OPERATOR)
    assert {one.id for one in await served(stocked)} == {bots.id, made.id}, "an owner's own stay"


async def test_a_deleted_members_are_gone(stocked: SqlControlStore) -> None:
    await make(stocked, key())
    await stocked.for_org(ACME).members.delete(ANN, 1, OPERATOR)
    assert await stocked.for_org(ACME).static_keys.page() == ((), "")


async def test_who_made_a_services_key_is_forgotten_with_their_account(stocked: SqlControlStore) -> None:
    made = await make(stocked, key(BOT, created_by=ANN))
    await stocked.for_org(ACME).members.delete(ANN, 1, OPERATOR)
    assert (await stocked.for_org(ACME).static_keys.get(made.id)).created_by == ""
    assert [one.subject for one in await served(stocked)] == [BOT]


async def test_a_deleted_organizations_are_gone(stocked: SqlControlStore) -> None:
    await make(stocked, key())
    await stocked.orgs.delete(ACME, 1, OPERATOR)
    assert await stocked.for_org(ACME).static_keys.page() == ((), "")


async def test_there_are_so_many_and_no_more(stocked: SqlControlStore) -> None:
    for _ in range(10):
        await make(stocked, key())
    with pytest.raises(InUseError, match="10 personal tokens"):
        await make(stocked, key())
    await make(stocked, key(BOT))
    assert (await stocked.for_org(ACME).static_keys.page(filters={"subject": BOT}))[0][0].subject == BOT


async def test_none_is_made_where_they_are_off_or_for_nobody(stocked: SqlControlStore) -> None:
    for stranger in (BOB, "mem_nobody", "svc_11111111111111111111"):
        with pytest.raises(InvalidReferenceError):
            await make(stocked, key(stranger))
    with pytest.raises(InvalidItemError):
        await stocked.for_org(GLOBEX).static_keys.create(key(), "d" * 64, OPERATOR)
    await turn_off(stocked, State.SUSPENDED)
    with pytest.raises(KeysOffError):
        await make(stocked, key())


async def test_bad_ones_are_refused_by_field(stocked: SqlControlStore) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"name": ""}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"actions": ()}, "actions"),
        ({"actions": (Action.CHAT, Action.CHAT)}, "actions"),
        ({"models": ("a", "a")}, "models"),
        ({"models": tuple(f"m{n}" for n in range(101))}, "models"),
        ({"expires_at": int(NOW)}, "days"),
        ({"expires_at": int(NOW) + 367 * DAY_S}, "days"),
    ]
    for wrong, field in cases:
        with pytest.raises(InvalidItemError) as refused:
            await make(stocked, key(**wrong))
        assert [name for name, _ in refused.value.faults] == [field]
    assert await served(stocked) == ()


async def test_last_use_only_rises_and_nobody_is_told(stocked: SqlControlStore) -> None:
    made = await make(stocked, key())
    keys, seen, entries = stocked.for_org(ACME).static_keys, await stocked.version(), len(await stocked.outbox())
    await keys.used({made.id: 120, "pt_gone": 120})
    await keys.used({made.id: 60})
    assert (await keys.get(made.id)).used_at == 120
    await stocked.for_org(GLOBEX).static_keys.used({made.id: 600})
    assert (await keys.get(made.id)).used_at == 120
    assert (await stocked.version(), len(await stocked.outbox())) == (seen, entries)


async def test_anothers_is_as_one_that_never_was(stocked: SqlControlStore) -> None:
    made = await make(stocked, key())
    theirs = stocked.for_org(GLOBEX).static_keys
    for act in (theirs.get(made.id), theirs.revoke(made.id, OPERATOR), theirs.get("\0")):
        with pytest.raises(NotFoundError):
            await act
    assert await theirs.page() == ((), "")
    assert await theirs.revoke_all(ANN, OPERATOR) == 0
    assert len(await served(stocked)) == 1

"""What the control store promises of SCIM: of every backend."""

from __future__ import annotations

import pytest
from msgspec import structs

from policies.facts import Role
from tenants.ids import MemberId, OrgId
from tenants.models import Member, State, Team
from tenants.scim import (
    DAY_S,
    MOST_TOKENS,
    GroupChange,
    GroupRole,
    ScimSettings,
    ScimToken,
    UserFacts,
    UserLookup,
)
from tenants.sql.store import SqlControlStore
from tenants.store import (
    AlreadyExistsError,
    InUseError,
    InvalidItemError,
    InvalidReferenceError,
    NotFoundError,
    VersionMismatchError,
)
from tests.contract.control_store import NOW, OPERATOR, Clock, member, org

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ANN, BOB = MemberId("mem_ann"), MemberId("mem_bob")
TOKEN = ScimToken(ACME, "scim-1", "entra", "mem_ann", expires_at=int(NOW) + DAY_S)


@pytest.fixture
async def stocked(store: SqlControlStore) -> SqlControlStore:
    for name in ("acme", "globex"):
        await store.orgs.create(org(name), OPERATOR)
    return store


def person(name: str, of: OrgId = ACME) -> Member:
    return structs.replace(member(of, MemberId(f"mem_{name}")), email=f"{name}@x.example", roles=(Role.MEMBER,))


async def test_a_user_is_written_with_the_member(stocked: SqlControlStore) -> None:
    book, members = stocked.for_org(ACME).scim, stocked.for_org(ACME).members
    facts = UserFacts("Ann", "e-1", {"emails": [{"value": "Ann@home.example"}]})
    made = await book.create_user(person("ann"), facts, OPERATOR)
    assert (made.member, made.facts) == (await members.get(ANN), facts)
    assert made.modified_at == int(NOW)
    changed = structs.replace(made.member, state=State.SUSPENDED)
    after = await book.replace_user(changed, structs.replace(facts, user_name="Bea"), 1, ["userName"], OPERATOR)
    assert (after.member.version, after.user_name) == (2, "Bea")
    assert after.member.not_before > 0
    change = (await stocked.outbox())[-1]
    assert (change.action, change.detail["scim"]) == ("member.update", ["userName"])
    with pytest.raises(VersionMismatchError):
        await book.replace_user(changed, facts, 1, [], OPERATOR)
    await members.replace(after.member, 2, OPERATOR)
    assert (await book.user(ANN)).modified_at == 0, "somebody else has changed them since"
    await members.delete(ANN, 3, OPERATOR)
    with pytest.raises(NotFoundError):
        await book.user(ANN)
    await book.create_user(person("bob"), UserFacts("Bea"), OPERATOR)


async def test_names_are_one_persons_in_one_organization(stocked: SqlControlStore) -> None:
    book = stocked.for_org(ACME).scim
    await book.create_user(person("ann"), UserFacts("Ann"), OPERATOR)
    await stocked.for_org(ACME).members.create(person("cat"), OPERATOR)
    for taken in ("ANN", "Cat@x.example"):
        with pytest.raises(AlreadyExistsError):
            await book.create_user(person("bob"), UserFacts(taken), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await book.create_user(structs.replace(person("bob"), email="ANN@x.example"), UserFacts("b"), OPERATOR)
    assert await book.count_users() == 2, "a refusal leaves nothing behind"
    await stocked.for_org(GLOBEX).scim.create_user(person("ann", GLOBEX), UserFacts("Ann"), OPERATOR)


async def test_looking_users_up(stocked: SqlControlStore) -> None:
    book = stocked.for_org(ACME).scim
    profile = {"emails": [{"value": "ann@x.example"}, {"value": "Ann@home.example"}]}
    await book.create_user(person("ann"), UserFacts("Ann", "e-1", profile), OPERATOR)
    bob = structs.replace(person("bob"), state=State.SUSPENDED)
    await stocked.for_org(ACME).members.create(bob, OPERATOR)
    await stocked.for_org(GLOBEX).scim.create_user(person("ann", GLOBEX), UserFacts("Ann", "e-1"), OPERATOR)
    for lookup, found in (
        (UserLookup(), ["mem_ann", "mem_bob"]),
        (UserLookup(id="mem_bob"), ["mem_bob"]),
        (UserLookup(user_name="ANN"), ["mem_ann"]),
        (UserLookup(user_name="bob@X.example"), ["mem_bob"]),
        (UserLookup(user_name="ann@x.example"), []),
        (UserLookup(external_id="e-1"), ["mem_ann"]),
        (UserLookup(email="ann@HOME.example"), ["mem_ann"]),
        (UserLookup(email="home.example"), []),
        (UserLookup(email="bob@x.example"), ["mem_bob"]),
        (UserLookup(active=False), ["mem_bob"]),
        (UserLookup(user_name="Ann", active=False), []),
        (UserLookup(user_name="ann\0"), []),
        (UserLookup(external_id="e-1\0"), []),
    ):
        assert [one.member.id for one in await book.users(lookup)] == found, lookup
    assert [one.member.id for one in await book.users(UserLookup(), after="mem_ann")] == ["mem_bob"]
    assert [one.member.id for one in await book.users(UserLookup(), offset=1, limit=1)] == ["mem_bob"]


async def test_a_group_is_written_with_the_team_and_the_roles_it_brings(stocked: SqlControlStore) -> None:
    acme = stocked.for_org(ACME)
    for name in ("ann", "bob"):
        await acme.members.create(person(name), OPERATOR)
    settings = ScimSettings(ACME, group_roles=(GroupRole("Admins", Role.ADMIN),))
    made = await acme.scim.create_group(
        GroupChange(Team(ACME, "admins", "Admins"), "e", (ANN, BOB)), settings.roles_of("ADMINS"), OPERATOR
    )
    assert (made.members, made.external_id) == ((ANN, BOB), "e")
    assert (await acme.members.get(ANN)).roles == (Role.ADMIN, Role.MEMBER)
    assert [team.name for team in (await acme.scim.user(ANN)).teams] == ["admins"]
    change = GroupChange(made.team, "e", leave=(ANN, ANN, MemberId("mem_nobody")))
    after, lost = await acme.scim.replace_group(change, 1, settings, OPERATOR)
    assert after.members == (BOB,)
    assert lost == {ANN}
    with pytest.raises(VersionMismatchError):
        await acme.scim.replace_group(change, 9, settings, OPERATOR)
    wrong = GroupChange(structs.replace(made.team, title="X"), "", join=(ANN, MemberId("mem_nobody")))
    with pytest.raises(InvalidReferenceError):
        await acme.scim.replace_group(wrong, 1, settings, OPERATOR)
    assert await acme.scim.group("admins") == after, "all of it or nothing"
    assert (await acme.scim.groups()) == (structs.replace(after, members=None),)
    assert await acme.scim.delete_group(after.team, settings, OPERATOR) == {BOB}
    assert (await acme.members.get(BOB)).roles == (Role.MEMBER,)
    with pytest.raises(NotFoundError):
        await acme.scim.group("admins")


async def test_many_join_and_leave_at_once(stocked: SqlControlStore) -> None:
    acme = stocked.for_org(ACME)
    people = [MemberId(f"mem_{number:04}") for number in range(5)]
    for one in people:
        await acme.members.create(structs.replace(person("x"), id=one, email=f"{one}@x.example"), OPERATOR)
    before = len(await stocked.outbox())
    made = await acme.scim.create_group(GroupChange(Team(ACME, "all", "All"), "", tuple(people)), (), OPERATOR)
    again = GroupChange(made.team, "", join=tuple(people), leave=())
    assert (await acme.scim.replace_group(again, 1, ScimSettings(ACME), OPERATOR))[0].members == tuple(people)
    told = (await stocked.outbox())[before:]
    assert [change.action for change in told] == ["team.create", *["team.add_member"] * 5]
    assert [change.seq for change in told] == list(range(told[0].seq, told[0].seq + 6))
    assert await acme.scim.members_of(["all", "none"]) == {"all": tuple(people)}
    assert await stocked.for_org(GLOBEX).scim.members_of(["all"]) == {}


async def test_tokens(stocked: SqlControlStore, clock: Clock) -> None:
    book, other = stocked.for_org(ACME).scim, stocked.for_org(GLOBEX).scim
    made = await book.add_token(TOKEN, "a" * 64, OPERATOR)
    assert made.created_at == int(NOW)
    assert await book.token("a" * 64) == made
    assert await other.token("a" * 64) is None
    assert (await book.tokens(), await other.tokens()) == ((made,), ())
    await book.used(made)
    assert (await book.tokens())[0].used_at == int(NOW)
    with pytest.raises(NotFoundError):
        await other.revoke_token(made.id, OPERATOR)
    for number in range(2, MOST_TOKENS + 1):
        await book.add_token(structs.replace(TOKEN, id=f"scim-{number}"), f"{number:064}", OPERATOR)
    with pytest.raises(InUseError):
        await book.add_token(structs.replace(TOKEN, id="one-more"), "b" * 64, OPERATOR)
    await book.revoke_token(made.id, OPERATOR)
    assert await book.token("a" * 64) is None
    actions = [change.action for change in await stocked.outbox()]
    assert actions.count("scim_token.create") == MOST_TOKENS
    assert actions[-1] == "scim_token.delete"
    clock.now += DAY_S
    assert await book.token(f"{2:064}") is None
    for wrong in ({"expires_at": int(NOW)}, {"expires_at": int(NOW) + 732 * DAY_S}, {"name": "x" * 101}):
        with pytest.raises(InvalidItemError):
            await book.add_token(structs.replace(TOKEN, **wrong), "c" * 64, OPERATOR)


async def test_settings(stocked: SqlControlStore) -> None:
    book = stocked.for_org(ACME).scim
    assert await book.settings() == ScimSettings(ACME)
    wanted = ScimSettings(ACME, owners=True, group_roles=(GroupRole("A", Role.AUDITOR),))
    assert await book.put_settings(wanted, 0, OPERATOR) == structs.replace(wanted, version=1)
    with pytest.raises(VersionMismatchError):
        await book.put_settings(wanted, 0, OPERATOR)
    await book.put_settings(ScimSettings(ACME), 1, OPERATOR)
    assert await book.settings() == ScimSettings(ACME, version=2)
    assert await stocked.for_org(GLOBEX).scim.settings() == ScimSettings(GLOBEX)
    for roles in (
        (GroupRole("A", Role.OWNER),),
        (GroupRole("", Role.ADMIN),),
        (GroupRole("A", Role.ADMIN), GroupRole("a", Role.ADMIN)),
    ):
        with pytest.raises(InvalidItemError):
            await book.put_settings(ScimSettings(ACME, group_roles=roles), 2, OPERATOR)


async def test_an_organization_takes_it_all_along(stocked: SqlControlStore) -> None:
    acme = stocked.for_org(ACME)
    await acme.scim.create_user(person("ann"), UserFacts("Ann"), OPERATOR)
    await acme.scim.create_group(GroupChange(Team(ACME, "t", "T"), "e", (ANN,)), (), OPERATOR)
    await acme.scim.add_token(TOKEN, "a" * 64, OPERATOR)
    await acme.scim.put_settings(ScimSettings(ACME, owners=True), 0, OPERATOR)
    await stocked.orgs.delete(ACME, (await stocked.orgs.get(ACME)).version, OPERATOR)
    assert (await acme.scim.tokens(), await acme.scim.groups(), await acme.scim.count_users()) == ((), (), 0)
    assert await acme.scim.settings() == ScimSettings(ACME)

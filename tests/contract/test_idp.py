"""Identity providers and who is linked there: what every backend of the control store promises about them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from policies.facts import Role
from tenants.idp import Demand, GroupRole, GroupTeam, IdentityProvider
from tenants.ids import MemberId, OrgId
from tenants.models import Member, Org, State, Team
from tenants.sql.store import SqlControlStore
from tenants.store import (
    Actor,
    InvalidItemError,
    InvalidReferenceError,
    NotFoundError,
    VersionMismatchError,
)
from tests.contract.control_store import NOW, Clock

ACME, GLOBEX = OrgId("acme"), OrgId("globex")
ADA, GUS = MemberId("mem_ada"), MemberId("mem_gus")
BY = Actor(org=OrgId("platform"), member="system")
ISSUER = "https://id.example"
ITEM = IdentityProvider(
    org=ACME,
    issuer=ISSUER,
    client_id="orgate",
    groups_claim="groups",
    group_roles=(GroupRole("admins", Role.ADMIN),),
    group_teams=(GroupTeam("searchers", "search"),),
    demands=(Demand(Role.ADMIN, amr=("mfa",)),),
    only=True,
    break_glass=(ADA,),
)


@pytest.fixture
async def store(store: SqlControlStore) -> SqlControlStore:
    for name, member in ((ACME, ADA), (GLOBEX, GUS)):
        await store.orgs.create(Org(id=name, name=name), BY)
        someone = Member(org=name, id=member, email=f"x@{name}.example", name="X", roles=(Role.OWNER,))
        await store.for_org(name).members.create(someone, BY)
    await store.for_org(ACME).teams.create(Team(org=ACME, name="search"), BY)
    return store


async def test_it_is_set_read_changed_and_taken_away(store: SqlControlStore) -> None:
    book = store.for_org(ACME).idp
    assert await book.get() is None
    made = await book.put(ITEM, 0, BY)
    assert made == replace(ITEM, set_at=int(NOW), version=1)
    assert await book.get() == made
    changed = await book.put(replace(made, only=False, break_glass=(), client_id="other"), 1, BY)
    assert await book.get() == changed
    assert (changed.version, changed.break_glass) == (2, ())
    with pytest.raises(VersionMismatchError):
        await book.put(ITEM, 1, BY)
    with pytest.raises(VersionMismatchError):
        await book.delete(1, BY)
    await book.delete(2, BY)
    assert await book.get() is None
    with pytest.raises(NotFoundError):
        await book.delete(0, BY)


async def test_it_is_known_since_when_it_is_that_provider(store: SqlControlStore, clock: Clock) -> None:
    book = store.for_org(ACME).idp
    await book.put(ITEM, 0, BY)
    since = []
    for changes in (
        {"jit": True, "domains": ("x.example",)},
        {"client_id": "b"},
        {},
        {"issuer": "https://b.example"},
    ):
        clock.now += 10
        found = await book.get()
        assert found is not None
        since.append((await book.put(replace(found, **changes), found.version, BY)).set_at - int(NOW))
    assert since == [0, 20, 20, 40]


async def test_what_is_written_down_names_no_person(store: SqlControlStore) -> None:
    book = store.for_org(ACME).idp
    await book.put(ITEM, 0, BY)
    await book.put(replace(ITEM, jit=True, domains=("acme.example",)), 1, BY)
    await book.link(ISSUER, "subject-of-ada", ADA, BY)
    first, second, linked = (await store.outbox())[-3:]
    assert (first.action, first.detail["issuer"], first.detail["version"]) == ("idp.set", ISSUER, 1)
    assert second.detail["changed"] == ["domains", "jit"]
    assert (second.detail["jit"], second.detail["domains"]) == (True, ["acme.example"])
    assert (linked.action, linked.target, dict(linked.detail)) == ("member.link", ADA, {"issuer": ISSUER})
    assert "subject-of-ada" not in str([change.detail for change in await store.outbox()])


async def test_it_refers_to_what_there_is(store: SqlControlStore) -> None:
    book = store.for_org(ACME).idp
    with pytest.raises(InvalidReferenceError, match="no team 'sales'"):
        await book.put(replace(ITEM, group_teams=(GroupTeam("g", "sales"),)), 0, BY)
    with pytest.raises(InvalidReferenceError, match="no active owner"):
        await book.put(replace(ITEM, break_glass=(GUS,)), 0, BY)
    ada = await store.for_org(ACME).members.get(ADA)
    await store.for_org(ACME).members.replace(replace(ada, state=State.SUSPENDED), 1, BY)
    with pytest.raises(InvalidReferenceError, match="no active owner"):
        await book.put(ITEM, 0, BY)
    with pytest.raises(InvalidItemError):
        await book.put(replace(ITEM, org=GLOBEX), 0, BY)
    with pytest.raises(InvalidItemError):
        await book.put(replace(ITEM, issuer="http://id.example"), 0, BY)
    with pytest.raises(NotFoundError):
        await store.for_org(OrgId("nobody")).idp.put(replace(ITEM, org=OrgId("nobody")), 0, BY)


async def test_a_person_is_linked_once_and_in_one_organization(store: SqlControlStore) -> None:
    acme, globex = store.for_org(ACME).idp, store.for_org(GLOBEX).idp
    assert await acme.link(ISSUER, "s-1", ADA, BY)
    assert not await acme.link(ISSUER, "s-2", ADA, BY)
    assert await acme.linked(ISSUER, "s-1") == ADA
    assert await acme.linked(ISSUER, "s-2") is None
    assert await acme.linked("https://other.example", "s-1") is None
    assert await globex.linked(ISSUER, "s-1") is None
    assert await globex.link(ISSUER, "s-1", GUS, BY)
    with pytest.raises(NotFoundError):
        await globex.link(ISSUER, "s-3", ADA, BY)
    assert (await acme.is_linked(ADA), await acme.is_linked(GUS)) == (True, False)
    assert await acme.linked(ISSUER, "\0") is None


async def test_two_people_are_not_one(store: SqlControlStore) -> None:
    acme = store.for_org(ACME)
    bob = MemberId("mem_bob")
    await acme.members.create(Member(org=ACME, id=bob, email="b@acme.example", name="", roles=(Role.MEMBER,)), BY)
    assert await acme.idp.link(ISSUER, "s-1", ADA, BY)
    assert not await acme.idp.link(ISSUER, "s-1", bob, BY)
    assert await acme.idp.linked(ISSUER, "s-1") == ADA


async def test_who_is_unlinked_may_be_linked_anew(store: SqlControlStore) -> None:
    book = store.for_org(ACME).idp
    await book.link(ISSUER, "s-1", ADA, BY)
    await book.unlink(ADA, BY)
    assert await book.linked(ISSUER, "s-1") is None
    for nobody in (ADA, MemberId("mem_\0")):
        with pytest.raises(NotFoundError):
            await book.unlink(nobody, BY)
    assert await book.link(ISSUER, "s-2", ADA, BY)


async def test_who_is_deleted_leaves_nothing(store: SqlControlStore) -> None:
    acme = store.for_org(ACME)
    await acme.idp.put(ITEM, 0, BY)
    await acme.idp.link(ISSUER, "s-1", ADA, BY)
    await acme.members.delete(ADA, 1, BY)
    found = await acme.idp.get()
    assert found is not None
    assert found.break_glass == ()
    assert await acme.idp.linked(ISSUER, "s-1") is None


async def test_an_organization_that_is_deleted_takes_it_along(store: SqlControlStore) -> None:
    acme = store.for_org(ACME)
    await acme.idp.put(ITEM, 0, BY)
    await acme.idp.link(ISSUER, "s-1", ADA, BY)
    await store.orgs.delete(ACME, (await store.orgs.get(ACME)).version, BY)
    assert await acme.idp.get() is None
    assert await acme.idp.linked(ISSUER, "s-1") is None

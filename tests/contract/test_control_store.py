"""`tenants.store.ControlStore`: what every backend promises about one thing, one organization, one write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import Struct, structs

from policies.facts import Role
from policies.rules import starting_rules
from tenants.clients import Plane
from tenants.ids import PLATFORM, OrgId
from tenants.models import Member, Org, State, Upstream
from tenants.sql.store import SqlControlStore
from tenants.store import (
    AlreadyExistsError,
    ControlStore,
    InUseError,
    InvalidItemError,
    InvalidQueryError,
    InvalidReferenceError,
    NotFoundError,
    OrgStore,
    Repository,
    VersionMismatchError,
)
from tenants.trust import ServiceTrust
from tests.contract.control_store import (
    NOW,
    OPERATOR,
    client,
    limit,
    member,
    model,
    org,
    rule,
    service,
    team,
    upstream,
)


def trust(of: str, name: str = "main", **changes: object) -> ServiceTrust:
    values = {"issuer": "https://ci.example", "audience": "gw", "claims": ("sub=repo:acme/*",), **changes}
    return ServiceTrust(org=OrgId(of), name=name, service="svc_1", **values)  # type: ignore[arg-type]


# collection → (how to make one, its key, another value of one of its fields)
KINDS: dict[str, tuple[Callable[..., Any], str, dict[str, Any]]] = {
    "members": (member, "mem_1", {"name": "Another Name"}),
    "teams": (team, "core", {"title": "Another"}),
    "upstreams": (upstream, "main", {"connections": 9}),
    "models": (model, "code", {"max_tokens": 77}),
    "limits": (limit, "each", {"amount": 5}),
    "rules": (rule, "no-embeddings", {"models": ("*",)}),
    "services": (service, "svc_1", {"roles": (Role.MEMBER, Role.AUDITOR, Role.ADMIN)}),
    "clients": (client, "ide", {"title": "Another"}),
    "trusts": (trust, "main", {"claims": ("sub=a", "ref=b"), "planes": tuple(Plane)}),
}
kinds = pytest.mark.parametrize("collection", sorted(KINDS))


def repository(store: OrgStore, collection: str) -> Repository[Any]:
    found: Repository[Any] = getattr(store, collection)
    return found


async def prepared(store: ControlStore, name: str, collection: str) -> Repository[Any]:
    """An organization in which one thing of `collection` can be created."""
    await store.orgs.create(org(name), OPERATOR)
    mine = store.for_org(OrgId(name))
    if collection == "models":
        await mine.upstreams.create(upstream(name), OPERATOR)
    if collection == "trusts":
        await mine.services.create(service(name), OPERATOR)
    return repository(mine, collection)


def of(item: Struct, version: int, created_at: int) -> Struct:
    fields = {"version": version} | ({"created_at": created_at} if hasattr(item, "created_at") else {})
    return structs.replace(item, **fields)


@kinds
async def test_what_is_created_is_read_replaced_and_deleted(store: SqlControlStore, collection: str) -> None:
    make, key, changes = KINDS[collection]
    things = await prepared(store, "acme", collection)
    made = await things.create(make("acme"), OPERATOR)
    assert made == of(make("acme"), 1, int(NOW)) == await things.get(key)

    new = await things.replace(make("acme", **changes), 1, OPERATOR)
    assert new == of(make("acme", **changes), 2, int(NOW)) == await things.get(key)

    await things.delete(key, 2, OPERATOR)
    with pytest.raises(NotFoundError):
        await things.get(key)


@kinds
async def test_a_second_one_with_the_same_key_is_refused(store: SqlControlStore, collection: str) -> None:
    make, key, changes = KINDS[collection]
    things = await prepared(store, "acme", collection)
    made = await things.create(make("acme"), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await things.create(make("acme", **changes), OPERATOR)
    assert await things.get(key) == made


@kinds
async def test_a_stale_version_changes_nothing(store: SqlControlStore, collection: str) -> None:
    make, key, changes = KINDS[collection]
    things = await prepared(store, "acme", collection)
    await things.create(make("acme"), OPERATOR)
    new = await things.replace(make("acme", **changes), 1, OPERATOR)
    queued, version = await store.outbox(), await store.version()
    for stale in (0, 1, 3):
        with pytest.raises(VersionMismatchError) as refused:
            await things.replace(make("acme"), stale, OPERATOR)
        assert refused.value.current == 2
        with pytest.raises(VersionMismatchError):
            await things.delete(key, stale, OPERATOR)
    assert await things.get(key) == new
    assert (await store.outbox(), await store.version()) == (queued, version)


@kinds
async def test_what_does_not_exist_is_not_found(store: SqlControlStore, collection: str) -> None:
    make, key, _ = KINDS[collection]
    things = await prepared(store, "acme", collection)
    for odd in (key, "", "../x", "\x00", "\ud800", "é", "%", "x" * 5000):
        with pytest.raises(NotFoundError):
            await things.get(odd)
        with pytest.raises(NotFoundError):
            await things.delete(odd, 1, OPERATOR)
    with pytest.raises(NotFoundError):
        await things.replace(make("acme"), 1, OPERATOR)


@kinds
async def test_nothing_of_one_org_is_seen_from_another(store: SqlControlStore, collection: str) -> None:
    """Create in each, ask from every other: the answer is that of an empty organization."""
    make, key, changes = KINDS[collection]
    names = ("acme", "globex", "initech")
    for name in names:
        things = await prepared(store, name, collection)
        await things.create(make(name), OPERATOR)
        for other in names:
            if other == name:
                continue
            with pytest.raises(InvalidItemError):
                await things.create(make(other), OPERATOR)
            with pytest.raises(InvalidItemError):
                await things.replace(make(other, **changes), 1, OPERATOR)
    for name in names:
        mine = repository(store.for_org(OrgId(name)), collection)
        assert {item.org for item in (await mine.page())[0]} == {name}
        await mine.delete(key, 1, OPERATOR)
        with pytest.raises(NotFoundError) as gone:
            await mine.get(key)
        never = await prepared(store, f"{name}-2", collection)
        with pytest.raises(NotFoundError) as unheard:
            await never.get(key)
        assert str(gone.value) == str(unheard.value)


@kinds
async def test_nothing_is_created_in_an_org_that_does_not_exist(store: SqlControlStore, collection: str) -> None:
    make, _, _ = KINDS[collection]
    things = repository(store.for_org(OrgId("nobody")), collection)
    with pytest.raises(NotFoundError):
        await things.create(make("nobody"), OPERATOR)
    assert await things.page() == ((), "")


async def test_what_breaks_a_rule_is_not_stored(store: SqlControlStore) -> None:
    limits = await prepared(store, "acme", "limits")
    bad = limit("acme", amount=0, burst=-1)
    with pytest.raises(InvalidItemError) as refused:
        await limits.create(bad, OPERATOR)
    assert [field for field, _ in refused.value.faults] == ["amount", "burst"]
    await limits.create(limit("acme"), OPERATOR)
    with pytest.raises(InvalidItemError):
        await limits.replace(bad, 1, OPERATOR)
    with pytest.raises(InvalidItemError):
        await store.orgs.create(org("a--b"), OPERATOR)
    with pytest.raises(InvalidItemError):
        await store.orgs.replace(Org(id=OrgId("acme"), name=""), 1, OPERATOR)


async def test_pages_hold_still_while_others_write(store: SqlControlStore) -> None:
    limits = await prepared(store, "acme", "limits")
    for number in range(0, 20, 2):
        await limits.create(limit("acme", f"l{number:02}"), OPERATOR)
    seen: list[str] = []
    after, page_number = "", 0
    while True:
        items, after = await limits.page(after=after, limit=3)
        seen += [item.name for item in items]
        if not after:
            break
        page_number += 1
        # One before the cursor, one after it; one that was seen goes.
        await limits.create(limit("acme", f"a{page_number}"), OPERATOR)
        await limits.create(limit("acme", f"l{19 - 2 * page_number:02}"), OPERATOR)
        await limits.delete(seen[0], 1, OPERATOR) if page_number == 1 else None
    stayed = [f"l{number:02}" for number in range(0, 20, 2)]
    assert [name for name in seen if name in stayed] == stayed
    assert seen == sorted(set(seen))


async def test_a_page_that_ends_exactly_names_no_next(store: SqlControlStore) -> None:
    limits = await prepared(store, "acme", "limits")
    for name in ("a", "b"):
        await limits.create(limit("acme", name), OPERATOR)
    assert (await limits.page(limit=2))[1] == ""
    assert (await limits.page(limit=1))[1] == "a"
    assert [item.name for item in (await limits.page(after="a", limit=1))[0]] == ["b"]


async def test_filters_compare_fields(store: SqlControlStore) -> None:
    members = await prepared(store, "acme", "members")
    await members.create(member("acme", "mem_1", email="Ann@Acme.example", roles=(Role.OWNER,)), OPERATOR)
    await members.create(member("acme", "mem_2", state=State.SUSPENDED), OPERATOR)

    async def found(**filters: str) -> list[str]:
        return [item.id for item in (await members.page(filters=filters))[0]]

    assert await found(state="suspended") == ["mem_2"]
    assert await found(email="ann@acme.EXAMPLE") == ["mem_1"]
    assert await found(roles="owner") == ["mem_1"]
    assert await found(roles="admin", state="active") == []
    assert await found(version="1") == ["mem_1", "mem_2"]
    rules = store.for_org(OrgId("acme")).rules
    await rules.create(rule("acme", "r", models=("code-*", "x")), OPERATOR)
    assert [item.name for item in (await rules.page(filters={"models": "code-*"}))[0]] == ["r"]
    assert (await rules.page(filters={"models": "code-"}))[0] == ()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("colour", "red"),
        ("org", "globex"),
        ("email_key", "x"),
        ("state", "sleeping"),
        ("version", "one"),
        ("version", "9" * 30),
        ("roles", "king"),
        ("name", "\x00"),
        ("name", "\ud800"),
    ],
)
async def test_a_filter_that_cannot_be_is_refused_by_name(store: SqlControlStore, field: str, value: str) -> None:
    members = await prepared(store, "acme", "members")
    with pytest.raises(InvalidQueryError, match=field) as refused:
        await members.page(filters={field: value})
    assert isinstance(refused.value, ValueError)
    assert refused.value.field == field


@pytest.mark.parametrize("size", [0, -1, 501])
async def test_a_page_size_out_of_range_is_refused(store: SqlControlStore, size: int) -> None:
    with pytest.raises(InvalidQueryError, match="1 to 500"):
        await store.orgs.page(limit=size)


async def test_a_cursor_that_is_no_text_is_refused(store: SqlControlStore) -> None:
    with pytest.raises(InvalidQueryError, match="cursor"):
        await store.orgs.page(after="\ud800")


async def test_of_fifty_writers_with_one_version_one_wins(store: SqlControlStore) -> None:
    upstreams = await prepared(store, "acme", "upstreams")
    await upstreams.create(upstream("acme"), OPERATOR)
    answers = await asyncio.gather(
        *(upstreams.replace(upstream("acme", connections=n), 1, OPERATOR) for n in range(1, 51)),
        return_exceptions=True,
    )
    won = [answer for answer in answers if isinstance(answer, Upstream)]
    assert len(won) == 1
    assert all(isinstance(answer, VersionMismatchError) for answer in answers if answer not in won)
    assert await upstreams.get("main") == won[0]
    assert [change.action for change in await store.outbox()][-2:] == ["upstream.create", "upstream.update"]


async def test_concurrent_read_modify_write_loses_nothing(store: SqlControlStore) -> None:
    limits = await prepared(store, "acme", "limits")
    await limits.create(limit("acme", amount=1), OPERATOR)

    async def add_one() -> None:
        while True:
            old = await limits.get("each")
            try:
                await limits.replace(structs.replace(old, amount=old.amount + 1), old.version, OPERATOR)
            except VersionMismatchError:
                continue
            return

    await asyncio.gather(*(add_one() for _ in range(10)))
    assert (await limits.get("each")).amount == 11


async def test_an_email_belongs_to_one_member_of_an_org(store: SqlControlStore) -> None:
    acme = await prepared(store, "acme", "members")
    globex = await prepared(store, "globex", "members")
    ann = await acme.create(member("acme", "mem_1", email="Ann@Example.com"), OPERATOR)
    with pytest.raises(AlreadyExistsError) as refused:
        await acme.create(member("acme", "mem_2", email="ANN@example.com"), OPERATOR)
    assert "@" not in str(refused.value)
    await acme.create(member("acme", "mem_2"), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await acme.replace(member("acme", "mem_2", email="ann@example.COM"), 1, OPERATOR)
    there = await globex.create(member("globex", "mem_1", email="ann@example.com"), OPERATOR)
    assert await store.for_org(OrgId("acme")).members.by_email("aNN@example.com") == ann
    assert await store.for_org(OrgId("globex")).members.by_email("ann@example.com") == there
    for unknown in ("bob@example.com", "", "\ud800@example.com"):
        with pytest.raises(NotFoundError):
            await store.for_org(OrgId("acme")).members.by_email(unknown)


async def test_an_alias_needs_its_upstream_and_keeps_it(store: SqlControlStore) -> None:
    models = await prepared(store, "acme", "models")
    await prepared(store, "globex", "upstreams")
    await store.for_org(OrgId("globex")).upstreams.create(upstream("globex", "theirs"), OPERATOR)
    with pytest.raises(InvalidReferenceError):
        await models.create(model("acme", upstream="theirs"), OPERATOR)
    await models.create(model("acme"), OPERATOR)
    with pytest.raises(InvalidReferenceError):
        await models.replace(model("acme", upstream="theirs"), 1, OPERATOR)
    upstreams = store.for_org(OrgId("acme")).upstreams
    with pytest.raises(InUseError, match="code"):
        await upstreams.delete("main", 1, OPERATOR)
    await models.delete("code", 1, OPERATOR)
    await upstreams.delete("main", 1, OPERATOR)


async def test_a_key_version_never_falls(store: SqlControlStore) -> None:
    upstreams = await prepared(store, "acme", "upstreams")
    await upstreams.create(upstream("acme", key_version=3), OPERATOR)
    assert (await upstreams.replace(upstream("acme"), 1, OPERATOR)).key_version == 3
    assert (await upstreams.replace(upstream("acme", key_version=4), 2, OPERATOR)).key_version == 4


async def test_an_org_begins_with_the_starting_rules(store: SqlControlStore) -> None:
    made = await store.orgs.create(org("acme"), OPERATOR)
    assert made == structs.replace(org("acme"), created_at=int(NOW))
    record = await store.for_org(OrgId("acme")).record()
    assert record.org == made
    assert tuple(stored.rule() for stored in record.rules) == starting_rules()
    assert (await store.for_org(PLATFORM).record()).rules == ()


async def test_the_record_of_an_org_is_all_it_has(store: SqlControlStore) -> None:
    for name in ("acme", "globex"):
        models = await prepared(store, name, "models")
        await models.create(model(name), OPERATOR)
        await store.for_org(OrgId(name)).limits.create(limit(name), OPERATOR)
    record = await store.for_org(OrgId("acme")).record()
    assert (record.upstreams, record.models, record.limits) == (
        (upstream("acme"),),
        (model("acme"),),
        (limit("acme"),),
    )
    with pytest.raises(NotFoundError):
        await store.for_org(OrgId("nobody")).record()


async def test_orgs_are_read_replaced_and_paged(store: SqlControlStore) -> None:
    await store.orgs.create(org("acme"), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await store.orgs.create(org("acme"), OPERATOR)
    new = await store.orgs.replace(org("acme", hosts=("acme.gateway.example",)), 1, OPERATOR)
    assert await store.orgs.get("acme") == new
    assert (new.version, new.created_at) == (2, int(NOW))
    with pytest.raises(VersionMismatchError):
        await store.orgs.replace(org("acme"), 1, OPERATOR)
    with pytest.raises(VersionMismatchError):
        await store.orgs.delete("acme", 1, OPERATOR)
    for odd in ("nobody", "", "\ud800", "../acme"):
        with pytest.raises(NotFoundError):
            await store.orgs.get(odd)
    assert [item.id for item in (await store.orgs.page(filters={"hosts": "acme.gateway.example"}))[0]] == ["acme"]
    assert [item.id for item in (await store.orgs.page())[0]] == ["acme", "platform"]


async def test_a_host_name_leads_to_one_org(store: SqlControlStore) -> None:
    await store.orgs.create(org("acme", hosts=("code.example.com",)), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await store.orgs.create(org("globex", hosts=("code.example.com",)), OPERATOR)
    await store.orgs.create(org("globex", hosts=("ode.example.com",)), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await store.orgs.replace(org("globex", hosts=("x.example.com", "code.example.com")), 1, OPERATOR)
    await store.orgs.replace(org("acme", hosts=("code.example.com", "two.example.com")), 1, OPERATOR)


async def test_the_platform_is_there_and_stays(store: SqlControlStore) -> None:
    platform = await store.orgs.get(PLATFORM)
    with pytest.raises(AlreadyExistsError):
        await store.orgs.create(org("platform"), OPERATOR)
    with pytest.raises(InUseError):
        await store.orgs.delete("platform", platform.version, OPERATOR)
    with pytest.raises(InvalidItemError):
        await store.orgs.replace(structs.replace(platform, state=State.SUSPENDED), platform.version, OPERATOR)
    operators = store.for_org(PLATFORM).members
    made = await operators.create(member("platform", roles=(Role.OPERATOR,)), OPERATOR)
    assert isinstance(made, Member)
    with pytest.raises(InvalidItemError):
        await store.for_org(PLATFORM).upstreams.create(upstream("platform"), OPERATOR)


async def test_a_deleted_org_is_gone_and_its_id_stays_taken(store: SqlControlStore) -> None:
    models = await prepared(store, "acme", "models")
    await models.create(model("acme"), OPERATOR)
    mine = store.for_org(OrgId("acme"))
    await mine.members.create(member("acme"), OPERATOR)
    before = await store.outbox()
    await store.orgs.delete("acme", 1, OPERATOR)
    for collection in KINDS:
        assert await repository(mine, collection).page() == ((), "")
    with pytest.raises(NotFoundError):
        await mine.record()
    with pytest.raises(AlreadyExistsError):
        await store.orgs.create(org("acme"), OPERATOR)
    queued = await store.outbox()
    assert queued[:-1] == before
    assert (queued[-1].org, queued[-1].action) == ("acme", "org.delete")
    assert isinstance(await store.orgs.create(Org(id=OrgId("acme2"), name="Acme"), OPERATOR), Org)


async def test_a_trust_goes_with_its_service_account_and_needs_one(store: SqlControlStore) -> None:
    things = await prepared(store, "acme", "trusts")
    await things.create(trust("acme"), OPERATOR)
    with pytest.raises(InvalidReferenceError):
        await things.create(structs.replace(trust("acme", "other"), service="svc_2"), OPERATOR)
    await store.for_org(OrgId("acme")).services.delete("svc_1", 1, OPERATOR)
    assert await things.page() == ((), "")

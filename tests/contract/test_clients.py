"""Registered clients and service accounts: what every backend of the control store promises about them."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from policies.facts import Role
from tenants.clients import MOST_CLIENTS, AuthMethod, GrantType, Plane
from tenants.ids import OrgId
from tenants.models import LimitScope, State
from tenants.revocations import revoke_tokens
from tenants.sql.store import SqlControlStore, SqlOrgStore
from tenants.store import (
    AlreadyExistsError,
    InUseError,
    InvalidItemError,
    InvalidReferenceError,
    NotFoundError,
    TooManyError,
)
from tests.contract.control_store import NOW, OPERATOR, Clock, client, limit, org, service

BASIC: dict[str, Any] = {"auth_method": AuthMethod.CLIENT_SECRET_BASIC}
MACHINE: dict[str, Any] = {
    **BASIC,
    "grant_types": (GrantType.CLIENT_CREDENTIALS,),
    "redirect_uris": (),
    "service": "svc_1",
}


@pytest.fixture
async def acme(store: SqlControlStore) -> SqlOrgStore:
    await store.orgs.create(org("acme"), OPERATOR)
    return store.for_org(OrgId("acme"))


async def digests(acme: SqlOrgStore, name: str = "ide") -> list[str]:
    return [secret.digest for secret in await acme.clients.secrets(name)]


async def test_two_secrets_count_while_one_gives_way(acme: SqlOrgStore, clock: Clock) -> None:
    await acme.clients.create(client("acme", **BASIC), OPERATOR)
    assert await digests(acme) == []
    await acme.clients.add_secret("ide", "a", 3_600, OPERATOR)
    clock.now += 1
    made = await acme.clients.add_secret("ide", "b", 3_600, OPERATOR)
    assert (made.created_at, made.expires_at) == (int(NOW) + 1, 0)
    assert await digests(acme) == ["b", "a"]
    clock.now += 1
    await acme.clients.add_secret("ide", "c", 3_600, OPERATOR)
    assert await digests(acme) == ["c", "b"]  # the one that was giving way is gone
    clock.now += 3_600
    assert await digests(acme) == ["c"]


async def test_an_overlap_ends_at_once_where_it_is_not_wanted(acme: SqlOrgStore) -> None:
    await acme.clients.create(client("acme", **BASIC), OPERATOR)
    await acme.clients.add_secret("ide", "a", 3_600, OPERATOR)
    await acme.clients.add_secret("ide", "b", 0, OPERATOR)
    assert await digests(acme) == ["b"]
    await acme.clients.add_secret("ide", "c", 3_600, OPERATOR)
    assert await acme.clients.drop_secrets("ide", OPERATOR) == 1
    assert await digests(acme) == ["c"]
    assert await acme.clients.drop_secrets("ide", OPERATOR) == 0
    assert await digests(acme) == ["c"]


async def test_secrets_go_with_what_they_were_for(acme: SqlOrgStore) -> None:
    await acme.clients.create(client("acme", **BASIC), OPERATOR)
    await acme.clients.add_secret("ide", "a", 0, OPERATOR)
    await acme.clients.replace(client("acme", auth_method=AuthMethod.CLIENT_SECRET_POST), 1, OPERATOR)
    assert await digests(acme) == ["a"]
    await acme.clients.replace(client("acme"), 2, OPERATOR)
    await acme.clients.replace(client("acme", **BASIC), 3, OPERATOR)
    assert await digests(acme) == []
    await acme.clients.add_secret("ide", "b", 0, OPERATOR)
    await acme.clients.delete("ide", 4, OPERATOR)
    await acme.clients.create(client("acme", **BASIC), OPERATOR)
    assert await digests(acme) == []


async def test_a_public_client_has_no_secret(acme: SqlOrgStore) -> None:
    await acme.clients.create(client("acme"), OPERATOR)
    with pytest.raises(InvalidItemError):
        await acme.clients.add_secret("ide", "a", 0, OPERATOR)
    for call in (acme.clients.secrets("nobody"), acme.clients.drop_secrets("nobody", OPERATOR)):
        with pytest.raises(NotFoundError):
            await call
    with pytest.raises(NotFoundError):
        await acme.clients.add_secret("nobody", "a", 0, OPERATOR)


async def test_no_entry_quotes_a_secret_or_a_key(acme: SqlOrgStore, store: SqlControlStore) -> None:
    await acme.clients.create(client("acme", **BASIC), OPERATOR)
    await acme.clients.add_secret("ide", "d1gest", 60, OPERATOR)
    jwks = '{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AAAA"}]}'
    keyed = client("acme", auth_method=AuthMethod.PRIVATE_KEY_JWT, jwks=jwks)
    await acme.clients.replace(keyed, 1, OPERATOR)
    found = [change for change in await store.outbox() if change.action.startswith("client.")]
    assert [change.action for change in found] == ["client.create", "client.secret", "client.update"]
    assert "jwks" in found[2].detail["changed"]  # type: ignore[operator]
    assert "d1gest" not in repr(found)
    assert "Ed25519" not in repr(found)


async def test_a_machine_needs_its_service_and_keeps_it(acme: SqlOrgStore, store: SqlControlStore) -> None:
    await store.orgs.create(org("globex"), OPERATOR)
    await store.for_org(OrgId("globex")).services.create(service("globex"), OPERATOR)
    with pytest.raises(InvalidReferenceError):
        await acme.clients.create(client("acme", **MACHINE), OPERATOR)
    await acme.services.create(service("acme"), OPERATOR)
    await acme.clients.create(client("acme", **MACHINE), OPERATOR)
    with pytest.raises(InUseError, match="ide"):
        await acme.services.delete("svc_1", 1, OPERATOR)
    await acme.clients.delete("ide", 1, OPERATOR)
    await acme.limits.create(limit("acme", scope=LimitScope.MEMBER, subject="svc_1"), OPERATOR)
    with pytest.raises(InUseError, match="each"):
        await acme.services.delete("svc_1", 1, OPERATOR)
    await acme.limits.delete("each", 1, OPERATOR)
    await acme.services.delete("svc_1", 1, OPERATOR)


async def test_what_is_taken_from_a_client_ends_its_tokens(
    acme: SqlOrgStore, store: SqlControlStore, clock: Clock
) -> None:
    usual = client("acme").grant_types
    wide = client("acme", planes=(Plane.DATA, Plane.ADMIN), grant_types=(*usual, GrantType.DEVICE_CODE))
    await acme.clients.create(wide, OPERATOR)
    await acme.clients.replace(
        structs.replace(wide, title="Another", redirect_uris=("https://a.example/",)), 1, OPERATOR
    )
    assert await store.revocations(int(NOW)) == ()
    changes: tuple[dict[str, Any], ...] = (
        {"planes": (Plane.ADMIN,)},
        {"grant_types": usual},
        {"state": State.SUSPENDED},
    )
    for number, change in enumerate(changes):
        clock.now += 10
        await acme.clients.replace(structs.replace(wide, **change), 2 + 2 * number, OPERATOR)
        found = await store.revocations(int(clock.now))
        assert [(one.member, one.not_before) for one in found] == [("acme.ide", int(clock.now) + 1)]
        clock.now += 10
        await acme.clients.replace(wide, 3 + 2 * number, OPERATOR)
        assert await store.revocations(int(clock.now)) == found


async def test_a_client_that_a_limit_names_stays(acme: SqlOrgStore, store: SqlControlStore) -> None:
    await acme.clients.create(client("acme"), OPERATOR)
    await acme.limits.create(limit("acme", scope=LimitScope.CLIENT, subject="acme.ide"), OPERATOR)
    with pytest.raises(InUseError, match="each"):
        await acme.clients.delete("ide", 1, OPERATOR)
    await acme.limits.delete("each", 1, OPERATOR)
    await acme.clients.delete("ide", 1, OPERATOR)
    assert [one.member for one in await store.revocations(int(NOW))] == ["acme.ide"]


async def test_an_organization_has_so_many_clients(acme: SqlOrgStore) -> None:
    for number in range(MOST_CLIENTS):
        await acme.clients.create(client("acme", f"c{number}"), OPERATOR)
    with pytest.raises(TooManyError, match="delete one first"):
        await acme.clients.create(client("acme", "one-more"), OPERATOR)


async def test_a_service_account_has_a_name_of_its_own(acme: SqlOrgStore) -> None:
    await acme.services.create(service("acme"), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await acme.services.create(service("acme", "svc_2"), OPERATOR)
    await acme.services.create(service("acme", "svc_2", name="cd"), OPERATOR)
    with pytest.raises(AlreadyExistsError):
        await acme.services.replace(service("acme", "svc_2"), 1, OPERATOR)


@pytest.mark.parametrize("change", [{"roles": (Role.MEMBER,)}, {"state": State.SUSPENDED}])
async def test_what_is_taken_from_a_service_account_ends_its_tokens(
    acme: SqlOrgStore, store: SqlControlStore, change: dict[str, Any]
) -> None:
    await acme.services.create(service("acme"), OPERATOR)
    made = await acme.services.replace(service("acme", **change), 1, OPERATOR)
    assert made.not_before == int(NOW) + 1
    found = await store.revocations(int(NOW))
    assert [(one.org, one.member, one.not_before) for one in found] == [("acme", "svc_1", int(NOW) + 1)]
    back = await acme.services.replace(service("acme"), 2, OPERATOR)
    assert back.not_before == int(NOW) + 1


async def test_a_service_account_that_is_deleted_or_revoked_has_no_tokens(
    acme: SqlOrgStore, store: SqlControlStore, clock: Clock
) -> None:
    await acme.services.create(service("acme"), OPERATOR)
    await acme.revoke(revoke_tokens(OrgId("acme"), NOW, member="svc_1"), OPERATOR)
    kept = await acme.services.get("svc_1")
    assert (kept.not_before, kept.version) == (int(NOW) + 1, 2)
    clock.now += 10
    await acme.services.delete("svc_1", 2, OPERATOR)
    assert [one.not_before for one in await store.revocations(int(clock.now))] == [int(NOW) + 11]
    with pytest.raises(NotFoundError):
        await acme.revoke(revoke_tokens(OrgId("acme"), NOW, member="svc_1"), OPERATOR)


@pytest.mark.parametrize("role", [Role.OWNER, Role.OPERATOR])
async def test_an_organization_belongs_to_people(acme: SqlOrgStore, role: Role) -> None:
    with pytest.raises(InvalidItemError):
        await acme.services.create(service("acme", roles=(role,)), OPERATOR)


async def test_only_the_organization_is_asked_for_its_client(acme: SqlOrgStore) -> None:
    made = await acme.clients.create(client("acme", "a.b-c_d"), OPERATOR)
    assert made.client_id == "acme.a.b-c_d"
    assert structs.replace(made, org=OrgId("globex")).client_id == "globex.a.b-c_d"

"""Sessions over the admin API: one's own, and anybody's for admins; nothing that could be used is shown."""

from __future__ import annotations

import pytest

from gateway.oauth.store import Consumed, DeviceGrant, DeviceStatus, Family
from gateway.oauth.tables import metadata
from policies.facts import Role
from tenants.ids import OrgId
from tests.integration.admin.world import ACME, GLOBEX, World


@pytest.fixture
async def signed_in(world: World) -> World:
    """A member of acme with two programs, its owner and globex's member with one each."""
    async with world.store.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    await begin(world, "a" * 32, ACME, Role.MEMBER, "orgate-cli")
    await begin(world, "b" * 32, ACME, Role.MEMBER, "orgate-editor")
    await begin(world, "c" * 32, ACME, Role.OWNER, "orgate-cli")
    await begin(world, "d" * 32, GLOBEX, Role.MEMBER, "orgate-cli")
    return world


async def begin(world: World, name: str, org: OrgId, role: Role, client: str) -> None:
    member, now = world.members[org, role].id, world.clock.seconds
    grant = DeviceGrant(
        name, name, client, "", "", now + 600, 5, status=DeviceStatus.APPROVED, org=org, member=member
    )
    await world.sessions.store.add_device(grant, now)
    family = Family(
        id=name, org=org, member=member, client=client, current=name * 2, created_at=now, expires_at=now + 3_600
    )
    assert await world.sessions.store.redeem(name, family)


async def ids(world: World, path: str, role: Role, **params: str) -> list[str]:
    answer = await world.ask("GET", path, role, params=params)
    assert answer.status_code == 200, answer.text
    return [item["id"][0] for item in answer.json()["items"]]


async def test_everybody_sees_their_own_and_readers_all_of_the_organization(signed_in: World) -> None:
    assert await ids(signed_in, "/me/sessions", Role.MEMBER) == ["a", "b"]
    assert await ids(signed_in, "/me/sessions", Role.AUDITOR) == []
    assert await ids(signed_in, "/orgs/acme/sessions", Role.AUDITOR) == ["a", "b", "c"]
    member = signed_in.members[ACME, Role.MEMBER].id
    assert await ids(signed_in, "/orgs/acme/sessions", Role.AUDITOR, member=member) == ["a", "b"]
    theirs = signed_in.members[GLOBEX, Role.MEMBER].id
    assert await ids(signed_in, "/orgs/acme/sessions", Role.AUDITOR, member=theirs) == []
    page = (await signed_in.ask("GET", "/orgs/acme/sessions", params={"limit": "2"})).json()
    assert page["next"] == "b" * 32
    assert await ids(signed_in, "/orgs/acme/sessions", Role.OWNER, after=page["next"]) == ["c"]
    none = await signed_in.ask("GET", "/me/sessions", Role.MEMBER, params={"after": "a\0"})
    assert (none.status_code, none.json()["errors"][0]["field"]) == (422, "after")


async def test_what_is_shown_of_one(signed_in: World) -> None:
    found = await signed_in.sessions.store.family("a" * 32)
    assert found is not None
    used = signed_in.clock.seconds + 60
    assert await signed_in.sessions.store.rotate(found, "e" * 64, (Consumed(found.current, used),))
    item = (await signed_in.ask("GET", "/me/sessions", Role.MEMBER)).json()["items"][0]
    now = int(signed_in.clock.seconds)
    assert item == {
        "id": "a" * 32,
        "org": "acme",
        "member": signed_in.members[ACME, Role.MEMBER].id,
        "client": "orgate-cli",
        "created_at": now,
        "last_used": now + 60,
        "expires_at": now + 3_600,
        "amr": "",
    }


async def test_one_that_is_ended_is_gone_and_so_are_its_members_access_tokens(signed_in: World) -> None:
    bearer = signed_in.bearer(Role.MEMBER)
    assert (await signed_in.ask("DELETE", f"/me/sessions/{'a' * 32}", Role.MEMBER)).status_code == 204
    assert (await signed_in.client.get("/admin/v1/me", headers=bearer)).status_code == 401
    assert await ids(signed_in, "/orgs/acme/sessions", Role.OWNER) == ["b", "c"]
    ended = await signed_in.sessions.store.family("a" * 32)
    assert ended is not None
    assert ended.ended_at == signed_in.clock.seconds
    assert (await signed_in.actions())[-2:] == ["session.revoke", "member.revoke"]


async def test_an_admin_ends_a_members_and_no_owners(signed_in: World) -> None:
    path = "/orgs/acme/sessions/"
    assert (await signed_in.ask("DELETE", path + "b" * 32, Role.ADMIN)).status_code == 204
    assert (await signed_in.ask("DELETE", path + "c" * 32, Role.ADMIN)).status_code == 403
    assert (await signed_in.ask("DELETE", path + "c" * 32, Role.OWNER)).status_code == 204
    assert await ids(signed_in, "/orgs/acme/sessions", Role.AUDITOR) == ["a"]


async def test_anothers_is_as_one_that_never_was(signed_in: World) -> None:
    never = await signed_in.ask("DELETE", f"/orgs/acme/sessions/{'0' * 32}", Role.OWNER)
    for key in ("d" * 32, "D" * 32, "nothing", "x" * 5_000, "%00"):
        answer = await signed_in.ask("DELETE", f"/orgs/acme/sessions/{key}", Role.OWNER)
        assert (answer.status_code, answer.json()["detail"]) == (404, never.json()["detail"])
    mine = await signed_in.ask("DELETE", f"/me/sessions/{'c' * 32}", Role.MEMBER)
    assert mine.status_code == 404
    assert await ids(signed_in, "/orgs/globex/sessions", Role.OPERATOR) == ["d"]

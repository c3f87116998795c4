"""Somebody else writes in between: nothing is lost, nothing is called done that is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from policies.facts import Role
from tenants.sql.kinds import Members, Upstreams
from tenants.sql.orgs import OrgRepository
from tenants.store import VersionMismatchError
from tests.integration.admin.world import ACME, UPSTREAM, World

ACTIONS = [
    (Members, "/orgs/acme/members/{member}/suspend", "POST", {}),
    (OrgRepository, "/orgs/acme/suspend", "POST", {}),
    (Upstreams, "/orgs/acme/upstreams/gpt/key", "PUT", {"json": {"key": "sk-1"}}),
]


def interrupted(monkeypatch: pytest.MonkeyPatch, repository: type[Any], times: int) -> None:
    """The next `times` calls of `replace` find that somebody was faster."""
    real, left = repository.replace, [times]

    async def replace(self: Any, *args: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise VersionMismatchError(99)
        return await real(self, *args)

    monkeypatch.setattr(repository, "replace", replace)


@pytest.mark.parametrize(("repository", "path", "method", "more"), ACTIONS)
async def test_an_action_is_tried_again_and_gives_up_in_words(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    repository: type[Any],
    path: str,
    method: str,
    more: dict[str, Any],
) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    path = path.format(member=world.members[ACME, Role.MEMBER].id)
    interrupted(monkeypatch, repository, 2)
    assert (await world.ask(method, path, Role.OPERATOR, **more)).status_code == 200

    await world.ask("POST", path.replace("suspend", "resume"), Role.OPERATOR)
    interrupted(monkeypatch, repository, 1000)
    answer = await world.ask(method, path, Role.OPERATOR, **more)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:orgate:problem:busy")


async def test_of_two_owners_who_remove_each_other_one_stays(world: World) -> None:
    second = await world.ask(
        "POST", "/orgs/acme/members", json={"email": "b@acme.example", "name": "B", "roles": ["owner"]}
    )
    ids = (world.members[ACME, Role.OWNER].id, second.json()["member"]["id"])
    answers = await asyncio.gather(
        *(world.ask("POST", f"/orgs/acme/members/{one}/suspend", Role.OPERATOR) for one in ids)
    )
    assert sorted(answer.status_code for answer in answers) == [200, 409]
    owners = await world.ask(
        "GET", "/orgs/acme/members", Role.OPERATOR, params={"roles": "owner", "state": "active"}
    )
    assert len(owners.json()["items"]) == 1


async def test_keys_set_at_once_end_with_the_newest_announced(world: World) -> None:
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    answers = await asyncio.gather(
        *(world.ask("PUT", "/orgs/acme/upstreams/gpt/key", json={"key": f"sk-{number}"}) for number in range(4))
    )
    assert {answer.status_code for answer in answers} == {200}
    stored = await world.keys.get(ACME, "gpt")
    announced = world.hub.snapshot.tenants[ACME].upstreams["gpt"].key_version
    assert announced >= stored.version == 4


async def test_an_operator_who_names_no_organization_gets_404(world: World) -> None:
    for org in ("neverland", "NOT%20A%20SLUG"):
        assert (await world.ask("GET", f"/orgs/{org}", Role.OPERATOR)).status_code == 404


async def test_a_revoked_member_is_invited_again(world: World) -> None:
    member = world.members[ACME, Role.MEMBER].id
    await world.ask("POST", f"/orgs/acme/members/{member}/revoke")
    answer = await world.ask("POST", f"/orgs/acme/members/{member}/invite", Role.ADMIN)
    assert (answer.status_code, answer.json()["invitation"]["code"]) == (200, "THE-CODE")

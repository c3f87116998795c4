"""The keys that sign access tokens: operators see and rotate them, nobody else does."""

from __future__ import annotations

import pytest

from gateway.oauth.errors import RotatedElsewhereError, RotatedLatelyError
from policies.facts import Role
from tenants.ids import PLATFORM
from tests.integration.admin.world import World


async def test_an_operator_sees_and_rotates_them(world: World) -> None:
    found = await world.ask("GET", "/signing-keys", Role.OPERATOR)
    assert found.json()["items"][0] == {"kid": "k1", "use": "current", "since": 5, "gone_at": 0}
    rotated = await world.ask("POST", "/signing-keys/rotate", Role.OPERATOR)
    assert (rotated.status_code, rotated.json()) == (200, found.json())
    assert [call[:2] for call in world.sessions.calls] == [("rotate", PLATFORM)]


@pytest.mark.parametrize(
    ("error", "code"), [(RotatedLatelyError(7), "lately"), (RotatedElsewhereError(), "elsewhere")]
)
async def test_why_not_is_said(world: World, error: Exception, code: str) -> None:
    world.sessions.no_rotation = error
    refused = await world.ask("POST", "/signing-keys/rotate", Role.OPERATOR)
    assert refused.status_code == 409
    assert code in refused.json()["type"]


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.AUDITOR, Role.MEMBER])
async def test_no_organization_has_anything_to_do_with_them(world: World, role: Role) -> None:
    for method, path in (("GET", "/signing-keys"), ("POST", "/signing-keys/rotate")):
        assert (await world.ask(method, path, role)).status_code == 403
    assert world.sessions.calls == []

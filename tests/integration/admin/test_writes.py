"""Changes are counted, for all nodes together where there is something that does."""

from __future__ import annotations

from gateway.oauth.errors import TemporarilyUnavailableError
from gateway.oauth.throttle import MemoryThrottle
from policies.facts import Role
from tests.integration.admin.world import ACME, World


class Away:
    async def check(self, key: str) -> None:
        raise TemporarilyUnavailableError("attempts cannot be counted now", retry_after_s=3)

    charge = check


async def test_a_member_who_writes_without_end_waits_and_others_do_not(world: World) -> None:
    clock = world.clock
    app = world.replaced(writes=MemoryThrottle(2, 60, lambda: clock.seconds))
    async with world.client_from("127.0.0.1", app) as client:
        for _ in range(2):
            made = await client.put("/admin/v1/orgs/acme", headers=world.bearer(Role.OWNER), json={})
            assert made.status_code == 422
        refused = await client.put("/admin/v1/orgs/acme", headers=world.bearer(Role.OWNER), json={})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "60")
        assert "too many changes" in refused.json()["detail"]
        other = await client.put("/admin/v1/orgs/acme", headers=world.bearer(Role.ADMIN), json={})
        assert other.status_code == 422
        assert (await client.get("/admin/v1/orgs/acme", headers=world.bearer(Role.OWNER))).status_code == 200


async def test_while_nobody_counts_nothing_is_written_and_all_can_be_read(world: World) -> None:
    async with world.client_from("127.0.0.1", world.replaced(writes=Away())) as client:
        refused = await client.delete("/admin/v1/orgs/acme", headers={**world.bearer(Role.OWNER), "if-match": "*"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "3")
        member = f"/admin/v1/orgs/acme/members/{world.members[ACME, Role.MEMBER].id}"
        shut_out = await client.post(f"{member}/suspend", headers=world.bearer(Role.OWNER))
        assert shut_out.status_code == 200, "taking access away does not wait"
        assert (await client.post(f"{member}/resume", headers=world.bearer(Role.OWNER))).status_code == 503
        assert (await client.get("/admin/v1/orgs/acme", headers=world.bearer(Role.OWNER))).status_code == 200

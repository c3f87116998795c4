"""A provisioning client of one organization, over the admin application without a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from gateway.scim.patch import PATCH_OP
from tests.integration.admin.world import World


@dataclass
class Scim:
    world: World
    org: str
    token: str
    secret: str

    async def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """`path`: beneath the organization's; a whole path where it begins with `/scim`."""
        headers = {"authorization": f"Bearer {self.secret}", **more.pop("headers", {})}
        if "json" in more:
            headers = {"content-type": "application/scim+json", **headers}
        whole = path if path.startswith("/scim") else f"/scim/v2/{self.org}{path}"
        return await self.world.client.request(method, whole, headers=headers, **more)

    async def good(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """The body of a success."""
        answer = await self.ask(method, path, **more)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    async def refused(self, status: int, method: str, path: str, scim_type: str = "", **more: Any) -> str:
        """The detail of a refusal, which is SCIM's own error."""
        answer = await self.ask(method, path, **more)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        assert answer.headers["content-type"] == "application/scim+json"
        body = answer.json()
        assert body["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]
        assert body["status"] == str(status)
        assert body.get("scimType", "") == scim_type, body
        return str(body["detail"])

    async def user(self, login: str, /, **more: Any) -> dict[str, Any]:
        return await self.good("POST", "/Users", json={"userName": f"{login}@{self.org}.example", **more})

    async def group(self, name: str, *members: str) -> dict[str, Any]:
        body = {"displayName": name, "members": [{"value": one} for one in members]}
        return await self.good("POST", "/Groups", json=body)

    async def patch(self, path: str, *operations: dict[str, Any], **more: Any) -> httpx.Response:
        return await self.ask("PATCH", path, json={"schemas": [PATCH_OP], "Operations": list(operations)}, **more)

    async def found(self, kind: str, text: str) -> list[str]:
        """The ids that a filter finds."""
        listed = await self.good("GET", f"/{kind}", params={"filter": text})
        assert listed["totalResults"] == len(listed["Resources"])
        return [one["id"] for one in listed["Resources"]]


async def provision(world: World, org: str) -> Scim:
    """Make a token as an owner does it."""
    answer = await world.ask("POST", f"/orgs/{org}/scim/tokens", org=org, json={"name": "provider"})  # type: ignore[arg-type]
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return Scim(world, org, made["token"]["id"], made["secret"])

"""Price tables over the admin API: whole, versioned, and with every worker when they are answered."""

from __future__ import annotations

from typing import Any

import pytest

from policies.facts import Role
from tenants.ids import PLATFORM, OrgId
from tests.integration.admin.world import ACME, GLOBEX, World

TABLE: dict[str, Any] = {
    "prices": [
        {"model": "gpt-code", "input": 150_000_000, "output": 600_000_000},
        {"model": "embed-1", "input": 20_000_000, "output": 0},
    ]
}


async def test_an_import_is_read_back_listed_audited_and_with_the_workers(world: World) -> None:
    empty = await world.ask("GET", "/orgs/acme/prices")
    assert (empty.status_code, empty.headers["etag"]) == (200, '"0"')
    assert empty.json()["prices"] == []

    made = await world.ask("PUT", "/orgs/acme/prices", Role.ADMIN, json=TABLE, headers={"if-match": '"0"'})
    assert made.status_code == 200, made.text
    assert made.headers["etag"] == '"1"'
    assert (made.json()["version"], made.json()["count"]) == (1, 2)
    assert made.json()["by"] == world.members[ACME, Role.ADMIN].id
    tenant = world.hub.snapshot.tenants[ACME]
    assert tenant.prices["gpt-code"].output == 600_000_000

    again = await world.ask("PUT", "/orgs/acme/prices", json={"prices": []}, headers={"if-match": '"1"'})
    assert again.json()["version"] == 2
    old = (await world.ask("GET", "/orgs/acme/prices?version=1")).json()
    assert [price["model"] for price in old["prices"]] == ["embed-1", "gpt-code"]
    first = (await world.ask("GET", "/orgs/acme/prices/versions?limit=1")).json()
    assert ([item["version"] for item in first["items"]], first["next"]) == ([2], "2")
    rest = (await world.ask("GET", "/orgs/acme/prices/versions?limit=1&after=2")).json()
    assert ([item["version"] for item in rest["items"]], rest["next"]) == ([1], "")
    assert (await world.actions())[-2:] == ["price.import", "price.import"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prices": [{"model": "a", "input": 1.5, "output": 1}]}, "prices[0].input"),
        ({"prices": [{"model": "a", "input": "1", "output": 1}]}, "prices[0].input"),
        ({"prices": [{"model": "a", "input": -1, "output": 1}]}, "prices[0].input"),
        ({"prices": [{"model": "a", "input": 1, "output": 10**16}]}, "prices[0].output"),
        ({"prices": [{"model": "a", "input": 1, "output": 1}] * 2}, "prices[1].model: stands twice"),
        ({"prices": [{"model": "a", "input": 1, "output": 1, "per": "k"}]}, "prices[0].per"),
        ({"prices": [{"model": " ", "input": 1, "output": 1}]}, "prices[0].model"),
        ({"prices": [{"model": "a", "input": 1}]}, "prices[0].output"),
        ({}, "prices"),
    ],
)
async def test_a_bad_table_is_told_by_place_and_changes_nothing(
    world: World, body: dict[str, Any], says: str
) -> None:
    answer = await world.ask("PUT", "/orgs/acme/prices", json=body, headers={"if-match": "*"})
    assert answer.status_code == 422
    assert says in answer.json()["detail"]
    assert (await world.ask("GET", "/orgs/acme/prices")).headers["etag"] == '"0"'


async def test_versions_are_compared_and_unknown_ones_are_not_there(world: World) -> None:
    assert (await world.ask("PUT", "/orgs/acme/prices", json=TABLE)).status_code == 428
    stale = await world.ask("PUT", "/orgs/acme/prices", json=TABLE, headers={"if-match": '"4"'})
    assert (stale.status_code, stale.headers["etag"]) == (412, '"0"')
    assert (await world.ask("GET", "/orgs/acme/prices?version=7")).status_code == 404
    assert (await world.ask("GET", "/orgs/acme/prices?version=-1")).status_code == 422
    for cursor in ("x", "0", "-1", "9" * 19):
        assert (await world.ask("GET", f"/orgs/acme/prices/versions?after={cursor}")).status_code == 422, cursor


async def test_the_platforms_prices_are_the_operators_and_reach_the_workers(world: World) -> None:
    path = "/orgs/platform/prices"
    more: dict[str, Any] = {"json": TABLE, "headers": {"if-match": "*"}}
    assert (await world.ask("PUT", path, Role.OWNER, **more)).status_code == 404
    assert (await world.ask("PUT", path, Role.AUDITOR, org=PLATFORM, **more)).status_code == 403
    assert (await world.ask("PUT", path, Role.OPERATOR, **more)).status_code == 200
    platform = world.hub.snapshot.tenants[PLATFORM]
    assert platform.prices["gpt-code"].input == 150_000_000
    assert not platform.models
    assert not platform.upstreams
    assert (await world.ask("GET", path, Role.AUDITOR, org=PLATFORM)).status_code == 200


@pytest.mark.parametrize(("role", "status"), [(Role.AUDITOR, 403), (Role.MEMBER, 403), (Role.ADMIN, 200)])
async def test_who_may_import(world: World, role: Role, status: int) -> None:
    answer = await world.ask("PUT", "/orgs/acme/prices", role, json=TABLE, headers={"if-match": "*"})
    assert answer.status_code == status
    other = await world.ask("PUT", "/orgs/acme/prices", role, org=GLOBEX, json=TABLE, headers={"if-match": "*"})
    assert other.status_code == 404
    assert (await world.store.for_org(OrgId("globex")).prices.table()).prices == ()


async def test_while_the_platform_limits_money_prices_are_its_operators(world: World) -> None:
    """A price of nothing would be a way around the platform's limit."""
    money = {"name": "all", "scope": "org", "unit": "spend", "amount": 10**9, "window": "month"}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=money)).status_code == 201
    path = "/orgs/acme/prices"
    refused = await world.ask("PUT", path, Role.OWNER, json=TABLE, headers={"if-match": "*"})
    assert refused.status_code == 403
    assert "ask its operators" in refused.json()["detail"]
    assert (await world.last_entry())["action"] == "admin.refuse"
    assert (await world.store.for_org(ACME).prices.table()).prices == ()
    assert (await world.ask("PUT", path, Role.OPERATOR, json=TABLE, headers={"if-match": "*"})).status_code == 200


async def test_who_limits_money_is_told_of_prices_that_organizations_set_before(world: World) -> None:
    free = {"prices": [{"model": "gpt-code", "input": 0, "output": 0}]}
    own = await world.ask("PUT", "/orgs/acme/prices", json=free, headers={"if-match": "*"})
    assert own.status_code == 200
    money = {"name": "money", "scope": "org", "unit": "spend", "amount": 5, "window": "day"}
    made = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=money)
    assert "'acme' set its prices itself" in made.headers["x-orgate-remark"]
    assert "globex" not in made.headers["x-orgate-remark"]
    other = {**money, "name": "other", "subject": "globex"}
    made = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=other)
    assert "prices" not in made.headers.get("x-orgate-remark", "")
    dear = {"prices": [{"model": "gpt-code", "input": 1, "output": 1}]}
    seen = await world.ask("PUT", "/orgs/acme/prices", Role.OPERATOR, json=dear, headers={"if-match": "*"})
    assert seen.status_code == 200
    headers = {"if-match": "*"}
    made = await world.ask("PUT", "/orgs/platform/limits/money", Role.OPERATOR, json=money, headers=headers)
    assert "prices" not in made.headers.get("x-orgate-remark", "")

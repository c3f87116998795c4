"""How much of limits is used, as their admins see it, and what setting a bucket back does."""

from __future__ import annotations

from typing import Any

import httpx
from msgspec import structs

from gateway.api.admin.dependencies import NoLimits
from gateway.limits.protocol import Part, SliceAsk, Wish
from gateway.limits.windows import window_at
from policies.facts import Role
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, Window
from tests.integration.admin.world import ACME, GLOBEX, LIMIT, World, fill

LIMITS = "/orgs/acme/limits"


async def draw(
    world: World, limit: str, subject: str = "", units: int = 1, *, org: OrgId = ACME, **part: Any
) -> None:
    """A worker takes `units` and spends all but one of them, which a request in flight holds."""
    values: dict[str, Any] = {"unit": LimitUnit.REQUESTS, "amount": 100, "burst": 100, "period_s": 60, **part}
    bucket = Part(limit, subject, **values)
    ask = SliceAsk(org, f"w-{limit}-{subject}", "", "", 1, parts=(bucket,), requests=((Wish(0, units, units),),))
    answer = await world.limits.ask(ask)
    assert answer.results[0].granted == (units,)
    spent = structs.replace(bucket, spent=units - 1, open=1)
    await world.limits.ask(SliceAsk(org, ask.worker, answer.session, answer.epoch, 2, parts=(spent,)))


async def test_usage_tells_each_bucket_and_the_fullest_use_first(world: World) -> None:
    await fill(world)
    await draw(world, "fair", "mem_a", 10)
    await draw(world, "fair", "mem_b", 41)
    await draw(world, "other", "", 99)
    said = (await world.ask("GET", f"{LIMITS}/fair/usage", Role.AUDITOR)).json()
    assert said["buckets"] == 2
    now = int(world.clock.seconds)
    assert said["items"][0] == {
        "limit": "fair",
        "subject": "mem_b",
        "unit": "requests",
        "amount": 100,
        "burst": 100,
        "period_s": 60,
        "left": 59,
        "used": 40,
        "lent": 1,
        "open": 1,
        "workers": 3,
        "starts_at": 0,
        "resets_at": now + 24,
        "platform": False,
    }
    one = (await world.ask("GET", f"{LIMITS}/fair/usage", params={"subject": "mem_a"})).json()
    assert [item["subject"] for item in one["items"]] == ["mem_a"]
    first = (await world.ask("GET", f"{LIMITS}/fair/usage", params={"top": 1})).json()
    assert (len(first["items"]), first["buckets"]) == (1, 2)
    assert (await world.ask("GET", f"{LIMITS}/none/usage")).status_code == 404


async def test_buckets_that_are_full_again_are_not_in_use(world: World) -> None:
    await fill(world)
    made = await world.ask("POST", LIMITS, json={**LIMIT, "name": "slots", "unit": "concurrency", "amount": 100})
    assert made.status_code == 201
    await draw(world, "fair", "mem_a", 1, amount=6_000, burst=6_000)
    await draw(world, "slots", "mem_a", 1, unit=LimitUnit.CONCURRENCY, period_s=0)
    used = (await world.ask("GET", "/orgs/acme/limits-usage")).json()["items"]
    assert [(item["limit"], item["lent"]) for item in used] == [("slots", 1), ("fair", 1)]
    world.clock.seconds += 3
    assert (await world.ask("GET", "/orgs/acme/limits-usage")).json() == {"items": [], "buckets": 0}


async def test_a_limit_that_is_gone_is_not_in_use(world: World) -> None:
    await fill(world)
    await world.publisher.sync()
    await draw(world, "fair", "mem_a", 10)
    await draw(world, "platform/gone", "", 10)
    made = await world.ask("POST", LIMITS, json={**LIMIT, "name": "kept"})
    assert made.status_code == 201
    await draw(world, "kept", "mem_a", 10)
    assert (await world.ask("DELETE", f"{LIMITS}/fair", headers={"if-match": "*"})).status_code == 204
    used = (await world.ask("GET", "/orgs/acme/limits-usage")).json()["items"]
    assert [item["limit"] for item in used] == ["kept"]


async def test_a_budget_tells_what_is_used_and_when_it_begins_anew(world: World) -> None:
    await fill(world)
    await with_budgets(world)
    await draw(world, "daily", "", 31, **window(world, "UTC"))
    (item,) = (await world.ask("GET", f"{LIMITS}/daily/usage")).json()["items"]
    told = {key: item[key] for key in ("left", "used", "lent", "starts_at", "resets_at")}
    starts_s, ends_s = window_at(Window.DAY, "UTC", world.clock.seconds)
    assert told == {"left": 69, "used": 30, "lent": 1, "starts_at": starts_s, "resets_at": ends_s}


def window(world: World, zone: str) -> dict[str, Any]:
    """Of a `Part`: a budget of the day that runs in `zone`."""
    starts_s, ends_s = window_at(Window.DAY, zone, world.clock.seconds)
    return {"unit": LimitUnit.TOKENS, "burst": 100, "period_s": 0, "starts_s": starts_s, "ends_s": ends_s}


async def with_budgets(world: World) -> None:
    """One of the organization, and one that the platform set for each."""
    body = {"scope": "org", "unit": "tokens", "amount": 100, "window": "day"}
    for path, role, name in ((LIMITS, Role.OWNER, "daily"), ("/orgs/platform/limits", Role.OPERATOR, "each")):
        assert (await world.ask("POST", path, role, json={**body, "name": name})).status_code == 201
    await world.publisher.sync()


async def in_zone(world: World, zone: str, org: str = "acme", role: Role = Role.OWNER) -> httpx.Response:
    body = {"name": org.title(), "timezone": zone}
    answer = await world.ask("PUT", f"/orgs/{org}", role, json=body, headers={"if-match": "*"})
    await world.publisher.sync()
    return answer


async def test_a_budget_that_is_used_up_stays_so_in_another_time_zone(world: World) -> None:
    await fill(world)
    await with_budgets(world)
    await draw(world, "daily", "", 100, **window(world, "UTC"))
    await draw(world, "platform/each", "", 40, **window(world, "UTC"))
    for zone in ("Asia/Tokyo", "America/New_York", "Pacific/Kiritimati"):
        assert (await in_zone(world, zone)).status_code == 200
        for path in (f"{LIMITS}/daily/usage", "/orgs/acme/limits-usage"):
            said = (await world.ask("GET", path)).json()
            daily, *others = said["items"]
            assert (daily["limit"], daily["left"]) == ("daily", 1)  # in flight
            assert daily["starts_at"] == window(world, zone)["starts_s"]
            # The platform's go by its own time zone.
            assert [(one["left"], one["starts_at"]) for one in others] == [
                (60, window(world, "UTC")["starts_s"])
            ] * (path == "/orgs/acme/limits-usage")
    assert (await in_zone(world, "Asia/Tokyo", "platform", Role.OPERATOR)).status_code == 200
    said = (await world.ask("GET", "/orgs/platform/limits/each/usage", Role.OPERATOR)).json()["items"]
    assert [(one["subject"], one["left"], one["starts_at"]) for one in said] == [
        ("acme", 61, window(world, "Asia/Tokyo")["starts_s"])
    ]


async def test_while_budgets_cannot_be_taken_along_the_time_zone_stays(world: World) -> None:
    await fill(world)
    app = world.replaced(limits=NoLimits())
    async with world.client_from("127.0.0.1", app) as client:
        for zone, status in (("Asia/Tokyo", 503), ("UTC", 200), ("Mars/Olympus", 422)):
            body, headers = {"name": "Acme", "timezone": zone}, {**world.bearer(Role.OWNER), "if-match": "*"}
            answer = await client.request("PUT", "/admin/v1/orgs/acme", json=body, headers=headers)
            assert answer.status_code == status, answer.text
            if status == 503:
                assert answer.headers["retry-after"] == "1"
                assert answer.json()["detail"].startswith("The time zone stays as it is: ")
    assert (await world.store.orgs.get(ACME)).timezone == "UTC"


async def test_all_usage_has_what_the_platform_set_and_nobody_elses(world: World) -> None:
    await fill(world)
    body = {"name": "fair-use", "scope": "org", "unit": "requests", "amount": 100}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)).status_code == 201
    await world.publisher.sync()
    await draw(world, "fair", "mem_a", 10)
    await draw(world, "platform/fair-use", "", 50)
    await draw(world, "fair", "mem_g", 10, org=GLOBEX)
    await draw(world, "platform/fair-use", "", 20, org=GLOBEX)
    said = (await world.ask("GET", "/orgs/acme/limits-usage", Role.ADMIN)).json()["items"]
    assert [(item["limit"], item["subject"], item["platform"]) for item in said] == [
        ("platform/fair-use", "", True),
        ("fair", "mem_a", False),
    ]
    for params, count in (({"unit": "tokens"}, 0), ({"subject": "mem_a"}, 1), ({"unit": "requests", "top": 1}, 1)):
        some = (await world.ask("GET", "/orgs/acme/limits-usage", params=params)).json()["items"]
        assert len(some) == count
    whole = (await world.ask("GET", "/orgs/platform/limits-usage", Role.OPERATOR)).json()["items"]
    assert [(item["limit"], item["subject"]) for item in whole] == [("fair-use", "acme"), ("fair-use", "globex")]


async def test_a_reset_fills_the_bucket_and_is_written_down_first(world: World) -> None:
    await fill(world)
    await draw(world, "fair", "mem_a", 10)
    await draw(world, "fair", "mem_b", 10)
    assert (await world.ask("POST", f"{LIMITS}/fair/reset", Role.AUDITOR)).status_code == 403
    one = await world.ask("POST", f"{LIMITS}/fair/reset", Role.ADMIN, params={"subject": "mem_a"})
    assert one.json() == {"buckets": 1}
    entry = await world.last_entry()
    assert (entry["action"], entry["target"], entry["detail"]) == ("limit.reset", "fair", {"subject": "mem_a"})
    left = {i["subject"]: i["left"] for i in (await world.ask("GET", f"{LIMITS}/fair/usage")).json()["items"]}
    assert left == {"mem_a": 99, "mem_b": 90}
    assert (await world.ask("POST", f"{LIMITS}/fair/reset")).json() == {"buckets": 2}
    assert (await world.ask("POST", f"{LIMITS}/none/reset")).status_code == 404


async def test_what_was_counted_otherwise_under_this_name_is_neither_used_nor_set_back(world: World) -> None:
    await fill(world)
    await world.publisher.sync()
    now = int(world.clock.seconds)
    await draw(world, "fair", "mem_a", 10, unit=LimitUnit.TOKENS)
    await draw(world, "fair", "mem_b", 10, period_s=0, starts_s=now - 5, ends_s=now + 7)
    for path in (f"{LIMITS}/fair/usage", "/orgs/acme/limits-usage"):
        assert (await world.ask("GET", path)).json() == {"items": [], "buckets": 0}
    assert (await world.ask("POST", f"{LIMITS}/fair/reset")).json() == {"buckets": 0}
    await draw(world, "fair", "mem_c", 10)
    assert (await world.ask("POST", f"{LIMITS}/fair/reset")).json() == {"buckets": 1}


async def test_operators_see_and_reset_the_platforms_limit_of_each_organization(world: World) -> None:
    await fill(world)
    body = {**LIMIT, "name": "fair-use", "scope": "org"}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)).status_code == 201
    await draw(world, "platform/fair-use", "", 50)
    await draw(world, "platform/fair-use", "", 20, org=GLOBEX)
    where = "/orgs/platform/limits/fair-use"
    said = (await world.ask("GET", f"{where}/usage", Role.OPERATOR)).json()["items"]
    assert [item["subject"] for item in said] == ["acme", "globex"]
    reset = await world.ask("POST", f"{where}/reset", Role.OPERATOR, params={"subject": "globex"})
    assert reset.json() == {"buckets": 1}
    unknown = await world.ask("POST", f"{where}/reset", Role.OPERATOR, params={"subject": "nobody-here"})
    assert unknown.json()["errors"][0]["message"] == "unknown organization 'nobody-here'"
    (acme,) = (await world.ask("GET", f"{where}/usage", Role.OPERATOR, params={"subject": "acme"})).json()["items"]
    assert acme["used"] == 49
    shared = {"name": "shared", "scope": "upstream", "unit": "requests", "amount": 100}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=shared)).status_code == 201
    await draw(world, "shared", "https://api.example.com", 5, org=PLATFORM)
    (origin,) = (await world.ask("GET", "/orgs/platform/limits/shared/usage", Role.OPERATOR)).json()["items"]
    assert origin["subject"] == "https://api.example.com"
    assert (await world.ask("POST", "/orgs/platform/limits/shared/reset", Role.OPERATOR)).json() == {"buckets": 1}


async def test_without_the_store_of_limits_it_is_503_and_when_to_ask_again(world: World) -> None:
    await fill(world)
    app = world.replaced(limits=NoLimits())
    async with world.client_from("127.0.0.1", app) as client:
        for method, path in (
            ("GET", "limits/fair/usage"),
            ("GET", "limits-usage"),
            ("POST", "limits/fair/reset"),
        ):
            answer = await client.request(method, f"/admin/v1/orgs/acme/{path}", headers=world.bearer(Role.OWNER))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.json()["type"] == "urn:orgate:problem:unavailable"

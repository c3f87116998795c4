"""Limits as their admins see them: what may be set, what of it decides, how much is used, and what it would do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx
import pytest
from msgspec import structs

from gateway.api.admin.dependencies import NoLimits
from gateway.exchange import Outcome, Receipt, SpooledReceipt, SpoolUp
from gateway.limits.protocol import Part, SliceAsk, Wish
from gateway.limits.windows import window_at
from policies.facts import Action, Role
from tenants.ids import PLATFORM, OrgId
from tenants.models import LimitUnit, Window
from tests.integration.admin.world import ACME, GLOBEX, LIMIT, MODEL, World, fill
from tests.kit.signal import PATIENCE_S
from tests.unit.authn import tokens

LIMITS = "/orgs/acme/limits"
DAY = 86_400


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


async def test_a_subject_that_names_nothing_is_refused_by_name(world: World) -> None:
    await fill(world)
    nobody = "mem_" + "0" * 20
    for scope, subject, noun in (
        ("model", "coed", "model"),
        ("upstream", "gtp", "upstream"),
        ("team", "ghosts", "team"),
        ("member", nobody, "member"),
        ("member", world.members[GLOBEX, Role.OWNER].id, "member"),
    ):
        answer = await world.ask("POST", LIMITS, json={**LIMIT, "name": "x", "scope": scope, "subject": subject})
        assert answer.status_code == 422
        assert answer.json()["errors"] == [{"field": "subject", "message": f"unknown {noun} '{subject}'"}]
    for scope, subject in (("model", "code"), ("upstream", "gpt"), ("client", "any-editor")):
        body = {**LIMIT, "name": f"of-{scope}", "scope": scope, "subject": subject}
        made = await world.ask("POST", LIMITS, json=body)
        assert made.status_code == 201
        assert ("nobody asks models with client 'any-editor'" in made.headers.get("x-orgate-remark", "")) == (
            scope == "client"
        )


async def test_a_limit_of_what_is_gone_can_still_be_changed(world: World) -> None:
    await fill(world)
    body = {**LIMIT, "name": "few", "scope": "model", "subject": "code"}
    assert (await world.ask("POST", LIMITS, json=body)).status_code == 201
    gone = await world.ask("DELETE", "/orgs/acme/models/code", headers={"if-match": "*"})
    assert gone.status_code == 204
    changed = await world.ask("PUT", f"{LIMITS}/few", json={**body, "amount": 5}, headers={"if-match": "*"})
    assert changed.status_code == 200
    moved = {**body, "scope": "upstream"}
    assert (await world.ask("PUT", f"{LIMITS}/few", json=moved, headers={"if-match": "*"})).status_code == 422


async def test_the_platforms_limits_name_organizations(world: World) -> None:
    body = {**LIMIT, "scope": "org", "subject": "nobody-here"}
    answer = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)
    assert answer.json()["errors"] == [{"field": "subject", "message": "unknown organization 'nobody-here'"}]
    made = await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json={**body, "subject": "acme"})
    assert made.status_code == 201


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"unit": "concurrency", "amount": 10**6}, "amount"),
        ({"unit": "concurrency", "amount": 5, "burst": 2}, "burst"),
        ({"window": "day", "period_s": 60}, "period_s"),
        ({"window": "day", "burst": 5}, "burst"),
        ({"notify_at": [50]}, "notify_at"),
        ({"window": "month", "notify_at": [0, 50]}, "notify_at"),
        ({"unit": "requests", "on_end": "cut"}, "on_end"),
        ({"window": "year"}, "window"),
        ({"on_outage": "pray"}, "on_outage"),
        ({"unit": "tokens", "amount": 10**13}, "amount"),
        ({"burst": 101}, "burst"),
    ],
)
async def test_absurd_and_contradicting_limits_are_refused(
    world: World, changes: dict[str, object], field: str
) -> None:
    answer = await world.ask("POST", LIMITS, json={**LIMIT, **changes})
    assert answer.status_code == 422
    assert field in [fault["field"] for fault in answer.json()["errors"]], answer.text


async def test_one_limit_too_many_is_refused_with_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    have = len((await world.ask("GET", LIMITS)).json()["items"])
    monkeypatch.setattr("tenants.sql.kinds.MOST_AT_ONCE", have + 1)
    assert (await world.ask("POST", LIMITS, json={**LIMIT, "name": "last"})).status_code == 201
    no = await world.ask("POST", LIMITS, json={**LIMIT, "name": "more"})
    assert (no.status_code, no.json()["type"]) == (409, "urn:orgate:problem:too-many")
    assert f"at most {have + 1} limits may apply to one request" in no.json()["detail"]
    assert "delete one first" in no.json()["detail"]


async def test_whoever_sets_a_limit_hears_which_never_decides(world: World) -> None:
    await fill(world)
    ann = world.members[ACME, Role.MEMBER].id
    body = {**LIMIT, "name": "ann", "subject": ann, "amount": 500}
    made = await world.ask("POST", LIMITS, json=body)
    assert made.status_code == 201
    assert made.headers["x-orgate-remark"].startswith("limit 'ann' never decides: 'fair' allows no more")
    less = await world.ask("PUT", f"{LIMITS}/ann", json={**body, "amount": 5}, headers={"if-match": "*"})
    assert "x-orgate-remark" not in less.headers


async def test_a_header_has_no_more_remarks_than_it_can_hold(world: World) -> None:
    body = {**LIMIT, "scope": "client", "subject": "\u00e9diteur"}
    for n in range(10):
        made = await world.ask("POST", LIMITS, json={**body, "name": f"l{n}", "amount": 100 + n})
        assert made.status_code == 201
    last = await world.ask("POST", LIMITS, json={**body, "name": "last", "amount": 110})
    said = last.headers["x-orgate-remark"].split("; ")
    assert len(said) == 9
    assert said[-1] == "and 3 more remarks"
    few = await world.ask("POST", LIMITS, json={**body, "name": "few", "amount": 1, "unit": "bytes"})
    assert "nobody asks models with client '\\xe9diteur'" in few.headers["x-orgate-remark"]


async def test_what_the_platform_allows_less_of_is_remarked_too(world: World) -> None:
    body = {"name": "fair-use", "scope": "org", "unit": "requests", "amount": 50}
    assert (await world.ask("POST", "/orgs/platform/limits", Role.OPERATOR, json=body)).status_code == 201
    await world.publisher.sync()
    made = await world.ask("POST", LIMITS, json={**body, "name": "wide", "amount": 60})
    assert "'wide' never decides: 'platform/fair-use' allows no more" in made.headers["x-orgate-remark"]
    narrow = await world.ask("POST", LIMITS, json={**body, "name": "narrow", "amount": 5})
    assert "platform" not in narrow.headers.get("x-orgate-remark", "")


async def test_whoever_limits_money_hears_of_models_without_a_price(world: World) -> None:
    await fill(world)
    await world.publisher.sync()
    body = {"name": "money", "scope": "org", "unit": "spend", "amount": 200 * 10**9, "window": "month"}
    made = await world.ask("POST", LIMITS, json=body)
    assert made.headers["x-orgate-remark"] == (
        "no price is known for what 'code' leads to: it is answered 503 until there is one"
    )


async def test_a_limit_of_money_is_compared_with_the_models_that_it_is_about(world: World) -> None:
    await fill(world)
    assert (await world.ask("POST", "/orgs/acme/models", json={**MODEL, "name": "chat"})).status_code == 201
    await world.publisher.sync()
    body = {"unit": "spend", "amount": 10**9, "window": "day"}
    for name, changes, models in (
        ("one", {"scope": "model", "subject": "chat"}, "'chat'"),
        ("each", {"scope": "upstream"}, "'chat', 'code'"),
        ("people", {"scope": "member"}, "'chat', 'code'"),
    ):
        made = await world.ask("POST", LIMITS, json={**body, **changes, "name": name})
        assert f"for what {models} leads to" in made.headers["x-orgate-remark"]
    prices = [{"model": "gpt-code", "input": 1, "output": 2}]
    put = await world.ask("PUT", "/orgs/acme/prices", json={"prices": prices}, headers={"if-match": "*"})
    assert put.status_code == 200, put.text
    await world.publisher.sync()
    made = await world.ask("POST", LIMITS, json={**body, "scope": "org", "name": "all"})
    assert "price" not in made.headers.get("x-orgate-remark", "")


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


# -- simulations -------------------------------------------------------------------------------------------------


def receipt(world: World, ago_s: float, member: str, **changes: Any) -> Receipt:
    values: dict[str, Any] = {
        "org": ACME,
        "request_id": "req_1",
        "at_us": int((world.clock.seconds - ago_s) * 1_000_000),
        "member": member,
        "client": "vim",
        "action": Action.COMPLETE,
        "outcome": Outcome.SERVED,
        "status": 200,
        "model": "code",
        "upstream": "gpt",
        "sent": True,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "total_us": 1_000,
        **changes,
    }
    return Receipt(**values)


async def log(world: World, receipts: Sequence[Receipt]) -> None:
    spooled = tuple(SpooledReceipt(seq, one) for seq, one in enumerate(receipts, 1))
    await world.sequencer.append_receipts(SpoolUp("boot", spooled))


async def simulated(world: World, limit: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    answer = await world.ask(
        "POST", "/orgs/acme/limits-simulation", Role.ADMIN, json={"limit": {**LIMIT, **limit}, **more}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/jsonl")
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_simulation_says_who_would_have_been_refused(world: World) -> None:
    await fill(world)
    receipts = [receipt(world, 3_000 - n, "mem_a" if n % 4 else "mem_b") for n in range(40)]
    await log(world, [receipt(world, 2 * DAY, "mem_old"), *receipts])
    *progress, last = await simulated(world, {"amount": 10, "period_s": 3_600})
    assert progress
    assert all(line["read"] <= line["of"] for line in progress)
    report = last["report"]
    assert (report["requests"], report["refused"]) == (40, 20)
    assert [(row["member"], row["requests"], row["refused"]) for row in report["rows"]] == [("mem_a", 30, 20)]
    assert report["rows"][0]["first_refused_ms"] == receipts[14].at_us // 1_000
    assert report["until"] - report["since"] == DAY
    entry = await world.last_entry()
    assert (entry["action"], entry["operation_type"], entry["detail"]["limit"]) == (
        "limit.simulate",
        "access",
        "fair",
    )
    assert (await world.ask("GET", f"{LIMITS}/fair")).json()["amount"] == 100, "it changed what it only tries"


async def test_only_the_time_that_is_asked_for_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 7)
    await log(world, [receipt(world, 20 * DAY - n * 3_600, "mem_a") for n in range(19 * 24)])
    now = int(world.clock.seconds)
    *progress, last = await simulated(world, {}, since=str(now - 10 * DAY), until=str(now - 9 * DAY))
    assert last["report"]["requests"] == 24
    assert last["report"]["entries"] == 24
    assert progress[-1]["of"] < 30
    assert progress[-1]["read"] == progress[-1]["of"]
    assert len(progress) >= 4


async def test_teams_are_those_of_today(world: World) -> None:
    await fill(world)
    member = world.members[ACME, Role.MEMBER].id
    for team in ("red", "blue"):
        assert (await world.ask("POST", "/orgs/acme/teams", json={"name": team, "title": ""})).status_code == 201
    assert (await world.ask("PUT", f"/orgs/acme/teams/red/members/{member}")).status_code == 200
    await log(world, [receipt(world, 50 - n, who) for n, who in enumerate((member, member, "mem_x"))])
    for subject, requests in (("", 2), ("red", 2), ("blue", 0)):
        body = {"scope": "team", "subject": subject, "amount": 1, "period_s": 3_600}
        report = (await simulated(world, body))[-1]["report"]
        assert (report["requests"], report["refused"]) == (requests, requests // 2)
        assert any("Teams are as they are today" in note for note in report["notes"])


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"limit": {**LIMIT, "amount": 0}}, "limit.amount"),
        ({"limit": {**LIMIT, "scope": "model", "subject": "coed"}}, "subject"),
        ({"limit": LIMIT, "since": "yesterday"}, "since"),
        ({"limit": LIMIT, "since": "1", "until": str(tokens.NOW)}, "since"),
        ({"limit": LIMIT, "since": str(tokens.NOW), "until": str(tokens.NOW - 5)}, "since"),
        ({"since": "1"}, "limit"),
        ({"limit": LIMIT, "speed": 9}, "speed"),
    ],
)
async def test_what_cannot_be_simulated_is_refused_by_name(world: World, more: dict[str, Any], field: str) -> None:
    answer = await world.ask("POST", "/orgs/acme/limits-simulation", json=more)
    assert answer.status_code == 422
    assert field in [fault["field"] for fault in answer.json()["errors"]], answer.text
    assert "limit.simulate" not in await world.actions()


async def test_one_simulation_runs_at_a_time_and_only_admins_may(world: World) -> None:
    await fill(world)
    body = {"limit": LIMIT}
    async with world.deps.simulating:
        busy = await world.ask("POST", "/orgs/acme/limits-simulation", json=body)
    assert (busy.status_code, busy.json()["type"]) == (409, "urn:orgate:problem:busy")
    assert (await world.ask("POST", "/orgs/acme/limits-simulation", Role.AUDITOR, json=body)).status_code == 403
    platform = await world.ask("POST", "/orgs/platform/limits-simulation", Role.OPERATOR, json=body)
    assert "serves nothing" in platform.json()["detail"]
    assert not world.deps.simulating.locked()


async def simulating(world: World, send: Callable[[Any], Awaitable[None]], gone: asyncio.Event) -> None:
    """Call the app itself, as a server does; `gone`: the caller leaves."""
    body = json.dumps({"limit": LIMIT}).encode()
    asked: list[Any] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if asked:
            return asked.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    headers = {**world.bearer(Role.ADMIN), "content-type": "application/json", "host": "127.0.0.1:8444"}
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": "/admin/v1/orgs/acme/limits-simulation",
        "raw_path": b"/admin/v1/orgs/acme/limits-simulation",
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40_000),
        "server": ("127.0.0.1", 8444),
    }
    await world.app(scope, receive, send)


async def test_a_caller_who_goes_away_ends_the_simulation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 1)
    await log(world, [receipt(world, 200 - n, "mem_a") for n in range(100)])
    gone = asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            sent.append(message["body"])
            gone.set()

    await simulating(world, send, gone)
    assert 0 < len(sent) < 100
    assert b'"report"' not in b"".join(sent)
    assert not world.deps.simulating.locked(), "the next one could never begin"


async def test_a_caller_who_reads_nothing_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(world)
    monkeypatch.setattr("gateway.api.admin.simulation.CHUNK", 1)
    await log(world, [receipt(world, 200 - n, "mem_a") for n in range(20)])
    stuck, read, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()
    sent: list[bytes] = []

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body" and message["body"]:
            stuck.set()
            await read.wait()
            sent.append(message["body"])
        elif message["type"] == "http.response.body":
            gone.set()

    first = asyncio.create_task(simulating(world, send, gone))
    try:
        await stuck.wait()
        async with asyncio.timeout(PATIENCE_S), world.deps.simulating:
            assert not first.done()
        assert "report" in (await simulated(world, {}))[-1]
    finally:
        read.set()
        await first
    assert b'"report"' in sent[-1], "whoever reads at last has the whole answer"

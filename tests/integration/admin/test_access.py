"""Every route × every role × own and other organization, from the app's own route table."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from policies.facts import Role
from tenants.ids import PLATFORM, OrgId
from tenants.roles import Operation, may, needed
from tests.integration.admin.world import ACME, BODIES, GLOBEX, World, fill

PUBLIC = {"/livez", "/readyz", "/admin/schema", "/admin/schema/openapi.json", "/admin/schema/{path:str}"}
WEB = ("/audit", "/orgs/", "/sign", "/web/")
"""For browsers, by cookie: `tests/integration/web` asks these."""
VOLATILE = {"x-request-id", "date"}


def routes(world: World) -> list[tuple[str, str, Operation]]:
    """(method, path template, operation) of everything that needs a token."""
    found = []
    for route in world.app.app.routes:
        if route.path.startswith(WEB):
            continue
        for handler in getattr(route, "route_handlers", ()):
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                if route.path in PUBLIC:
                    assert handler.opt["public"] is True
                else:
                    found.append((method, route.path, handler.opt["operation"]))
    return found


def fill_in(template: str, org: str, key: str) -> str:
    return template.replace("{org:str}", org).replace("{key:str}", key)


async def send(world: World, method: str, path: str, role: Role, org: OrgId) -> httpx.Response:
    body: dict[str, Any] = {"json": {}} if method in {"POST", "PUT"} else {}
    return await world.client.request(method, path, headers=world.bearer(role, org), **body)


async def test_every_operation_but_the_two_asked_beside_others_has_a_route(world: World) -> None:
    assert {operation for _, _, operation in routes(world)} == set(Operation) - {
        Operation.ORG_HOSTS,
        Operation.OWNER_WRITE,
    }


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.AUDITOR, Role.MEMBER, Role.BILLING])
async def test_a_role_is_let_in_exactly_where_the_table_says(world: World, role: Role) -> None:
    """The key names nothing, so that what is let in ends in 404, 422, 428 or a list, and changes nothing."""
    asked = 0
    for method, template, operation in routes(world):
        if (
            operation in {Operation.METRICS_READ, Operation.ORG_DELETE}
            or "suspend" in template
            or "log" in template
        ):
            continue
        answer = await send(world, method, fill_in(template, ACME, "nothing"), role, ACME)
        allowed = may({role}, operation, own_org=True)
        assert (answer.status_code == 403) is not allowed, (method, template, answer.text)
        if not allowed:
            assert all(one in answer.json()["detail"] for one in needed(operation))
            assert answer.json()["errors"] == [{"field": "", "message": f"refused by '{operation}'"}]
        asked += 1
    assert asked > 35


async def test_an_operator_is_let_in_everywhere(world: World) -> None:
    for method, template, operation in routes(world):
        if operation is not Operation.ORG_DELETE and "suspend" not in template:
            answer = await send(world, method, fill_in(template, GLOBEX, "nothing"), Role.OPERATOR, PLATFORM)
            assert answer.status_code not in {401, 403}, (method, template)


@pytest.mark.parametrize("role", [Role.OWNER, Role.MEMBER])
async def test_another_organization_answers_as_one_that_never_existed(world: World, role: Role) -> None:
    """Same status, same bytes, same headers, for keys that exist there and keys that do not."""
    await fill(world)
    before = await world.store.version()
    member = world.members[GLOBEX, Role.OWNER].id
    asked = 0
    for method, template, _ in routes(world):
        if "{org:str}" not in template:
            continue
        path = template.split("/")[5] if template.count("/") > 4 else ""
        keys = ["nothing", member if path == "members" else BODIES.get(path, {}).get("name", "gpt")]
        answers = [
            await send(world, method, fill_in(template, org, key), role, ACME)
            for org in ("globex", "neverland", "platform", "NOT%20A%20SLUG")
            for key in keys
        ]
        unknown = await send(world, "GET", "/admin/v1/nothing/of/the/kind", role, ACME)
        shapes = {shape(answer) for answer in [*answers, unknown]}
        assert len(shapes) == 1, (method, template, shapes)
        assert answers[0].status_code == 404
        asked += len(answers)
    assert asked > 250
    assert await world.store.version() == before


def shape(answer: httpx.Response) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    text = re.sub(r'"request_id":"[^"]+"', "", answer.text)
    headers = tuple(sorted((name, value) for name, value in answer.headers.items() if name not in VOLATILE))
    assert "globex" not in answer.text
    return answer.status_code, text, headers


async def test_a_member_id_of_another_organization_is_nobody_here(world: World) -> None:
    there, nowhere = world.members[GLOBEX, Role.MEMBER].id, "mem_00000000000000000000"
    for method, verb in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/invite"),
        ("POST", "/suspend"),
        ("POST", "/revoke"),
    ):
        answers = [await world.ask(method, f"/orgs/acme/members/{one}{verb}") for one in (there, nowhere)]
        assert {shape(answer) for answer in answers} == {shape(answers[0])}
        assert answers[0].status_code == 404


async def test_attempts_are_written_down_in_the_callers_own_log(world: World) -> None:
    await world.ask("POST", "/orgs/acme/suspend", Role.ADMIN)
    await world.ask("GET", "/orgs/globex", Role.ADMIN)
    await world.sequencer.drain_once(world.store)
    items = (await world.ask("GET", "/orgs/acme/audit/entries", params={"action": "admin.refuse"})).json()["items"]
    assert [(item["target"], item["detail"]) for item in items] == [
        ("org.suspend", {"roles": ["admin"]}),
        ("org.read", {"reason": "another organization"}),
    ]
    assert "admin.refuse" not in await world.actions(GLOBEX)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://gateway.example/v1"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
        {"sub": "mem_00000000000000000000"},
        {"org": "globex"},
        {"org": "neverland"},
    ],
)
async def test_a_token_that_is_not_for_this_is_401(world: World, claims: dict[str, Any]) -> None:
    answer = await world.client.get("/admin/v1/me", headers=world.bearer(Role.OWNER, claims=claims))
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer error="invalid_token"')
    assert answer.json()["type"] == "urn:orgate:problem:invalid-token"


async def test_without_a_token_every_route_is_401_and_nothing_is_read(world: World) -> None:
    outside = world.client_from("203.0.113.9")
    for method, template, _ in routes(world):
        answer = await outside.request(method, fill_in(template, ACME, "nothing"), content=b"{")
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), template
    await outside.aclose()


async def test_me_says_who_and_with_which_roles(world: World) -> None:
    member = world.members[ACME, Role.AUDITOR]
    assert (await world.ask("GET", "/me", Role.AUDITOR)).json() == {
        "org": "acme",
        "id": member.id,
        "email": member.email,
        "name": "auditor",
        "roles": ["auditor"],
        "client": "orgate-cli",
        "expires_at": int(world.clock.seconds) + 900,
        "teams": [],
        "leads": [],
    }

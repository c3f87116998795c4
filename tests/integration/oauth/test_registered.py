"""An organization's own clients over HTTP: every flow, and every no by its RFC's code."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient
from msgspec.structs import replace

from gateway.api.oauth import oauth_routes
from gateway.oauth.authorization import PARAMETERS
from gateway.oauth.par import PAGES_S
from policies.facts import Role
from tenants.clients import AuthMethod, GrantType, Plane
from tenants.models import State
from tenants.revocations import revoke_tokens
from tests.integration.oauth.test_pages import Form
from tests.unit.oauth.conftest import ACME, ADA, BY, GLOBEX, ISSUER, PASSWORD, Bench
from tests.unit.oauth.registered import CI, EC, MACHINE, SECRET, account, assertion, basic, jwks, register
from tests.unit.oauth.test_authorization_code import CHALLENGE, VERIFIER

Http = AsyncTestClient[Litestar]
CALLBACK = "https://app.example/cb"
AUTH = {"authorization": basic()}
ASKED = {
    "response_type": "code",
    "client_id": "acme.app",
    "redirect_uri": CALLBACK,
    "state": "xyz",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}
GUS = {"org": "globex", "email": "gus@globex.example", "password": PASSWORD}
ADA_IS = {"org": "acme", "email": "ada@acme.example", "password": PASSWORD}


async def post(client: Http, path: str, form: dict[str, str], **headers: str) -> httpx.Response:
    answer: httpx.Response = await client.post(f"/oauth/{path}", data=form, headers=headers)
    return answer


def no(answer: httpx.Response) -> tuple[int, str]:
    """Status and code of a refusal, which is JSON and kept by nobody."""
    assert answer.headers["cache-control"] == "no-store"
    found = answer.json()
    assert set(found) == {"error", "error_description"}
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Basic ")
    return answer.status_code, found["error"]


async def page(client: Http, query: dict[str, str], **who: str) -> httpx.Response:
    """GET the sign-in page of a request and answer it."""
    shown = await client.get("/oauth/authorize", params=query)
    assert shown.status_code == 200, shown.text
    form = {**Form(shown.text).fields, **ADA_IS, "action": "approve", **who}
    answer: httpx.Response = await client.post("/oauth/authorize", data=form, follow_redirects=False)
    return answer


def back(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 303, answer.text
    location = answer.headers["location"]
    assert location.startswith(CALLBACK + "?")
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def redemption(code: str) -> dict[str, str]:
    return {"grant_type": "authorization_code", "code": code, "redirect_uri": CALLBACK, "code_verifier": VERIFIER}


async def signed_in(client: Http) -> dict[str, Any]:
    code = back(await page(client, ASKED))["code"]
    answer = await post(client, "token", redemption(code), **AUTH)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def introspected(client: Http, token: str, authorization: str = AUTH["authorization"]) -> dict[str, Any]:
    answer = await post(client, "introspect", {"token": token}, authorization=authorization)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found: dict[str, Any] = answer.json()
    return found


async def test_a_confidential_client_goes_through_the_code_flow(client: Http, bench: Bench) -> None:
    await register(bench)
    shown = await client.get("/oauth/authorize", params=ASKED)
    assert "An App (acme)" in shown.text
    code = back(await page(client, ASKED))["code"]
    form = redemption(code)
    for wrong, headers in (
        (form, {}),
        ({**form, "client_id": "acme.app"}, {}),
        ({**form, "client_id": "acme.app", "client_secret": SECRET}, {}),
        (form, {"authorization": basic(secret="x")}),
        (form, {"authorization": "Bearer x"}),
    ):
        assert no(await post(client, "token", wrong, **headers)) == (401, "invalid_client")
    both = {**form, "client_secret": SECRET}
    assert no(await post(client, "token", both, **AUTH)) == (400, "invalid_request")
    assert no(await post(client, "token", {**form, "code_verifier": "w" * 43}, **AUTH)) == (400, "invalid_grant")
    tokens = (await post(client, "token", form, **AUTH)).json()
    claims = bench.signing.own_claims(tokens["access_token"]) or {}
    assert (claims["client_id"], claims["org"], claims["aud"]) == ("acme.app", ACME, f"{ISSUER}/v1")

    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert no(await post(client, "token", refresh)) == (401, "invalid_client")
    stolen = {**refresh, "client_id": "orgate-cli"}
    assert no(await post(client, "token", stolen)) == (400, "invalid_grant")
    assert (await post(client, "token", refresh, **AUTH)).status_code == 200


async def test_people_of_another_organization_find_no_such_client(client: Http, bench: Bench) -> None:
    await register(bench)
    theirs = await page(client, ASKED, **GUS)
    never = await client.get("/oauth/authorize", params={**ASKED, "client_id": "acme.nobody"})
    assert (theirs.status_code, theirs.text) == (never.status_code, never.text)
    assert "location" not in theirs.headers
    asked = await page(client, ASKED, **GUS, action="ask")
    assert (asked.status_code, asked.text) == (never.status_code, never.text)


async def test_a_device_of_an_organizations_client_is_signed_in_by_its_people(client: Http, bench: Bench) -> None:
    grants = (GrantType.DEVICE_CODE, GrantType.REFRESH_TOKEN)
    await register(bench, grant_types=grants, redirect_uris=())
    assert no(await post(client, "device_authorization", {"client_id": "acme.app"})) == (401, "invalid_client")
    device = (await post(client, "device_authorization", {"scope": "inference"}, **AUTH)).json()

    async def decide(code: str, who: dict[str, str]) -> httpx.Response:
        fields = Form((await client.get("/oauth/device")).text).fields
        form = {**fields, **who, "user_code": code, "action": "approve"}
        answer: httpx.Response = await client.post(
            "/oauth/device", data=form, headers={"accept": "application/json"}
        )
        return answer

    theirs, never = await decide(device["user_code"], GUS), await decide("BCDF-GHJK", GUS)
    assert (theirs.status_code, theirs.json()) == (never.status_code, never.json())
    assert theirs.json()["error"] == "invalid_grant"
    assert (await decide(device["user_code"], ADA_IS)).json() == {"status": "approved"}
    form = {"grant_type": GrantType.DEVICE_CODE.value, "device_code": device["device_code"]}
    assert no(await post(client, "token", {**form, "client_id": "acme.app"})) == (401, "invalid_client")
    assert (await post(client, "token", form, **AUTH)).status_code == 200


async def test_a_client_asks_with_what_it_is_registered_for(client: Http, bench: Bench) -> None:
    await register(bench)
    form = {"grant_type": "client_credentials"}
    assert no(await post(client, "token", form, **AUTH)) == (400, "unauthorized_client")
    assert no(await post(client, "device_authorization", {"scope": "x"}, **AUTH)) == (400, "unauthorized_client")
    assert no(await post(client, "token", {"grant_type": "password"}, **AUTH)) == (400, "unsupported_grant_type")
    assert no(await post(client, "token", {"scope": "x"}, **AUTH)) == (400, "invalid_request")
    await account(bench)
    await register(bench, "machine", **MACHINE)
    query = {**ASKED, "client_id": "acme.machine"}
    assert (await client.get("/oauth/authorize", params=query)).status_code == 400  # it has no redirect URI


async def test_a_refresh_token_is_for_a_client_that_asked_for_them(client: Http, bench: Bench) -> None:
    await register(bench, grant_types=(GrantType.AUTHORIZATION_CODE,))
    tokens = await signed_in(client)
    assert "refresh_token" not in tokens


async def test_a_service_account_gets_tokens_with_its_clients_credentials(client: Http, bench: Bench) -> None:
    await account(bench, roles=(Role.MEMBER, Role.AUDITOR))
    await register(bench, **{**MACHINE, "planes": (Plane.ADMIN, Plane.DATA)})
    form = {"grant_type": "client_credentials"}
    assert no(await post(client, "token", {**form, "client_id": "acme.app"})) == (401, "invalid_client")
    answer = await post(client, "token", form, **AUTH)
    assert set(answer.json()) == {"access_token", "token_type", "expires_in", "scope"}
    claims = bench.signing.own_claims(answer.json()["access_token"]) or {}
    assert (claims["sub"], claims["roles"], claims["aud"]) == (CI, ["member", "auditor"], f"{ISSUER}/v1")
    admin = await post(client, "token", {**form, "resource": f"{ISSUER}/admin", "scope": "admin"}, **AUTH)
    assert admin.json()["scope"] == "admin"
    assert no(await post(client, "token", {**form, "resource": "https://x"}, **AUTH)) == (400, "invalid_target")
    assert no(await post(client, "token", {**form, "scope": "root"}, **AUTH)) == (400, "invalid_scope")
    noted = [change for change in await bench.noted() if change.action == "session.create"]
    assert {(one.target, one.actor.client, one.detail["grant"]) for one in noted} == {
        (CI, "acme.app", "client_credentials")
    }

    services = bench.control.for_org(ACME).services
    one = await services.get(CI)
    await services.replace(replace(one, state=State.SUSPENDED), 1, BY)
    assert no(await post(client, "token", form, **AUTH)) == (400, "invalid_grant")
    await services.replace(one, 2, BY)
    again = (await post(client, "token", form, **AUTH)).json()
    fresh = bench.signing.own_claims(again["access_token"]) or {}
    assert fresh["iat"] >= (await services.get(CI)).not_before > claims["iat"]


async def test_a_pushed_request_is_taken_once_by_its_client(client: Http, bench: Bench) -> None:
    await register(bench)
    await register(bench, "other")
    answer = await post(client, "par", {**ASKED, "extra": "ignored"}, **AUTH)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    pushed = answer.json()
    assert pushed["expires_in"] <= 60
    uri = pushed["request_uri"]

    for query in (
        {"client_id": "acme.other", "request_uri": uri},
        {"client_id": "orgate-cli", "request_uri": uri},
        {"request_uri": uri},
        {"client_id": "acme.app", "request_uri": uri + "x"},
        {"client_id": "acme.app", "request_uri": "https://evil.example/request"},
    ):
        refused = await client.get("/oauth/authorize", params=query, follow_redirects=False)
        assert (refused.status_code, "location" in refused.headers) == (400, False)

    # What else the query says counts for nothing.
    evil = {"client_id": "acme.app", "request_uri": uri, "redirect_uri": "https://evil.example/", "state": "evil"}
    shown = await client.get("/oauth/authorize", params=evil)
    fields = Form(shown.text).fields
    assert (fields["redirect_uri"], fields["state"]) == (CALLBACK, "xyz")
    again = await client.get("/oauth/authorize", params=evil, follow_redirects=False)
    assert (again.status_code, "location" in again.headers) == (400, False)

    bench.now += 90  # the person takes longer than the request lives
    form = {**fields, **ADA_IS, "action": "approve"}
    for name in set(PARAMETERS) & fields.keys() - {"pushed", "client_id", "redirect_uri"}:
        changed = await client.post(
            "/oauth/authorize", data={**form, name: fields[name] + "x"}, follow_redirects=False
        )
        assert back(changed)["error"] == "invalid_request", name
    done = back(await client.post("/oauth/authorize", data=form, follow_redirects=False))
    assert (await post(client, "token", redemption(done["code"]), **AUTH)).status_code == 200


async def test_a_pushed_request_does_not_wait_for_ever(client: Http, bench: Bench) -> None:
    await register(bench)
    uri = (await post(client, "par", ASKED, **AUTH)).json()["request_uri"]
    bench.now += 60
    query = {"client_id": "acme.app", "request_uri": uri}
    assert (await client.get("/oauth/authorize", params=query)).status_code == 400


async def test_the_mark_of_a_pushed_request_ends(client: Http, bench: Bench) -> None:
    await register(bench, require_par=True)
    uri = (await post(client, "par", ASKED, **AUTH)).json()["request_uri"]
    shown = await client.get("/oauth/authorize", params={"client_id": "acme.app", "request_uri": uri})
    marked = {name: value for name, value in Form(shown.text).fields.items() if name in PARAMETERS}
    until, _, mac = marked["pushed"].partition(".")
    bench.now += PAGES_S - 1
    assert (await client.get("/oauth/authorize", params=marked)).status_code == 200
    longer = f"{int(until) + 3_600}.{mac}"
    for forged in (longer, f"0{until}.{mac}", f".{mac}", mac, "x.y", until):
        answer = await client.get("/oauth/authorize", params={**marked, "pushed": forged}, follow_redirects=False)
        assert "not the request" in back(answer)["error_description"], forged
    bench.now += 1
    answer = await client.get("/oauth/authorize", params=marked, follow_redirects=False)
    assert "too long ago" in back(answer)["error_description"]


async def test_nobody_fills_a_public_client_s_place_for_others(
    client: Http, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.oauth.par.PUBLIC_FROM_AN_ADDRESS", 2)
    monkeypatch.setattr("gateway.oauth.par.MAX_WAITING", 1)
    await bench.start()
    await register(bench)
    public = {**ASKED, "client_id": "orgate-cli", "redirect_uri": "http://127.0.0.1:9/callback"}
    editor = {**public, "client_id": "orgate-editor"}
    app = Litestar(route_handlers=oauth_routes(bench.service), openapi_config=None, logging_config=None)
    async with AsyncTestClient(app, base_url=ISSUER) as filling:
        filling.headers["x-orgate-client"] = "192.0.2.66"
        for _ in range(2):
            assert (await post(filling, "par", public)).status_code == 201
        refused = await post(filling, "par", public)
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        assert (await post(filling, "par", editor)).status_code == 201
        filling.headers["x-orgate-client"] = "192.0.2.67"
        assert (await post(filling, "par", public)).status_code == 201
        # One that authenticates answers for itself, from wherever.
        assert (await post(filling, "par", ASKED, **AUTH)).status_code == 201
        assert no(await post(filling, "par", ASKED, **AUTH)) == (503, "temporarily_unavailable")
        bench.now += 60
        filling.headers["x-orgate-client"] = "192.0.2.66"
        assert (await post(filling, "par", public)).status_code == 201


async def test_what_could_only_be_refused_is_not_taken(client: Http, bench: Bench) -> None:
    await register(bench)
    for changes, code in (
        ({"redirect_uri": "https://evil.example/"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"scope": "root"}, "invalid_scope"),
        ({"resource": "https://evil.example"}, "invalid_target"),
        ({"request_uri": "urn:ietf:params:oauth:request_uri:x"}, "invalid_request"),
        ({"request": "e30.e30."}, "invalid_request"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"state": "s" * 2_000}, "invalid_request"),
        ({"client_id": "acme.other"}, "invalid_request"),
    ):
        assert no(await post(client, "par", {**ASKED, **changes}, **AUTH)) == (400, code), changes
    assert no(await post(client, "par", ASKED)) == (401, "invalid_client")
    twice = await client.post(
        "/oauth/par",
        content=b"client_id=a&client_id=b",
        headers={"content-type": "application/x-www-form-urlencoded", **AUTH},
    )
    assert no(twice) == (400, "invalid_request")
    public = {**ASKED, "client_id": "orgate-cli", "redirect_uri": "http://127.0.0.1:9/callback"}
    assert (await post(client, "par", public)).status_code == 201


async def test_a_client_that_pushes_has_to(client: Http, bench: Bench) -> None:
    await register(bench, require_par=True)
    answer = await client.get("/oauth/authorize", params=ASKED, follow_redirects=False)
    assert back(answer)["error"] == "invalid_request"
    forged = await client.get("/oauth/authorize", params={**ASKED, "pushed": "A" * 43}, follow_redirects=False)
    assert back(forged)["error"] == "invalid_request"
    uri = (await post(client, "par", ASKED, **AUTH)).json()["request_uri"]
    assert "code" in back(await page(client, {"client_id": "acme.app", "request_uri": uri}))


async def test_an_assertion_counts_at_every_endpoint_and_once(client: Http, bench: Bench) -> None:
    await register(bench, auth_method=AuthMethod.PRIVATE_KEY_JWT, jwks=jwks(EC))
    first = assertion(bench)
    assert (await post(client, "par", {**ASKED, **first})).status_code == 201
    for path in ("par", "token", "introspect", "revoke", "device_authorization"):
        assert no(await post(client, path, {**first, "token": "x"})) == (401, "invalid_client")
    second = assertion(bench, jti="two", aud=f"{ISSUER}/oauth/token")
    assert (await post(client, "introspect", {**second, "token": "x"})).json() == {"active": False}


async def test_introspection_tells_a_client_of_its_organizations_tokens(client: Http, bench: Bench) -> None:
    await register(bench)
    tokens = await signed_in(client)
    told = await introspected(client, tokens["access_token"])
    assert told["active"] is True
    assert (told["sub"], told["client_id"], told["scope"], told["aud"]) == (
        ADA,
        "acme.app",
        "inference",
        f"{ISSUER}/v1",
    )
    assert told["token_type"] == "Bearer"
    assert "email" not in told
    refresh = await introspected(client, tokens["refresh_token"])
    assert (refresh["active"], refresh["sub"], refresh["client_id"]) == (True, ADA, "acme.app")
    cli = await bench.login()
    assert (await introspected(client, cli["access_token"]))["client_id"] == "orgate-cli"


async def test_of_everything_else_introspection_says_that_it_does_not_count(client: Http, bench: Bench) -> None:
    await register(bench)
    await register(bench, "portal", planes=(Plane.ADMIN,))
    await register(bench, "app", GLOBEX)
    tokens = await signed_in(client)
    cli = await bench.login()
    inactive = {"active": False}
    head, body, signature = tokens["access_token"].split(".")
    for token in ("", "x", "a.b.c", f"{head}.{body}.{signature[::-1]}", "ogr_" + "A" * 86, cli["refresh_token"]):
        if token:
            assert await introspected(client, token) == inactive
    for other in (basic("globex.app"), basic("acme.portal")):
        assert await introspected(client, tokens["access_token"], other) == inactive
        assert await introspected(client, tokens["refresh_token"], other) == inactive
    for form, headers, expected in (
        ({"token": tokens["access_token"]}, {}, (401, "invalid_client")),
        ({"token": tokens["access_token"], "client_id": "orgate-cli"}, {}, (401, "invalid_client")),
        ({}, AUTH, (400, "invalid_request")),
    ):
        assert no(await post(client, "introspect", form, **headers)) == expected


async def test_what_was_taken_back_does_not_count(client: Http, bench: Bench) -> None:
    await register(bench)
    control = bench.control.for_org(ACME)

    async def good(tokens: dict[str, Any]) -> list[bool]:
        pair = tokens["access_token"], tokens["refresh_token"]
        return [(await introspected(client, token))["active"] for token in pair]

    tokens = await signed_in(client)
    assert await good(tokens) == [True, True]
    await post(client, "revoke", {"token": tokens["access_token"]}, **AUTH)
    assert await good(tokens) == [False, True]
    await post(client, "revoke", {"token": tokens["refresh_token"]}, **AUTH)
    assert await good(tokens) == [False, False]

    bench.now += 2
    tokens = await signed_in(client)
    await control.revoke(revoke_tokens(ACME, bench.now, member="acme.app"), BY)
    assert await good(tokens) == [False, True]
    assert (await signed_in(client))["access_token"]  # the next one counts, of this very second too
    bench.now += 2
    tokens = await signed_in(client)
    await control.revoke(revoke_tokens(ACME, bench.now, member=ADA), BY)
    assert (await good(tokens))[0] is False
    bench.now += 2
    tokens = await signed_in(client)
    bench.now += 901
    assert await good(tokens) == [False, True]
    await bench.suspend()
    assert await good(tokens) == [False, False]


async def test_a_token_is_taken_back_by_its_own_client(client: Http, bench: Bench) -> None:
    await register(bench)
    await register(bench, "other")
    tokens = await signed_in(client)
    for kind in ("access_token", "refresh_token"):
        form = {"token": tokens[kind]}
        assert no(await post(client, "revoke", form)) == (401, "invalid_client")
        theirs = await post(client, "revoke", form, authorization=basic("acme.other"))
        assert no(theirs) == (400, "invalid_grant")
        assert (await introspected(client, tokens[kind]))["active"] is True
    assert (await post(client, "revoke", {"token": "unknown"}, **AUTH)).status_code == 200


async def test_what_a_deleted_client_began_is_not_its_successors(client: Http, bench: Bench) -> None:
    await register(bench)
    tokens = await signed_in(client)
    clients = bench.control.for_org(ACME).clients
    await clients.delete("app", 1, BY)
    form = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert no(await post(client, "token", form, **AUTH)) == (401, "invalid_client")
    bench.now += 5
    await register(bench)
    assert no(await post(client, "token", form, **AUTH)) == (400, "invalid_grant")
    assert (await introspected(client, tokens["refresh_token"]))["active"] is False


async def test_a_client_that_ends_takes_what_it_began_along(client: Http, bench: Bench) -> None:
    await register(bench)
    tokens = await signed_in(client)
    code = back(await page(client, ASKED))["code"]
    uri = (await post(client, "par", ASKED, **AUTH)).json()["request_uri"]
    cli = await bench.login()
    assert await bench.service.end_client("acme.app") == 1
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    assert no(await post(client, "token", refresh, **AUTH)) == (400, "invalid_grant")
    assert no(await post(client, "token", redemption(code), **AUTH)) == (400, "invalid_grant")
    query = {"client_id": "acme.app", "request_uri": uri}
    assert (await client.get("/oauth/authorize", params=query)).status_code == 400
    assert (await bench.refresh(cli["refresh_token"]))["access_token"]  # another client's session goes on

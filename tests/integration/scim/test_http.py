"""Requests that are none: media types, bodies, methods, paths, parameters. SCIM's own error, never a 500."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.api.scim import users
from gateway.api.scim.discovery import MAX_BODY
from tests.integration.scim.client import Scim


async def test_paths_and_methods(acme: Scim) -> None:
    for path in (
        "/Nothing",
        "/Users/a/b",
        "/Schemas/urn:nosuch",
        "/ResourceTypes/user",
        "/Bulk/x",
        "/users.",
        "//x",
    ):
        await acme.refused(404, "GET", path)
    for path in ("/Users", "/USERS/", "/users", "/Schemas/urn:ietf:params:scim:schemas:core:2.0:User", ""):
        assert (await acme.ask("GET", path)).status_code == 200, path
    answer = await acme.ask("DELETE", "/Users")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")
    for method, path in (("PUT", "/Groups"), ("POST", "/Schemas"), ("GET", "/Bulk"), ("OPTIONS", "/Users")):
        await acme.refused(405, method, path)
    for method in ("GET", "DELETE"):
        await acme.refused(501, method, "/Me")
    await acme.refused(501, "PATCH", "/Me", json={})
    for path in ("/Schemas", "/ResourceTypes", "/ServiceProviderConfig"):
        await acme.refused(403, "GET", path, params={"filter": 'id eq "x"'})
    outside = await acme.world.client.get("/scim", headers={"authorization": f"Bearer {acme.secret}"})
    assert outside.status_code == 404


async def test_what_the_server_says_of_itself(acme: Scim) -> None:
    config = await acme.good("GET", "/ServiceProviderConfig")
    assert config["bulk"]["maxPayloadSize"] == MAX_BODY
    assert (config["sort"]["supported"], config["etag"]["supported"]) == (False, True)
    listed = await acme.good("GET", "/Schemas")
    for one in listed["Resources"]:
        assert await acme.good("GET", f"/Schemas/{one['id']}") == one
    answer = await acme.ask("GET", "/Users")
    assert answer.headers["content-type"] == "application/scim+json"
    assert answer.headers["cache-control"] == "no-store"


async def test_parameters_that_are_not_known_are_passed_over(acme: Scim) -> None:
    assert (await acme.ask("GET", "/Users?aadOptscim062020&sortBy=userName&x=%ff")).status_code == 200
    await acme.refused(400, "GET", "/Users?count=1&COUNT=2", "invalidSyntax")
    await acme.refused(400, "GET", "/Users?" + "&".join(f"a{n}" for n in range(60)), "invalidSyntax")
    await acme.refused(400, "GET", "/Users?filter=userName+eq+%22%ff%00%22+x", "invalidFilter")


BODIES: list[tuple[bytes, dict[str, str], int, str]] = [
    (b"", {}, 400, "invalidSyntax"),
    (b"{", {}, 400, "invalidSyntax"),
    (b"\xff\xfe", {}, 400, "invalidSyntax"),
    (b"[" * 100_000, {}, 400, "invalidSyntax"),
    (b'{"a":' * 50_000, {}, 400, "invalidSyntax"),
    (b"[]", {}, 400, "invalidSyntax"),
    (b"null", {}, 400, "invalidSyntax"),
    (b'{"userName": {"a": 1}}', {}, 400, "invalidValue"),
    (b'{"userName": "a\\u0000b@x.example"}', {}, 400, "invalidValue"),
    (b'{"userName": "\\ud800@x.example"}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a@x.example", "USERNAME": "b@x.example"}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a@x.example", "emails": "a"}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a@x.example", "emails": [[1]]}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a@x.example", "active": 1e400}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a@x.example", "schemas": ["urn:x"]}', {}, 400, "invalidValue"),
    (b'{"userName": "a@x.example", "schemas": "x"}', {}, 400, "invalidSyntax"),
    (b'{"userName": "a b@x.example"}', {}, 400, "invalidValue"),
    (b'{"userName": "%s@x.example"}' % (b"a" * 250), {}, 400, "invalidValue"),
    (b'{"userName": "a@x.example", "displayName": "%s"}' % (b"a" * 240), {}, 400, "invalidValue"),
    (b" " * (MAX_BODY + 1), {}, 413, ""),
    (b"{}", {"content-type": "text/plain"}, 415, ""),
    (b"{}", {"content-type": ""}, 415, ""),
    (b"{}", {"content-encoding": "gzip"}, 415, ""),
]


async def test_bodies(acme: Scim) -> None:
    for body, more, status, scim_type in BODIES:
        headers = {"content-type": "application/scim+json; charset=utf-8", **more}
        await acme.refused(status, "POST", "/Users", scim_type, content=body, headers=headers)


async def test_plain_json_is_taken_too(acme: Scim) -> None:
    headers = {"content-type": "application/json"}
    answer = await acme.ask("POST", "/Users", content=b'{"userName":"a@acme.example"}', headers=headers)
    assert answer.status_code == 201


async def test_searches(acme: Scim) -> None:
    wrong: list[Any] = [
        [],
        {"filter": 5},
        {"attributes": "id"},
        {"count": "x"},
        {"schemas": ["urn:x"]},
        {"startIndex": 1.5},
    ]
    for body in wrong:
        assert (await acme.ask("POST", "/Users/.search", json=body)).status_code == 400, body
    assert (await acme.good("POST", "/Groups/.search", json={"count": 5}))["totalResults"] == 0


async def test_a_fault_of_ours_says_nothing_of_it(acme: Scim, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret of the house")

    monkeypatch.setattr(users, "described", broken)
    detail = await acme.refused(500, "POST", "/Users", json={"userName": "a@acme.example"})
    assert "house" not in detail
    bulk = {
        "Operations": [{"method": "POST", "path": "/Users", "bulkId": "a", "data": {"userName": "a@acme.example"}}]
    }
    told = await acme.good("POST", "/Bulk", json=bulk)
    assert told["Operations"][0]["status"] == "500"

"""Bulk: in order, with references, and within its limits."""

from __future__ import annotations

from typing import Any

from gateway.api.scim.bulk import BULK_REQUEST, MAX_OPERATIONS
from gateway.api.scim.discovery import MAX_BODY
from tests.integration.scim.client import Scim


def post(bulk_id: str, path: str, **data: Any) -> dict[str, Any]:
    return {"method": "POST", "path": path, "bulkId": bulk_id, "data": data}


async def run(acme: Scim, *operations: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    body = {"schemas": [BULK_REQUEST], "Operations": list(operations), **more}
    answer = await acme.good("POST", "/Bulk", json=body)
    assert answer["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:BulkResponse"]
    found: list[dict[str, Any]] = answer["Operations"]
    return found


async def test_what_refers_to_a_later_one_waits_for_it(acme: Scim) -> None:
    team = post("t", "/Groups", displayName="Team", members=[{"value": "bulkId:a"}])
    patch = {
        "method": "patch",
        "path": "/Users/bulkId:a",
        "data": {"Operations": [{"op": "replace", "path": "displayName", "value": "Ann"}]},
    }
    told = await run(acme, team, post("a", "/Users", userName="ann@acme.example"), patch)
    assert [(one["method"], one.get("bulkId"), one["status"]) for one in told] == [
        ("POST", "a", "201"),
        ("POST", "t", "201"),
        ("PATCH", None, "200"),
    ]
    (ann,) = await acme.found("Users", 'displayName eq "Ann"')
    assert told[0]["location"].endswith(ann)
    group = await acme.good("GET", "/Groups/" + told[1]["location"].rpartition("/")[2])
    assert [one["value"] for one in group["members"]] == [ann]
    gone = await run(acme, {"method": "DELETE", "path": f"/Users/{ann}", "version": 'W/"1"'})
    assert gone[0]["response"]["status"] == gone[0]["status"] == "412"


async def test_circles_and_references_to_what_failed(acme: Scim) -> None:
    told = await run(
        acme,
        post("x", "/Groups", displayName="X", members=[{"value": "bulkId:y"}]),
        post("y", "/Groups", displayName="Y", members=[{"value": "bulkId:x"}]),
        post("bad", "/Users", userName="bad"),
        post("z", "/Groups", displayName="Z", members=[{"value": "bulkId:bad"}]),
        post("good", "/Users", userName="good@acme.example"),
    )
    assert {one["bulkId"]: one["status"] for one in told} == {
        "bad": "400",
        "good": "201",
        "x": "409",
        "y": "409",
        "z": "409",
    }
    assert next(one for one in told if one["bulkId"] == "bad")["response"]["scimType"] == "invalidValue"


async def test_it_stops_at_so_many_errors(acme: Scim) -> None:
    wrong = [post(str(number), "/Users", userName="x") for number in range(4)]
    told = await run(acme, *wrong, post("last", "/Users", userName="a@acme.example"), failOnErrors=2)
    assert [one["status"] for one in told] == ["400", "400"]
    assert await acme.found("Users", 'userName eq "a@acme.example"') == []


async def test_data_that_is_nested_too_deeply(acme: Scim) -> None:
    for begins, ends in (("[" * 700, "]" * 700), ('{"a":' * 700, "}" * 700)):
        one = f'"method":"POST","path":"/Users","bulkId":"a","data":{begins}"bulkId:a"{ends}'
        sent = {"content": f'{{"Operations":[{{{one}}}]}}', "headers": {"content-type": "application/scim+json"}}
        assert "nested" in await acme.refused(400, "POST", "/Bulk", "invalidSyntax", **sent)


async def test_what_is_no_bulk(acme: Scim) -> None:
    many = {"Operations": [post(str(n), "/Users", userName="x") for n in range(MAX_OPERATIONS + 1)]}
    await acme.refused(413, "POST", "/Bulk", "tooMany", json=many)
    await acme.refused(413, "POST", "/Bulk", json={"Operations": ["x" * MAX_BODY]})
    twice = {"Operations": [post("a", "/Users"), post("a", "/Users")]}
    await acme.refused(400, "POST", "/Bulk", "invalidValue", json=twice)
    for wrong in (
        {"method": "GET", "path": "/Users"},
        {"method": "POST", "path": "/Users"},
        {"method": "POST", "path": "/Bulk", "bulkId": "a"},
        {"method": "POST", "path": "/Schemas", "bulkId": "a"},
        {"method": "POST", "path": "/Users/../Bulk", "bulkId": "a"},
        {"method": 5, "path": "/Users"},
        "x",
    ):
        assert (await acme.ask("POST", "/Bulk", json={"Operations": [wrong]})).status_code == 400, wrong
    none: list[Any] = [{}, {"Operations": []}, {"Operations": [post("a", "/Users")], "failOnErrors": 0}, []]
    for body in none:
        assert (await acme.ask("POST", "/Bulk", json=body)).status_code == 400, body
    told = await run(acme, post("a", "/Users/mem_a", userName="x"))
    assert told[0]["status"] == "405"

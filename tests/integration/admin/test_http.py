"""HTTP itself: methods, bodies, ids, problems for everything, the schema, and the platform's own pages."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.api.admin.request import MAX_BODY
from gateway.counters import Counters
from policies.facts import Role
from tenants.store import StoreUnavailableError
from tests.integration.admin.world import UPSTREAM, World

JSON = {"content-type": "application/json"}

WITHOUT_VERSION = (
    *("/key", "/key/schedule", "/cert", "/webhook", "/secret", "/hold", "/members/{member}", "/lead"),
    *("/sessions/{key}", "/personal-tokens/{key}", "/idp/links/{key}", "/scim/tokens/{key}"),
)
"""What has no version that somebody could have changed meanwhile, or is set as a whole."""


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"", JSON, 400),
        (b"{", JSON, 400),
        (b"[" * 100_000, JSON, 422),
        (b'{"name": "\xff"}', JSON, 400),
        (b'{"name": "\\ud800", "base_url": "https://x.example"}', JSON, 400),
        (b"name=x", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{}", {"content-type": "text/plain"}, 415),
        (b"{}", {}, 415),
        (b"{}", {**JSON, "content-encoding": "gzip"}, 415),
        (b" " * (MAX_BODY + 1), JSON, 413),
        (b"null", JSON, 422),
    ],
)
async def test_a_body_that_cannot_be_read_says_why(
    world: World, content: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await world.ask("POST", "/orgs/acme/upstreams", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["x-request-id"]


async def test_a_wrong_method_is_405_with_what_is_allowed(world: World) -> None:
    answer = await world.ask("PATCH", "/orgs/acme/upstreams")
    assert (answer.status_code, answer.json()["type"]) == (405, "urn:orgate:problem:method-not-allowed")
    assert set(answer.headers["allow"].split(", ")) == {"GET", "POST", "OPTIONS"}


async def test_an_unknown_path_is_a_404_problem(world: World) -> None:
    for path in ("/", "/admin", "/admin/v2", "/admin/v1/orgs/acme/groups", "/admin/v1/orgs/acme/upstreams/a/b/c"):
        answer = await world.client.get(path, headers=world.bearer(Role.OWNER))
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json"), path


async def test_a_sane_request_id_is_kept_and_another_replaced(world: World) -> None:
    kept = await world.ask("GET", "/me", headers={"x-request-id": "trace-12345678"})
    assert kept.headers.get_list("x-request-id") == ["trace-12345678"]
    for given in ("short", "with spaces in it", "x" * 65):
        answer = await world.ask("GET", "/nothing", headers={"x-request-id": given})
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_every_response_forbids_caching_and_sniffing(world: World) -> None:
    for path in ("/me", "/nothing", "/orgs/globex"):
        answer = await world.ask("GET", path)
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == (
            "no-store",
            "nosniff",
        )


async def test_what_nobody_expected_is_a_problem_and_its_words_stay_inside(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> Any:
        raise KeyError("PLANTED")

    app = world.replaced(probe=type("Broken", (), {"probe": broken})())
    await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)
    async with world.client_from("127.0.0.1", app) as client:
        answer = await client.post("/admin/v1/orgs/acme/upstreams/gpt/test", headers=world.bearer(Role.OWNER))
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:orgate:problem:internal-error")
    assert "PLANTED" not in answer.text + caplog.text
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "KeyError at test_http.py:" in record.getMessage()
    assert answer.json()["request_id"] in record.getMessage()


async def test_a_store_that_is_down_is_503(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def down(*_: object, **__: object) -> Any:
        raise StoreUnavailableError("/srv/control.db is locked")

    monkeypatch.setattr(type(world.store.for_org(world.members["acme", Role.OWNER].org).limits), "page", down)
    answer = await world.ask("GET", "/orgs/acme/limits")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "/srv" not in answer.text


async def test_a_change_that_is_written_is_not_called_failed_when_the_version_cannot_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down() -> int:
        raise StoreUnavailableError("locked")

    monkeypatch.setattr(world.store, "version", down)
    assert (await world.ask("POST", "/orgs/acme/upstreams", json=UPSTREAM)).status_code == 201


async def test_the_schema_documents_every_operation(world: World) -> None:
    answer = await world.client.get("/admin/schema")
    schema = answer.json()
    assert schema == (await world.client.get("/admin/schema/openapi.json")).json()
    assert schema["openapi"].startswith("3.1")
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    seen = []
    for path, item in schema["paths"].items():
        for method, operation in item.items():
            seen.append(operation["operationId"])
            assert operation["summary"], (path, method)
            if "security" in operation:
                assert {"401", "403", "404", "503"} <= operation["responses"].keys()
                problem = operation["responses"]["401"]["content"]["application/problem+json"]
                assert problem["schema"]["$ref"].endswith("/Problem")
            if "requestBody" in operation:
                assert {"400", "413", "415", "422"} <= operation["responses"].keys()
                assert "application/json" in operation["requestBody"]["content"]
            if method in {"put", "delete"} and not path.endswith(WITHOUT_VERSION):
                assert "428" in operation["responses"]
                assert "If-Match" in [parameter["name"] for parameter in operation["parameters"]]
    assert len(seen) == len(set(seen))
    assert {"createUpstream", "putUpstreamKey", "listAuditEntries", "suspendMember", "getMe", "replaceOrg"} <= set(
        seen
    )
    filters = [one["name"] for one in schema["paths"]["/admin/v1/orgs/{org}/limits"]["get"]["parameters"]]
    assert {"after", "limit", "scope", "unit", "subject"} <= set(filters)
    body = schema["paths"]["/admin/v1/orgs/{org}/upstreams"]["post"]["requestBody"]["content"]["application/json"]
    assert body["schema"]["$ref"].endswith("UpstreamBody")
    assert "<script" not in json.dumps(schema)


async def test_no_page_with_scripts_is_served(world: World) -> None:
    for path in ("/schema", "/docs", "/admin/schema/redoc", "/admin/schema/swagger", "/admin/schema/elements"):
        answer = await world.client.get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")


async def test_metrics_are_for_operators_and_for_this_machine(world: World) -> None:
    counters = Counters()
    counters.add("orgate_requests_total", ("acme", "chat", "served"))
    world.metrics.absorb(counters.message("w", "b"))
    local = await world.client.get("/metrics")
    assert local.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "orgate_requests" in {family.name for family in text_string_to_metric_families(local.text)}
    assert (await world.client.get("/metrics", headers={"x-forwarded-for": "203.0.113.9"})).status_code == 401
    async with world.client_from("203.0.113.9") as outside:
        assert (await outside.get("/metrics")).status_code == 401
        assert (await outside.get("/metrics", headers=world.bearer(Role.OWNER))).status_code == 403
        assert (await outside.get("/metrics", headers=world.bearer(Role.OPERATOR))).status_code == 200
    async with world.client_from("/run/socket") as nameless:
        assert (await nameless.get("/metrics")).status_code == 401


async def test_liveness_and_readiness(world: World) -> None:
    assert (await world.client.get("/livez")).text == "ok\n"
    assert (await world.client.get("/readyz")).status_code == 200
    world.unready.append("the audit disk is full")
    answer = await world.client.get("/readyz")
    assert (answer.status_code, answer.text) == (503, "the audit disk is full\n")


async def test_status_shows_what_each_worker_serves(world: World) -> None:
    stream = world.hub.attach("worker-1")
    await anext(stream)
    version = world.hub.snapshot.version
    world.hub.ack("worker-1", version)
    status = (await world.ask("GET", "/status", Role.OPERATOR)).json()
    await stream.aclose()
    assert (status["version"], status["published"]) == (version, version)
    assert [(one["worker"], one["version"], one["state"]) for one in status["workers"]] == [
        ("worker-1", version, "live")
    ]
    assert (await world.ask("GET", "/status")).status_code == 403

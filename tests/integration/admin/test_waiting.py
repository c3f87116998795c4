"""The admin listener of a control process that waits for its keys."""

from __future__ import annotations

import httpx
import pytest

from gateway.api.admin.waiting import waiting_app


def client(host: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(waiting_app(lambda: 42), client=(host, 40_000))
    return httpx.AsyncClient(transport=transport, base_url="https://127.0.0.1:8444")


async def test_it_lives_is_not_ready_and_says_how_much_waits() -> None:
    async with client() as asking:
        assert (await asking.get("/livez")).status_code == 200
        ready = await asking.get("/readyz")
        assert (ready.status_code, ready.text) == (503, "the platform's own keys wait for Vault's Transit\n")
        metrics = await asking.get("/metrics")
    assert metrics.status_code == 200
    assert {"orgate_audit_waiting_receipts 42", "orgate_keys_waiting 1"} <= set(metrics.text.splitlines())


@pytest.mark.parametrize("path", ["/admin/v1/status", "/admin/v1/orgs/acme/members", "/", "/scim/v2/acme/Users"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_everything_else_is_told_to_come_back(path: str, method: str) -> None:
    async with client() as asking:
        answer = await asking.request(method, path, headers={"x-request-id": "req-of-mine"})
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["request_id"] == "req-of-mine"


@pytest.mark.parametrize("headers", [{}, {"x-forwarded-for": "203.0.113.9"}])
async def test_figures_are_for_this_machine_alone(headers: dict[str, str]) -> None:
    async with client("127.0.0.1" if headers else "203.0.113.9") as asking:
        assert (await asking.get("/metrics", headers=headers)).status_code == 503

"""What `orgate upstream test` is told: never that a key was taken which is not there."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from gateway.exchange import Credential
from gateway.secret import Secret
from gateway.upstream.probe import UpstreamProbe
from tenants.ids import OrgId
from tenants.models import Upstream


class _Answering(httpx.AsyncBaseTransport):
    def __init__(self, status: int) -> None:
        self.status = status
        self.asked: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return httpx.Response(self.status, content=b"")

    def for_upstream(self, upstream: Upstream) -> httpx.AsyncBaseTransport:
        return self


class _NoTokens:
    async def fetched(self, upstream: Upstream, client: Credential) -> Credential:
        raise AssertionError("no token is needed here")


@pytest.mark.parametrize(
    ("status", "key", "ok", "says"),
    [
        (200, True, True, "takes the key"),
        (200, False, True, "no key is set"),
        (401, True, False, "refuses the key"),
        (401, False, False, "wants a key"),
        (404, False, False, "check base_url"),
    ],
)
def test_it_says_whether_a_key_was_sent(status: int, key: bool, ok: bool, says: str) -> None:
    transport = _Answering(status)
    upstream = Upstream(org=OrgId("acme"), name="vllm", base_url="https://models.example/v1")
    credential = Credential(1, Secret("sk-1")) if key else None
    found = asyncio.run(UpstreamProbe(transport, lambda: 0, _NoTokens(), lambda: 0.0).probe(upstream, credential))
    assert (found.ok, found.status) == (ok, status)
    assert says in found.detail
    assert [("authorization" in request.headers) for request in transport.asked] == [key]
    assert str(transport.asked[0].url) == "https://models.example/v1/models"

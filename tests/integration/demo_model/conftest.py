"""The demo model in the test's own event loop, over TLS on a free port, with one key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest

from gateway.demo_model.routes import Routes, key_digests
from gateway.demo_model.server import DemoModel, server_context
from tests.kit.certs import Pki, make_pki

KEY = "sk-demo-upstream"
BEARER = ("authorization", f"Bearer {KEY}")


@dataclass(frozen=True)
class Running:
    """`http`: an httpx client with the key, HTTP/2 when the server lets it choose."""

    pki: Pki
    routes: Routes
    port: int
    url: str
    http: httpx.AsyncClient


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("demo-model") / "tls")


@pytest.fixture
async def demo(pki: Pki) -> AsyncIterator[Running]:
    async for running in _serving(pki, tls=True):
        yield running


@pytest.fixture
async def clear_text_demo(pki: Pki) -> AsyncIterator[Running]:
    async for running in _serving(pki, tls=False):
        yield running


async def _serving(pki: Pki, *, tls: bool) -> AsyncIterator[Running]:
    routes = Routes(keys=key_digests(KEY), max_body_bytes=64 * 1024)
    server = DemoModel(routes, server_context(pki.files.certificate, pki.files.key) if tls else None)
    url = await server.start("127.0.0.1", 0)
    verify = pki.client_context(["h2", "http/1.1"])
    async with httpx.AsyncClient(base_url=url, verify=verify, http2=True, headers=[BEARER]) as http:
        yield Running(pki=pki, routes=routes, port=int(url.rsplit(":", 1)[1]), url=url, http=http)
    await server.stop()

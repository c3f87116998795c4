"""The short way to the data plane's exact paths, beside Litestar's own."""

from __future__ import annotations

from typing import Any

import pytest
from litestar import asgi, get
from litestar.handlers import ASGIRouteHandler
from litestar.types import Receive, Scope, Send

from gateway.api.data.app import PublicApp


def handler(path: str, calls: list[dict[str, Any]], *, mount: bool = False) -> ASGIRouteHandler:
    @asgi(path, is_mount=mount, copy_scope=False)
    async def handle(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append(dict(scope))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return handle


async def status(app: PublicApp, path: str) -> int:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    scope: Any = {
        "type": "http",
        "path": path,
        "raw_path": path.encode(),
        "method": "POST",
        "headers": [],
        "query_string": b"",
    }
    await app(scope, receive, send)
    return int(sent[0]["status"])


@get("/livez", sync_to_thread=False)
def livez() -> str:
    return "live"


async def test_exact_paths_go_the_short_way_and_all_others_litestars() -> None:
    calls: list[dict[str, Any]] = []
    direct = [handler("/v1/completions", calls), handler("/v1/models", calls, mount=True)]
    app = PublicApp(direct=direct, route_handlers=[livez], openapi_config=None)
    assert {route.path for route in app.routes} == {"/v1/completions", "/v1/models", "/livez"}
    for path in ("/v1/completions", "/v1/completions/", "/v1/models", "/v1/models/a"):
        assert await status(app, path) == 200
    assert ["litestar_app" in scope for scope in calls] == [False, True, True, True]
    assert await status(app, "/v1/nothing") == 404
    assert await status(app, "/livez") == 405


async def test_what_the_short_way_would_pass_over_is_refused() -> None:
    async def before_send(message: Any, scope: Scope) -> None:
        raise AssertionError("never asked")

    with pytest.raises(ValueError, match="do not pass"):
        PublicApp(direct=[handler("/a", [])], route_handlers=[], before_send=[before_send])

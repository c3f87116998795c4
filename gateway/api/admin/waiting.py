"""The admin listener while the platform's keys cannot be unwrapped: it says what is waited for, and how far the
audit log is behind. Nobody can be authenticated yet, so there is nothing else that it could answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from litestar.connection import ASGIConnection
from msgspec import json

from gateway.api.admin.caller import is_local
from gateway.api.admin.me import EXPOSITION
from gateway.api.admin.problems import MEDIA_TYPE, RETRY_S, Problem
from gateway.api.admin.requestid import request_id
from gateway.bus.messages import MetricsUp
from gateway.metrics import Metrics

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


REASON: Final = "the platform's own keys wait for Vault's Transit"
"""Why not, and no address, is in the server's log: anybody may ask this listener."""


def waiting_app(receipts: Callable[[], int]) -> Callable[[Any, Receive, Send], Awaitable[None]]:
    """`receipts`: how many wait in the spools; it may block."""

    async def app(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        status, kind, body = await _answer(scope)
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        if status == 503:
            headers.append((b"retry-after", str(RETRY_S).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _answer(scope: Any) -> tuple[int, str, bytes]:
        match scope["path"]:
            case "/livez":
                return 200, "text/plain; charset=utf-8", b"ok\n"
            case "/metrics" if is_local(ASGIConnection(scope)):
                return 200, EXPOSITION, (await asyncio.to_thread(_figures, receipts)).encode()
            case "/readyz":
                return 503, "text/plain; charset=utf-8", f"{REASON}\n".encode()
        detail = f"The gateway has just started, and {REASON}. Nothing was done."
        problem = Problem(
            type="urn:orgate:problem:unavailable",
            title="Unavailable",
            status=503,
            detail=detail,
            request_id=request_id(scope),
        )
        return 503, MEDIA_TYPE, json.encode(problem)

    return app


def _figures(receipts: Callable[[], int]) -> str:
    metrics = Metrics()
    gauges = (("orgate_keys_waiting", (), 1), ("orgate_audit_waiting_receipts", (), receipts()))
    metrics.absorb(MetricsUp("control", "starting", (), gauges))
    return metrics.exposition()


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return

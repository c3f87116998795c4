"""How Granian is started: the public tree of workers, and the control process's two embedded servers.

Read by `gateway.app` and `gateway.control` alone. Facts that decide the options are in docs/design/.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings, HTTP2Settings
from granian.server.embed import Server as EmbeddedServer

from gateway.settings import Settings
from gateway.tree import PublicTree

Asgi = Callable[..., Awaitable[None]]

GRACE_S = 5
"""Beyond what a worker gives itself to drain: its last receipts go up meanwhile. Then the tree kills it."""

BACKLOG = 1024


def _http1() -> HTTP1Settings:
    # A head must be there in 30 s, also the next one on a connection that is kept. What is buffered is the head:
    # Granian's own limit is 400 KiB.
    return HTTP1Settings(header_read_timeout=30_000, max_buffer_size=64 * 1024)


def _http2() -> HTTP2Settings:
    # Granian's own header limit is 16 MiB; 200 streams is what one editor or agent can use at most. The PING finds
    # peers that are gone without a word (a lid that was closed): what they had in flight is cancelled.
    return HTTP2Settings(
        max_concurrent_streams=200, max_headers_size=32_768, keep_alive_interval=60_000, keep_alive_timeout=20
    )


def public_tree(settings: Settings, target: str) -> PublicTree:
    """The public listener and N workers that each run `target`. Its `serve` returns when it has drained."""
    listener = settings.public
    server = settings.server
    return PublicTree(
        target,
        factory=True,
        address=listener.host,
        port=listener.port,
        interface=Interfaces.ASGI,
        workers=server.workers,
        runtime_mode=RuntimeModes.st,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        websockets=False,
        backlog=BACKLOG,
        backpressure=server.max_connections,
        http1_settings=_http1(),
        http2_settings=_http2(),
        log_access=False,
        ssl_cert=settings.path(listener.certificate),
        ssl_key=settings.path(listener.key),
        workers_kill_timeout=int(server.drain_delay_s + server.drain_s) + GRACE_S,
        respawn_failed_workers=True,
        respawn_interval=0,
    )


class AdminServer(EmbeddedServer):
    """An embedded server that can be given a new certificate: `reload()` makes a second one listen on the same
    port, then tells the first one to go. What is in flight on it ends in peace; nobody waits for that.
    """

    async def _respawn_workers(
        self, workers: Iterable[int], spawn_target: Any, target_loader: Any, delay: float = 0
    ) -> None:
        for idx in workers:
            before = self.wrks[idx]
            self.wrks[idx] = self._spawn_worker(idx, spawn_target, target_loader)
            self.wrks[idx].start()  # type: ignore[no-untyped-call]  # granian leaves it untyped
            await asyncio.sleep(delay)
            before.terminate()  # type: ignore[no-untyped-call]  # the same


def admin_server(settings: Settings, app: Asgi) -> AdminServer:
    """The admin listener, in the control process's own loop."""
    listener = settings.admin
    server = AdminServer(
        app,
        address=listener.host,
        port=listener.port,
        http=HTTPModes.auto,
        interface=Interfaces.ASGI,
        websockets=False,
        http1_settings=_http1(),
        http2_settings=_http2(),
        log_enabled=False,
        ssl_cert=settings.path(listener.certificate),
        ssl_key=settings.path(listener.key),
    )
    server.respawn_interval = 0.2  # for the successor to listen; the constructor does not take it
    return server


def bus_server(socket: Path, app: Asgi) -> EmbeddedServer:
    """The bus, on a Unix socket of this user only, in a folder only this user can enter."""
    server = EmbeddedServer(app, uds=socket, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    server.uds_permissions = 0o600  # the embedded server's constructor does not take it
    return server

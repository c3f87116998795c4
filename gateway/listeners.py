"""How Granian is started: the public tree of workers, and the control process's two embedded servers.

Read by `gateway.app` alone. Facts that decide the options are in docs/design/.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP2Settings
from granian.server.embed import Server as EmbeddedServer
from granian.server.mp import MPServer as PublicTree

from gateway.settings import Settings

Asgi = Callable[..., Awaitable[None]]


def _http2() -> HTTP2Settings:
    # Granian's own header limit is 16 MiB; 200 streams is what one editor or agent can use at most.
    return HTTP2Settings(max_concurrent_streams=200, max_headers_size=32_768)


def public_tree(settings: Settings, target: str) -> PublicTree:
    """The public listener and N workers that each run `target`. Its `serve` returns when it has drained."""
    listener = settings.public
    return PublicTree(
        target,
        factory=True,
        address=listener.host,
        port=listener.port,
        interface=Interfaces.ASGI,
        workers=settings.server.workers,
        runtime_mode=RuntimeModes.st,
        loop=Loops.uvloop,
        http=HTTPModes.auto,
        websockets=False,
        http2_settings=_http2(),
        log_access=False,
        ssl_cert=settings.path(listener.certificate),
        ssl_key=settings.path(listener.key),
        workers_kill_timeout=int(settings.server.drain_s),
        respawn_failed_workers=True,
        respawn_interval=0.5,
    )


def admin_server(settings: Settings, app: Asgi) -> EmbeddedServer:
    """The admin listener, in the control process's own loop."""
    listener = settings.admin
    return EmbeddedServer(
        app,
        address=listener.host,
        port=listener.port,
        http=HTTPModes.auto,
        interface=Interfaces.ASGI,
        websockets=False,
        http2_settings=_http2(),
        log_enabled=False,
        ssl_cert=settings.path(listener.certificate),
        ssl_key=settings.path(listener.key),
    )


def bus_server(socket: Path, app: Asgi) -> EmbeddedServer:
    """The bus, on a Unix socket of this user only, in a folder only this user can enter."""
    server = EmbeddedServer(app, uds=socket, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
    server.uds_permissions = 0o600  # the embedded server's constructor does not take it
    return server

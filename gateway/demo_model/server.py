"""Listens, and chooses HTTP/2 or HTTP/1.1: by ALPN under TLS, by the connection preface in clear text."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Final

from gateway.demo_model.http1 import Http1
from gateway.demo_model.http2 import Http2
from gateway.demo_model.routes import Routes

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HANDSHAKE_TIMEOUT_S: Final = 10.0


def server_context(certificate: Path, key: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer, as model servers in the field still need. Raises OSError when the files can't be read."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.load_cert_chain(certificate, key)
    return context


class DemoModel:
    """The listening server. `context` None means clear text."""

    def __init__(self, routes: Routes, context: ssl.SSLContext | None) -> None:
        self.routes: Final = routes
        self._context = context
        self._server: asyncio.Server | None = None
        self._connections: set[_Dispatch] = set()

    async def start(self, host: str, port: int) -> str:
        """Listens and returns the base URL. Port 0 takes a free one. Raises OSError when it can't listen."""
        self._server = await asyncio.get_running_loop().create_server(
            self._accept,
            host,
            port,
            ssl=self._context,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT_S if self._context else None,
        )
        bound = self._server.sockets[0].getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._context else 'http'}://{shown}:{bound}"

    async def stop(self) -> None:
        """Closes the listener and every connection; answers under way are broken off."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.stop()
        if self._server is not None:
            await self._server.wait_closed()

    def _accept(self) -> _Dispatch:
        return _Dispatch(self.routes, self._connections)


class _Dispatch(asyncio.Protocol):
    """Stays the transport's protocol and passes everything on, so that the server knows when a connection ends."""

    def __init__(self, routes: Routes, connections: set[_Dispatch]) -> None:
        self._routes = routes
        self._connections = connections
        self._transport: asyncio.BaseTransport
        self._chosen: Http1 | Http2 | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._connections.add(self)
        self._routes.ledger.connections += 1
        tls = transport.get_extra_info("ssl_object")
        if tls is not None:
            self._choose(http2=tls.selected_alpn_protocol() == "h2")

    def _choose(self, *, http2: bool) -> Http1 | Http2:
        name = f"c{self._routes.ledger.connections}"
        self._chosen = Http2(self._routes, name) if http2 else Http1(self._routes, name)
        self._chosen.connection_made(self._transport)
        return self._chosen

    def data_received(self, data: bytes) -> None:
        if self._chosen is not None:
            self._chosen.data_received(data)
            return
        self._early += data
        if self._early.startswith(_PREFACE):
            self._choose(http2=True).data_received(self._early)
        elif not _PREFACE.startswith(self._early):
            self._choose(http2=False).data_received(self._early)

    def eof_received(self) -> bool:
        return self._chosen.eof_received() if isinstance(self._chosen, Http1) else False

    def pause_writing(self) -> None:
        if self._chosen is not None:
            self._chosen.pause_writing()

    def resume_writing(self) -> None:
        if self._chosen is not None:
            self._chosen.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._chosen is not None:
            self._chosen.connection_lost(exc)

    def stop(self) -> None:
        if self._chosen is not None:
            self._chosen.stop()
        else:
            self._transport.close()

"""Serving a witness: one process, one folder, one address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from gateway.hardening import keep_memory_private
from gateway.loopback import is_loopback
from gateway.witness.app import WitnessApp
from gateway.witness.folder import WitnessFolder
from gateway.witness.protocol import Witness

log = logging.getLogger("orgate.witness")

CONNECTIONS = 256


class Address(NamedTuple):
    """Where to listen. Without a certificate it is plain HTTP, on loopback unless `plain` allows it elsewhere."""

    host: str
    port: int
    certificate: Path | None = None
    key: Path | None = None
    plain: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.certificate else 'http'}://{host}:{self.port}"


class ListenError(Exception):
    """It cannot listen like that; `fix` says what to do."""

    def __init__(self, message: str, fix: str) -> None:
        super().__init__(message)
        self.fix = fix


def serve(opened: Callable[[], WitnessFolder], address: Address) -> None:
    """Serve until SIGTERM or SIGINT; `opened` reads the key. Raises, before anybody is served: `ListenError`;
    `gateway.witness.folder.FolderError`, also for damage; OSError."""
    check(address)
    keep_memory_private()
    folder = opened()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    with folder.held():
        for one in folder.logs():
            seen = f"at size {one.known.head.size}" if one.known else "nothing seen yet"
            log.info("%s: served, %s", one.origin, seen)
        log.info("witness %s listens on %s", folder.name, address)
        asyncio.run(_serve(WitnessApp(Witness(folder, time.time)), address))


def check(address: Address) -> None:
    """Find out beforehand what the server would only say in a traceback. Raises `ListenError`."""
    if (address.certificate is None) != (address.key is None):
        raise ListenError("a certificate and its key belong together", "give both --tls-cert and --tls-key")
    if address.certificate and address.key:
        _check_tls(address.certificate, address.key)
    elif not (is_loopback(address.host) or address.plain):
        fix = "give --tls-cert and --tls-key, or --plain-http when something in front of it speaks TLS"
        raise ListenError(f"{address.host} is not loopback, and there is no certificate", fix)
    try:
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address.host, address.port))
    except OSError as error:
        where = f"{address.host}:{address.port}"
        raise ListenError(f"{where}: {error.strerror or error}", "listen on another address or port") from None


def _check_tls(certificate: Path, key: Path) -> None:
    fix = "give a PEM certificate chain and its key in PEM, PKCS#8, without a passphrase"
    try:
        if "-----BEGIN PRIVATE KEY-----" not in key.read_text(encoding="utf-8", errors="replace"):
            raise ListenError(f"{key} is not PKCS#8", fix)
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        raise ListenError(f"{certificate} and {key}: {error.reason or error}", fix) from None
    except OSError as error:
        raise ListenError(f"{error.filename or certificate}: {error.strerror}", fix) from None


async def _serve(app: Callable[..., object], address: Address) -> None:
    server = Server(
        app,
        address=address.host,
        port=address.port,
        # Of a connection on which nothing was said it cannot be told yet which protocol it is, and the server
        # would wait for ever, as for the next request of HTTP/2: CONNECTIONS of them kept everybody else out.
        http=HTTPModes.http1,
        interface=Interfaces.ASGINL,
        websockets=False,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=10_000, max_buffer_size=64 * 1024),
        log_enabled=False,
        ssl_cert=address.certificate,
        ssl_key=address.key,
    )
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.create_task(server.serve())
    stopping = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([serving, stopping], return_when=asyncio.FIRST_COMPLETED)
    if serving in done:
        serving.result()  # it should never end by itself: say why it did
        raise ListenError("the server has ended", "start it again")
    server.stop()  # type: ignore[no-untyped-call]  # granian leaves it untyped
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5):
            await serving

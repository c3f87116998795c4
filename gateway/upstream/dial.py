"""From an upstream's binding to one ready connection: name, address check, TCP, TLS, protocol."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import httpx

from gateway.errors import UnavailableError
from gateway.secret import Secret
from gateway.upstream.addresses import Network, judge
from gateway.upstream.errors import AddressRefusedError, ClientCertError, refused_certificate
from gateway.upstream.gauges import Gauges
from gateway.upstream.h1connection import H1Connection
from gateway.upstream.h2connection import H2Connection
from gateway.upstream.pool import Connection
from tenants.models import Upstream, WireProtocol

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host name and port → IP addresses as text, in order of preference. Raises `OSError`."""

Identity = Callable[[Upstream], Awaitable[Secret | None]]
"""The certificate chain and private key (PEM, one after the other) to show to an upstream; None: none is set.
Raises `gateway.errors.UnavailableError`."""

_ALPN = {
    WireProtocol.AUTO: ("h2", "http/1.1"),
    WireProtocol.H2: ("h2",),
    WireProtocol.H2C: ("h2",),
    WireProtocol.HTTP_1_1: ("http/1.1",),
}


@dataclass(frozen=True)
class Origin:
    """Where a binding leads. `netloc` is the authority as `httpx.URL.netloc` gives it (no default port)."""

    scheme: str
    host: str
    port: int
    netloc: bytes
    protocol: WireProtocol

    @property
    def multiplexed(self) -> bool | None:
        """Whether it is HTTP/2, as far as that is known before a handshake."""
        if self.protocol is WireProtocol.AUTO:
            return None if self.scheme == "https" else False
        return self.protocol is not WireProtocol.HTTP_1_1


def origin_of(upstream: Upstream) -> Origin:
    """Raises `httpx.UnsupportedProtocol` when `base_url` is no http(s) URL with a host."""
    try:
        url = httpx.URL(upstream.base_url)
    except httpx.InvalidURL:
        raise httpx.UnsupportedProtocol("the upstream's base_url is not a URL") from None
    # Never `url.host`, which raises for a label that begins like punycode (`xn--`) and is none.
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise httpx.UnsupportedProtocol("the upstream's base_url is not an http(s) URL with a host")
    port = url.port or (443 if url.scheme == "https" else 80)
    return Origin(url.scheme, url.raw_host.decode("ascii"), port, url.netloc, upstream.protocol)


@lru_cache(maxsize=256)
def tls_context(ca_pem: str, protocol: WireProtocol) -> ssl.SSLContext:
    """TLS 1.2 or later, verified against `ca_pem` alone, or the system's CAs when it is empty.

    Kept, because reading the system's CAs takes milliseconds. A context holds trust, no connection's state:
    Python resumes no TLS session unless it is told to.
    Raises `httpx.ConnectError` when `ca_pem` is not a certificate.
    """
    try:
        context = ssl.create_default_context(cadata=ca_pem or None)
    except (ssl.SSLError, ValueError):
        raise httpx.ConnectError("the upstream's ca_pem is not a PEM certificate") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(_ALPN[protocol]))
    return context


def show_pair(context: ssl.SSLContext, pair: Secret) -> None:
    """Let `context` show a client certificate. OpenSSL reads files only: this one is in memory and has no name.

    Raises `ClientCertError` for what is no usable pair.
    """
    descriptor = os.memfd_create("client-cert", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", buffering=0, closefd=False) as file:
            file.write(pair.reveal())
        # A passphrase would be asked for at the terminal: pairs are kept without one.
        context.load_cert_chain(f"/proc/self/fd/{descriptor}", password="")
    except (ssl.SSLError, ValueError):
        raise ClientCertError("the gateway's client certificate for the model's server cannot be used") from None
    finally:
        os.close(descriptor)


async def resolve(host: str, port: int) -> Sequence[str]:
    """The system's resolver, in a thread."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)  # SOCK_STREAM
    return [str(entry[4][0]) for entry in found]


class Dialler:
    """Makes connections to one origin. The address that was checked is the one dialled; TLS verifies the name.

    The connect timeout covers all of it, from resolving the name to the peer's SETTINGS; several addresses
    share it evenly.
    """

    def __init__(
        self,
        upstream: Upstream,
        gauges: Gauges,
        *,
        allowed: Sequence[Network] = (),
        resolver: Resolve = resolve,
        identity: Identity | None = None,
    ) -> None:
        """`identity` is asked once, for the first connection: a new certificate is a new version of `upstream`."""
        self._upstream = upstream
        self._identity = identity
        self.origin = origin_of(upstream)
        self._timeout_s = upstream.connect_timeout_ms / 1000
        self._gauges = gauges
        self._allowed = tuple(allowed)
        self._resolve = resolver
        self._ca_pem = upstream.ca_pem
        self._context: ssl.SSLContext | None = None

    async def __call__(self, changed: Callable[[], None]) -> Connection:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._dial(changed)
        except TimeoutError:
            raise httpx.ConnectTimeout("the upstream did not accept a connection in time") from None

    async def _dial(self, changed: Callable[[], None]) -> Connection:
        addresses = await self._addresses()
        if self.origin.scheme == "https" and self._context is None:
            self._context = await self._tls()
        last: httpx.TransportError | None = None
        for number, address in enumerate(addresses):
            share = self._timeout_s / len(addresses) if number < len(addresses) - 1 else None
            try:
                async with asyncio.timeout(share):
                    return await self._connect(address, changed)
            except TimeoutError:
                last = httpx.ConnectTimeout("the upstream did not accept a connection in time")
            except httpx.TransportError as error:
                last = error
        raise last or httpx.ConnectError("the upstream's host name has no address")

    async def _tls(self) -> ssl.SSLContext:
        shared = tls_context(self._ca_pem, self.origin.protocol)
        if self._identity is None or not self._upstream.client_cert_version:
            return shared
        try:
            pair = await self._identity(self._upstream)
        except UnavailableError as error:
            raise ClientCertError(str(error)) from None
        if pair is None:
            return shared
        # Of this upstream alone: a context that shows a certificate shows it on every connection it makes.
        own = tls_context.__wrapped__(self._ca_pem, self.origin.protocol)
        show_pair(own, pair)
        return own

    async def _addresses(self) -> list[str]:
        try:
            found = await self._resolve(self.origin.host, self.origin.port)
        except (OSError, UnicodeError):
            raise httpx.ConnectError("the upstream's host name cannot be resolved") from None
        admitted, reasons = judge(found, self._allowed)
        if not admitted and reasons:
            raise AddressRefusedError(
                f"the upstream's host leads to {' and '.join(reasons)}, which is not allowed"
            )
        return admitted

    async def _connect(self, address: str, changed: Callable[[], None]) -> Connection:
        chooser = _Chooser(self.origin, self._gauges, changed)
        try:
            transport, _ = await asyncio.get_running_loop().create_connection(
                lambda: chooser,
                address,
                self.origin.port,
                ssl=self._context,
                server_hostname=self.origin.host if self._context else None,
            )
        except ssl.SSLCertVerificationError as error:
            raise httpx.ConnectError(f"the upstream's certificate was refused: {error.verify_message}") from None
        except ssl.SSLError as error:
            if refused := refused_certificate(error):
                raise refused from None
            raise httpx.ConnectError(f"TLS with the upstream failed: {error.reason}") from None
        except OSError as error:
            raise httpx.ConnectError(
                f"the upstream refused the connection ({error.strerror or type(error).__name__})"
            ) from None
        connection = chooser.connection
        if connection is None:
            transport.abort()
            raise httpx.ConnectError("the upstream did not negotiate the protocol it is bound to")
        try:
            await connection.ready
        except ClientCertError:
            raise
        except httpx.TransportError:
            raise httpx.ConnectError("the upstream ended the connection during its handshake") from None
        except asyncio.CancelledError:
            transport.abort()  # timed out, or the pool is closing
            raise
        return connection


class _Chooser(asyncio.Protocol):
    """Becomes the connection of the protocol that was negotiated, in the same step as the handshake's end."""

    def __init__(self, origin: Origin, gauges: Gauges, changed: Callable[[], None]) -> None:
        self.connection: Connection | None = None
        self._origin = origin
        self._gauges = gauges
        self._changed = changed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        tls = transport.get_extra_info("ssl_object")
        http2 = _is_http2(
            self._origin.protocol, None if tls is None else tls.selected_alpn_protocol(), tls is None
        )
        if http2 is None:
            return
        origin = self._origin
        connection: Any = (
            H2Connection(origin.scheme.encode(), origin.netloc, self._gauges, self._changed)
            if http2
            else H1Connection(origin.netloc, self._gauges, self._changed)
        )
        cast("asyncio.Transport", transport).set_protocol(connection)
        connection.connection_made(transport)
        self.connection = connection


def _is_http2(bound: WireProtocol, negotiated: str | None, clear: bool) -> bool | None:
    """Which protocol to speak; None: not the one the binding asks for. No ALPN means HTTP/1.1 (RFC 7301)."""
    if clear:
        return bound in (WireProtocol.H2, WireProtocol.H2C)
    if bound is WireProtocol.AUTO:
        return negotiated == "h2"
    if bound is WireProtocol.HTTP_1_1:
        return False if negotiated in (None, "http/1.1") else None
    return True if negotiated == "h2" else None

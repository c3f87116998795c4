"""Syslog over TLS: messages of RFC 5424, kept apart by their lengths (RFC 5425 section 4.3).

A syslog server says nothing of what it has taken. A batch counts as passed on when the server's machine has
acknowledged its bytes (Linux says how many it has not) and the connection has stood for a while after: a server
that refuses, or dies with messages unread, closes it, and then these batches are sent again. What it had read and
not kept is lost, and nobody can know: the protocol has no word for it.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import re
import ssl
import termios
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

import httpx

from gateway.audit.formats.context import Context, Severity, cut, moment, severity
from gateway.secret import Secret
from gateway.streaming.batch import Batch, Record
from gateway.streaming.sender import TIMEOUT_S, SendError
from gateway.upstream.addresses import Network, judge
from gateway.upstream.dial import Resolve, resolve, show_pair
from gateway.upstream.errors import ClientCertError
from tenants.streams import AuditStream, StreamFormat

PORT: Final = 6514
MOST: Final = 1_000
MOST_BYTES: Final = 256 * 1024
GATHER_S: Final = 0.25
LOOK_S: Final = 0.01
TURNS: Final = 3
"""Of the loop, until it knows of a connection that ended while it was busy: it hears of it, reads it, drops it."""

_LEVEL: Final = {Severity.INFORMATIONAL: 6, Severity.LOW: 5, Severity.MEDIUM: 4}
_UNPRINTABLE: Final = re.compile(r"[^\x21-\x7e]")


class SyslogSender:
    """The secret, where there is one, is a certificate chain and its private key (PEM): the client's."""

    certain = False
    most = MOST
    most_bytes = MOST_BYTES
    gather_s = GATHER_S

    def __init__(
        self,
        stream: AuditStream,
        secret: Secret | None,
        ctx: Context,
        *,
        allowed: Sequence[Network] = (),
        resolver: Resolve = resolve,
    ) -> None:
        self._stream = stream
        self._secret = secret
        self._ctx = ctx
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, batch: Batch) -> int:
        framed = b"".join(self._frame(record) for record in batch.records)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                reader, writer = await self._connected()
                writer.write(framed)
                await writer.drain()
                while _stands(reader, writer):
                    if _passed(writer):
                        return 0
                    await asyncio.sleep(LOOK_S)
                raise SendError("the receiver closed the connection")
        except TimeoutError:
            await self.aclose()
            raise SendError(f"the receiver did not take it in {TIMEOUT_S:g} s") from None
        except (OSError, ssl.SSLError):
            await self.aclose()
            raise SendError("the connection to the receiver broke") from None
        except SendError:
            await self.aclose()
            raise

    async def alive(self) -> bool:
        if self._connection is None:
            return False
        for _ in range(TURNS):
            await asyncio.sleep(0)
        return _stands(*self._connection)

    async def aclose(self) -> None:
        if self._connection is None:
            return
        _, writer = self._connection
        self._connection = None
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
            async with asyncio.timeout(1):
                await writer.wait_closed()

    def _frame(self, record: Record) -> bytes:
        message = record.body
        if self._stream.format is not StreamFormat.SYSLOG:
            message = self._head(record) + message
        return b"%d %b" % (len(message), message)

    def _head(self, record: Record) -> bytes:
        """Of a message whose text is another format: no structured data."""
        level = _LEVEL[severity(record.entry)]
        fields = (
            f"<{self._ctx.facility * 8 + level}>1",
            moment(record.at_ms) or "-",
            _token(self._ctx.host, 255),
            "orgate",
            "-",
            _token(str(record.entry.get("action", "")), 32),
            "-",
            "",
        )
        return " ".join(fields).encode("ascii", "replace")

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._connection is not None:
            if await self.alive():
                return self._connection
            raise SendError("the receiver closed the connection")
        url = urlsplit(self._stream.url)
        host, port = url.hostname or "", url.port or PORT
        try:
            found = await self._resolver(host, port)
        except (OSError, UnicodeError):
            raise SendError("the receiver's host name cannot be resolved") from None
        admitted, reasons = judge(found, self._allowed)
        if not admitted:
            why = f"leads to {' and '.join(reasons)}, which is not allowed" if reasons else "has no address"
            raise SendError(f"the receiver's host {why}")
        context = self._tls() if url.scheme == "tls" else None
        last = SendError("the receiver's host has no address")
        for address in admitted:
            try:
                self._connection = await asyncio.open_connection(
                    address, port, ssl=context, server_hostname=host if context else None
                )
            except ssl.SSLCertVerificationError as error:
                last = SendError(f"the receiver's certificate was refused: {error.verify_message}")
            except ssl.SSLError:
                last = SendError("TLS with the receiver failed")
            except OSError:
                last = SendError("the receiver refused the connection")
            else:
                return self._connection
        raise last

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cadata=self._stream.ca_pem or None)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self._secret is not None:
                show_pair(context, self._secret)
        except (ssl.SSLError, ValueError):
            raise SendError("its CA is not a PEM certificate") from None
        except (ClientCertError, httpx.HTTPError):
            raise SendError("its client certificate cannot be used: set it again") from None
        return context


def _stands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Whether neither side has ended it, as far as the loop has heard."""
    return not reader.at_eof() and not writer.is_closing() and reader.exception() is None


def _passed(writer: asyncio.StreamWriter) -> bool:
    """Whether everything written has been acknowledged by the peer's machine (`SIOCOUTQ`). Of a connection that
    `_stands`: one that has ended has no socket any more."""
    transport = writer.transport
    if transport.get_write_buffer_size():
        return False
    waiting = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, waiting)
    return waiting[0] == 0


def _token(value: str, most: int) -> str:
    return _UNPRINTABLE.sub("?", cut(value, most)) or "-"

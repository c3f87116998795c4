"""Syslog over TLS, with Debian's rsyslog at the other end; and the framing of RFC 5425, byte for byte."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

import gateway.streaming.stream
from gateway.audit.formats import cef, rfc5424
from gateway.audit.formats.context import Context
from gateway.secret import Secret
from gateway.streaming.batch import Batch, record
from gateway.streaming.sender import SendError
from gateway.streaming.syslog import SyslogSender
from tenants.streams import AuditStream, StreamFormat, StreamKind
from tests.fakes.audit import ACME, lines
from tests.kit.certs import Pki, make_pki
from tests.kit.client_certs import Demanding, issue
from tests.kit.rsyslog import Rsyslog
from tests.kit.wait import eventually
from tests.unit.streaming.bed import LOOPBACK, Bed, open_bed

INDEX = re.compile(r' index="(\d+)"')
SETTLE_S = 0.3
SLOW_S = 5.0
"""Where a receiver closes a connection without having kept what it was sent: it may need a while for that."""


@pytest.fixture
async def bed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bed]:
    monkeypatch.setattr(gateway.streaming.stream, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(gateway.streaming.stream, "LAST_PAUSE_S", 0.2)
    monkeypatch.setattr(gateway.streaming.stream, "SETTLE_S", SETTLE_S)
    monkeypatch.setattr(SyslogSender, "gather_s", 0.0)
    monkeypatch.setattr(SyslogSender, "most", 100)
    async with open_bed(tmp_path) as made:
        yield made


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return make_pki(tmp_path / "pki")


@pytest.fixture
def rsyslog(tmp_path: Path, pki: Pki) -> Iterator[Rsyslog]:
    made = Rsyslog(tmp_path / "rsyslog", pki)
    yield made
    made.stop()


def received(rsyslog: Rsyslog) -> list[int]:
    """The indexes of the entries that it has, in the order in which they came."""
    return [int(found[1]) for line in rsyslog.lines() if (found := INDEX.search(line))]


def each_once(indexes: list[int]) -> list[int]:
    """Without repeats: what a receiver that knows documents keeps."""
    return list(dict.fromkeys(indexes))


# -- with rsyslog ------------------------------------------------------------------------------------------


async def test_rsyslog_has_every_message_as_it_was_spelt(bed: Bed, rsyslog: Rsyslog, pki: Pki) -> None:
    rsyslog.start()
    await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=pki.ca_pem)
    await bed.log(250)
    bed.run()
    await bed.reached(250)
    await eventually(lambda: len(rsyslog.lines()) == 250, "all messages are written")
    entries, _ = await bed.reader.entries(ACME, limit=250)
    assert rsyslog.lines() == [rfc5424.convert(entry, ctx=bed.ctx).decode() for entry in entries]


async def test_a_receiver_that_is_down_for_a_thousand_entries_gets_all_of_them_in_order(
    bed: Bed, rsyslog: Rsyslog, pki: Pki
) -> None:
    rsyslog.start()
    await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=pki.ca_pem)
    bed.run()
    await bed.log(20)
    await bed.reached(20)
    rsyslog.stop()
    await bed.log(1_000)
    await bed.failing("the receiver")
    rsyslog.start()
    await bed.reached(1_020)
    await eventually(lambda: each_once(received(rsyslog)) == list(range(1_020)), "everything, in order")


async def test_a_receiver_that_is_killed_gets_again_what_it_may_have_lost(
    bed: Bed, rsyslog: Rsyslog, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.streaming.stream, "SETTLE_S", SLOW_S)
    rsyslog.start()
    await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=pki.ca_pem)
    bed.run()
    await bed.log(500)
    await eventually(lambda: len(received(rsyslog)) > 0, "it is under way")
    rsyslog.stop(kill=True)
    monkeypatch.setattr(gateway.streaming.stream, "SETTLE_S", SETTLE_S)
    await bed.log(500)
    rsyslog.start()
    await bed.reached(1_000)
    await eventually(lambda: set(received(rsyslog)) == set(range(1_000)), "nothing is missing")


async def test_after_a_kill_of_the_gateway_the_rest_follows(bed: Bed, rsyslog: Rsyslog, pki: Pki) -> None:
    rsyslog.start()
    await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=pki.ca_pem)
    await bed.log(150)
    bed.run()
    await eventually(lambda: len(received(rsyslog)) == 150, "all of it is there, and perhaps not certain yet")
    await bed.kill()
    await bed.log(50)
    bed.run()
    await bed.reached(200)
    await eventually(lambda: each_once(received(rsyslog)) == list(range(200)), "the rest, in order")


async def test_rsyslog_may_ask_who_calls(
    bed: Bed, tmp_path: Path, pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.streaming.stream, "SETTLE_S", SLOW_S)
    demanding = Demanding(tmp_path, pki)
    rsyslog = Rsyslog(tmp_path / "strict", pki, tmp_path / "clients-ca.pem")
    rsyslog.start()
    try:
        stream = await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=pki.ca_pem)
        await bed.log(3)
        bed.run()
        await bed.failing("the receiver")
        assert (await bed.place()).position == 0
        monkeypatch.setattr(gateway.streaming.stream, "SETTLE_S", SETTLE_S)
        pair = issue(demanding.ca)
        await bed.secrets.put(ACME, "siem", Secret(pair.certificate_pem() + pair.key_pem()))
        await bed.change(stream, secret_version=1)
        await bed.reached(3)
        await eventually(lambda: received(rsyslog) == [0, 1, 2], "all of it")
    finally:
        rsyslog.stop()


async def test_a_certificate_of_another_authority_is_refused(bed: Bed, rsyslog: Rsyslog, tmp_path: Path) -> None:
    rsyslog.start()
    await bed.add(StreamKind.SYSLOG, rsyslog.url, ca_pem=make_pki(tmp_path / "other").ca_pem)
    await bed.log(1)
    bed.run()
    await bed.failing("the receiver's certificate was refused")
    assert received(rsyslog) == []


# -- the framing -------------------------------------------------------------------------------------------


CTX = Context(host="gateway.example")


def sender(url: str, form: StreamFormat = StreamFormat.SYSLOG, ca_pem: str = "") -> SyslogSender:
    stream = AuditStream(ACME, "siem", StreamKind.SYSLOG, url, form, ca_pem)
    return SyslogSender(stream, None, CTX, allowed=LOOPBACK)


def batch(form: StreamFormat, count: int = 3) -> Batch:
    return Batch([record(line, form, CTX) for line in lines(count)[0]])


@pytest.mark.parametrize("form", [StreamFormat.SYSLOG, StreamFormat.CEF, StreamFormat.OCSF, StreamFormat.JSONL])
async def test_each_message_goes_behind_its_length(form: StreamFormat) -> None:
    got = bytearray()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            got.extend(data)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made, sent = sender(f"tcp://127.0.0.1:{port}", form), batch(form)
    assert await made.send(sent) == 0
    assert await made.alive()
    await made.aclose()
    await eventually(lambda: len(messages(bytes(got))) == 3, "three messages")
    for message, one in zip(messages(bytes(got)), sent.records, strict=True):
        head = b"<110>1 2025-11-21T"
        assert message.startswith(head)
        if form is not StreamFormat.SYSLOG:
            assert message.partition(b" - completion.create - ")[2] == one.body
    if form is StreamFormat.CEF:
        entry = msgspec.json.decode(sent.records[0].line)
        assert messages(bytes(got))[0].endswith(cef.convert(entry, ctx=CTX))
    server.close()
    await server.wait_closed()


def messages(data: bytes) -> list[bytes]:
    """RFC 5425 section 4.3.1: MSG-LEN SP SYSLOG-MSG, read as a receiver does."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        assert length.isdigit()
        assert not length.startswith(b"0")
        if len(rest) < int(length):
            break
        found.append(rest[: int(length)])
        data = rest[int(length) :]
    return found


async def test_a_connection_that_broke_is_said_before_more_is_sent() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    made = sender(f"tcp://127.0.0.1:{port}")
    await made.send(batch(StreamFormat.SYSLOG))
    for _ in range(1_000):
        if not await made.alive():
            break
        await asyncio.sleep(0.01)
    with pytest.raises(SendError, match=r"the receiver closed the connection|broke"):
        await made.send(batch(StreamFormat.SYSLOG))
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("scheme", ["tcp", "tls"])
async def test_a_connection_that_breaks_before_all_of_it_is_taken_is_said(scheme: str, pki: Pki) -> None:
    with hanging_up(pki.server_context() if scheme == "tls" else None) as port:
        made = sender(f"{scheme}://127.0.0.1:{port}", ca_pem=pki.ca_pem)
        with pytest.raises(SendError, match=r"the receiver closed the connection|broke"):
            await made.send(batch(StreamFormat.SYSLOG, 100))
    assert not await made.alive()


@contextmanager
def hanging_up(context: ssl.SSLContext | None) -> Iterator[int]:
    """The port of a server that has room for little, begins to read, and resets the connection."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    listening.settimeout(60)

    def serve() -> None:
        caller, _ = listening.accept()
        caller.settimeout(60)
        with caller if context is None else context.wrap_socket(caller, server_side=True) as inside:
            assert inside.recv(1)
            inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listening:
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("tls://127.0.0.1:1", "refused the connection"),
        ("tls://169.254.169.254:6514", "which is not allowed"),
        ("tls://nobody.invalid:6514", "cannot be resolved"),
    ],
)
async def test_what_cannot_be_reached_is_told_in_words(url: str, words: str) -> None:
    with pytest.raises(SendError, match=words):
        await sender(url).send(batch(StreamFormat.SYSLOG))


async def test_a_ca_that_is_none_is_said() -> None:
    with pytest.raises(SendError, match="its CA is not"):
        await sender("tls://127.0.0.1:1", ca_pem="-----BEGIN").send(batch(StreamFormat.SYSLOG))

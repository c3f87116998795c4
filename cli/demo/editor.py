"""The demo's editor: it streams ghost text over HTTP/2 and takes a stream back as real editors do.

It uses the gateway's own transport, because the usual HTTP clients never send RST_STREAM.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import cast

import httpx
from msgspec import DecodeError, Struct, json

from gateway.upstream.transport import SENT, AnswerStream, TransportPool
from tenants.ids import OrgId
from tenants.models import Upstream, WireProtocol


class _Choice(Struct):
    text: str = ""


class _Event(Struct):
    choices: list[_Choice] = []


@dataclass
class Seen:
    """What came of one request. Times in milliseconds from its sending; `cancelled_at` is the reset's moment."""

    status: int
    headers: dict[str, str]
    body: bytes
    text: str = ""
    chunks: int = 0
    first_ms: float = 0
    total_ms: float = 0
    cancelled_at: float = 0


class Editor:
    """One member's editor. Each call is one request on the same warm connection. Close it at the end."""

    def __init__(self, url: str, ca_pem: str, token: str) -> None:
        self._url = url
        self._token = token
        self._gateway = Upstream(
            OrgId("demo"), "gateway", url, protocol=WireProtocol.H2, ca_pem=ca_pem, connections=1
        )
        self._runner = asyncio.Runner()
        self._pool = self._runner.run(_pool())

    def close(self) -> None:
        try:
            self._runner.run(self._pool.aclose())
        finally:
            self._runner.close()

    def complete(
        self,
        body: dict[str, object],
        *,
        show: Callable[[str], None] | None = None,
        cancel_after: int | None = None,
    ) -> Seen:
        """Ask for a completion. `cancel_after` k resets the stream after k chunks; 0: before the first byte."""
        return self._runner.run(self._complete(body, show, cancel_after))

    async def _complete(
        self, body: dict[str, object], show: Callable[[str], None] | None, cancel_after: int | None
    ) -> Seen:
        sent = asyncio.Event()
        request = httpx.Request(
            "POST",
            self._url + "/v1/completions",
            headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"},
            content=json.encode(body),
            extensions={SENT: sent.set},
        )
        started = time.monotonic()
        opening = asyncio.ensure_future(self._pool.for_upstream(self._gateway).handle_async_request(request))
        if cancel_after == 0:
            await sent.wait()
            await asyncio.sleep(0.05)  # the request is with the model by now, which is still thinking
            return await _abandon(opening)
        return await _read(await opening, started, show, cancel_after)


async def _pool() -> TransportPool:
    return TransportPool(allowed=[ip_network("127.0.0.0/8")])


async def _abandon(opening: asyncio.Future[httpx.Response]) -> Seen:
    moment = time.monotonic()
    opening.cancel()
    await asyncio.wait([opening])
    return Seen(0, {}, b"", cancelled_at=moment)


async def _read(
    response: httpx.Response, started: float, show: Callable[[str], None] | None, cancel_after: int | None
) -> Seen:
    seen = Seen(response.status_code, dict(response.headers), b"")
    stream = cast(AnswerStream, response.stream)
    carry = b""
    async for data in stream:
        if not seen.chunks:
            seen.first_ms = (time.monotonic() - started) * 1000
        seen.chunks += 1
        seen.body += data
        *events, carry = (carry + data).split(b"\n\n")
        for text in map(_text, events):
            seen.text += text
            if show is not None and text:
                show(text)
        if cancel_after is not None and seen.chunks >= cancel_after:
            seen.cancelled_at = time.monotonic()
            stream.cancel()
            break
    seen.total_ms = (time.monotonic() - started) * 1000
    return seen


def _text(event: bytes) -> str:
    try:
        return "".join(choice.text for choice in json.decode(event.removeprefix(b"data:"), type=_Event).choices)
    except DecodeError:
        return ""

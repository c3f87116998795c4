"""The witness over HTTP: an ASGI application of two routes, each request bounded in bytes, time and number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gateway.audit.witness_wire import BODY_MAX
from gateway.witness.protocol import PLAIN, Answer, Witness

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

BODY_S = 10.0
AT_ONCE = 32
"""Submissions being judged or read; one more is told to come again."""


class GoneError(Exception):
    """The caller left before the body was there."""


class WitnessApp:
    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._at_once = 0

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            answer = await self._answer(scope["method"], scope["path"], receive)
        except GoneError:
            return
        await _say(send, answer)

    async def _answer(self, method: str, path: str, receive: Receive) -> Answer:
        if path == "/add-checkpoint":
            return await self._submission(receive) if method == "POST" else Answer(405, "POST it\n")
        origin_hash, _, rest = path.removeprefix("/").partition("/")
        if rest != "checkpoint":
            return Answer(404, "a witness has /add-checkpoint and /<hash of an origin>/checkpoint\n")
        return await self._witness.published(origin_hash) if method == "GET" else Answer(405, "GET it\n")

    async def _submission(self, receive: Receive) -> Answer:
        if self._at_once >= AT_ONCE:
            return Answer(503, "too many at once: come again\n")
        self._at_once += 1
        try:
            async with asyncio.timeout(BODY_S):
                body = await _read(receive)
        except TimeoutError:
            return Answer(408, f"the body was not there in {BODY_S:g} s\n")
        else:
            if body is None:
                return Answer(413, f"a submission has {BODY_MAX} bytes at most\n")
            return await self._witness.add_checkpoint(body)
        finally:
            self._at_once -= 1


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None for one that is too long."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] != "http.request":
            raise GoneError
        body += event.get("body", b"")
        if len(body) > BODY_MAX:
            return None
        if not event.get("more_body", False):
            return bytes(body)


async def _say(send: Send, answer: Answer) -> None:
    body = answer.body.encode()
    headers = [(b"content-type", answer.kind.encode()), (b"content-length", b"%d" % len(body))]
    if answer.status == 405:
        headers.append((b"allow", answer.body.split(" ")[0].encode()))
    if answer.kind != PLAIN or answer.status == 200:
        headers.append((b"cache-control", b"no-store"))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

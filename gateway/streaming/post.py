"""One receiver reached by HTTP: its address judged at every dial, its answers read within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import httpx
from msgspec import Struct

from gateway.streaming.sender import TIMEOUT_S, SendError
from gateway.upstream.addresses import Network
from gateway.upstream.dial import Resolve, resolve
from gateway.upstream.fields import Header
from gateway.upstream.transport import UpstreamTransport
from tenants.models import Upstream, WireProtocol
from tenants.streams import AuditStream

ANSWER_MAX: Final = 64 * 1024
WAIT_MAX_S: Final = 600


class Answer(Struct, frozen=True):
    """`body` is cut at `ANSWER_MAX`."""

    status: int
    body: bytes
    wait_s: float = 0.0

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class Receiver:
    """Where a stream's `url` leads. One connection, made anew after every failure."""

    def __init__(
        self, stream: AuditStream, *, allowed: Sequence[Network] = (), resolver: Resolve = resolve
    ) -> None:
        self.url = httpx.URL(stream.url)
        self._allowed = tuple(allowed)
        self._resolver = resolver
        self._transport: UpstreamTransport | None = None
        self._place = Upstream(
            org=stream.org,
            name="audit-stream",
            base_url=f"{self.url.scheme}://{self.url.netloc.decode('ascii')}",
            protocol=WireProtocol.HTTP_1_1,
            ca_pem=stream.ca_pem,
            connections=1,
        )

    def at(self, path: str) -> httpx.URL:
        """This receiver's URL with another path."""
        return self.url.copy_with(raw_path=path.encode("ascii"))

    async def ask(self, url: httpx.URL, headers: Sequence[Header], body: bytes, method: str = "POST") -> Answer:
        """Raises `SendError` when there is no answer, whatever it says."""
        head = [(b"host", url.netloc), (b"user-agent", b"orgate"), *headers]
        request = httpx.Request(method, url, headers=head, content=body)
        if self._transport is None:
            self._transport = UpstreamTransport(self._place, allowed=self._allowed, resolver=self._resolver)
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await _answer(await self._transport.handle_async_request(request))
        except TimeoutError:
            await self.aclose()
            raise SendError(f"no answer in {TIMEOUT_S:g} s") from None
        except httpx.HTTPError as error:
            await self.aclose()
            raise SendError(_why(error)) from None

    async def aclose(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None


async def _answer(response: httpx.Response) -> Answer:
    body = b""
    try:
        async for piece in response.aiter_raw():
            body += piece[: ANSWER_MAX - len(body)]
            if len(body) >= ANSWER_MAX:
                break
    finally:
        await response.aclose()
    wait = response.headers.get("retry-after", "")
    wait_s = min(int(wait), WAIT_MAX_S) if wait.isascii() and wait.isdecimal() and len(wait) < 8 else 0
    return Answer(response.status_code, body, float(wait_s))


def refused(answer: Answer, words: str = "") -> SendError:
    """What a status that is no success means for the batch."""
    said = f"the receiver answered status {answer.status}" + (f" ({words})" if words else "")
    return SendError(said, wait_s=answer.wait_s, too_large=answer.status == 413)


def _why(error: httpx.HTTPError) -> str:
    """The dialler's words are our own, about upstreams; what a peer sends never is in them."""
    if isinstance(error, httpx.TimeoutException):
        return "the receiver did not answer in time"
    if isinstance(error, httpx.ConnectError):
        return str(error).replace("the upstream", "the receiver")
    return "the receiver broke off without an answer"

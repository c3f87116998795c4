"""Stage 7: `Route` → the model → bytes to the caller, and `Usage`.

A cancellation may arrive at any `await`; whatever the point, `response.stream` is closed before anything
else is awaited, so the upstream's stream is reset at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, cast

import httpx
import msgspec
from msgspec import Raw

from gateway.errors import GatewayError, KeyRefusedError, UpstreamBusyError, UpstreamError, UpstreamTimeoutError
from gateway.exchange import Call, Route, Usage
from gateway.upstream.errors import RefusedError
from gateway.upstream.transport import SENT
from gateway.upstream.usage import UsageTap, usage_of_answer
from policies.facts import Action
from tenants.models import Upstream

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that is not a stream: it is held in memory until it is whole and known to be JSON."""

ERROR_LIMIT = 64 * 1024

PATHS: Mapping[Action, str] = {
    Action.COMPLETE: "/v1/completions",
    Action.CHAT: "/v1/chat/completions",
    Action.EMBED: "/v1/embeddings",
}

_encode = msgspec.json.Encoder().encode
_options = msgspec.json.Decoder(dict[str, Raw])


class Transports(Protocol):
    """Warm connections per (organization, upstream): no two organizations share one."""

    def for_upstream(self, upstream: Upstream) -> httpx.AsyncBaseTransport: ...


class Progress:
    """What has happened so far, for settling at any moment. Written by the relay, read by stage 8."""

    __slots__ = ("_clock", "done", "events", "sent", "sent_us", "usage")

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock`: microseconds that never go back (`gateway.clock.Clock.monotonic_us`)."""
        self._clock = clock
        self.sent = False
        """The request may have reached the upstream: from here on it costs."""
        self.sent_us = 0
        """When it was handed to a connection, on `clock`; the last time, if it was sent again. 0: it never was."""
        self.usage: Usage | None = None
        self.events = 0
        self.done = False
        """The stream's `[DONE]` has gone to the caller: it has the whole answer."""

    def note_sent(self) -> None:
        self.sent = True
        self.sent_us = self._clock()


class UpstreamRefusalError(GatewayError):
    """The model said no to this very request (400, 404, 413, 422): its own words go to the caller."""

    code = "upstream_refusal"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("the model refused the request")
        self.answer_status = status
        self.body = body


class Relay:
    """Opens the upstream's stream and passes the answer on."""

    def __init__(self, transports: Transports) -> None:
        self._transports = transports
        self._urls: dict[tuple[str, Action], httpx.URL] = {}

    async def open(self, route: Route, progress: Progress) -> httpx.Response:
        """Send the request; returns at the answer's head, which is a success. Raises what stage 7 refuses with."""
        call = route.reservation.permit.call
        url = self._url(route.upstream.base_url, call.task)
        request = httpx.Request(
            "POST",
            url,
            headers=[
                (b"host", url.netloc),
                (b"authorization", b"Bearer " + route.credential.secret.reveal()),
                (b"content-type", b"application/json"),
                (b"accept", b"text/event-stream" if call.stream else b"application/json"),
                (b"user-agent", b"orgate"),
            ],
            content=upstream_body(call, route.model),
            extensions={SENT: progress.note_sent},
        )
        try:
            response = await self._transports.for_upstream(route.upstream).handle_async_request(request)
        except RefusedError as error:
            progress.sent = False  # the upstream says that it has not processed it (RFC 9113 section 8.7)
            raise translate(error) from None
        except httpx.HTTPError as error:
            raise translate(error) from None
        if response.status_code == 200:
            return response
        raise await _refusal(response, route)

    def _url(self, base: str, task: Action) -> httpx.URL:
        key = (base, task)
        url = self._urls.get(key)
        if url is None:
            if len(self._urls) > 4_096:  # base URLs are configured, not called: this many means they change
                self._urls.clear()
            url = self._urls[key] = endpoint(base, task)
        return url


def endpoint(base: str, task: Action) -> httpx.URL:
    """`base_url` + the endpoint's path; a base that ends in `/v1` already is taken at its word."""
    trimmed = base.rstrip("/").removesuffix("/v1")
    return httpx.URL(trimmed + PATHS[task])


def upstream_body(call: Call, model: str) -> bytes:
    """The caller's body with the model's real name, and usage asked for in a stream. All else as it came."""
    fields: dict[str, object] = dict(call.fields)
    fields["model"] = model
    if call.stream and not call.include_usage:
        given = call.fields.get("stream_options")
        options: dict[str, object] = dict(_options.decode(given)) if given and bytes(given) != b"null" else {}
        options["include_usage"] = True
        fields["stream_options"] = options
    return _encode(fields)


async def read_answer(response: httpx.Response, progress: Progress) -> bytes:
    """A whole JSON answer; it is not passed on before it is known to be one."""
    body = await _read(response, ANSWER_LIMIT)
    try:
        progress.usage = usage_of_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError("the model answered something that is not JSON") from None
    return body


async def pass_on(
    response: httpx.Response, call: Call, progress: Progress, send: Callable[[bytes], Awaitable[None]]
) -> bytes:
    """Send the answer's events on as they arrive; returns what is left to send last.

    Closes nothing: the caller does, whatever happens here.
    """
    tap = UsageTap(keep=call.include_usage)
    first = True
    try:
        async for data in cast(httpx.AsyncByteStream, response.stream):
            if first:
                if not _looks_like_events(data):
                    raise UpstreamError("the model answered something that is not an event stream")
                first = False
            passed = tap.feed(data)
            progress.events = tap.events
            if passed:
                await send(passed)
                progress.done = says_done(passed)
    except httpx.HTTPError as error:
        raise translate(error, midway=True) from None
    finally:
        progress.usage = tap.usage
    last = tap.end()
    progress.usage = tap.usage
    return last


def is_event_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "text/event-stream"


def _looks_like_events(data: bytes) -> bool:
    return data.lstrip(b"\xef\xbb\xbf\r\n").startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


def says_done(data: bytes) -> bool:
    """Whether `data` ends with the event that ends OpenAI's streams: no other's payload can end like that."""
    return data[-12:].rstrip().endswith(b"[DONE]")


async def _refusal(response: httpx.Response, route: Route) -> GatewayError:
    status = response.status_code
    if status in (429, 503):
        await response.aclose()
        return UpstreamBusyError(
            "the model is at its limit", retry_after_s=_retry_after(response.headers.get("retry-after", ""))
        )
    if status not in (400, 404, 413, 422):
        # 401 and 403 often quote part of the key; 5xx may quote anything: none of it goes on.
        await response.aclose()
        if status in (401, 403):
            kind = KeyRefusedError if status == 401 else UpstreamError
            return kind("the model refused the organization's key; an admin must set a new one")
        return UpstreamError(f"the model answered status {status}")
    try:
        body = await _read(response, ERROR_LIMIT)
    except GatewayError as error:
        return error
    try:
        known = _options.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        known = {}
    if "error" not in known or route.credential.secret.reveal() in body:
        return UpstreamError(f"the model answered status {status} without an error that can be shown")
    return UpstreamRefusalError(status, body)


async def _read(response: httpx.Response, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for data in cast(httpx.AsyncByteStream, response.stream):
            size += len(data)
            if size > limit:
                raise UpstreamError("the model's answer is too large")
            parts.append(data)
    except httpx.HTTPError as error:
        raise translate(error, midway=True) from None
    finally:
        await response.aclose()
    return b"".join(parts)


def translate(error: httpx.HTTPError, *, midway: bool = False) -> GatewayError:
    """The transport's errors in the gateway's own words. Addresses and certificates stay out of the message."""
    if isinstance(error, httpx.TimeoutException):
        where = "in the middle of its answer" if midway else "to begin its answer"
        if isinstance(error, httpx.ConnectTimeout):
            return UpstreamTimeoutError("the model's server did not accept a connection in time")
        return UpstreamTimeoutError(f"the model took too long {where}")
    if isinstance(error, httpx.ConnectError):
        return UpstreamError("the model's server cannot be reached")
    if midway:
        return UpstreamError("the model broke off in the middle of its answer")
    return UpstreamError("the model ended the connection without an answer")


def _retry_after(value: str) -> int:
    return min(max(int(value), 1), 3600) if value.isascii() and value.isdigit() and len(value) < 8 else 1

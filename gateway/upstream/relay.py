"""Stage 7: `Route` → the model → bytes to the caller, and `Usage`.

A cancellation may arrive at any `await`; whatever the point, the answer is cancelled before anything else is
awaited, so the upstream's stream is reset at once.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import httpx
import msgspec
from msgspec import Raw

from gateway.errors import (
    GatewayError,
    KeyRefusedError,
    UpstreamBusyError,
    UpstreamError,
    UpstreamSaturatedError,
    UpstreamTimeoutError,
)
from gateway.exchange import Call, Credential, Route, Usage
from gateway.upstream import fields
from gateway.upstream.auth.authorizer import Authorizer, authorizer
from gateway.upstream.errors import ClientCertError, SaturatedError, TotalTimeoutError
from gateway.upstream.fields import Header
from gateway.upstream.stream import Outgoing
from gateway.upstream.transport import UpstreamAnswer
from gateway.upstream.usage import UsageTap, around_text, text_of_answer, usage_of_answer
from policies.facts import Action
from tenants.models import CredentialKind, Upstream

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of an answer that is not a stream: it is held in memory until it is whole and known to be JSON."""

ERROR_LIMIT = 64 * 1024

METER_EVENTS = 16
"""How many events of a stream pass between two looks at the limits that count it, each of which takes 5 µs. So
many may outrun a limit that had all that was asked for, and what came together with the last of them: a debt.
Where it had less, each event is looked at."""
METER_BYTES = 8 * 1024
SAMPLE_AFTER = 2
"""Events of a stream after which one piece of it tells how much of it is text: the first are like no other."""
SAMPLE_BYTES = 4 * 1024

_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_NO_EVENTS = "the model answered something that is not an event stream"

PATHS: Mapping[Action, str] = {
    Action.COMPLETE: "/v1/completions",
    Action.CHAT: "/v1/chat/completions",
    Action.EMBED: "/v1/embeddings",
}

_DONE = tuple(b"[DONE]" + end for end in (b"", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n"))
"""The event that ends OpenAI's streams: no other's payload can end like that."""

_encode = msgspec.json.Encoder().encode
_options = msgspec.json.Decoder(dict[str, Raw])


class Transport(Protocol):
    """What requests to one upstream need of `gateway.upstream.transport.UpstreamTransport`; see there."""

    @property
    def kept(self) -> dict[tuple[Action, bool], _Outline]: ...

    def outgoing(
        self,
        method: bytes,
        path: bytes,
        headers: Sequence[Header],
        body: bytes,
        *,
        ends: float = math.inf,
        lane: int = 0,
        weight: int = 1,
        block: bytes = b"",
    ) -> Outgoing: ...

    async def open(
        self,
        outgoing: Outgoing,
        sent: Callable[[], None] | None = None,
        refused: Callable[[], None] | None = None,
    ) -> UpstreamAnswer: ...


class Transports(Protocol):
    """Warm connections per (organization, upstream): no two organizations share one."""

    def for_upstream(self, upstream: Upstream) -> Transport: ...


class Tokens(Protocol):
    """What the relay needs of `gateway.upstream.auth.tokens.ClientTokens`; see there."""

    def peek(self, upstream: Upstream, client: Credential) -> Credential | None: ...
    async def lease(self, upstream: Upstream, client: Credential) -> Credential: ...
    def refused(self, upstream: Upstream, token: Credential) -> None: ...


class Progress:
    """What has happened so far, for settling at any moment. Written by the relay, read by stage 8."""

    __slots__ = (
        "_around",
        "_clock",
        "_sample",
        "_text",
        "done",
        "events",
        "relay_us",
        "sent",
        "sent_us",
        "size",
        "usage",
    )

    def __init__(self, clock: Callable[[], int]) -> None:
        """`clock`: microseconds that never go back (`gateway.clock.Clock.monotonic_us`)."""
        self._clock = clock
        self.sent = False
        """The request may have reached the upstream: from here on it costs."""
        self.sent_us = 0
        """When it was handed to a connection, on `clock`; the last time, if it was sent again. 0: it never was."""
        self.usage: Usage | None = None
        self.events = 0
        self.size = 0
        """Bytes of a stream that were handed on, or are about to be."""
        self._sample = b""
        self._around = (0, 0)
        self._text = 0
        self.done = False
        """The stream's `[DONE]` has gone to the caller: it has the whole answer."""
        self.relay_us = 0
        """Microseconds from the arrival of a stream's pieces to their being handed on, summed."""

    def now_us(self) -> int:
        return self._clock()

    @property
    def text(self) -> int:
        """Bytes of text in what has come of the answer, about: around it each event of a stream has as many."""
        if self._sample:
            self._around = around_text(self._sample)
            self._sample = b""
        around, seen = self._around
        return max(self.size - self.events * around // seen, 0) if seen else self._text

    def note_sample(self, piece: bytes) -> None:
        """Kept until `text` looks at it, or else as long as the request."""
        self._sample = piece[:SAMPLE_BYTES]

    def note_text(self, size: int) -> None:
        self._text = size

    def note_sent(self) -> None:
        self.sent = True
        self.sent_us = self._clock()

    def note_refused(self) -> None:
        """The upstream says that it has not processed it (RFC 9113 section 8.7)."""
        self.sent = False


class UpstreamRefusalError(GatewayError):
    """The model said no to this very request (400, 404, 413, 422): its own words go to the caller."""

    code = "upstream_refusal"

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__("the model refused the request")
        self.answer_status = status
        self.body = body


class _Outline:
    """What all requests of one kind to one upstream say alike, made once. Holds the key: it has no `repr`, is
    good only for the very lease that it was made from, and goes with its transport."""

    __slots__ = ("authorizer", "block", "credential", "headers", "path", "sign")

    def __init__(
        self, upstream: Upstream, credential: Credential, task: Action, stream: bool, now: Callable[[], float]
    ) -> None:
        url = endpoint(upstream.base_url, task)
        self.credential = credential
        self.authorizer = authorizer(upstream, credential, now)
        self.sign = self.authorizer.sign
        self.path = url.raw_path
        self.headers: tuple[Header, ...] = (
            *self.authorizer.fixed,
            (b"content-type", b"application/json"),
            (b"accept", b"text/event-stream" if stream else b"application/json"),
            (b"user-agent", b"orgate"),
        )
        origin = ((b":scheme", url.raw_scheme), (b":authority", url.netloc))
        self.block = fields.encode([(b":method", b"POST"), (b":path", self.path), *origin, *self.headers])


class Relay:
    """Opens the upstream's stream and passes the answer on."""

    def __init__(self, transports: Transports, tokens: Tokens, now: Callable[[], float]) -> None:
        """`now`: Unix seconds; signatures carry it."""
        self._transports = transports
        self._tokens = tokens
        self._now = now

    async def open(self, route: Route, progress: Progress) -> UpstreamAnswer:
        """Send the request; returns at the answer's head, which is a success. Raises what stage 7 refuses with."""
        call, upstream, credential = route.reservation.permit.call, route.upstream, route.credential
        if upstream.auth is CredentialKind.OAUTH_CLIENT_CREDENTIALS:
            credential = self._tokens.peek(upstream, credential) or await self._tokens.lease(upstream, credential)
        try:
            transport = self._transports.for_upstream(upstream)
            outline = self._outline(transport, upstream, credential, call)
            outgoing = transport.outgoing(
                b"POST",
                outline.path,
                outline.headers,
                upstream_body(call, route.model),
                ends=route.ends,
                lane=route.lane,
                weight=route.weight,
                block=outline.block,
            )
            if outline.sign is not None:
                own = outline.sign(b"POST", outline.path, outline.headers, outgoing.body)
                outgoing = outgoing._replace(extra=own)
            answer = await transport.open(outgoing, progress.note_sent, progress.note_refused)
        except httpx.HTTPError as error:
            raise translate(error) from None
        if answer.status == 200:
            return answer
        if answer.status == 401 and credential is not route.credential:
            self._tokens.refused(upstream, credential)
        raise await _refusal(answer, upstream, outline.authorizer)

    def _outline(self, transport: Transport, upstream: Upstream, credential: Credential, call: Call) -> _Outline:
        key = (call.task, call.stream)
        outline = transport.kept.get(key)
        if outline is None or outline.credential is not credential:
            outline = transport.kept[key] = _Outline(upstream, credential, call.task, call.stream, self._now)
        return outline


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


async def read_answer(answer: UpstreamAnswer, progress: Progress) -> bytes:
    """A whole JSON answer; it is not passed on before it is known to be one."""
    body = await _read(answer, ANSWER_LIMIT)
    try:
        progress.usage = usage_of_answer(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamError("the model answered something that is not JSON") from None
    if progress.usage is None:
        progress.note_text(text_of_answer(body))
    return body


async def pass_on(
    answer: UpstreamAnswer,
    call: Call,
    progress: Progress,
    send: Callable[[bytes], Awaitable[None]],
    meter: Callable[[], GatewayError | None] | None = None,
    *,
    every: int = METER_EVENTS,
) -> bytes:
    """Send the answer's events on as they arrive; returns what is left to send last.

    `meter` looks at `progress` once in `every` so many events, long ones sooner, and gives what ends the stream,
    if anything does: the upstream's is reset at once, what has come is sent, and that is raised. Else this closes
    nothing: the caller does, whatever happens here.
    """
    tap = UsageTap(keep=call.include_usage)
    read, now_us = answer.stream.read, progress.now_us
    opening: bytes | None = b""
    due_events, due_size = every, METER_BYTES
    sampled = False
    try:
        while data := await read():
            came_us = now_us()
            if opening is not None:
                opening = _opening(opening + data)
            passed = tap.feed(data)
            progress.events = events = tap.events
            if passed:
                progress.size = size = progress.size + len(passed)
                done = passed.endswith(_DONE)
                if not sampled and events > SAMPLE_AFTER:
                    sampled = True
                    progress.note_sample(passed)
                if meter is not None and not done and (events >= due_events or size >= due_size):
                    due_events, due_size = events + every, size + METER_BYTES
                    progress.usage = tap.usage
                    if (ended := meter()) is not None:
                        answer.cancel()
                        await send(passed)
                        raise ended
                await send(passed)
                progress.done = done
            progress.relay_us += now_us() - came_us
    except httpx.HTTPError as error:
        raise translate(error, midway=True) from None
    finally:
        progress.usage = tap.usage
    if opening:
        raise UpstreamError(_NO_EVENTS)
    last = tap.end()
    progress.usage = tap.usage
    return last


def is_event_stream(answer: UpstreamAnswer) -> bool:
    return answer.header(b"content-type").partition(b";")[0].strip().lower() == b"text/event-stream"


def _opening(data: bytes) -> bytes | None:
    """The beginning of a stream as long as it may yet become an event's, None once it is one.

    Servers and networks cut where they like: a field's name may come in pieces.
    """
    data = data.lstrip(b"\xef\xbb\xbf\r\n")
    if data.startswith(_FIELDS):
        return None
    if any(field.startswith(data) for field in _FIELDS):
        return data
    raise UpstreamError(_NO_EVENTS)


async def _refusal(answer: UpstreamAnswer, upstream: Upstream, shown: Authorizer) -> GatewayError:
    status = answer.status
    if status in (429, 503):
        answer.cancel()
        return UpstreamBusyError(
            "the model is at its limit", retry_after_s=_retry_after(answer.header(b"retry-after"))
        )
    if status not in (400, 404, 413, 422):
        # 401 and 403 often quote part of the key; 5xx may quote anything: none of it goes on.
        answer.cancel()
        if status in (401, 403):
            if upstream.auth is CredentialKind.NONE:
                return UpstreamError("the model wants a key, and its upstream is bound without one")
            return KeyRefusedError("the model refused the organization's key; an admin must set a new one")
        return UpstreamError(f"the model answered status {status}")
    try:
        body = await _read(answer, ERROR_LIMIT)
    except GatewayError as error:
        return error
    try:
        known = _options.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        known = {}
    if "error" not in known or shown.quoted_in(body):
        return UpstreamError(f"the model answered status {status} without an error that can be shown")
    return UpstreamRefusalError(status, body)


async def _read(answer: UpstreamAnswer, limit: int) -> bytes:
    first = b""
    rest = bytearray()  # and not a list: single bytes would take sixty times their size
    try:
        while data := await answer.stream.read():
            if len(first) + len(rest) + len(data) > limit:
                raise UpstreamError("the model's answer is too large")
            if first:
                rest += data
            else:
                first = data
    except httpx.HTTPError as error:
        raise translate(error, midway=True) from None
    finally:
        answer.cancel()
    return first + rest if rest else first


def translate(error: httpx.HTTPError, *, midway: bool = False) -> GatewayError:
    """The transport's errors in the gateway's own words. Addresses and certificates stay out of the message."""
    if isinstance(error, TotalTimeoutError):
        return UpstreamTimeoutError("the request took longer than it may")
    if isinstance(error, SaturatedError):
        return UpstreamSaturatedError(
            "too many requests wait for the model already", retry_after_s=error.retry_after_s
        )
    if isinstance(error, httpx.PoolTimeout):
        return UpstreamTimeoutError("the model had no room for the request in time; it was not sent")
    if isinstance(error, httpx.TimeoutException):
        where = "in the middle of its answer" if midway else "to begin its answer"
        if isinstance(error, httpx.ConnectTimeout):
            return UpstreamTimeoutError("the model's server did not accept a connection in time")
        return UpstreamTimeoutError(f"the model took too long {where}")
    if isinstance(error, ClientCertError):
        return UpstreamError(str(error))
    if isinstance(error, httpx.ConnectError):
        return UpstreamError("the model's server cannot be reached")
    if isinstance(error, httpx.LocalProtocolError):
        return UpstreamError("the upstream's key holds what no header can say; an admin must set it again")
    if midway:
        return UpstreamError("the model broke off in the middle of its answer")
    return UpstreamError("the model ended the connection without an answer")


def _retry_after(value: bytes) -> int:
    return min(max(int(value), 1), 3600) if value.isdigit() and len(value) < 8 else 1

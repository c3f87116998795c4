"""Receivers of entries over HTTP: Splunk's HTTP Event Collector, lines of JSON, OpenTelemetry logs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.audit.formats.context import Context, Severity, compact, severity
from gateway.secret import Secret
from gateway.streaming.batch import Batch, Record
from gateway.streaming.post import Answer, Receiver, refused
from gateway.streaming.sender import SendError
from gateway.upstream.fields import Header
from gateway.version import VERSION
from tenants.streams import AuditStream, StreamFormat

MOST: Final = 1_000
MOST_BYTES: Final = 768 * 1024
"""Of a batch, before what goes around each entry: receivers take a megabyte at least."""

GATHER_S: Final = 0.25
_JSON: Final[Header] = (b"content-type", b"application/json")
_NANO: Final = 1_000_000


class HttpSender:
    """What the three have in common. `certain`: a success is the receiver's word."""

    certain = True
    most = MOST
    most_bytes = MOST_BYTES
    gather_s = GATHER_S

    def __init__(self, stream: AuditStream, secret: Secret | None, receiver: Receiver, ctx: Context) -> None:
        self._stream = stream
        self._secret = secret
        self._receiver = receiver
        self._ctx = ctx

    async def alive(self) -> bool:
        return True

    async def aclose(self) -> None:
        await self._receiver.aclose()

    def _authorization(self, scheme: bytes = b"") -> tuple[Header, ...]:
        if self._secret is None:
            return ()
        return ((b"authorization", scheme + self._secret.reveal()),)


class NdjsonSender(HttpSender):
    """One entry a line, ended by a line feed. The secret is the value of `Authorization`, scheme included."""

    async def send(self, batch: Batch) -> int:
        body = b"".join(record.body + b"\n" for record in batch.records)
        headers = ((b"content-type", b"application/x-ndjson"), *self._authorization())
        answer = await self._receiver.ask(self._receiver.url, headers, body)
        if not answer.good:
            raise refused(answer)
        return 0


class _Said(Struct, frozen=True):
    """Splunk's answer; `code` 0 is success. -1: it said none."""

    code: int = -1
    ack_id: int = msgspec.field(name="ackId", default=-1)


class _Acks(Struct, frozen=True):
    acks: dict[str, bool] = {}


_CODES: Final = {
    1: "the token is disabled",
    2: "a token is required",
    3: "the token is not understood",
    4: "the token is wrong",
    6: "an event is not understood",
    7: "the index does not exist, or the token may not write it",
    9: "the server is busy",
    10: "a channel is missing",
    14: "acknowledgements are disabled",
}
"""In our words: what a receiver sends is not repeated."""
CODE_MAX: Final = 999
"""A number is the receiver's word, too: one with thousands of digits stays out of states, logs and webhooks."""

ACK_S: Final = 1.0
ACK_LOOKS: Final = 120


class SplunkSender(HttpSender):
    """Splunk's HTTP Event Collector: events one after the other, `Authorization: Splunk <token>`.

    With `ack` a batch counts once the indexer says so: `X-Splunk-Request-Channel`, and a question a second.
    """

    def __init__(
        self,
        stream: AuditStream,
        secret: Secret | None,
        receiver: Receiver,
        ctx: Context,
        *,
        channel: str,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`channel`: a UUID of this sender's own."""
        super().__init__(stream, secret, receiver, ctx)
        self._channel: tuple[Header, ...] = (
            ((b"x-splunk-request-channel", channel.encode()),) if stream.ack else ()
        )
        self._sleep = sleep
        path = receiver.url.path.rstrip("/")
        self._events = receiver.url if path else receiver.at("/services/collector/event")
        self._acks = receiver.at((path.removesuffix("/event") or "/services/collector") + "/ack")

    async def send(self, batch: Batch) -> int:
        answer = await self._ask(self._events, b"\n".join(self._event(record) for record in batch.records))
        said = _decoded(answer, _Said)
        if not answer.good or said.code > 0:
            raise refused(answer, _CODES.get(said.code, f"code {said.code}" if 0 < said.code <= CODE_MAX else ""))
        if self._stream.ack:
            await self._acknowledged(said.ack_id)
        return 0

    async def _acknowledged(self, ack_id: int) -> None:
        if ack_id < 0:
            raise SendError("the receiver gave nothing to ask for: acknowledgements are disabled there")
        for _ in range(ACK_LOOKS):
            answer = await self._ask(self._acks, b'{"acks":[%d]}' % ack_id)
            if not answer.good:
                raise refused(answer, "asked for an acknowledgement")
            if _decoded(answer, _Acks).acks.get(str(ack_id)):
                return
            await self._sleep(ACK_S)
        raise SendError(f"the receiver's indexer did not acknowledge in {ACK_S * ACK_LOOKS:g} s")

    async def _ask(self, url: Any, body: bytes) -> Answer:
        return await self._receiver.ask(url, (_JSON, *self._authorization(b"Splunk "), *self._channel), body)

    def _event(self, record: Record) -> bytes:
        stream = self._stream
        head: dict[str, object] = {
            "time": f"{record.at_ms / 1000:.3f}",
            "host": self._ctx.host,
            "source": f"orgate:{stream.org}",
            "sourcetype": stream.sourcetype or f"orgate:audit:{stream.format.value}",
            "fields": {"document_id": record.document},
        }
        if stream.index:
            head["index"] = stream.index
        text = stream.format not in (StreamFormat.JSONL, StreamFormat.OCSF)
        head["event"] = record.body.decode("utf-8", "replace") if text else msgspec.Raw(record.body)
        return msgspec.json.encode(head)


class _Partial(Struct, frozen=True, rename="camel"):
    """protojson: an int64 is text, or a number."""

    rejected_log_records: str | int = 0


class _Exported(Struct, frozen=True, rename="camel"):
    partial_success: _Partial = _Partial()


_SEVERITIES: Final = {
    Severity.INFORMATIONAL: (9, "INFO"),
    Severity.LOW: (10, "INFO2"),
    Severity.MEDIUM: (13, "WARN"),
}


class OtlpSender(HttpSender):
    """OTLP/HTTP logs, JSON encoding (OTLP 1, `ExportLogsServiceRequest`). The secret is the value of
    `Authorization`. Part of a batch that the receiver rejects must not be sent again: it is counted."""

    async def send(self, batch: Batch) -> int:
        url = self._receiver.url
        url = url if url.path.strip("/") else self._receiver.at("/v1/logs")
        body = msgspec.json.encode(self._request(batch))
        answer = await self._receiver.ask(url, (_JSON, *self._authorization()), body)
        if not answer.good:
            raise refused(answer)
        rejected = str(_decoded(answer, _Exported).partial_success.rejected_log_records)
        count = int(rejected) if rejected.isascii() and rejected.isdecimal() and len(rejected) < 10 else 0
        return min(count, len(batch.records))

    def _request(self, batch: Batch) -> dict[str, object]:
        resource = {"service.name": "orgate", "service.version": VERSION, "host.name": self._ctx.host}
        return {
            "resourceLogs": [
                {
                    "resource": {"attributes": [_attribute(name, value) for name, value in resource.items()]},
                    "scopeLogs": [
                        {
                            "scope": {"name": "orgate.audit", "version": VERSION},
                            "logRecords": [_log_record(record) for record in batch.records],
                        }
                    ],
                }
            ]
        }


def _log_record(record: Record) -> dict[str, object]:
    nanoseconds = str(record.at_ms * _NANO)
    number, text = _SEVERITIES[severity(record.entry)]
    attributes = [_attribute("log.record.uid", record.document)]
    attributes += [_attribute(f"orgate.{name}", value) for name, value in sorted(record.entry.items())]
    made: dict[str, object] = {
        "timeUnixNano": nanoseconds,
        "observedTimeUnixNano": nanoseconds,
        "severityNumber": number,
        "severityText": text,
        "eventName": str(record.entry.get("action", "")),
        "body": {"stringValue": record.body.decode("utf-8", "replace")},
        "attributes": attributes,
    }
    trace = record.entry.get("trace_id")
    if isinstance(trace, str) and len(trace) == 32 and not set(trace) - set("0123456789abcdef"):
        made["traceId"] = trace
    return made


def _attribute(name: str, value: object) -> dict[str, object]:
    """An `AnyValue`: an int64 is text in JSON."""
    if isinstance(value, bool):
        return {"key": name, "value": {"boolValue": value}}
    if isinstance(value, int):
        return {"key": name, "value": {"intValue": str(value)}}
    text = value if isinstance(value, str) else compact(value)
    return {"key": name, "value": {"stringValue": text}}


def _decoded(answer: Answer, kind: type[Any]) -> Any:
    """What a receiver says beside its status; nothing for what is not understood."""
    try:
        return msgspec.json.decode(answer.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return kind()

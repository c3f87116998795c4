"""Where an organization's audit log is sent as it grows. Of the control process alone: no worker reads it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Protocol

from msgspec import Struct

from tenants.ids import OrgId


class StreamKind(StrEnum):
    """`SYSLOG`: RFC 5424 over TLS (RFC 5425). `SPLUNK`: an HTTP Event Collector. `NDJSON`: lines of JSON in a
    POST. `OTLP`: logs over HTTP as JSON. `S3`: an object of compressed lines for each batch."""

    SYSLOG = "syslog"
    SPLUNK = "splunk"
    NDJSON = "ndjson"
    OTLP = "otlp"
    S3 = "s3"


class StreamFormat(StrEnum):
    """`JSONL`: the stored line. `SYSLOG`: structured data of RFC 5424."""

    JSONL = "jsonl"
    OCSF = "ocsf"
    CEF = "cef"
    SYSLOG = "syslog"


FORMATS: Final[Mapping[StreamKind, tuple[StreamFormat, ...]]] = MappingProxyType(
    {
        StreamKind.SYSLOG: (StreamFormat.SYSLOG, StreamFormat.CEF, StreamFormat.OCSF, StreamFormat.JSONL),
        StreamKind.SPLUNK: (StreamFormat.JSONL, StreamFormat.OCSF, StreamFormat.CEF),
        StreamKind.NDJSON: (StreamFormat.JSONL, StreamFormat.OCSF),
        StreamKind.OTLP: (StreamFormat.JSONL, StreamFormat.OCSF),
        StreamKind.S3: (StreamFormat.JSONL, StreamFormat.OCSF),
    }
)
"""What a kind may carry, its usual one first."""

MOST: Final = 8
"""Streams of one organization."""


class AuditStream(Struct, frozen=True):
    """One definition. `url`: `tls://host:port` for syslog, `https://…` for the rest, of S3 with the bucket and
    what all names begin with as its path; without TLS on loopback only. `ca_pem`: the receiver's own CA, else the
    system's.

    `index` and `sourcetype` are Splunk's; with `ack` its indexer acknowledges. `region` is S3's. `from_start`: it
    began with the first entry, else with the first after it was made. `secret_version`: how often its secret was
    set, or taken away; it is in the sealed file.
    """

    org: OrgId
    name: str
    kind: StreamKind
    url: str
    format: StreamFormat
    ca_pem: str = ""
    index: str = ""
    sourcetype: str = ""
    ack: bool = False
    region: str = ""
    from_start: bool = False
    paused: bool = False
    secret_version: int = 0
    version: int = 1


class StreamPlace(Struct, frozen=True):
    """How far a stream has come: all entries below `position` are with the receiver, as far as it says. `skipped`
    entries were past their retention before they could be sent, `rejected` ones the receiver did not want. Times
    in Unix seconds, 0: never. `failure`: why the last attempt failed, '' when it did not; `failing_since`: the
    first of those since the last that did not."""

    org: OrgId
    name: str
    position: int
    delivered_at: int = 0
    failing_since: int = 0
    failure: str = ""
    skipped: int = 0
    rejected: int = 0


class StreamBook(Protocol):
    """What the deliveries read and write; definitions are changed through `OrgStore.audit_streams`. Durable when a
    call returns; one writer of places, the control process, is assumed."""

    async def all(self) -> tuple[AuditStream, ...]:
        """Of every organization, suspended ones included: their logs go on."""

    async def place(self, org: OrgId, name: str) -> StreamPlace | None:
        """None: nothing was ever sent."""

    async def places(self, org: OrgId) -> tuple[StreamPlace, ...]: ...
    async def moved(self, place: StreamPlace) -> bool:
        """Write it; False when the stream is gone."""

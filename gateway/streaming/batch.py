"""Entries on their way to a receiver, spelt as it wants them. Pure: every entry has a spelling."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec
from msgspec import Struct

from gateway.audit.formats import cef, ocsf, rfc5424
from gateway.audit.formats.context import Context, Convert, Entry
from tenants.streams import StreamFormat

_CONVERTERS: Final[Mapping[StreamFormat, Convert]] = MappingProxyType(
    {StreamFormat.OCSF: ocsf.convert, StreamFormat.CEF: cef.convert, StreamFormat.SYSLOG: rfc5424.convert}
)


class Record(Struct, frozen=True):
    """One entry: as it is stored (`line`, without its newline), decoded, and spelt as the stream's format says."""

    index: int
    entry: Entry
    line: bytes
    body: bytes

    @property
    def at_ms(self) -> int:
        """Unix milliseconds."""
        return _integer(self.entry.get("@timestamp"))

    @property
    def document(self) -> str:
        """What tells a repeat from another entry, in any store."""
        return str(self.entry.get("_document_id", ""))


class Batch(Struct, frozen=True):
    """Records in the order of the log, at least one. `end` is behind the last."""

    records: Sequence[Record]

    @property
    def first(self) -> int:
        return self.records[0].index

    @property
    def end(self) -> int:
        return self.records[-1].index + 1

    @property
    def size(self) -> int:
        """Bytes, without what goes around each."""
        return sum(len(one.body) for one in self.records)


def record(line: bytes, form: StreamFormat, ctx: Context) -> Record:
    """Of one stored line, without its newline."""
    entry: Entry = msgspec.json.decode(line)
    convert: Callable[..., bytes] | None = _CONVERTERS.get(form)
    body = line if convert is None else convert(entry, ctx=ctx)
    return Record(_integer(entry.get("index")), entry, line, body)


def batch(lines: Iterable[bytes], form: StreamFormat, ctx: Context, *, most: int, most_bytes: int) -> Batch | None:
    """As many of `lines` as may go at once, the first whatever its size; None when there are none."""
    records: list[Record] = []
    size = 0
    for line in lines:
        made = record(line, form, ctx)
        size += len(made.body)
        if records and (len(records) >= most or size > most_bytes):
            break
        records.append(made)
    return Batch(records) if records else None


def _integer(value: object) -> int:
    return value if type(value) is int else 0

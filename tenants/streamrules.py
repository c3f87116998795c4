"""The rules that a stream of the audit log keeps: where it goes, and that nobody listens on the way. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from tenants.fieldrules import Fault, ca_certificates, identifier, server_url
from tenants.ids import org_id, resource_name
from tenants.streams import FORMATS, AuditStream, StreamKind

_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_BUCKET_PATH: Final = re.compile(r"/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,8}")


def stream_faults(item: AuditStream) -> Iterator[Fault]:
    """Every fault of `item`, as `tenants.validate` says them."""
    yield from identifier("org", item.org, org_id)
    yield from identifier("name", item.name, resource_name)
    yield from _stream_url(item)
    if item.format not in FORMATS[item.kind]:
        yield "format", f"of a {item.kind.value} stream is {', '.join(FORMATS[item.kind])}"
    yield from ca_certificates(item.ca_pem)
    for field, value, kind in (
        ("index", item.index, StreamKind.SPLUNK),
        ("sourcetype", item.sourcetype, StreamKind.SPLUNK),
        ("ack", item.ack, StreamKind.SPLUNK),
        ("region", item.region, StreamKind.S3),
    ):
        if value and item.kind is not kind:
            yield field, f"is of {kind.value} streams only"
    for field, text in (("index", item.index), ("sourcetype", item.sourcetype), ("region", item.region)):
        if text and not _WORD.fullmatch(text):
            yield field, "is at most 80 letters, digits, '-', '_', '.' and ':'"


def _stream_url(item: AuditStream) -> Iterator[Fault]:
    syslog = item.kind is StreamKind.SYSLOG
    if syslog and not item.url.startswith(("tls://", "tcp://")):
        yield "url", "begins with tls:// (or, on this machine, tcp://)"
        return
    as_http = item.url.replace("tls:", "https:", 1).replace("tcp:", "http:", 1) if syslog else item.url
    if faults := list(server_url("url", as_http)):
        yield from faults
        return
    url = urlsplit(as_http)
    if url.scheme == "http" and not _on_loopback(url.hostname or ""):
        yield "url", "is encrypted: entries go in clear text nowhere but to this machine"
    if "@" in url.netloc:
        yield "url", "carries no user name and no password: set the stream's secret instead"
    if "#" in item.url or ("?" in item.url and item.kind is not StreamKind.NDJSON):
        yield "url", "has no query and no fragment"
    if syslog and url.path:
        yield "url", "is tls://host:port, and no more"
    if item.kind is StreamKind.S3 and not _BUCKET_PATH.fullmatch(url.path):
        yield "url", "is https://host/bucket or https://host/bucket/prefix, of letters, digits, '-', '_' and '.'"


def _on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

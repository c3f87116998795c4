"""The rules that an upstream keeps: a server that can be connected to, and bounds of what is asked of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from tenants.fieldrules import (
    MAX_IN_FLIGHT,
    MAX_PERIOD_S,
    MAX_TIMEOUT_MS,
    Fault,
    ca_certificates,
    in_range,
    named,
    server_url,
)
from tenants.models import Upstream, WireProtocol

MAX_CONNECTIONS: Final = 64
MAX_COUNT: Final = 2**31 - 1

_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")


def upstream_faults(item: Upstream) -> Iterator[Fault]:
    """Every fault of `item`, as `tenants.validate` says them."""
    yield from named(item.org, item.name)
    yield from _base_url(item)
    yield from ca_certificates(item.ca_pem)
    yield from in_range("connections", item.connections, 1, MAX_CONNECTIONS)
    yield from in_range("connect_timeout_ms", item.connect_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from in_range("first_byte_timeout_ms", item.first_byte_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from in_range("idle_timeout_ms", item.idle_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from in_range("total_timeout_ms", item.total_timeout_ms, 0, MAX_TIMEOUT_MS)
    yield from in_range("max_in_flight", item.max_in_flight, 0, MAX_IN_FLIGHT)
    yield from in_range("max_queue", item.max_queue, 0, MAX_IN_FLIGHT)
    yield from in_range("connection_age_s", item.connection_age_s, 0, MAX_PERIOD_S)
    yield from in_range("connection_resets", item.connection_resets, 0, MAX_COUNT)
    yield from in_range("key_version", item.key_version, 0, MAX_COUNT)
    yield from in_range("client_cert_version", item.client_cert_version, 0, MAX_COUNT)


def _base_url(item: Upstream) -> Iterator[Fault]:
    field = "base_url"
    if faults := list(server_url(field, item.base_url)):
        yield from faults
        return
    url = urlsplit(item.base_url)
    if "@" in url.netloc:
        yield field, "carries no user name and no password; set the upstream's key instead"
    if "?" in item.base_url or "#" in item.base_url:
        yield field, "has no query and no fragment"
    if url.path.endswith("/"):
        yield field, "does not end with '/'"
    elif url.path.endswith("/v1"):
        yield field, "is what stands before '/v1': leave '/v1' out"
    elif not _PATH.fullmatch(url.path):
        yield field, "has a path of letters, digits, '-', '_', '~' and '.', no part beginning with '.'"
    if item.protocol is WireProtocol.H2C and url.scheme == "https":
        yield "protocol", "h2c is HTTP/2 in clear text: with https:// it is h2"
    if item.protocol is WireProtocol.H2 and url.scheme == "http":
        yield "protocol", "h2 is HTTP/2 over TLS: with http:// it is h2c"

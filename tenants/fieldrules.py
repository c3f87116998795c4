"""The rules of single fields, for the rules of stored things: texts, names, addresses, certificates. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from tenants.ids import PLATFORM, InvalidIdError, resource_name

Fault = tuple[str, str]
"""`(field, message)`: printed as "field: message", safe to show."""

MAX_TEXT: Final = 200
MAX_LIST: Final = 100
MAX_PEM: Final = 256 * 1024
MAX_TIMEOUT_MS: Final = 600_000
MAX_IN_FLIGHT: Final = 100_000
MAX_PERIOD_S: Final = 31 * 86_400

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 section 2.1, in lower case
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
# One way to match each character: with `\s+` before the base64, which may begin with spaces too, 256 KiB of spaces
# would take minutes.
_PEM: Final = re.compile(r"(?:\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----)+\s*")


def is_dns_name(text: str) -> bool:
    """A host name of RFC 1123 in lower case, without a final dot.

    IP addresses are none, nor is what resolvers read as one (`127.1`, `0x7f000001`).
    """
    labels = text.split(".")
    return (
        len(text) <= 253 and all(_LABEL.fullmatch(label) for label in labels) and not _NUMBER.fullmatch(labels[-1])
    )


def is_certificates(text: str) -> bool:
    """One or more certificates in PEM, and nothing else."""
    return len(text) <= MAX_PEM and _PEM.fullmatch(text) is not None


def ca_certificates(pem: str) -> Iterator[Fault]:
    """Of a field `ca_pem`, which may be empty."""
    if pem and not is_certificates(pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"


def server_url(field: str, text: str) -> Iterator[Fault]:
    """A server that can be connected to, whatever comes behind it."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        yield field, "is not a URL"
        return
    if url.scheme not in ("http", "https"):
        yield field, "begins with https:// or http://"
    elif (
        len(text) > 2048
        or not text.isascii()
        or not text.isprintable()
        or " " in text  # `urlsplit` passes over those in front
    ):
        yield field, "is at most 2048 printable ASCII characters, no spaces"
    elif not _is_host(url) or port == 0:
        yield field, "has no host name or IP address that can be connected to"


def _is_host(url: SplitResult) -> bool:
    host = url.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        # In brackets nothing but an address (RFC 3986's IPvFuture is one that nobody can dial).
        return "[" not in url.netloc and is_dns_name(host)
    return True


def named(org: str, name: str) -> Iterator[Fault]:
    yield from identifier("name", name, resource_name)
    if org == PLATFORM:
        yield "org", "is the platform's own: it has members and an audit log, and serves no models"


def email_address(email: str) -> Iterator[Fault]:
    """RFC 5321 sizes; no quoted local parts. Whether anybody reads it only a letter can tell."""
    local, at, domain = email.rpartition("@")
    plain = email.isprintable() and " " not in email and not set(email) & set('<>()[]\\,;:"')
    try:
        host = domain.encode("idna").decode().lower()
    except UnicodeError:
        host = ""
    if not (
        at and plain and 0 < len(local) <= 64 and "@" not in local and len(email) <= 254 and is_dns_name(host)
    ):
        yield "email", "is an address like name@example.com"


def plain_text(field: str, text: str, *, least: int = 0) -> Iterator[Fault]:
    if not least <= len(text) <= MAX_TEXT or not text.isprintable() or text != text.strip():
        yield field, f"is {least} to {MAX_TEXT} printable characters without spaces around them"


def identifier(field: str, text: str, parse: Callable[[str], Any]) -> Iterator[Fault]:
    try:
        parse(text)
    except InvalidIdError as error:
        yield field, str(error)


def in_range(field: str, value: int, least: int, most: int) -> Iterator[Fault]:
    if not least <= value <= most:
        yield field, f"is {least} to {most}"


def each_once(field: str, values: tuple[str, ...]) -> Iterator[Fault]:
    if len(set(values)) != len(values):
        yield field, "are given once each"
    if len(values) > MAX_LIST:
        yield field, f"are at most {MAX_LIST}"


def shown(text: str) -> str:
    return text[:64].encode("unicode_escape").decode()

"""The rules every stored thing keeps. Pure: an item in, its faults out; what needs the store is checked there.

A fault is `(field, message)`: printed as "field: message", safe to show.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit
from zoneinfo import available_timezones

from msgspec import Struct

from policies.facts import Action, Role
from policies.holds import HoldError
from policies.holds import parse as parse_hold
from tenants.budgets import Webhook
from tenants.clientrules import client_faults
from tenants.clients import OAuthClient
from tenants.idp import IdentityProvider
from tenants.idprules import idp_faults
from tenants.ids import PLATFORM, InvalidIdError, is_service_id, member_id, org_id, resource_name, service_id
from tenants.models import (
    Dpop,
    Limit,
    LimitScope,
    LimitUnit,
    Member,
    ModelAlias,
    OnEnd,
    Org,
    OrgRule,
    Price,
    Service,
    State,
    Team,
    Upstream,
    WireProtocol,
)
from tenants.streams import FORMATS, AuditStream, StreamKind
from tenants.trust import ServiceTrust, trust_faults

Fault = tuple[str, str]

MAX_TEXT: Final = 200
MAX_LIST: Final = 100
MAX_TIMEOUT_MS: Final = 600_000
MAX_CONNECTIONS: Final = 64
MAX_IN_FLIGHT: Final = 100_000
MAX_AMOUNT: Final = 10**12
MAX_FINE: Final = 9 * 10**15
"""Of what is counted finely: nanodollars (nine million dollars) and bytes. Below 2⁵³: no store rounds it."""

MAX_WEIGHT: Final = 1_000
MAX_RETENTION_DAYS: Final = 36_500
MAX_PERIOD_S: Final = 31 * 86_400
MAX_TOKENS: Final = 10_000_000
MAX_COUNT: Final = 2**31 - 1
MAX_TIME: Final = 2**40
MAX_PEM: Final = 256 * 1024

_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")  # RFC 1123 section 2.1, in lower case
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH: Final = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*")
# One way to match each character: with `\s+` before the base64, which may begin with spaces too, 256 KiB of spaces
# would take minutes.
_PEM: Final = re.compile(r"(?:\s*-----BEGIN CERTIFICATE-----\s[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----)+\s*")
_ORIGIN: Final = re.compile(r"https?://(?:[a-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5})?")
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_BUCKET_PATH: Final = re.compile(r"/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](?:/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,8}")
_GLOB: Final = re.compile(r"(?:[a-z0-9._*?-]|\[!?[a-z0-9._-]+\])+")
_MOST: Final = {
    LimitUnit.SPEND: MAX_FINE,
    LimitUnit.BYTES: MAX_FINE,
    LimitUnit.CONCURRENCY: MAX_IN_FLIGHT,
}
_PLATFORM_ROLES: Final = frozenset({Role.OPERATOR, Role.AUDITOR})
SERVICE_ROLES: Final = frozenset({Role.MEMBER, Role.AUDITOR, Role.ADMIN, Role.BILLING})
"""Not owner: who an organization belongs to is people."""


def validate(item: Struct) -> list[Fault]:
    """Every fault of `item`, none when it may be stored. Raises `TypeError` for what is no stored thing."""
    try:
        rules = _RULES[type(item)]
    except KeyError:
        raise TypeError(f"{type(item).__name__} is not stored") from None
    return list(rules(item))


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


def _org(item: Org) -> Iterator[Fault]:
    yield from _identifier("id", item.id, org_id)
    yield from _text("name", item.name, least=1)
    for host in item.hosts:
        if not is_dns_name(host) or "." not in host:
            yield "hosts", f"'{_shown(host)}' is not a full host name in lower case"
    yield from _each_once("hosts", item.hosts)
    yield from _range("deadline_ms", item.deadline_ms, 0, MAX_TIMEOUT_MS)
    for text in item.holds:
        try:
            parse_hold(text)
        except HoldError as error:
            yield "holds", f"'{_shown(text)}' {error}"
    yield from _each_once("holds", item.holds)
    if not _is_zone(item.timezone):
        yield "timezone", f"'{_shown(item.timezone)}' is no IANA time zone, as Europe/Berlin is"
    yield from _range("weight", item.weight, 1, MAX_WEIGHT)
    yield from _range("audit_retention_days", item.audit_retention_days, 0, MAX_RETENTION_DAYS)
    yield from _text("audit_hold", item.audit_hold)
    yield from _each_once("second_factor", item.second_factor)
    if item.id == PLATFORM and item.state is not State.ACTIVE:
        yield "state", "of the platform's own organization is always active"
    if item.personal_tokens and item.id == PLATFORM:
        yield "personal_tokens", "of the platform's own organization are off: nothing is served there"
    if item.personal_tokens and item.dpop is Dpop.REQUIRED:
        yield "personal_tokens", "are bound to no key, and this organization takes only tokens that are (dpop)"
    if item.id == PLATFORM and item.hosts:
        yield "hosts", "of the platform's own organization are none: nothing is served there"


def _member(item: Member) -> Iterator[Fault]:
    yield from _identifier("id", item.id, member_id)
    yield from _email(item.email)
    yield from _text("name", item.name)
    if not item.roles:
        yield "roles", "are at least one"
    yield from _each_once("roles", item.roles)
    for role in item.roles:
        if item.org == PLATFORM and role not in _PLATFORM_ROLES:
            yield "roles", f"cannot be '{role}' in the platform's own organization: operator or auditor"
        if item.org != PLATFORM and role is Role.OPERATOR:
            yield "roles", "cannot be 'operator' outside the platform's own organization"
    yield from _range("not_before", item.not_before, 0, MAX_TIME)


def _trust(item: ServiceTrust) -> Iterator[Fault]:
    yield from trust_faults(item)
    if item.ca_pem and not is_certificates(item.ca_pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"


def _service(item: Service) -> Iterator[Fault]:
    yield from _identifier("id", item.id, service_id)
    yield from _named(item.org, item.name)
    if not item.roles:
        yield "roles", "are at least one"
    yield from _each_once("roles", item.roles)
    for role in item.roles:
        if role not in SERVICE_ROLES:
            yield "roles", f"cannot be '{role}' of a service account: {', '.join(sorted(SERVICE_ROLES))}"
    yield from _range("not_before", item.not_before, 0, MAX_TIME)


def _idp(item: IdentityProvider) -> Iterator[Fault]:
    yield from idp_faults(item)
    if item.ca_pem and not is_certificates(item.ca_pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"


def _team(item: Team) -> Iterator[Fault]:
    yield from _named(item.org, item.name)
    yield from _text("title", item.title)


def _upstream(item: Upstream) -> Iterator[Fault]:
    yield from _named(item.org, item.name)
    yield from _base_url(item)
    if item.ca_pem and not is_certificates(item.ca_pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"
    yield from _range("connections", item.connections, 1, MAX_CONNECTIONS)
    yield from _range("connect_timeout_ms", item.connect_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from _range("first_byte_timeout_ms", item.first_byte_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from _range("idle_timeout_ms", item.idle_timeout_ms, 1, MAX_TIMEOUT_MS)
    yield from _range("total_timeout_ms", item.total_timeout_ms, 0, MAX_TIMEOUT_MS)
    yield from _range("max_in_flight", item.max_in_flight, 0, MAX_IN_FLIGHT)
    yield from _range("max_queue", item.max_queue, 0, MAX_IN_FLIGHT)
    yield from _range("connection_age_s", item.connection_age_s, 0, MAX_PERIOD_S)
    yield from _range("connection_resets", item.connection_resets, 0, MAX_COUNT)
    yield from _range("key_version", item.key_version, 0, MAX_COUNT)
    yield from _range("client_cert_version", item.client_cert_version, 0, MAX_COUNT)


def _url(field: str, text: str) -> Iterator[Fault]:
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


def _base_url(item: Upstream) -> Iterator[Fault]:
    field = "base_url"
    if faults := list(_url(field, item.base_url)):
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


def _is_host(url: SplitResult) -> bool:
    host = url.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        # In brackets nothing but an address (RFC 3986's IPvFuture is one that nobody can dial).
        return "[" not in url.netloc and is_dns_name(host)
    return True


def _model(item: ModelAlias) -> Iterator[Fault]:
    yield from _named(item.org, item.name)
    yield from _identifier("upstream", item.upstream, resource_name)
    yield from _text("model", item.model, least=1)
    if not item.tasks:
        yield "tasks", "are at least one"
    yield from _each_once("tasks", item.tasks)
    if Action.LIST_MODELS in item.tasks:
        yield "tasks", f"cannot be '{Action.LIST_MODELS}': listing is no task of a model"
    yield from _range("max_tokens", item.max_tokens, 1, MAX_TOKENS)


def _limit(item: Limit) -> Iterator[Fault]:
    if item.org == PLATFORM:
        yield from _identifier("name", item.name, resource_name)
        if item.scope not in (LimitScope.ORG, LimitScope.UPSTREAM):
            yield "scope", "of the platform's limits is 'org' (one for each) or 'upstream' (one for each origin)"
    else:
        yield from _named(item.org, item.name)
    yield from _range("amount", item.amount, 1, _MOST.get(item.unit, MAX_AMOUNT))
    yield from _period(item)
    if not 0 <= item.burst <= max(item.amount, 0):
        yield "burst", "is 0 (as much as 'amount') to 'amount'"
    if item.on_end is not OnEnd.FINISH and item.unit in (LimitUnit.REQUESTS, LimitUnit.CONCURRENCY):
        yield "on_end", "is 'finish' for requests and concurrency: a request is one from its beginning"
    for percent in item.notify_at:
        if not 1 <= percent <= 100:
            yield "notify_at", "is percentages from 1 to 100"
    yield from _each_once("notify_at", tuple(map(str, item.notify_at)))
    if item.notify_at and not item.window:
        yield "notify_at", "is for limits with a 'window': a bucket that refills has no end to warn of"
    yield from _limit_subject(item)


def _period(item: Limit) -> Iterator[Fault]:
    if item.unit is LimitUnit.CONCURRENCY:
        if item.period_s != 0:
            yield "period_s", "is 0 for concurrency: it counts what is in flight"
        if item.window:
            yield "window", "is empty for concurrency: it counts what is in flight"
        if item.burst != 0:
            yield "burst", "is 0 for concurrency: as many as 'amount' may be in flight, and no more for a moment"
    elif item.window:
        if item.period_s != 0:
            yield "period_s", "is 0 with a 'window', which is the period"
        if item.burst != 0:
            yield "burst", "is 0 with a 'window': all of the amount may be used at once"
    else:
        yield from _range("period_s", item.period_s, 1, MAX_PERIOD_S)


def _limit_subject(item: Limit) -> Iterator[Fault]:
    if not item.subject and item.scope is not LimitScope.CLIENT:
        return
    match item.scope:
        case LimitScope.ORG if item.org == PLATFORM:
            yield from _identifier("subject", item.subject, org_id)
        case LimitScope.ORG:
            yield "subject", "is empty: an organization has one bucket"
        case LimitScope.MEMBER if not is_service_id(item.subject):
            yield from _identifier("subject", item.subject, member_id)
        case LimitScope.UPSTREAM if item.org == PLATFORM:
            if not _ORIGIN.fullmatch(item.subject):
                yield "subject", "is an origin in lower case: https://host or https://host:port"
        case LimitScope.TEAM | LimitScope.MODEL | LimitScope.UPSTREAM:
            yield from _identifier("subject", item.subject, resource_name)
        case LimitScope.CLIENT:
            yield from _text("subject", item.subject)


def _price(item: Price) -> Iterator[Fault]:
    yield from _identifier("org", item.org, org_id)
    yield from _text("model", item.model, least=1)
    yield from _range("input", item.input, 0, MAX_FINE)
    yield from _range("output", item.output, 0, MAX_FINE)


def _webhook(item: Webhook) -> Iterator[Fault]:
    yield from _identifier("org", item.org, org_id)
    if faults := list(_url("url", item.url)):
        yield from faults
    elif "@" in urlsplit(item.url).netloc:
        yield "url", "carries no user name and no password"
    elif "#" in item.url:
        yield "url", "has no fragment"
    if item.ca_pem and not is_certificates(item.ca_pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"


def _audit_stream(item: AuditStream) -> Iterator[Fault]:
    yield from _identifier("org", item.org, org_id)
    yield from _identifier("name", item.name, resource_name)
    yield from _stream_url(item)
    if item.format not in FORMATS[item.kind]:
        yield "format", f"of a {item.kind.value} stream is {', '.join(FORMATS[item.kind])}"
    if item.ca_pem and not is_certificates(item.ca_pem):
        yield "ca_pem", "is one or more certificates in PEM (BEGIN CERTIFICATE), at most 256 KiB, and no key"
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
    if faults := list(_url("url", as_http)):
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


def _rule(item: OrgRule) -> Iterator[Fault]:
    yield from _named(item.org, item.name)
    for field, values in (("roles", item.roles), ("actions", item.actions), ("models", item.models)):
        if not values:
            yield field, "are at least one: an empty list matches nothing"
        yield from _each_once(field, values)
    if Role.OPERATOR in item.roles:
        yield "roles", "cannot be 'operator': nothing is served in the platform's own organization"
    for pattern in item.models:
        if len(pattern) > 64 or not _GLOB.fullmatch(pattern):
            yield (
                "models",
                f"'{_shown(pattern)}' is not a pattern of model names: at most 64 of a-z, 0-9, '.', '_', '-', "
                "with '*', '?' and '[…]' as wildcards",
            )


def _named(org: str, name: str) -> Iterator[Fault]:
    yield from _identifier("name", name, resource_name)
    if org == PLATFORM:
        yield "org", "is the platform's own: it has members and an audit log, and serves no models"


def _email(email: str) -> Iterator[Fault]:
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


def _text(field: str, text: str, *, least: int = 0) -> Iterator[Fault]:
    if not least <= len(text) <= MAX_TEXT or not text.isprintable() or text != text.strip():
        yield field, f"is {least} to {MAX_TEXT} printable characters without spaces around them"


def _identifier(field: str, text: str, parse: Callable[[str], Any]) -> Iterator[Fault]:
    try:
        parse(text)
    except InvalidIdError as error:
        yield field, str(error)


def _range(field: str, value: int, least: int, most: int) -> Iterator[Fault]:
    if not least <= value <= most:
        yield field, f"is {least} to {most}"


def _each_once(field: str, values: tuple[str, ...]) -> Iterator[Fault]:
    if len(set(values)) != len(values):
        yield field, "are given once each"
    if len(values) > MAX_LIST:
        yield field, f"are at most {MAX_LIST}"


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _is_zone(name: str) -> bool:
    return name == "UTC" or name in _zones()


def _shown(text: str) -> str:
    return text[:64].encode("unicode_escape").decode()


_RULES: Final[dict[type[Struct], Callable[[Any], Iterator[Fault]]]] = {
    Org: _org,
    Member: _member,
    Team: _team,
    Upstream: _upstream,
    ModelAlias: _model,
    Limit: _limit,
    Price: _price,
    Webhook: _webhook,
    OrgRule: _rule,
    AuditStream: _audit_stream,
    OAuthClient: client_faults,
    IdentityProvider: _idp,
    Service: _service,
    ServiceTrust: _trust,
}

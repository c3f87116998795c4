"""The rules every stored thing keeps. Pure: an item in, its faults out; what needs the store is checked there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit
from zoneinfo import available_timezones

from msgspec import Struct

from policies.facts import Action, Role
from policies.holds import HoldError
from policies.holds import parse as parse_hold
from tenants.budgets import Webhook
from tenants.clientrules import client_faults
from tenants.clients import OAuthClient
from tenants.fieldrules import (
    MAX_TIMEOUT_MS,
    Fault,
    ca_certificates,
    each_once,
    email_address,
    identifier,
    in_range,
    is_dns_name,
    named,
    plain_text,
    server_url,
    shown,
)
from tenants.idp import IdentityProvider
from tenants.idprules import idp_faults
from tenants.ids import PLATFORM, member_id, org_id, resource_name, service_id
from tenants.limitrules import MAX_FINE, limit_faults
from tenants.models import Dpop, Limit, Member, ModelAlias, Org, OrgRule, Price, Service, State, Team, Upstream
from tenants.streamrules import stream_faults
from tenants.streams import AuditStream
from tenants.trust import ServiceTrust, trust_faults
from tenants.upstreamrules import upstream_faults

MAX_WEIGHT: Final = 1_000
MAX_RETENTION_DAYS: Final = 36_500
MAX_TOKENS: Final = 10_000_000
MAX_TIME: Final = 2**40

_GLOB: Final = re.compile(r"(?:[a-z0-9._*?-]|\[!?[a-z0-9._-]+\])+")
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


def _org(item: Org) -> Iterator[Fault]:
    yield from identifier("id", item.id, org_id)
    yield from plain_text("name", item.name, least=1)
    for host in item.hosts:
        if not is_dns_name(host) or "." not in host:
            yield "hosts", f"'{shown(host)}' is not a full host name in lower case"
    yield from each_once("hosts", item.hosts)
    yield from in_range("deadline_ms", item.deadline_ms, 0, MAX_TIMEOUT_MS)
    for text in item.holds:
        try:
            parse_hold(text)
        except HoldError as error:
            yield "holds", f"'{shown(text)}' {error}"
    yield from each_once("holds", item.holds)
    if not _is_zone(item.timezone):
        yield "timezone", f"'{shown(item.timezone)}' is no IANA time zone, as Europe/Berlin is"
    yield from in_range("weight", item.weight, 1, MAX_WEIGHT)
    yield from in_range("audit_retention_days", item.audit_retention_days, 0, MAX_RETENTION_DAYS)
    yield from plain_text("audit_hold", item.audit_hold)
    yield from each_once("second_factor", item.second_factor)
    if item.id == PLATFORM and item.state is not State.ACTIVE:
        yield "state", "of the platform's own organization is always active"
    if item.personal_tokens and item.id == PLATFORM:
        yield "personal_tokens", "of the platform's own organization are off: nothing is served there"
    if item.personal_tokens and item.dpop is Dpop.REQUIRED:
        yield "personal_tokens", "are bound to no key, and this organization takes only tokens that are (dpop)"
    if item.id == PLATFORM and item.hosts:
        yield "hosts", "of the platform's own organization are none: nothing is served there"


def _member(item: Member) -> Iterator[Fault]:
    yield from identifier("id", item.id, member_id)
    yield from email_address(item.email)
    yield from plain_text("name", item.name)
    if not item.roles:
        yield "roles", "are at least one"
    yield from each_once("roles", item.roles)
    for role in item.roles:
        if item.org == PLATFORM and role not in _PLATFORM_ROLES:
            yield "roles", f"cannot be '{role}' in the platform's own organization: operator or auditor"
        if item.org != PLATFORM and role is Role.OPERATOR:
            yield "roles", "cannot be 'operator' outside the platform's own organization"
    yield from in_range("not_before", item.not_before, 0, MAX_TIME)


def _trust(item: ServiceTrust) -> Iterator[Fault]:
    yield from trust_faults(item)
    yield from ca_certificates(item.ca_pem)


def _service(item: Service) -> Iterator[Fault]:
    yield from identifier("id", item.id, service_id)
    yield from named(item.org, item.name)
    if not item.roles:
        yield "roles", "are at least one"
    yield from each_once("roles", item.roles)
    for role in item.roles:
        if role not in SERVICE_ROLES:
            yield "roles", f"cannot be '{role}' of a service account: {', '.join(sorted(SERVICE_ROLES))}"
    yield from in_range("not_before", item.not_before, 0, MAX_TIME)


def _idp(item: IdentityProvider) -> Iterator[Fault]:
    yield from idp_faults(item)
    yield from ca_certificates(item.ca_pem)


def _team(item: Team) -> Iterator[Fault]:
    yield from named(item.org, item.name)
    yield from plain_text("title", item.title)


def _model(item: ModelAlias) -> Iterator[Fault]:
    yield from named(item.org, item.name)
    yield from identifier("upstream", item.upstream, resource_name)
    yield from plain_text("model", item.model, least=1)
    if not item.tasks:
        yield "tasks", "are at least one"
    yield from each_once("tasks", item.tasks)
    if Action.LIST_MODELS in item.tasks:
        yield "tasks", f"cannot be '{Action.LIST_MODELS}': listing is no task of a model"
    yield from in_range("max_tokens", item.max_tokens, 1, MAX_TOKENS)


def _price(item: Price) -> Iterator[Fault]:
    yield from identifier("org", item.org, org_id)
    yield from plain_text("model", item.model, least=1)
    yield from in_range("input", item.input, 0, MAX_FINE)
    yield from in_range("output", item.output, 0, MAX_FINE)


def _webhook(item: Webhook) -> Iterator[Fault]:
    yield from identifier("org", item.org, org_id)
    if faults := list(server_url("url", item.url)):
        yield from faults
    elif "@" in urlsplit(item.url).netloc:
        yield "url", "carries no user name and no password"
    elif "#" in item.url:
        yield "url", "has no fragment"
    yield from ca_certificates(item.ca_pem)


def _rule(item: OrgRule) -> Iterator[Fault]:
    yield from named(item.org, item.name)
    for field, values in (("roles", item.roles), ("actions", item.actions), ("models", item.models)):
        if not values:
            yield field, "are at least one: an empty list matches nothing"
        yield from each_once(field, values)
    if Role.OPERATOR in item.roles:
        yield "roles", "cannot be 'operator': nothing is served in the platform's own organization"
    for pattern in item.models:
        if len(pattern) > 64 or not _GLOB.fullmatch(pattern):
            yield (
                "models",
                f"'{shown(pattern)}' is not a pattern of model names: at most 64 of a-z, 0-9, '.', '_', '-', "
                "with '*', '?' and '[…]' as wildcards",
            )


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _is_zone(name: str) -> bool:
    return name == "UTC" or name in _zones()


_RULES: Final[dict[type[Struct], Callable[[Any], Iterator[Fault]]]] = {
    Org: _org,
    Member: _member,
    Team: _team,
    Upstream: upstream_faults,
    ModelAlias: _model,
    Limit: limit_faults,
    Price: _price,
    Webhook: _webhook,
    OrgRule: _rule,
    AuditStream: stream_faults,
    OAuthClient: client_faults,
    IdentityProvider: _idp,
    Service: _service,
    ServiceTrust: _trust,
}

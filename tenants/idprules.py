"""The rules that an organization's identity provider keeps. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from policies.facts import Role
from tenants.idp import IdentityProvider, provider_url_fault
from tenants.ids import PLATFORM, InvalidIdError, OrgId, member_id, resource_name

Fault = tuple[str, str]

MAX_GROUP: Final = 256
MAX_MAPPED: Final = 200
MAX_LIST: Final = 100
MAX_TEXT: Final = 200

_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,200}")  # RFC 6749 section 3.3
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_PLATFORM_ROLES: Final = frozenset({Role.OPERATOR, Role.AUDITOR})


def idp_faults(item: IdentityProvider) -> Iterator[Fault]:
    """Every fault of `item` but those of `ca_pem`, as `tenants.validate` says them."""
    if wrong := provider_url_fault(item.issuer):
        yield "issuer", wrong
    if not _is_text(item.client_id) or not item.client_id.isascii():
        yield "client_id", f"is 1 to {MAX_TEXT} printable ASCII characters"
    if "openid" not in item.scopes or not all(_SCOPE.fullmatch(scope) for scope in item.scopes):
        yield "scopes", "are words of RFC 6749, 'openid' among them"
    yield from _listed("scopes", item.scopes)
    for field, text in (("email_claim", item.email_claim), ("name_claim", item.name_claim)):
        if not _is_text(text):
            yield field, f"is 1 to {MAX_TEXT} printable characters"
    if item.groups_claim and not _is_text(item.groups_claim):
        yield "groups_claim", f"is at most {MAX_TEXT} printable characters"
    yield from _people(item)
    yield from _roles(item)
    yield from _groups(item)
    for demand in item.demands:
        values = (*demand.acr, *demand.amr)
        if not values or not all(_SCOPE.fullmatch(value) for value in values):
            yield "demands", "name at least one value of acr or amr each, without spaces"
    yield from _listed("demands", [demand.role for demand in item.demands])
    yield from _doors(item)


def _people(item: IdentityProvider) -> Iterator[Fault]:
    for domain in item.domains:
        if not _DOMAIN.fullmatch(domain):
            yield "domains", "are domain names in lower case, as in addresses after the @"
    yield from _listed("domains", item.domains)
    for claim in item.claims:
        if not _is_text(claim.name) or not _is_text(claim.value):
            yield "claims", f"have a name and a value of 1 to {MAX_TEXT} printable characters"
    yield from _listed("claims", [claim.name for claim in item.claims])
    if item.jit and not item.domains:
        yield "domains", "are needed with jit: else whoever the provider lets in would become a member"


def _roles(item: IdentityProvider) -> Iterator[Fault]:
    if not item.default_roles:
        yield "default_roles", "are at least one"
    yield from _listed("default_roles", item.default_roles)
    for role in item.default_roles:
        if role in (Role.OWNER, Role.OPERATOR):
            yield "default_roles", f"cannot be '{role}': only a group that is mapped to it gives it"
    given = [*item.default_roles, *(one.role for one in item.group_roles), *(one.role for one in item.demands)]
    for role in dict.fromkeys(given):
        if (role in _PLATFORM_ROLES if item.org == PLATFORM else role is not Role.OPERATOR) is False:
            where = "in the platform's own organization" if item.org == PLATFORM else "here"
            yield "group_roles", f"and the like cannot be '{role}' {where}"


def _groups(item: IdentityProvider) -> Iterator[Fault]:
    for field, groups in (
        ("group_roles", [(one.group, one.role) for one in item.group_roles]),
        ("group_teams", [(one.group, one.team) for one in item.group_teams]),
    ):
        if groups and not item.groups_claim:
            yield field, "need groups_claim: which claim says what groups somebody is in"
        if len(groups) > MAX_MAPPED:
            yield field, f"are at most {MAX_MAPPED}"
        if len(set(groups)) != len(groups):
            yield field, "are given once each"
        if not all(_is_text(group, MAX_GROUP) for group, _ in groups):
            yield field, f"name groups by 1 to {MAX_GROUP} printable characters"
    for one in item.group_teams:
        try:
            resource_name(one.team)
        except InvalidIdError as error:
            yield "group_teams", str(error)


def _doors(item: IdentityProvider) -> Iterator[Fault]:
    for member in item.break_glass:
        try:
            member_id(member)
        except InvalidIdError as error:
            yield "break_glass", str(error)
    yield from _listed("break_glass", item.break_glass)
    if item.only and not item.break_glass:
        yield "break_glass", "is needed with only: an owner who gets in by password while the provider is away"


def _listed(field: str, values: Sequence[str]) -> Iterator[Fault]:
    if len(set(values)) != len(values):
        yield field, "are given once each"
    if len(values) > MAX_LIST:
        yield field, f"are at most {MAX_LIST}"


def _is_text(text: str, most: int = MAX_TEXT) -> bool:
    return 0 < len(text) <= most and text.isprintable() and text == text.strip()


def top_role(org: OrgId) -> Role:
    """Who has a say over everybody else in `org`."""
    return Role.OPERATOR if org == PLATFORM else Role.OWNER


def domain_of(email: str) -> str:
    """What stands after the @, as `domains` has it; '' for what is no address, or none that can be compared."""
    try:
        return email.rpartition("@")[2].encode("idna").decode().lower()
    except UnicodeError:
        return ""


def within(email: str, domains: Iterable[str]) -> bool:
    """Whether `email` is of one of `domains`, of which none means any. Sub-domains are others."""
    allowed = frozenset(domains)
    return not allowed or domain_of(email) in allowed

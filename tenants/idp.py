"""How an organization's people sign in at a provider of its own: OpenID Connect, this gateway the relying party.

Of the control process alone: no worker reads it.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from policies.facts import Role
from tenants.ids import MemberId, OrgId

MAX_URL: Final = 2_048
SCOPES: Final = ("openid", "email", "profile")

_HOST: Final = re.compile(
    r"(?=.{1,253}\Z)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)


class GroupRole(Struct, frozen=True):
    """Whoever is in `group` there has `role` here."""

    group: str
    role: Role


class GroupTeam(Struct, frozen=True):
    """Whoever is in `group` there is in `team` here."""

    group: str
    team: str


class RequiredClaim(Struct, frozen=True):
    """A claim that must have this value: `hd` or `tid` of a provider that many companies share."""

    name: str
    value: str


class Demand(Struct, frozen=True):
    """Who has `role` must have signed in with one of these: values of `acr` or of `amr` (OpenID Connect Core 1.0
    section 2, RFC 8176)."""

    role: Role
    acr: tuple[str, ...] = ()
    amr: tuple[str, ...] = ()

    def met(self, acr: str, amr: tuple[str, ...]) -> bool:
        return acr in self.acr or not set(amr).isdisjoint(self.amr)


class IdentityProvider(Struct, frozen=True):
    """The provider of one organization. Its client secret is in the sealed file.

    People are known by `sub`, always. A member of before is found once, by a verified e-mail address of one of
    `domains` (empty: any). `emails_verified`: the provider holds only addresses that it vouches for, and does not
    say `email_verified` (Entra ID). `jit`: who is not known is made a member, with `default_roles`.

    At each sign-in the roles that `group_roles` names are given and taken by the groups of `groups_claim`, and the
    teams of `group_teams`; others are left as they are. `claims` must hold for anybody. `only`: passwords are
    closed to all but `break_glass`, who are owners. `set_at`: since when it is this `issuer` and `client_id`; who
    signed in before that signed in elsewhere.
    """

    org: OrgId
    issuer: str
    client_id: str
    ca_pem: str = ""
    scopes: tuple[str, ...] = SCOPES
    email_claim: str = "email"
    name_claim: str = "name"
    groups_claim: str = ""
    emails_verified: bool = False
    domains: tuple[str, ...] = ()
    claims: tuple[RequiredClaim, ...] = ()
    jit: bool = False
    default_roles: tuple[Role, ...] = (Role.MEMBER,)
    group_roles: tuple[GroupRole, ...] = ()
    group_teams: tuple[GroupTeam, ...] = ()
    demands: tuple[Demand, ...] = ()
    only: bool = False
    break_glass: tuple[MemberId, ...] = ()
    set_at: int = 0
    version: int = 1


def provider_url_fault(text: str, *, query: bool = False) -> str | None:
    """Why `text` is no URL to ask an outside provider at; None when it may be. Where its host leads is judged at
    every dial.

    `https`; `http` on loopback alone, for development. An issuer has no `query` (OpenID Connect Discovery 1.0
    section 3), endpoints may.
    """
    if not 0 < len(text) <= MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        return f"is a URL of at most {MAX_URL} printable ASCII characters"
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        return "is no URL"
    if not _is_host(url) or port == 0:
        return "has no host name or IP address that can be connected to"
    if url.scheme != "https" and not (url.scheme == "http" and on_loopback(url.hostname or "")):
        return "begins with https://"
    if "@" in url.netloc:
        return "carries no user name and no password"
    if "#" in text or ("?" in text and not query):
        return "has no fragment" if query else "has no query and no fragment"
    return None


def on_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _is_host(url: SplitResult) -> bool:
    host = url.hostname or ""
    try:
        ip_address(host)
    except ValueError:
        return "[" not in url.netloc and _HOST.fullmatch(host) is not None
    return True

"""Which outside tokens stand for a service account: what a CI system's issuer says of a job, and the rules of such
rules. Of the control process alone. Pure.

A pattern is matched against the whole value. Both are parted at `:` and `/`, and must have the same of these at
the same places; a part of the pattern that is `*` stands for one part that is not empty, and a `**` at the very
end for one or more. Any other part stands for itself, to the letter. So `repo:acme/app:ref:refs/heads/*` is every
branch whose name has no slash, and `repo:acme/**` whatever is of `acme`, and nothing is of `acme-evil`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from msgspec import Struct

from tenants.clients import Plane
from tenants.idp import provider_url_fault
from tenants.ids import PLATFORM, InvalidIdError, OrgId, resource_name, service_id

Fault = tuple[str, str]

MOST_TRUSTS: Final = 200
"""Of one organization."""

MAX_CLAIMS: Final = 16
MAX_PATTERN: Final = 512
MAX_AUDIENCE: Final = 512

_NAME: Final = re.compile(r"[A-Za-z0-9_./:-]{1,128}")
_PARTS: Final = re.compile(r"([:/])")
_ALREADY: Final = frozenset({"iss", "aud", "exp", "iat", "nbf", "jti"})

SHARED: Final[Mapping[str, frozenset[str]]] = {
    "https://token.actions.githubusercontent.com": frozenset(
        {"sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref"}
    ),
    "https://gitlab.com": frozenset({"sub", "project_path", "project_id", "namespace_path", "namespace_id"}),
    "https://agent.buildkite.com": frozenset({"sub", "organization_slug", "organization_id"}),
    "https://app.terraform.io": frozenset({"sub", "terraform_organization_id", "terraform_organization_name"}),
    "https://accounts.google.com": frozenset({"sub", "email"}),
}
"""Issuers that speak for everybody's jobs, and the claims that say whose a job is: one of these must be pinned."""


class ServiceTrust(Struct, frozen=True):
    """Tokens that `issuer` made for `audience` alone and in which `claims` hold stand for `service`, and get
    access tokens for `planes`. `claims` are each `name=pattern`, and all must hold. `ca_pem`: the issuer's own CA,
    else the system's."""

    org: OrgId
    name: str
    service: str
    issuer: str
    audience: str
    claims: tuple[str, ...]
    planes: tuple[Plane, ...] = (Plane.DATA,)
    ca_pem: str = ""
    created_at: int = 0
    version: int = 1


def holds(claims: tuple[str, ...], said: Mapping[str, Any]) -> bool:
    """Whether every one of `claims` holds in a token that says `said`, and there is one."""
    wanted = [claim.partition("=") for claim in claims]
    return bool(wanted) and all(matches(pattern, text(said.get(name))) for name, _, pattern in wanted)


def text(value: Any) -> str:
    """A claim as patterns see it: whole numbers, true and false as JSON spells them; '' for what is no single
    value, which nothing matches."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else ""


def matches(pattern: str, value: str) -> bool:
    """Whether `value` is one that `pattern` stands for."""
    wanted, found = _PARTS.split(pattern), _PARTS.split(value)
    if wanted[-1] == "**":
        if len(found) < len(wanted) or not all(found[len(wanted) - 1 :: 2]):
            return False
        wanted, found = wanted[:-1], found[: len(wanted) - 1]
    return len(wanted) == len(found) and all(
        part == said or (part == "*" and said != "") for part, said in zip(wanted, found, strict=True)
    )


def trust_faults(item: ServiceTrust) -> Iterator[Fault]:
    """Every fault of `item` but those of `ca_pem`, as `tenants.validate` says them."""
    if item.org == PLATFORM:
        yield "org", "is the platform's own: it has no service accounts"
    for field, parse, value in (("name", resource_name, item.name), ("service", service_id, item.service)):
        try:
            parse(value)
        except InvalidIdError as error:
            yield field, str(error)
    if wrong := provider_url_fault(item.issuer):
        yield "issuer", wrong
    if (
        not 0 < len(item.audience) <= MAX_AUDIENCE
        or not item.audience.isascii()
        or not item.audience.isprintable()
    ):
        yield "audience", f"is 1 to {MAX_AUDIENCE} printable ASCII characters, to the letter as the token has them"
    if not item.planes or len(set(item.planes)) != len(item.planes):
        yield "planes", "are at least one, given once each"
    yield from _claims(item)


def _claims(item: ServiceTrust) -> Iterator[Fault]:
    names = [claim.partition("=")[0] for claim in item.claims]
    if not 1 <= len(names) <= MAX_CLAIMS:
        yield (
            "claims",
            f"are 1 to {MAX_CLAIMS}: an issuer signs for many jobs, and they say which is meant",
        )
    if len(set(names)) != len(names):
        yield "claims", "are given once each"
    for claim in item.claims:
        if fault := claim_fault(claim):
            yield "claims", fault
    whose = SHARED.get(item.issuer.rstrip("/"))
    if whose is not None and not any(_says_whose(claim, whose) for claim in item.claims):
        yield (
            "claims",
            f"of an issuer that everybody uses say whose the job is: one of {', '.join(sorted(whose))}"
            " (of sub not by a '*' alone)",
        )


def _says_whose(claim: str, whose: frozenset[str]) -> bool:
    """Whether `claim` pins whose a job is. Their subjects begin with what follows, `repo:`, and then with whose it
    is: `repo:**` is everybody's."""
    name, _, pattern = claim.partition("=")
    parts = _PARTS.split(pattern)
    return name in whose and not (name == "sub" and len(parts) > 2 and parts[2] in ("*", "**"))


def claim_fault(claim: str) -> str:
    """What is wrong with one `name=pattern`, '' for nothing."""
    name, _, pattern = claim.partition("=")
    if not _NAME.fullmatch(name) or not 0 < len(pattern) <= MAX_PATTERN or not pattern.isprintable():
        return f"are each NAME=PATTERN, the pattern at most {MAX_PATTERN} printable characters"
    if name in _ALREADY:
        return f"'{name}' is judged anyway"
    parts = _PARTS.split(pattern)
    if "**" in parts[:-1] or any("*" in part and part not in ("*", "**") for part in parts):
        return f"'{name}': a '*' stands for a whole part between ':' and '/', and '**' is the last part if at all"
    if parts[0] in ("*", "**"):
        return f"'{name}': a pattern begins with a part that is no '*', or anybody could make what it matches"
    return ""

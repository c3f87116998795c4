"""Identifiers, and the only place that says what they look like."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import NewType

OrgId = NewType("OrgId", str)
MemberId = NewType("MemberId", str)
ServiceId = NewType("ServiceId", str)

PLATFORM = OrgId("platform")
"""The organization of the platform's operators. It has members and an audit log, and no models."""

_SLUG = re.compile(r"[a-z](?:[a-z0-9-]{0,38}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_MEMBER = re.compile(r"mem_[0-9a-z]{1,40}")
_MEMBERS = re.compile(r"\bmem_[0-9a-z]{1,40}\b")
_SERVICE = re.compile(r"svc_[0-9a-z]{1,40}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: nothing that reads like something else

SLUG_RULE = (
    "2 to 40 lower-case letters, digits and hyphens, starting with a letter, "
    "ending with a letter or digit, without two hyphens in a row"
)
NAME_RULE = (
    "1 to 64 lower-case letters, digits, '.', '_' and '-', starting and ending with a letter or digit, "
    "without two dots in a row"
)
MEMBER_RULE = "'mem_' and 1 to 40 lower-case letters and digits"
SERVICE_RULE = "'svc_' and 1 to 40 lower-case letters and digits"


class InvalidIdError(ValueError):
    """A string that cannot be an identifier. The message says which rule it breaks and is safe to show."""


def org_id(text: str) -> OrgId:
    """Parse an organization's id: it becomes part of paths, keys and host names, so it is a DNS label."""
    if not (2 <= len(text) <= 40 and _SLUG.fullmatch(text)) or "--" in text:
        raise InvalidIdError(f"an organization's id is {SLUG_RULE}")
    return OrgId(text)


def resource_name(text: str) -> str:
    """Parse the name of an upstream, a model alias, a limit or a rule. Never a path: no '/', no '..'."""
    if not _NAME.fullmatch(text) or ".." in text:
        raise InvalidIdError(f"a name is {NAME_RULE}")
    return text


def member_id(text: str) -> MemberId:
    """Parse a member's id as it comes back in a path or a token."""
    if not _MEMBER.fullmatch(text):
        raise InvalidIdError(f"a member's id is {MEMBER_RULE}")
    return MemberId(text)


def is_member_id(text: str) -> bool:
    return _MEMBER.fullmatch(text) is not None


def member_ids_in(text: str) -> list[str]:
    """Whatever in it reads as a member's id, as a word of its own."""
    return _MEMBERS.findall(text) if "mem_" in text else []


def rename_members(text: str, name: Callable[[str], str]) -> str:
    """`text` with `name` of each id that `member_ids_in` finds in its place."""
    return _MEMBERS.sub(lambda found: name(found[0]), text) if "mem_" in text else text


def new_member_id() -> MemberId:
    """A fresh pseudonym, 100 random bits: it appears in tokens and audit entries instead of an e-mail."""
    return MemberId("mem_" + "".join(secrets.choice(_ALPHABET) for _ in range(20)))


def service_id(text: str) -> ServiceId:
    """Parse a service account's id. It stands where a member's does, in tokens and in the log, and is nobody's
    pseudonym: there is no person behind it."""
    if not _SERVICE.fullmatch(text):
        raise InvalidIdError(f"a service account's id is {SERVICE_RULE}")
    return ServiceId(text)


def is_service_id(text: str) -> bool:
    return _SERVICE.fullmatch(text) is not None


def new_service_id() -> ServiceId:
    return ServiceId("svc_" + "".join(secrets.choice(_ALPHABET) for _ in range(20)))


def new_static_key_id() -> str:
    """What a personal token is called where it cannot be shown: 100 random bits."""
    return "pt_" + "".join(secrets.choice(_ALPHABET) for _ in range(20))

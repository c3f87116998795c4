"""Groups and teams. A group's displayName is the team's title; its id is the team's name and when it was
made, so that an id is never another group's, though a name may come back."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from msgspec import Struct

from gateway.scim.documents import Document
from gateway.scim.errors import invalid_value, shown
from gateway.scim.meta import etag, meta
from gateway.scim.schemas import CORE_GROUP
from tenants.ids import InvalidIdError, MemberId, is_member_id, resource_name
from tenants.models import Team
from tenants.scim import ScimGroup

MOST_NAME: Final = 48
"""Characters of a name that is made of a displayName: room for what makes it one of its own."""
_OTHER: Final = re.compile(r"[^a-z0-9]+")
_HEX: Final = re.compile(r"[0-9a-f]{1,12}")


class GroupFacts(Struct, frozen=True):
    """What a group as JSON says."""

    display_name: str
    external_id: str
    members: tuple[MemberId, ...]


def group_id(team: Team) -> str:
    return f"{team.name}.{team.created_at:x}"


def parse_group_id(text: str) -> tuple[str, int] | None:
    """(the team's name, when it was made); None for what is no id."""
    name, _, made = text.rpartition(".")
    try:
        return (resource_name(name), int(made, 16)) if _HEX.fullmatch(made) else None
    except InvalidIdError:
        return None


def team_name(display_name: str, taken: Iterable[str]) -> str:
    """A name for a new team: what is legible of its displayName, and a number where somebody has that."""
    plain = unicodedata.normalize("NFKD", display_name).encode("ascii", "ignore").decode().lower()
    stem = _OTHER.sub("-", plain).strip("-")[:MOST_NAME].strip("-") or "group"
    known = set(taken)
    number = 1
    name = stem
    while name in known:
        number += 1
        name = f"{stem}-{number}"
    return name


def writable_group(group: ScimGroup, base: str) -> Document:
    """What a client may change, as it stands."""
    found: Document = {"displayName": group.display_name}
    if group.external_id:
        found["externalId"] = group.external_id
    if group.members:
        found["members"] = [
            {"value": member, "$ref": f"{base}/Users/{member}", "type": "User"} for member in group.members
        ]
    return found


def group_document(group: ScimGroup, base: str) -> Document:
    """The resource as it is answered; without a version where its members were not read."""
    told = group_etag(group) if group.members is not None else ""
    key = group_id(group.team)
    return {
        "schemas": [CORE_GROUP],
        "id": key,
        **writable_group(group, base),
        "meta": meta("Group", f"{base}/Groups/{key}", group.team.created_at, group.modified_at, told),
    }


def group_etag(group: ScimGroup) -> str:
    """The team's version, and who is in it."""
    return etag(group.team.version, [group.external_id, *(group.members or ())])


def described_group(document: Document) -> GroupFacts:
    """What `document` says. Raises `ScimError` invalidValue."""
    display_name = document.get("displayName", "")
    if not display_name or display_name != display_name.strip() or len(display_name) > 200:
        raise invalid_value("'displayName' is 1 to 200 characters without spaces around them")
    members: dict[MemberId, None] = {}
    for value in document.get("members", ()):
        one = value.get("value", "")
        if str(value.get("type", "User")).lower() != "user":
            raise invalid_value("The members of a group are users: groups within groups are not supported.")
        if not is_member_id(one):
            raise invalid_value(f"There is no user '{shown(one)}'.")
        members[MemberId(one)] = None
    return GroupFacts(display_name, document.get("externalId", ""), tuple(members))

"""Users and members: what of a member a SCIM client sees, and what a user as JSON says of a member."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct

from gateway.scim.documents import Document, copied
from gateway.scim.errors import invalid_value, shown
from gateway.scim.groups import group_id
from gateway.scim.meta import etag, meta
from gateway.scim.schemas import CORE_USER, ENTERPRISE_USER
from tenants.models import Member, State
from tenants.scim import ScimUser, UserFacts

_PROFILE: Final = ("name", "displayName", "emails", ENTERPRISE_USER)


class Described(Struct, frozen=True):
    """What a user as JSON says: of the member, and what is kept beside."""

    email: str
    name: str
    state: State
    facts: UserFacts


def writable(user: ScimUser) -> Document:
    """What a client may change, as it stands: what PATCH starts from, and a PUT is compared with.

    What somebody has changed in the member since, in the admin API, is what counts.
    """
    member = user.member
    active = member.state is State.ACTIVE
    if user.facts is None:
        emails = [{"value": member.email, "type": "work", "primary": True}]
        named = {"displayName": member.name} if member.name else {}
        return {"userName": member.email, "active": active, "emails": emails, **named}
    found: Document = {"userName": user.facts.user_name, "active": active, **copied(dict(user.facts.profile))}
    if user.facts.external_id:
        found["externalId"] = user.facts.external_id
    if _email(found) != member.email:
        values = found.setdefault("emails", [{"type": "work", "primary": True}])
        _significant(values)["value"] = member.email
    if _name(found) != member.name:
        found["displayName"] = member.name
    return found


def described(document: Document, before: State = State.ACTIVE) -> Described:
    """What `document` says. `before`: the member's state, which stands where it says nothing of `active`.

    Raises `ScimError` invalidValue.
    """
    user_name = document.get("userName", "")
    if not user_name or user_name != user_name.strip():
        raise invalid_value("'userName' is required, without spaces around it")
    email = _email(document)
    if "@" not in email:
        raise invalid_value(
            f"'{shown(user_name)}' is no e-mail address, so 'emails' is required: every member has an address"
        )
    active = document.get("active", before is State.ACTIVE)
    profile: Document = {name: document[name] for name in _PROFILE if name in document}
    facts = UserFacts(user_name, document.get("externalId", ""), profile)
    return Described(email, _name(document), State.ACTIVE if active else State.SUSPENDED, facts)


def user_document(user: ScimUser, base: str) -> Document:
    """The resource as it is answered. `base`: the URL of the organization's SCIM, without a slash at its
    end."""
    member = user.member
    found = writable(user)
    extended = [ENTERPRISE_USER] if ENTERPRISE_USER in found else []
    groups = [
        {
            "value": group_id(team),
            "$ref": f"{base}/Groups/{group_id(team)}",
            "display": team.title or team.name,
            "type": "direct",
        }
        for team in user.teams
    ]
    return {
        "schemas": [CORE_USER, *extended],
        "id": member.id,
        **found,
        **({"groups": groups} if groups else {}),
        "roles": [{"value": role.value} for role in member.roles],
        "meta": meta("User", f"{base}/Users/{member.id}", member.created_at, user.modified_at, user_etag(user)),
    }


def user_etag(user: ScimUser) -> str:
    """Weak (RFC 7644 section 3.14): the member's version, and the groups they are in."""
    return etag(user.member.version, [group_id(team) + team.title for team in user.teams])


def _significant(emails: list[dict[str, Any]]) -> dict[str, Any]:
    """The address that is the member's: the primary one, else the one of type work, else the first."""
    return next(
        (one for one in emails if one.get("primary")),
        next((one for one in emails if str(one.get("type", "")).lower() == "work"), emails[0]),
    )


def _email(document: Document) -> str:
    emails = document.get("emails")
    return str(_significant(emails).get("value", "") if emails else document.get("userName", "")).strip()


def _name(document: Document) -> str:
    parts = document.get("name", {})
    whole = " ".join(filter(None, (parts.get("givenName"), parts.get("familyName"))))
    return " ".join(str(document.get("displayName") or parts.get("formatted") or whole).split())


def changed_names(before: Document, after: Document) -> list[str]:
    """The attributes that differ, for the audit entry: never what they are."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def renewed(member: Member, told: Described) -> Member:
    """The member as `told` has them."""
    return Member(
        org=member.org,
        id=member.id,
        email=told.email,
        name=told.name,
        roles=member.roles,
        state=told.state,
        not_before=member.not_before,
        created_at=member.created_at,
        version=member.version,
    )

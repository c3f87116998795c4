"""What a user and a group are made of (RFC 7643 sections 4, 7 and 8): one table, from which bodies are read,
paths and filters are resolved, and `/Schemas` is answered.

What is not in it is accepted and not kept: the less is known of people, the less can leak.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal

from msgspec import Struct

CORE_USER: Final = "urn:ietf:params:scim:schemas:core:2.0:User"
CORE_GROUP: Final = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE_USER: Final = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
SCHEMA: Final = "urn:ietf:params:scim:schemas:core:2.0:Schema"
RESOURCE_TYPE: Final = "urn:ietf:params:scim:schemas:core:2.0:ResourceType"

Kind = Literal["string", "boolean", "dateTime", "reference", "complex"]


class Attribute(Struct, frozen=True, kw_only=True):
    """RFC 7643 section 7. `exact`: case counts. `sub`: of a complex one."""

    name: str
    description: str
    type: Kind = "string"
    multi: bool = False
    required: bool = False
    exact: bool = False
    mutability: Literal["readOnly", "readWrite", "immutable"] = "readWrite"
    returned: Literal["always", "default"] = "default"
    uniqueness: Literal["none", "server"] = "none"
    canonical: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    sub: tuple[Attribute, ...] = ()

    def told(self) -> dict[str, Any]:
        """As `/Schemas` says it."""
        said: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "multiValued": self.multi,
            "description": self.description,
            "required": self.required,
            "mutability": self.mutability,
            "returned": self.returned,
        }
        if self.type in {"string", "reference", "dateTime"}:
            said |= {"caseExact": self.exact, "uniqueness": self.uniqueness}
        if self.canonical:
            said["canonicalValues"] = list(self.canonical)
        if self.references:
            said["referenceTypes"] = list(self.references)
        if self.sub:
            said["subAttributes"] = [one.told() for one in self.sub]
        return said


class Schema(Struct, frozen=True):
    id: str
    name: str
    description: str
    attributes: tuple[Attribute, ...]

    def told(self) -> dict[str, Any]:
        return {
            "schemas": [SCHEMA],
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "attributes": [one.told() for one in self.attributes],
        }


class ResourceKind(Struct, frozen=True):
    """RFC 7643 section 6. `unkept`: attributes of the RFC, in lower case, that are accepted and not kept;
    those of an extension behind its URN and a colon, those of a complex attribute behind its name and a
    dot."""

    name: str
    endpoint: str
    description: str
    schema: Schema
    extensions: tuple[Schema, ...] = ()
    unkept: frozenset[str] = frozenset()

    @property
    def schemas(self) -> tuple[Schema, ...]:
        return (self.schema, *self.extensions)

    def told(self) -> dict[str, Any]:
        return {
            "schemas": [RESOURCE_TYPE],
            "id": self.name,
            "name": self.name,
            "endpoint": self.endpoint,
            "description": self.description,
            "schema": self.schema.id,
            "schemaExtensions": [{"schema": one.id, "required": False} for one in self.extensions],
        }


def _text(name: str, description: str, **more: Any) -> Attribute:
    return Attribute(name=name, description=description, **more)


def _read(name: str, description: str, **more: Any) -> Attribute:
    return Attribute(name=name, description=description, mutability="readOnly", **more)


COMMON: Final = (
    Attribute(name="schemas", description="Schemas used.", multi=True, exact=True, returned="always"),
    _read("id", "The server's own identifier.", exact=True, returned="always", uniqueness="server"),
    _text("externalId", "The provisioning client's own identifier.", exact=True),
    _read(
        "meta",
        "About the resource.",
        type="complex",
        sub=(
            _read("resourceType", "User or Group.", exact=True),
            _read("created", "When it was created.", type="dateTime"),
            _read("lastModified", "When it was last changed.", type="dateTime"),
            _read("location", "Its URL.", type="reference", exact=True),
            _read("version", "Its ETag.", exact=True),
        ),
    ),
)
"""RFC 7643 section 3.1: of every resource, and in no schema."""

USER_SCHEMA: Final = Schema(
    CORE_USER,
    "User",
    "A member of the organization",
    (
        _text(
            "userName",
            "What the identity provider calls them; unique in the organization.",
            required=True,
            uniqueness="server",
        ),
        Attribute(
            name="name",
            description="The parts of their name.",
            type="complex",
            sub=(
                _text("formatted", "The whole name."),
                _text("familyName", "The family name."),
                _text("givenName", "The given name."),
            ),
        ),
        _text("displayName", "The name that is shown."),
        Attribute(
            name="active",
            description="false: shut out, as by `orgate member offboard`. Left out at creation it is true; it "
            "cannot be removed, for nobody's access is undecided.",
            type="boolean",
            required=True,
        ),
        Attribute(
            name="emails",
            description="The primary one (else the one of type work, else the first) is the member's address. May "
            "be left out where userName is an address.",
            type="complex",
            multi=True,
            required=True,
            sub=(
                _text("value", "The address.", required=True),
                _text("type", "Its use.", canonical=("work", "home", "other")),
                Attribute(name="primary", description="The one to use.", type="boolean"),
            ),
        ),
        _read(
            "groups",
            "The groups they are in; change the groups to change it.",
            type="complex",
            multi=True,
            sub=(
                _read("value", "The group's id.", exact=True),
                _read("$ref", "The group's URL.", type="reference", exact=True, references=("Group",)),
                _read("display", "The group's displayName."),
                _read("type", "How they are in it.", canonical=("direct",)),
            ),
        ),
        _read(
            "roles",
            "Their roles in Orgate; groups may bring some (`orgate scim role`).",
            type="complex",
            multi=True,
            sub=(_read("value", "The role."),),
        ),
    ),
)

ENTERPRISE_SCHEMA: Final = Schema(
    ENTERPRISE_USER,
    "EnterpriseUser",
    "Of an enterprise's users",
    (
        _text("employeeNumber", "Their number in the enterprise."),
        _text("costCenter", "Who pays for them."),
        _text("department", "Their department."),
    ),
)

GROUP_SCHEMA: Final = Schema(
    CORE_GROUP,
    "Group",
    "A team of the organization",
    (
        _text("displayName", "The team's title; unique in the organization.", required=True, uniqueness="server"),
        Attribute(
            name="members",
            description="Who is in it: users, no groups.",
            type="complex",
            multi=True,
            sub=(
                _text("value", "The user's id.", exact=True, mutability="immutable"),
                Attribute(
                    name="$ref",
                    description="The user's URL.",
                    type="reference",
                    exact=True,
                    mutability="immutable",
                    references=("User",),
                ),
                _text("type", "User.", mutability="immutable", canonical=("User",)),
            ),
        ),
    ),
)

_ENTERPRISE: Final = ENTERPRISE_USER.lower()
USER: Final = ResourceKind(
    "User",
    "/Users",
    "Members of the organization",
    USER_SCHEMA,
    (ENTERPRISE_SCHEMA,),
    frozenset(
        {
            "addresses",
            "entitlements",
            "ims",
            "locale",
            "name.honorificprefix",
            "name.honorificsuffix",
            "name.middlename",
            "nickname",
            "password",
            "phonenumbers",
            "photos",
            "preferredlanguage",
            "profileurl",
            "timezone",
            "title",
            "usertype",
            "x509certificates",
            "emails.display",
            *(f"{_ENTERPRISE}:{name}" for name in ("division", "manager", "organization")),
        }
    ),
)
GROUP: Final = ResourceKind(
    "Group", "/Groups", "Teams of the organization", GROUP_SCHEMA, (), frozenset({"members.display"})
)
KINDS: Final[Mapping[str, ResourceKind]] = {kind.name: kind for kind in (USER, GROUP)}
SCHEMAS: Final = tuple(schema for kind in KINDS.values() for schema in kind.schemas)


@lru_cache(maxsize=256)
def _named(attributes: tuple[Attribute, ...]) -> Mapping[str, Attribute]:
    return {one.name.lower(): one for one in attributes}


def attribute(attributes: tuple[Attribute, ...], name: str) -> Attribute | None:
    """By name; case does not count (RFC 7643 section 2.1)."""
    return _named(attributes).get(name.lower())

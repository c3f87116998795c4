"""Attribute notation (RFC 7644 section 3.10): `userName`, `name.givenName`, `urn:…:User:department`."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from gateway.scim.schemas import COMMON, Attribute, ResourceKind, Schema, attribute

ATTRIBUTE: Final = re.compile(r"[A-Za-z$][A-Za-z0-9_$-]{0,79}")


class AttrPath(Struct, frozen=True):
    """What was written. `urn` is '' where there was none."""

    urn: str
    name: str
    sub: str = ""

    def __str__(self) -> str:
        front = f"{self.urn}:" if self.urn and self.name else self.urn
        return f"{front}{self.name}{'.' + self.sub if self.sub else ''}"


class Place(Struct, frozen=True):
    """Where it leads. `extension` is the URN of the extension that has the attribute, '' for the resource
    itself."""

    extension: str
    attribute: Attribute
    sub: Attribute | None = None

    @property
    def leaf(self) -> Attribute:
        return self.sub or self.attribute

    @property
    def read_only(self) -> bool:
        return self.attribute.name == "schemas" or "readOnly" in (self.attribute.mutability, self.leaf.mutability)


class Whole(Struct, frozen=True):
    """An extension as a whole."""

    schema: Schema


class Unkept(Struct, frozen=True):
    """An attribute of the RFC that is accepted, and not kept."""


def parse(text: str, kinds: tuple[ResourceKind, ...]) -> AttrPath | None:
    """None for what is no attribute at all. A URN is found by the schemas there are: it has dots and
    colons."""
    lowered = text.lower()
    for kind in kinds:
        for schema in kind.schemas:
            known = schema.id.lower()
            if lowered == known:
                return AttrPath(schema.id, "")
            if lowered.startswith(known + ":"):
                return _parts(schema.id, text[len(known) + 1 :])
    if lowered.startswith("urn:"):
        urn, _, rest = text.rpartition(":")
        return _parts(urn, rest)
    return _parts("", text)


def _parts(urn: str, rest: str) -> AttrPath | None:
    name, dot, sub = rest.partition(".")
    if not ATTRIBUTE.fullmatch(name) or (dot and not ATTRIBUTE.fullmatch(sub)):
        return None
    return AttrPath(urn, name, sub)


def locate(kind: ResourceKind, path: AttrPath) -> Place | Whole | Unkept | None:
    """Where `path` leads in resources of `kind`; None: nowhere."""
    schema = kind.schema
    if path.urn:
        named = next((one for one in kind.schemas if one.id == path.urn), None)
        if named is None or (not path.name and named is kind.schema):
            return None
        if not path.name:
            return Whole(named)
        schema = named
    own = schema is kind.schema
    found = attribute(schema.attributes, path.name) or (attribute(COMMON, path.name) if own else None)
    if found is None:
        return _unkept(kind, schema, path)
    sub = attribute(found.sub, path.sub) if path.sub else None
    if path.sub and sub is None:
        return _unkept(kind, schema, path)
    return Place("" if own else schema.id, found, sub)


def _unkept(kind: ResourceKind, schema: Schema, path: AttrPath) -> Unkept | None:
    front = "" if schema is kind.schema else f"{schema.id.lower()}:"
    name = front + path.name.lower()
    return Unkept() if name in kind.unkept or f"{name}.{path.sub.lower()}" in kind.unkept else None

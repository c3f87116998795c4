"""What of a resource is answered: `attributes` and `excludedAttributes` (RFC 7644 section 3.9)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from gateway.scim.documents import Document, copied, holder_of
from gateway.scim.errors import ScimError, shown
from gateway.scim.paths import AttrPath, Place, Whole, locate, parse
from gateway.scim.schemas import COMMON, Attribute, ResourceKind

MAX_NAMES: Final = 100


class Projection:
    """What is always returned always is; a name that nobody knows takes nothing away and adds nothing.

    `only` and `without` are names, apart by commas where they come as one text. Raises `ScimError`
    invalidValue.
    """

    def __init__(
        self, kinds: tuple[ResourceKind, ...], only: str | Sequence[str], without: str | Sequence[str]
    ) -> None:
        self._only = _paths(kinds, only)
        self._without = _paths(kinds, without)
        if self._only and self._without:
            raise ScimError(400, "attributes and excludedAttributes exclude each other.", "invalidValue")

    @property
    def asked(self) -> bool:
        """Whether the caller said anything of it."""
        return bool(self._only or self._without)

    def wants(self, name: str) -> bool:
        """Whether any of the attribute `name` may be answered: what is not need not be read."""
        if self._only:
            return any(path.name.lower() == name.lower() for path in self._only)
        return not any(path.name.lower() == name.lower() and not path.sub for path in self._without)

    def of(self, document: Document, kind: ResourceKind) -> Document:
        """The part of `document`, which is not changed."""
        if self._only:
            return self._picked(document, kind)
        if not self._without:
            return document
        kept: Document = copied(document)
        for path in self._without:
            place = locate(kind, path)
            if isinstance(place, Whole):
                kept.pop(place.schema.id, None)
            elif isinstance(place, Place) and place.attribute.returned != "always":
                _cut(kept, place)
        return kept

    def _picked(self, document: Document, kind: ResourceKind) -> Document:
        always = (one.name for one in COMMON if one.returned == "always")
        kept = {name: document[name] for name in always if name in document}
        for path in self._only:
            place = locate(kind, path)
            if isinstance(place, Whole):
                if place.schema.id in document:
                    kept[place.schema.id] = document[place.schema.id]
            elif isinstance(place, Place):
                held = holder_of(document, place).get(place.attribute.name)
                if held is not None:
                    holder = holder_of(kept, place, make=True)
                    holder[place.attribute.name] = _only(held, place.sub, holder.get(place.attribute.name))
        return kept


def _paths(kinds: tuple[ResourceKind, ...], names: str | Sequence[str]) -> list[AttrPath]:
    listed = [one.strip() for one in (names.split(",") if isinstance(names, str) else names)]
    if len(listed) > MAX_NAMES:
        raise ScimError(400, f"More than {MAX_NAMES} attributes.", "invalidValue")
    found = []
    for name in filter(None, listed):
        path = parse(name, kinds)
        if path is None:
            raise ScimError(400, f"'{shown(name)}' is no attribute.", "invalidValue")
        found.append(path)
    return found


def _only(held: Any, sub: Attribute | None, before: Any) -> Any:
    """Of a complex attribute, `sub` beside what was picked of it before."""
    if sub is None:
        return held
    if isinstance(held, list):
        earlier = before if isinstance(before, list) else [{} for _ in held]
        return [{**was, **_part(value, sub)} for was, value in zip(earlier, held, strict=True)]
    return {**(before or {}), **_part(held, sub)}


def _part(value: Document, sub: Attribute) -> Document:
    return {sub.name: value[sub.name]} if sub.name in value else {}


def _cut(document: Document, place: Place) -> None:
    holder = holder_of(document, place)
    if place.sub is None:
        holder.pop(place.attribute.name, None)
        return
    held = holder.get(place.attribute.name, [])
    for value in held if isinstance(held, list) else [held]:
        value.pop(place.sub.name, None)

"""Whether a resource is what a filter asks for (RFC 7644 section 3.4.2.2, table 3)."""

from __future__ import annotations

from typing import Any, Final

from gateway.scim.filter import All, Compare, Filter, Not, Present, Some, Value, ValuePath, instant_of
from gateway.scim.paths import AttrPath, Place, locate
from gateway.scim.schemas import Attribute, ResourceKind, attribute

_ORDER: Final = frozenset({"eq", "gt", "ge", "lt", "le"})


def matches(found: Filter, document: dict[str, Any], kind: ResourceKind) -> bool:
    """Whether `document` is what the filter asks for. An attribute that its kind does not have has no
    value."""
    match found:
        case All(parts):
            return all(matches(part, document, kind) for part in parts)
        case Some(parts):
            return any(matches(part, document, kind) for part in parts)
        case Not(inner):
            return not matches(inner, document, kind)
        case ValuePath(path, inner):
            leaf, values = _values(document, path, kind)
            return leaf is not None and any(matches_value(inner, value, leaf) for value in values)
        case Present(path):
            return any(_assigned(value) for value in _values(document, path, kind)[1])
        case Compare(path, operator, value):
            leaf, values = _values(document, path, kind)
            return _compared(leaf, values, operator, value)


def matches_value(found: Filter, value: Any, owner: Attribute) -> bool:
    """The same of one value of a multi-valued attribute, `owner`."""
    match found:
        case All(parts):
            return all(matches_value(part, value, owner) for part in parts)
        case Some(parts):
            return any(matches_value(part, value, owner) for part in parts)
        case Not(inner):
            return not matches_value(inner, value, owner)
        case ValuePath():
            return False
        case Present(path):
            sub = attribute(owner.sub, path.name)
            return sub is not None and _assigned(value.get(sub.name))
        case Compare(path, operator, wanted):
            sub = attribute(owner.sub, path.name)
            held = [value[sub.name]] if sub is not None and sub.name in value else []
            return _compared(sub, held, operator, wanted)


def _values(document: dict[str, Any], path: AttrPath, kind: ResourceKind) -> tuple[Attribute | None, list[Any]]:
    """(the attribute, what the document has there, each value of it)."""
    place = locate(kind, path)
    if not isinstance(place, Place):
        return None, []
    holder = document.get(place.extension, {}) if place.extension else document
    held = holder.get(place.attribute.name)
    values = held if isinstance(held, list) else [] if held is None else [held]
    if place.sub is None:
        return place.attribute, values
    return place.sub, [value[place.sub.name] for value in values if place.sub.name in value]


def _assigned(value: Any) -> bool:
    return value is not None and value not in ("", [], {})


def _compared(leaf: Attribute | None, values: list[Any], operator: str, wanted: Value) -> bool:
    if leaf is not None and leaf.type == "complex":
        # RFC 7643 section 2.4: the significant value of a complex one is its `value`.
        leaf = attribute(leaf.sub, "value")
        values = [value["value"] for value in values if isinstance(value, dict) and "value" in value]
    if wanted is None:
        held = any(_assigned(value) for value in values)
        return held if operator == "ne" else not held
    if operator == "ne":
        return not _compared(leaf, values, "eq", wanted)
    return leaf is not None and any(_holds(leaf, value, operator, wanted) for value in values)


def _holds(leaf: Attribute, held: object, operator: str, wanted: Value) -> bool:
    if leaf.type == "boolean":
        return bool(held) == wanted
    if not isinstance(held, str) or not isinstance(wanted, str):
        return False
    if leaf.type == "dateTime" and operator in _ORDER:
        left, right = instant_of(held), instant_of(wanted)
        return left is not None and right is not None and _ordered(left, right, operator)
    has, sought = (held, wanted) if leaf.exact else (held.casefold(), wanted.casefold())
    match operator:
        case "co":
            return sought in has
        case "sw":
            return has.startswith(sought)
        case "ew":
            return has.endswith(sought)
    return _ordered(has, sought, operator)


def _ordered(left: Any, right: Any, operator: str) -> bool:
    match operator:
        case "eq":
            return bool(left == right)
        case "gt":
            return bool(left > right)
        case "ge":
            return bool(left >= right)
        case "lt":
            return bool(left < right)
    return bool(left <= right)

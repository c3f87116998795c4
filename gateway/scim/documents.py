"""Resources as JSON: read from a body, and cut down to the attributes that were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from gateway.scim.errors import invalid_syntax, invalid_value, shown
from gateway.scim.paths import Place, Whole, locate, parse
from gateway.scim.schemas import Attribute, ResourceKind, attribute

Document = dict[str, Any]

MAX_TEXT: Final = 254
"""Characters of one value: an e-mail address has no more (RFC 5321)."""
MAX_URL: Final = 2_048
MAX_VALUES: Final = 20
"""Of a multi-valued attribute of a user."""
MAX_MEMBERS: Final = 20_000
"""Of a group, in one request."""


def read(kind: ResourceKind, body: Any) -> Document:
    """The resource that `body` describes: names as the schema spells them, values of their types; what is
    read-only or not known is left out. Raises `ScimError` invalidSyntax, invalidValue."""
    told = as_object(body, "The body")
    _check_schemas(kind, told)
    found: Document = {}
    named: set[str] = set()
    for name, value in told.items():
        path = parse(name, (kind,))
        place = locate(kind, path) if path is not None else None
        if isinstance(place, Whole):
            for inner, each in as_object(value, place.schema.id).items() if value is not None else ():
                leaf = attribute(place.schema.attributes, inner)
                if leaf is not None:
                    put(found, Place(place.schema.id, leaf), each)
        elif isinstance(place, Place) and not place.read_only:
            if str(path).lower() in named:
                raise invalid_syntax(f"'{shown(name)}' is given twice, in two spellings")
            named.add(str(path).lower())
            put(found, place, value)
    tidy(found, kind)
    return found


def put(document: Document, place: Place, value: Any) -> None:
    """Set what `place` names to `value`, read as its type; a value that is none (null, '', []) unassigns
    it."""
    holder = holder_of(document, place, make=True)
    if place.sub is None:
        _assign(holder, place.attribute, coerce(place.attribute, value))
        return
    inner = dict(holder.get(place.attribute.name, {}))
    _assign(inner, place.sub, coerce(place.sub, value))
    _assign(holder, place.attribute, inner or None)


def holder_of(document: Document, place: Place, *, make: bool = False) -> Document:
    """The object that has the attribute: the resource, or its part of an extension (`make` one where it has
    none)."""
    if not place.extension:
        return document
    found: Document = document.setdefault(place.extension, {}) if make else document.get(place.extension, {})
    return found


def tidy(document: Document, kind: ResourceKind) -> None:
    """Leave no empty extension behind."""
    for one in kind.extensions:
        if not document.get(one.id, True):
            del document[one.id]


def _assign(holder: Document, leaf: Attribute, value: Any) -> None:
    if value is None:
        holder.pop(leaf.name, None)
    else:
        holder[leaf.name] = value


def coerce(leaf: Attribute, value: Any) -> Any:
    """`value` as `leaf` has it, None for no value. Lenient where providers are known to be: 'False' is false,
    and one value is a list of one. Raises `ScimError` invalidValue."""
    if not leaf.multi:
        if isinstance(value, list) and len(value) == 1 and leaf.type != "complex":
            only = value[0]  # `[{"value": "x"}]` for a plain string: what Entra ID sent for years
            value = only.get("value") if isinstance(only, dict) else only
        return coerce_one(leaf, value)
    values = value if isinstance(value, list) else [value]
    most = MAX_MEMBERS if leaf.name == "members" else MAX_VALUES
    if len(values) > most:
        raise invalid_value(f"'{leaf.name}' has more than {most} values")
    found = [one for each in values if (one := coerce_one(leaf, each)) is not None]
    if sum(1 for one in found if isinstance(one, dict) and one.get("primary")) > 1:
        raise invalid_value(f"'{leaf.name}' has more than one primary value")
    return found or None


def coerce_one(leaf: Attribute, value: Any) -> Any:
    """The same of one value of it."""
    if value is None:
        return None
    match leaf.type:
        case "boolean":
            if isinstance(value, str) and value.lower() in {"true", "false"}:
                return value.lower() == "true"
            if not isinstance(value, bool):
                raise invalid_value(f"'{leaf.name}' is true or false")
            return value
        case "complex":
            found: Document = {}
            for name, each in as_object(value, f"'{leaf.name}'").items():
                sub = attribute(leaf.sub, name)
                if sub is not None and sub.mutability != "readOnly":
                    _assign(found, sub, coerce(sub, each))
            if leaf.multi and found and "value" not in found:
                raise invalid_value(f"a value of '{leaf.name}' has no 'value'")
            return found or None
    most = MAX_URL if leaf.type == "reference" else MAX_TEXT
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise invalid_value(f"'{leaf.name}' is a string of at most {most} printable characters")
    return value or None


def as_object(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise invalid_syntax(f"{what} is a JSON object")
    return value


def _check_schemas(kind: ResourceKind, told: Mapping[str, Any]) -> None:
    """`schemas` names the resource's own (RFC 7643 section 3). Where it is left out, as some clients do, the
    endpoint says which it is."""
    given = next((value for name, value in told.items() if name.lower() == "schemas"), None)
    if given is None:
        return
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise invalid_syntax("'schemas' is a list of URNs")
    if kind.schema.id.lower() not in {one.lower() for one in given}:
        raise invalid_value(f"'schemas' does not name {kind.schema.id}")


def copied(value: Any) -> Any:
    """A copy that shares nothing with `value` that could change."""
    if isinstance(value, dict):
        return {name: copied(each) for name, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value

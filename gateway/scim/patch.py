"""PATCH (RFC 7644 section 3.5.2): operations applied to a resource as JSON, all of them or none.

As Entra ID and Okta send them, which is not always as the RFC has it: `Add` and `Replace` in capitals, no
path and dotted or qualified names as keys of the value, `"False"`, members to remove listed in the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from msgspec import Struct

from gateway.scim.documents import Document, as_object, coerce, coerce_one, copied, holder_of, put, tidy
from gateway.scim.errors import (
    ScimError,
    invalid_path,
    invalid_syntax,
    invalid_value,
    mutability,
    no_target,
    shown,
)
from gateway.scim.filter import All, Compare, Filter, parse_target
from gateway.scim.matching import matches_value
from gateway.scim.paths import AttrPath, Place, Unkept, Whole, locate, parse
from gateway.scim.schemas import Attribute, ResourceKind, attribute

MAX_OPERATIONS: Final = 1_000
MAX_WORK: Final = 50_000
"""Values that a request's operations may hold against filters, all together: half a second of the loop, which
everybody waits for. One that is only compared with an id counts a twentieth."""
_TERM: Final = 30
"""Characters of a comparison in a path, at least."""
_BY_VALUE: Final = re.compile(r'[A-Za-z]+\[value eq "[^"\\]*"\]', re.IGNORECASE)
PATCH_OP: Final = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_VERBS: Final = frozenset({"add", "replace", "remove"})


class Target(Struct, frozen=True):
    """Where an operation goes, and the path that said so."""

    path: str
    place: Place


class Chosen(Struct, frozen=True):
    """Those values of `leaf` that `filter` matches, and `sub` of each."""

    path: str
    place: Place
    filter: Filter
    sub: Attribute | None

    @property
    def leaf(self) -> Attribute:
        return self.place.attribute


def patched(kind: ResourceKind, document: Document, body: Any) -> Document:
    """`document` with the operations of `body` applied. `document` itself is not changed.

    Raises `ScimError`: invalidSyntax, invalidPath, invalidValue, mutability, noTarget.
    """
    now: Document = copied(document)
    work = 0.0
    for verb, path, value in _operations(body):
        work += sum(map(_weight, _targets(path, value))) * max(map(_size, now.values()), default=0)
        if work > MAX_WORK:
            raise ScimError(400, "So many operations on so many values: send fewer at a time.", "tooMany")
        if path:
            _apply(kind, now, verb, path, value, named=True)
        elif verb == "remove":
            raise no_target("A remove names its path.")
        else:
            for name, each in as_object(value, "Without a path the value").items():
                _apply(kind, now, verb, name, each, named=False)
        tidy(now, kind)
    for leaf in kind.schema.attributes:
        if leaf.required and not leaf.multi and leaf.name in document and leaf.name not in now:
            raise mutability(f"'{leaf.name}' is required: it can be replaced, and not removed.")
    return now


def _operations(body: Any) -> list[tuple[str, str, Any]]:
    """(verb, path or '', value) of each. Case counts nowhere."""
    told = _lowered(body, "The body")
    schemas = told.get("schemas", [PATCH_OP])
    if not isinstance(schemas, list) or PATCH_OP.lower() not in {str(one).lower() for one in schemas}:
        raise invalid_value(f"'schemas' does not name {PATCH_OP}")
    listed = told.get("operations")
    if not isinstance(listed, list) or not listed:
        raise invalid_syntax("'Operations' is a list of at least one operation")
    if len(listed) > MAX_OPERATIONS:
        raise ScimError(400, f"More than {MAX_OPERATIONS} operations.", "tooMany")
    found = []
    for each in listed:
        one = _lowered(each, "An operation")
        verb, path = one.get("op"), one.get("path")
        if not isinstance(verb, str) or verb.lower() not in _VERBS:
            raise invalid_syntax("'op' is add, replace or remove")
        if path is not None and not isinstance(path, str):
            raise invalid_path("it is no string")
        found.append((verb.lower(), (path or "").strip(), one.get("value")))
    return found


def _targets(path: str, value: Any) -> Iterator[str]:
    """Every path that an operation goes to: its own, or the keys of its value, those within an extension too."""
    if path:
        yield path
    elif isinstance(value, dict):
        for name, each in value.items():
            yield name
            if name[:4].lower() == "urn:" and isinstance(each, dict):
                yield from each


def _weight(path: str) -> float:
    return 1.0 + len(path) // _TERM if "[" in path and not _BY_VALUE.fullmatch(path) else 0.05


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list) else 1


def _lowered(value: Any, what: str) -> dict[str, Any]:
    return {name.lower(): each for name, each in as_object(value, what).items()}


def _apply(kind: ResourceKind, document: Document, verb: str, path: str, value: Any, *, named: bool) -> None:
    """One operation on one attribute. `named`: the client named it as a path; else it was a key of the value,
    where what is read-only or not known is passed over, as in a PUT."""
    target = _target(kind, path, named=named)
    match target:
        case None:
            return
        case Whole(schema):
            if verb != "add":
                document.pop(schema.id, None)
            if verb != "remove":
                for name, each in as_object(value, schema.id).items():
                    _apply(kind, document, "add", f"{schema.id}:{name}", each, named=False)
        case Target() | Chosen() if target.place.read_only:
            if named:
                raise mutability(f"'{shown(path)}' is read-only.")
        case Chosen():
            _change_chosen(document, target, verb, value)
        case Target():
            _change(document, target, verb, value)


def _target(kind: ResourceKind, text: str, *, named: bool) -> Target | Chosen | Whole | None:
    """None for what is accepted and not kept."""
    front = parse(text.partition("[")[0].strip(), (kind,))
    found = locate(kind, front) if front is not None else None
    if isinstance(found, Unkept):
        return None
    if found is None:
        if not named:
            return None
        raise invalid_path(f"there is no attribute '{shown(text)}'")
    if isinstance(found, Whole):
        return found
    if "[" not in text:
        return Target(text, found)
    try:
        _, chosen, sub = parse_target(text, kind)
    except ScimError as error:
        raise ScimError(400, error.detail.replace("filter", "path", 1), "invalidPath") from None
    if chosen is None:
        raise invalid_path(f"there is no attribute '{shown(text)}'")
    leaf = attribute(found.attribute.sub, sub)
    if leaf is None and sub:
        if f"{found.attribute.name}.{sub}".lower() in kind.unkept:
            return None
        raise invalid_path(f"there is no attribute '{shown(text)}'")
    return Chosen(text, found, chosen, leaf)


def _change(document: Document, target: Target, verb: str, value: Any) -> None:
    place = target.place
    if place.sub is not None and place.attribute.multi:
        raise invalid_path(f"'{shown(target.path)}' does not say of which value")
    if verb == "remove":
        if place.attribute.multi and value not in (None, "", [], {}):
            _remove_listed(document, place, value)
        else:
            put(document, place, None)
    elif verb == "replace":
        put(document, place, value)
    else:
        _add(document, place, value)


def _add(document: Document, place: Place, value: Any) -> None:
    told = coerce(place.leaf, value)
    if told is None:  # adding nothing changes nothing
        return
    if place.sub is None and place.attribute.multi:
        _put_values(document, place, _joined(_held(document, place), told))
    elif place.sub is None and place.attribute.type == "complex":
        holder = holder_of(document, place, make=True)
        holder[place.attribute.name] = {**holder.get(place.attribute.name, {}), **told}
    else:
        put(document, place, value)


def _remove_listed(document: Document, place: Place, value: Any) -> None:
    """The values that are listed, compared by their `value`: as Entra ID and older clients take members
    away."""
    gone = set()
    for each in value if isinstance(value, list) else [value]:
        one = each.get("value") if isinstance(each, dict) else each
        if not isinstance(one, str):
            raise invalid_value("A value to remove has a 'value'.")
        gone.add(one)
    _put_values(document, place, [one for one in _held(document, place) if one.get("value") not in gone])


def _held(document: Document, place: Place) -> list[Document]:
    return list(holder_of(document, place).get(place.attribute.name, ()))


def _put_values(document: Document, place: Place, values: list[Document]) -> None:
    holder = holder_of(document, place, make=True)
    if values:
        holder[place.attribute.name] = values
    else:
        holder.pop(place.attribute.name, None)


def _joined(held: list[Document], more: list[Document]) -> list[Document]:
    """Both. A value that is there already is there once, and a new primary one is the only one (section
    3.5.2.1)."""
    known = {one.get("value"): one for one in held}
    for one in more:
        known.setdefault(one.get("value"), one).update(one)
    chosen = next((one.get("value") for one in more if one.get("primary")), None)
    values = list(known.values())
    return values if chosen is None else _only_primary(values, chosen)


def _only_primary(values: list[Document], chosen: Any) -> list[Document]:
    for one in values:
        if one.get("primary") and one.get("value") != chosen:
            one["primary"] = False
    return values


def _change_chosen(document: Document, target: Chosen, verb: str, value: Any) -> None:
    held = _held(document, target.place)
    picked = _picked(held, target)
    if verb == "remove":
        _remove_chosen(document, target, held, picked)
        return
    if not picked:
        if verb == "replace":
            raise no_target(f"No value matches '{shown(target.path)}'.")
        # `emails[type eq "work"].value` on somebody without one: Entra ID adds it so.
        picked = [_described(target)]
        held += picked
    for one in picked:
        _set(one, target, verb, value)
    chosen = next((one.get("value") for one in picked if one.get("primary")), None)
    _put_values(document, target.place, held if chosen is None else _only_primary(held, chosen))


def _picked(held: list[Document], target: Chosen) -> list[Document]:
    match target.filter:
        case Compare(AttrPath("", name, ""), "eq", str() as wanted):  # `members[value eq "…"]`, of thousands
            sub = attribute(target.leaf.sub, name)
            if sub is not None and sub.exact:
                return [one for one in held if one.get(sub.name) == wanted]
    return [one for one in held if matches_value(target.filter, one, target.leaf)]


def _remove_chosen(document: Document, target: Chosen, held: list[Document], picked: list[Document]) -> None:
    """Nothing that matches is nothing to remove: a provider that repeats itself is not told that it
    failed."""
    if target.sub is None or target.sub.name == "value":
        gone = {id(one) for one in picked}
        held = [one for one in held if id(one) not in gone]
    else:
        for one in picked:
            one.pop(target.sub.name, None)
    _put_values(document, target.place, held)


def _set(one: Document, target: Chosen, verb: str, value: Any) -> None:
    """Change one value: its sub-attribute, or what the given object says."""
    if target.sub is not None:
        told = coerce(target.sub, value)
        one |= {target.sub.name: told} if told is not None else {}
        if told is None:
            one.pop(target.sub.name, None)
    else:
        given = as_object(value, f"A value of '{target.leaf.name}'")
        told = coerce_one(target.leaf, {"value": one.get("value"), **given}) or {}
        if verb == "replace":
            one.clear()
        one |= told
    if "value" not in one:
        raise invalid_value(f"A value of '{target.leaf.name}' has no 'value'.")


def _described(target: Chosen) -> Document:
    """The value that a filter of equalities describes."""
    parts = target.filter.parts if isinstance(target.filter, All) else (target.filter,)
    made: Document = {}
    for part in parts:
        if not isinstance(part, Compare) or part.operator != "eq":
            raise no_target(f"No value matches '{shown(target.path)}', and it does not say what to add.")
        sub = attribute(target.leaf.sub, part.path.name)
        if sub is not None and part.value is not None:
            made[sub.name] = part.value
    return made

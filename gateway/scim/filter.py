"""Filters (RFC 7644 section 3.4.2.2): text → tree. What matches one is in `matching`.

A parser of our own, by recursive descent: the input comes from outside, so its length and its depth are
bounded, each character is looked at once, and what is no filter is said with its place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from gateway.scim.errors import ScimError, invalid_filter, shown
from gateway.scim.paths import AttrPath, Place, locate, parse
from gateway.scim.schemas import Attribute, ResourceKind, attribute

MAX_LENGTH: Final = 4_096
MAX_DEPTH: Final = 16
MAX_TERMS: Final = 50
"""Comparisons of one filter."""

OPERATORS: Final = frozenset({"eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"})
_TOKEN: Final = re.compile(
    r"""\s*(?:
        (?P<mark>[()\[\]])
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<word>[A-Za-z$](?:[A-Za-z0-9_$:.-])*)
      | (?P<number>-?[0-9][0-9.eE+-]*)
      | (?P<sub>\.[A-Za-z$][A-Za-z0-9_$-]*)
    )""",
    re.VERBOSE,
)

Value = str | bool | int | float | None


class Compare(Struct, frozen=True):
    path: AttrPath
    operator: str
    value: Value


class Present(Struct, frozen=True):
    path: AttrPath


class Not(Struct, frozen=True):
    inner: Filter


class All(Struct, frozen=True):
    parts: tuple[Filter, ...]


class Some(Struct, frozen=True):
    parts: tuple[Filter, ...]


class ValuePath(Struct, frozen=True):
    """`emails[type eq "work"]`: one and the same value of `path` matches all of `inner`."""

    path: AttrPath
    inner: Filter


Filter = Compare | Present | Not | All | Some | ValuePath


class _Token(Struct, frozen=True):
    kind: str
    text: str
    at: int


def parse_filter(text: str, *kinds: ResourceKind) -> Filter:
    """Raises `ScimError` invalidFilter for what is none, or names an attribute that no resource of `kinds`
    has."""
    parser = _Parser(text, kinds)
    found = parser.any_of()
    parser.end()
    return found


def parse_target(text: str, kind: ResourceKind) -> tuple[AttrPath, Filter | None, str]:
    """A path of PATCH (RFC 7644 section 3.5.2, figure 7): the attribute, the filter of its values if there is
    one, and the sub-attribute behind that. Raises `ScimError` invalidFilter; the caller says invalidPath."""
    parser = _Parser(text, (kind,))
    path, inner, sub = parser.target()
    parser.end()
    return path, inner, sub


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise invalid_filter(f"it is longer than {MAX_LENGTH} characters")
    found: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None or match.lastgroup is None:
            raise invalid_filter(f"it cannot be read at character {at + 1}")
        found.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return found


class _Parser:
    """One filter. `within`: the multi-valued attribute whose brackets we are in, if any."""

    def __init__(self, text: str, kinds: tuple[ResourceKind, ...]) -> None:
        self._kinds = kinds
        self._tokens = _tokens(text)
        self._at = 0
        self._depth = 0
        self._terms = 0
        self._within: Attribute | None = None

    def any_of(self) -> Filter:
        parts = [self._all_of()]
        while self._word("or"):
            parts.append(self._all_of())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong("something is left over")

    def target(self) -> tuple[AttrPath, Filter | None, str]:
        path = self._path()
        if not self._mark("["):
            return path, None, ""
        inner = self._bracketed(path)
        token = self._peek()
        if token is None or token.kind != "sub":
            return path, inner, ""
        self._at += 1
        return path, inner, token.text[1:]

    def _all_of(self) -> Filter:
        parts = [self._term()]
        while self._word("and"):
            parts.append(self._term())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _term(self) -> Filter:
        token = self._peek()
        if (
            token is not None
            and token.kind == "word"
            and token.text.lower() == "not"
            and self._opens(self._at + 1)
        ):
            self._at += 1
            return Not(self._grouped())
        if self._opens(self._at):
            return self._grouped()
        return self._expression()

    def _grouped(self) -> Filter:
        self._at += 1
        self._deeper()
        inner = self.any_of()
        if not self._mark(")"):
            raise self._wrong("a ')' is missing")
        self._depth -= 1
        return inner

    def _bracketed(self, path: AttrPath) -> Filter:
        before = self._within
        self._within = self._multi(path)
        self._deeper()
        inner = self.any_of()
        if not self._mark("]"):
            raise self._wrong("a ']' is missing")
        self._depth -= 1
        self._within = before
        return inner

    def _expression(self) -> Filter:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise invalid_filter(f"it has more than {MAX_TERMS} comparisons")
        path = self._path()
        if self._mark("["):
            inner = ValuePath(path, self._bracketed(path))
            token = self._peek()
            if token is None or token.kind != "sub":
                return inner
            # `emails[type eq "work"].value eq "x"`: Entra ID asks so, and it means the same within the brackets.
            self._at += 1
            told = self._comparison(AttrPath("", token.text[1:]), self._sub(path, token.text[1:]))
            return ValuePath(path, All((inner.inner, told)))
        return self._comparison(path, self._leaf(path))

    def _comparison(self, path: AttrPath, leaf: Attribute | None) -> Filter:
        token = self._next("an operator")
        operator = token.text.lower()
        if operator == "pr":
            return Present(path)
        if token.kind != "word" or operator not in OPERATORS:
            raise self._wrong(f"'{shown(token.text)}' is no operator", token)
        value = self._value()
        return Compare(path, operator, _fitting(path, leaf, operator, value))

    def _value(self) -> Value:
        token = self._next("a value")
        if token.kind == "word":
            words: dict[str, Value] = {"true": True, "false": False, "null": None}
            if token.text.lower() in words:
                return words[token.text.lower()]
        elif token.kind in {"string", "number"}:
            try:
                found: Value = msgspec.json.decode(token.text.encode("utf-8", "surrogatepass"))
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise self._wrong("the value is no JSON", token) from None
            return found
        raise self._wrong("a value is a string in double quotes, a number, true, false or null", token)

    def _path(self) -> AttrPath:
        token = self._next("an attribute")
        found = parse(token.text, self._kinds) if token.kind == "word" else None
        if found is None or not found.name:
            raise self._wrong(f"'{shown(token.text)}' is no attribute", token)
        return found

    def _leaf(self, path: AttrPath) -> Attribute | None:
        """The attribute's definition, None for one that is not kept. Raises for one that nobody has."""
        if self._within is not None:
            found = attribute(self._within.sub, path.name)
            if found is None or path.urn or path.sub:
                raise invalid_filter(f"'{shown(str(path))}' is no sub-attribute of {self._within.name}")
            return found
        places = [locate(kind, path) for kind in self._kinds]
        if all(place is None for place in places):
            raise invalid_filter(f"there is no attribute '{shown(str(path))}'")
        return next((place.leaf for place in places if isinstance(place, Place)), None)

    def _multi(self, path: AttrPath) -> Attribute:
        leaf = self._leaf(path)
        if self._within is not None or leaf is None or not leaf.sub or not leaf.multi or path.sub:
            raise invalid_filter(f"'{shown(str(path))}' has no values that '[…]' could choose from")
        return leaf

    def _sub(self, path: AttrPath, name: str) -> Attribute:
        found = attribute(self._multi(path).sub, name)
        if found is None:
            raise invalid_filter(f"'{shown(name)}' is no sub-attribute of {path}")
        return found

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise invalid_filter(f"it is nested more than {MAX_DEPTH} deep")

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _next(self, wanted: str) -> _Token:
        token = self._peek()
        if token is None:
            raise invalid_filter(f"it ends where {wanted} should be")
        self._at += 1
        return token

    def _word(self, word: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "word" or token.text.lower() != word:
            return False
        self._at += 1
        return True

    def _opens(self, at: int) -> bool:
        return at < len(self._tokens) and self._tokens[at].text == "(" and self._tokens[at].kind == "mark"

    def _mark(self, mark: str) -> bool:
        token = self._peek()
        if token is None or token.kind != "mark" or token.text != mark:
            return False
        self._at += 1
        return True

    def _wrong(self, what: str, token: _Token | None = None) -> ScimError:
        token = token or self._peek()
        return invalid_filter(what if token is None else f"{what}, at character {token.at + 1}")


def _fitting(path: AttrPath, leaf: Attribute | None, operator: str, value: Value) -> Value:
    """`value` as its attribute has it. Raises for a comparison that cannot be made (table 3)."""
    if leaf is None or value is None:
        if operator not in {"eq", "ne"}:
            raise invalid_filter(f"'{shown(str(path))}' cannot be compared by '{operator}' with that")
        return value
    leaf = attribute(leaf.sub, "value") or leaf if leaf.type == "complex" else leaf
    match leaf.type:
        case "boolean":
            if isinstance(value, str) and value.lower() in {"true", "false"}:  # as Entra ID sends it
                value = value.lower() == "true"
            if operator not in {"eq", "ne"} or not isinstance(value, bool):
                raise invalid_filter(f"'{shown(str(path))}' is compared by eq or ne with true or false")
        case "dateTime":
            if not isinstance(value, str) or instant_of(value) is None:
                raise invalid_filter(f"'{shown(str(path))}' is compared with a date and time of RFC 3339")
        case "complex":
            raise invalid_filter(f"'{shown(str(path))}' is compared by a sub-attribute of it")
        case _:
            if not isinstance(value, str):
                raise invalid_filter(f"'{shown(str(path))}' is compared with a string")
    return value


def compared(found: Filter) -> Iterator[Compare]:
    """The comparisons that must all hold for `found` to match."""
    match found:
        case Compare():
            yield found
        case All(parts):
            for part in parts:
                yield from compared(part)


def mentions(found: Filter, name: str) -> bool:
    """Whether the filter looks at the attribute `name`."""
    match found:
        case All(parts) | Some(parts):
            return any(mentions(part, name) for part in parts)
        case Not(inner):
            return mentions(inner, name)
        case Compare(path) | Present(path) | ValuePath(path):
            return path.name.lower() == name.lower()


def instant_of(text: str) -> datetime | None:
    """A date and time of RFC 3339; UTC where it does not say. None for what is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)

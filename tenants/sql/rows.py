"""Struct ↔ row, and what of a struct an audit entry may show. Knows no SQL: workers import it too."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from tenants.models import Member
from tenants.streams import AuditStream

S = TypeVar("S", bound=Struct)

Detail = Mapping[str, str | int | bool | Sequence[str]]

_SERVER_SET: Final = frozenset({"org", "id", "version", "created_at"})
_UNSHOWN: Final = frozenset({"email", "ca_pem", "jwks"})
"""Fields an audit entry names but never quotes: a person's data must stay erasable; a CA is pages long, and so are
public keys."""


def email_key(email: str) -> str:
    """What makes two addresses the same person here: case and Unicode composition do not count."""
    return unicodedata.normalize("NFC", email).casefold()


def encode(item: Struct) -> dict[str, Any]:
    """The columns of `item`: enums as text, tuples as JSON text."""
    row: dict[str, Any] = msgspec.to_builtins(item)
    for name, value in row.items():
        if isinstance(value, tuple):
            row[name] = json_text(value)
        elif isinstance(value, bool):
            row[name] = int(value)
    if isinstance(item, Member):
        row["email_key"] = email_key(item.email)
    return row


def decode(kind: type[S], row: Mapping[Any, Any]) -> S:
    """The struct of a row. Columns that are no field of it are the store's own business."""
    values = {name: row[name] for name in fields(kind)}
    for name, hint in fields(kind).items():
        if get_origin(hint) is tuple:
            values[name] = msgspec.json.decode(values[name])
        elif hint is bool:
            values[name] = bool(values[name])
    return msgspec.convert(values, kind)


def json_text(value: object) -> str:
    return msgspec.json.encode(value).decode()


def tuple_fields(kind: type[Struct]) -> tuple[str, ...]:
    return tuple(name for name, hint in fields(kind).items() if get_origin(hint) is tuple)


def storable(text: str) -> bool:
    """Whether a database can hold it as text at all: no NUL, no half of a surrogate pair."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def element(hint: Any) -> Any:
    """The type of a tuple field's elements."""
    return get_args(hint)[0]


_fields: dict[type[Struct], dict[str, Any]] = {}


def fields(kind: type[Struct]) -> dict[str, Any]:
    """The fields of `kind` with their types, in order."""
    if kind not in _fields:
        _fields[kind] = get_type_hints(kind)
    return _fields[kind]


def _shown(value: Any) -> str | int | bool | Sequence[str]:
    """As an entry's detail may hold it: a list is of text."""
    return [str(each) for each in value] if isinstance(value, list | tuple) else value


def describe(old: Struct | None, new: Struct) -> dict[str, str | int | bool | Sequence[str]]:
    """The detail of a change: what was created, or which fields changed and what they are now."""
    before: dict[str, Any] = msgspec.to_builtins(old) if old is not None else {}
    after: dict[str, Any] = msgspec.to_builtins(new)
    changed = [name for name in after if name not in _SERVER_SET and after[name] != before.get(name)]
    unshown = _UNSHOWN | {"name"} if isinstance(new, Member) else _UNSHOWN
    shown: dict[str, str | int | bool | Sequence[str]] = {
        name: _shown(after[name]) for name in changed if name not in unshown
    }
    if isinstance(new, AuditStream) and "url" in shown:
        url = urlsplit(new.url)  # a path may carry a token of the receiver's own: the log has the origin alone
        shown["url"] = f"{url.scheme}://{url.netloc}"
    return shown if old is None else {"changed": changed, **shown}

"""Pages by key, and filters by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, get_origin

import msgspec
from msgspec import Struct
from sqlalchemy import ColumnElement, Select, Table

from tenants.models import Member
from tenants.sql import rows
from tenants.sql.database import Database
from tenants.sql.dialect import contains
from tenants.store import InvalidQueryError

S = TypeVar("S", bound=Struct)

MAX_PAGE = 500
MAX_NUMBER = 2**63 - 1


async def page(
    database: Database,
    statement: Select[tuple[object, ...]],
    kind: type[S],
    key: ColumnElement[str],
    *,
    after: str,
    limit: int,
) -> tuple[tuple[S, ...], str]:
    """Up to `limit` items of `statement` with a key above `after`, in order of their keys; and where to go on.

    The cursor is a key, not an offset: what is inserted or deleted meanwhile moves nothing else.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidQueryError("limit", f"is 1 to {MAX_PAGE}")
    if not rows.storable(after):
        raise InvalidQueryError("after", "is no cursor")
    async with database.read() as connection:
        found = await connection.execute(statement.where(key > after).order_by(key).limit(limit + 1))
        items = tuple(rows.decode(kind, row) for row in found.mappings())
    if len(items) <= limit:
        return items, ""
    return items[:limit], str(getattr(items[limit - 1], key.key or ""))


def conditions(
    kind: type[Struct], table: Table, filters: Mapping[str, str] | None, dialect: str
) -> list[ColumnElement[bool]]:
    """The filters as conditions. Errors: `InvalidQueryError` names the field and what it may be."""
    known = {name: hint for name, hint in rows.fields(kind).items() if name != "org"}
    found: list[ColumnElement[bool]] = []
    for name, text in (filters or {}).items():
        if name not in known:
            raise InvalidQueryError(name, f"is no field to filter by; those are {', '.join(sorted(known))}")
        hint = known[name]
        many = get_origin(hint) is tuple
        try:
            value = msgspec.convert(text, rows.element(hint) if many else hint, strict=False)
        except msgspec.ValidationError as error:
            raise InvalidQueryError(name, f"cannot have such a value ({error})") from None
        if not rows.storable(text) or (isinstance(value, int) and abs(value) > MAX_NUMBER):
            raise InvalidQueryError(name, "cannot have such a value")
        if many:
            found.append(contains(table.c[name], rows.json_text(value), dialect))
        elif kind is Member and name == "email":
            found.append(table.c.email_key == rows.email_key(text))
        else:
            found.append(table.c[name] == msgspec.to_builtins(value))
    return found

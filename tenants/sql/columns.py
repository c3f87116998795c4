"""What the columns of all tables of the control store are made by."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Text

from tenants.sql.dialect import key_text


def org() -> Column[str]:
    """Whose row it is, first in the primary key: it goes with its organization."""
    return Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True)


def key(name: str) -> Column[str]:
    return Column(name, key_text(64), primary_key=True)


def text(name: str, added: str | None = None) -> Column[str]:
    """`added`: the value of rows written before this column was (a later schema's)."""
    return Column(name, Text, nullable=False, server_default=added)


def number(name: str, added: int | None = None) -> Column[int]:
    """`added` as above."""
    return Column(name, BigInteger, nullable=False, server_default=None if added is None else str(added))

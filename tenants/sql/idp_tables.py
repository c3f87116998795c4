"""The schema of identity providers, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Table, Text, UniqueConstraint

from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata


def _org() -> Column[str]:
    return Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


identity_providers = Table(
    "identity_providers",
    metadata,
    _org(),
    _text("issuer"),
    _text("client_id"),
    _text("ca_pem"),
    _text("scopes"),
    _text("email_claim"),
    _text("name_claim"),
    _text("groups_claim"),
    _number("emails_verified"),
    _text("domains"),
    _text("claims"),
    _number("jit"),
    _text("default_roles"),
    _text("group_roles"),
    _text("group_teams"),
    _text("demands"),
    _number("only"),
    _number("set_at"),
    _number("version"),
)

# A row each, and not a list: who is deleted is gone from here too.
break_glass = Table(
    "break_glass",
    metadata,
    _org(),
    Column("member", key_text(64), primary_key=True),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
)

# `issuer` is a digest: an index has room for no URL of 2,048 characters.
identity_links = Table(
    "identity_links",
    metadata,
    _org(),
    Column("issuer", key_text(64), primary_key=True),
    Column("subject", key_text(255), primary_key=True),
    Column("member", key_text(64), nullable=False),
    _number("linked_at"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    UniqueConstraint("org", "issuer", "member", name="identity_links_member"),
)

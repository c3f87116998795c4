"""The schema of what SCIM keeps, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, ForeignKeyConstraint, Index, Table, Text, UniqueConstraint

from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata


def _org() -> Column[str]:
    return Column("org", key_text(40), ForeignKey("orgs.id", ondelete="CASCADE"), primary_key=True)


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False)


# What is a person's goes with the member: the foreign keys see to it.
scim_users = Table(
    "scim_users",
    metadata,
    _org(),
    Column("member", key_text(64), primary_key=True),
    _text("user_name"),
    _text("user_name_key"),  # what is compared: see `rows.email_key`
    _text("external_id"),
    _text("email_keys"),  # each address between line feeds: what is looked for
    _text("profile"),
    _number("modified_at"),
    _number("seen"),  # the member's version that `modified_at` is of
    UniqueConstraint("org", "user_name_key", name="scim_users_user_name"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    Index("scim_users_external_id", "org", "external_id"),
)

scim_groups = Table(
    "scim_groups",
    metadata,
    _org(),
    Column("team", key_text(64), primary_key=True),
    _text("external_id"),
    _number("modified_at"),
    ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.name"], ondelete="CASCADE"),
)

scim_tokens = Table(
    "scim_tokens",
    metadata,
    _org(),
    Column("id", key_text(64), primary_key=True),
    Column("digest", key_text(64), nullable=False),
    _text("name"),
    _text("created_by"),
    _number("created_at"),
    _number("expires_at"),
    _number("used_at"),
    UniqueConstraint("org", "digest", name="scim_tokens_digest"),
)

scim_settings = Table(
    "scim_settings",
    metadata,
    _org(),
    _number("owners"),
    _text("group_roles"),
    _number("version"),
)

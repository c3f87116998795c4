"""The schema of what SCIM keeps, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, Index, Table, UniqueConstraint

from tenants.sql import columns
from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata

# What is a person's goes with the member: the foreign keys see to it.
scim_users = Table(
    "scim_users",
    metadata,
    columns.org(),
    Column("member", key_text(64), primary_key=True),
    columns.text("user_name"),
    columns.text("user_name_key"),  # what is compared: see `rows.email_key`
    columns.text("external_id"),
    columns.text("email_keys"),  # each address between line feeds: what is looked for
    columns.text("profile"),
    columns.number("modified_at"),
    columns.number("seen"),  # the member's version that `modified_at` is of
    UniqueConstraint("org", "user_name_key", name="scim_users_user_name"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    Index("scim_users_external_id", "org", "external_id"),
)

scim_groups = Table(
    "scim_groups",
    metadata,
    columns.org(),
    Column("team", key_text(64), primary_key=True),
    columns.text("external_id"),
    columns.number("modified_at"),
    ForeignKeyConstraint(["org", "team"], ["teams.org", "teams.name"], ondelete="CASCADE"),
)

scim_tokens = Table(
    "scim_tokens",
    metadata,
    columns.org(),
    Column("id", key_text(64), primary_key=True),
    Column("digest", key_text(64), nullable=False),
    columns.text("name"),
    columns.text("created_by"),
    columns.number("created_at"),
    columns.number("expires_at"),
    columns.number("used_at"),
    UniqueConstraint("org", "digest", name="scim_tokens_digest"),
)

scim_settings = Table(
    "scim_settings",
    metadata,
    columns.org(),
    columns.number("owners"),
    columns.text("group_roles"),
    columns.number("version"),
)

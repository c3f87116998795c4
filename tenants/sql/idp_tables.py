"""The schema of identity providers, beside that of `tables`. Of the control process alone."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKeyConstraint, Table, UniqueConstraint

from tenants.sql import columns
from tenants.sql.dialect import key_text
from tenants.sql.tables import metadata

identity_providers = Table(
    "identity_providers",
    metadata,
    columns.org(),
    columns.text("issuer"),
    columns.text("client_id"),
    columns.text("ca_pem"),
    columns.text("scopes"),
    columns.text("email_claim"),
    columns.text("name_claim"),
    columns.text("groups_claim"),
    columns.number("emails_verified"),
    columns.text("domains"),
    columns.text("claims"),
    columns.number("jit"),
    columns.text("default_roles"),
    columns.text("group_roles"),
    columns.text("group_teams"),
    columns.text("demands"),
    columns.number("only"),
    columns.number("set_at"),
    columns.number("version"),
)

# A row each, and not a list: who is deleted is gone from here too.
break_glass = Table(
    "break_glass",
    metadata,
    columns.org(),
    Column("member", key_text(64), primary_key=True),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
)

# `issuer` is a digest: an index has room for no URL of 2,048 characters.
identity_links = Table(
    "identity_links",
    metadata,
    columns.org(),
    Column("issuer", key_text(64), primary_key=True),
    Column("subject", key_text(255), primary_key=True),
    Column("member", key_text(64), nullable=False),
    columns.number("linked_at"),
    ForeignKeyConstraint(["org", "member"], ["members.org", "members.id"], ondelete="CASCADE"),
    UniqueConstraint("org", "issuer", "member", name="identity_links_member"),
)
